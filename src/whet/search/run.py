"""A search from the question to a published folder.

    text ─▶ shape by shape: gradients ─▶ sweep ─▶ exact choice ─▶ trials
    best shape ─▶ evolution ─▶ recipe ─▶ folder ─▶ measured ─▶ within the limits? ─▶ published

What a killed search has finished is found again: parts of the sweep, trials, the best choice so far.
"""

import shutil
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from filelock import FileLock

from whet.base.errors import QualityError
from whet.model.architecture import Architecture
from whet.model.family import find
from whet.recipe.recipe import Recipe, Step
from whet.search.allocate import Allocation
from whet.search.ask import Ask, Carry
from whet.search.build import Measured, exact_bytes, held_out_kl, measured
from whet.search.choose import (
    Belief,
    broken,
    caps_of,
    compared,
    infeasible,
    learned,
    missing_by,
    predicted,
    reachable,
    settled,
)
from whet.search.clock import Clock
from whet.search.effort import FolderCosts, FolderEffort
from whet.search.evolve import evolve
from whet.search.folders import recipe_for, with_header
from whet.search.gradients import Gradients
from whet.search.guide import guided
from whet.search.machine import kernels_of, predictor_of
from whet.search.option import Choice, counted
from whet.search.outcome import Outcome
from whet.search.pace import paced, shown
from whet.search.planner import Planner
from whet.search.question import caches_of, drafts_of
from whet.search.recover import Recovery, affordable, fits_memory, recovery
from whet.search.refine import Generation
from whet.search.resumed import keep, kept
from whet.search.shape import draft_of, made_of
from whet.search.stand import FELT, Stand, stood, units_of
from whet.search.structure import Space, Structure, space_of
from whet.search.text import Text
from whet.search.told import Teller, Within
from whet.search.trials import Score, Trials
from whet.search.widths import widths
from whet.store.checkpoint import Checkpoint

ATTEMPTS = 3  # folders that are built before a limit counts as out of reach
TRIED = 0.5  # share of the time after which no other shape is tried
REFINED = 0.75  # and after which no other choice is
STANDING, LEARNING, REFINING, BUILDING, ENDING = 0.6, 0.7, 0.8, 0.9, 1.0  # where parts end, as told
SEQUENTIAL, BRIEFLY = 0.8, 0.95  # of a loss, what compressing in order leaves: on all text, a part
TRAINED = 0.03  # share of the time that a unit of training takes
PILOT_FRACTION = 0.1  # of the time, that a folder to learn from may take where no limit needs it
REPEATED = 1.3  # times what a folder took, its training apart, before it is trained too


@dataclass(eq=False)
class Run:
    """A search under way in a working folder."""

    ask: Ask
    text: Text
    work: Path
    carry: Carry
    teller: Teller
    planner: Planner
    stands: dict[Structure, Stand] = field(default_factory=dict[Structure, Stand])
    beliefs: dict[str, Belief] = field(default_factory=dict[str, Belief])
    generations: list[Generation] = field(default_factory=list[Generation])
    took: float = 0.0  # the longest trial [s]

    @property
    def clock(self) -> Clock:
        """The time of the search."""
        return self.planner.clock

    def result(self) -> Outcome:
        """Return the folder that keeps all limits, with everything that is known of it."""
        trials = self._trials()
        trials.run(self._judged, self._more)
        best = trials.best
        if best is None:
            raise self._nothing()
        stand, self.took = self._stand(best), max(self.took, trials.lasted)
        return self._built(stand, trials)

    @property
    def _arch(self) -> Architecture:
        config = self.ask.folder.config
        return find(config).architecture(config, self.ask.folder.tensors)

    def _kept(self, name: str, place: Path | None = None) -> Path:
        """Return where something is kept that depends on the limits, in a place or in our own."""
        ask = self.ask
        asked = f"{ask.objective} {ask.limits.text} {ask.target or ''} {' '.join(caches_of(ask))}"
        return (place or self.work) / f"{sha256(asked.encode()).hexdigest()[:12]}.{name}"

    def _trials(self) -> Trials:
        weights = sum(unit.weights for unit in units_of(self.ask, self.ask.folder))
        tokens = affordable(TRAINED * self.ask.seconds, weights)
        caches = caches_of(self.ask)
        space = (
            space_of(self._arch, tokens, caches, drafts=drafts_of(self.ask))
            if self.ask.structures
            else Space(caches=caches)
        )
        return Trials(self._kept("outer", self.ask.sweep), self.ask.seed, space)

    def _more(self, found: bool) -> bool:  # noqa: FBT001 (of `Trials.run`)
        """Return whether there is time for another trial as long as the longest.

        Where nothing that keeps all limits was found, all the time is for finding it; where there was no
        time for a sweep, there is none for other shapes.
        """
        whole = self.stands.get(Structure())
        if found and whole is not None and not whole.swept:
            return False
        share = TRIED if found else 1.0
        return self.clock.spent + self.took < share * self.clock.seconds

    def _stand(self, structure: Structure) -> Stand:
        """Return a shape with its options; its folder is made where it is not there yet."""
        if structure not in self.stands:
            if structure.draft:
                self.stands[structure] = self._guided(structure)
            elif structure != structure.shape:
                self.stands[structure] = self._keeping(structure)
            else:
                self.stands[structure] = self._stood(structure)
        return self.stands[structure]

    def _guided(self, structure: Structure) -> Stand:
        """Return a shape that is known with a draft, which is made once for all shapes."""
        stand = self._stand(structure.alone)
        steps, place = structure.guessing(self._arch), self._place(structure.drafting)
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / "lock"):
            told = self.teller.part(0.0, STANDING)
            model = draft_of(self.ask, steps, place / "model", self.carry, told)
        self.beliefs[str(structure)] = self._believed(stand)
        return guided(stand, self.ask, model, steps, str(structure))

    def _keeping(self, structure: Structure) -> Stand:
        """Return a shape that is known with its keys and values kept otherwise."""
        stand, cache = self._stand(structure.shape), structure.cache
        ids, folder = self.text.held.numpy(), stand.folder
        forgot = held_out_kl(folder.path, folder.path, ids, cache)
        return replace(
            stand,
            predictor=stand.predictor and predictor_of(self.ask, folder, cache),
            lost=stand.lost + forgot,
            forgot=forgot,
            finish=structure.finish(),
            cache=cache,
            name=str(structure),
        )

    def _place(self, structure: Structure) -> Path:
        number = sha256(str(structure).encode()).hexdigest()[:12]
        return (self.ask.sweep or self.work) / "shapes" / number

    def _stood(self, structure: Structure) -> Stand:
        place = self._place(structure)
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / "lock"):  # of other processes that share the sweep
            return self._swept(structure, place)

    def _swept(self, structure: Structure, place: Path) -> Stand:
        """Return a shape with its options; what has been kept of it in `place` is taken."""
        told = self.teller.part(0.0, STANDING)
        folder, steps = self.ask.folder, ()
        if not structure.whole:
            steps = structure.steps(self._arch, self._widths(structure))
            folder = made_of(self.ask, steps, str(structure), place / "model", self.carry, told)
        predictor = predictor_of(self.ask, folder) if self._predicts() else None
        machine = predictor or kernels_of(folder)
        began = self.clock.spent
        stand = stood(self.ask, folder, self.text, place, predictor, told, self.planner, machine)
        if self.planner.sweep_s is None:
            self.planner.sweep_s = self.clock.spent - began
        lost = 0.0 if structure.whole else stand.kl({m.unit.name: 0 for m in stand.menus})
        return replace(stand, lost=lost, steps=steps, name=str(structure))

    def _predicts(self) -> bool:
        """Return whether speed and memory are predicted: where a limit needs it, or there is time."""
        ask = self.ask
        wanted = ask.objective == "speed" or ask.target is not None
        return wanted or self.planner.predicts_speed(ask.limits)

    def _widths(self, structure: Structure) -> tuple[int, ...]:
        """Return the width of each block of a shape, where they differ."""
        if not structure.tapers(self._arch):
            return ()
        whole = self._stand(Structure())
        felt = Gradients(self._place(Structure()) / FELT, self.text.felt)
        return widths(Checkpoint(whole.folder), felt, structure.ffn)

    def _judged(self, structure: Structure) -> Score:
        """Return what the best choice for a shape is predicted to be worth."""
        began = self.clock.spent
        stand = self._stand(structure)
        found, belief, kl = settled(stand, self.ask, self._believed(stand))
        if found is None:
            raise infeasible(stand, self.ask, belief)
        facts = predicted(stand, found.choice, kl, self.ask.limits, belief)
        self.took = max(self.took, self.clock.spent - began)
        value = {"quality": facts["kl"], "size": facts["size"], "speed": -facts.get("decode", 0.0)}
        over = broken(self.ask.limits, facts, belief)
        over = {name: share - 1e-9 for name, share in over.items()}
        return Score(value[self.ask.objective], facts, over, counted(stand.menus, found.choice))

    def _nothing(self) -> QualityError:
        """Return the error of a search in which no shape keeps the limits."""
        whole = self.stands.get(Structure())
        if whole is None:
            return QualityError("no trial could be judged", "See the messages above.")
        return infeasible(whole, self.ask, self._believed(whole))

    def _built(self, stand: Stand, trials: Trials) -> Outcome:
        """Refine the choice, build it, measure it; again with what that taught, if need be."""
        first, belief, kl = settled(stand, self.ask, self._believed(stand))
        assert first is not None, "the trial has shown that there is one"
        effort, costs = self._effort(stand), stand.costs
        if self._learns(costs, effort):
            belief = self._piloted(stand, first, belief, kl, effort)
        else:
            whole = effort.windows == len(self.text.calibrated.ids)
            belief = replace(belief, sequential=SEQUENTIAL if whole else BRIEFLY)
        choice, missed = first.choice, None
        for attempt in range(ATTEMPTS):
            belief = reachable(stand, self.ask, belief, choice)
            choice, belief, kl = self._chosen(stand, belief, fresh=attempt == 0)
            expected = predicted(stand, choice, belief.built(kl), self.ask.limits, belief)
            effort = self._effort(stand)
            recipe, place = (
                recipe_for(self.ask, stand, choice, effort),
                self.work / f"built-{attempt}",
            )
            expected["size"] = float(exact_bytes(recipe, self.ask.folder))
            stand.assembly.forget()
            took = self._compressed(recipe, place, stand, effort)
            seen = self._measured(stand, place)
            over = broken(self.ask.limits, seen.facts, belief)
            if all(share <= 0 for share in over.values()):
                told = tuple(self.generations)
                found = Outcome(
                    self.ask, stand, first, choice, place, expected, seen, belief, kl, trials, told
                )
                return self._recovered(found, recipe, took)
            missed = missing_by(self.ask.limits, seen.facts, over)
            belief = learned(belief, expected, seen.facts)
        assert missed is not None, "a folder that keeps all limits has been returned"
        raise missed

    def _recovered(self, found: Outcome, recipe: Recipe, took: float) -> Outcome:
        """Return the folder as training leaves it in the time that is left, if that is better.

        `took` is what the folder took [s], which has to be made again on the way.
        """
        weights = sum(menu.unit.weights for menu in found.stand.menus)
        left = self.clock.left - REPEATED * took - self.planner.measure_s
        use = recovery(left, weights) if self._trains(weights) else None
        if use is None:
            return found
        place = self.work / "recovered"
        recipe, told = replace(recipe, steps=(*recipe.steps, Step(use))), (BUILDING, ENDING)
        with self.planner.timeline.phase("recovery", left, f"{use.tokens} tokens"):
            self._carried(recipe, place, found.stand.drafted, told)
        seen = self._measured(found.stand, place)
        over = broken(self.ask.limits, seen.facts, found.belief)
        before, after = found.seen.facts["kl"], seen.facts["kl"]
        kept = after < before and all(share <= 0 for share in over.values())
        found = replace(found, recovery=Recovery(use.tokens, before, after, kept))
        return replace(found, folder=place, seen=seen) if kept else found

    def _measured(self, stand: Stand, place: Path) -> Measured:
        """Return what a folder has, which takes minutes where two large models are read."""
        self.teller.part(BUILDING, ENDING)(0.0, "measure")
        windows, again = self.planner.measured_windows(), self.planner.may_time_again()
        planned = 2 * windows * self.planner.times.forward_s
        with self.planner.timeline.phase("measure", planned, f"{windows} windows"):
            return measured(place, self.ask, windows, timed=self._here(stand), again=again)

    def _trains(self, weights: int) -> bool:
        """Return whether training is worth a try: for quality, of a model that fits into memory."""
        ask = self.ask
        return ask.recovery and ask.objective == "quality" and fits_memory(weights)

    def _chosen(self, stand: Stand, belief: Belief, *, fresh: bool) -> tuple[Choice, Belief, float]:
        """Return the choice to build, what is believed of it, and its KL divergence put together."""
        belief = with_header(self.ask, stand, belief, self._effort(stand))
        found, belief, kl = settled(stand, self.ask, belief)
        if found is None:
            raise infeasible(stand, self.ask, belief)
        choice, kl = self._refined(stand, found.choice, kl, belief, fresh=fresh)
        return choice, belief, kl

    def _effort(self, stand: Stand) -> FolderEffort:
        """Return how the folder of a shape is compressed in the time that is left."""
        return self.planner.folder_effort(stand.costs)

    def _learns(self, costs: FolderCosts, effort: FolderEffort) -> bool:
        """Return whether there is time for a folder to learn from, besides the one that is published.

        Where no limit depends on what it teaches, it may take little.
        """
        each = self.planner.folder_s(costs, effort)
        if self.clock.left < 2 * each + self.planner.measure_s:
            return False
        sized = all(limit.name in ("size", "bpw") for limit in self.ask.limits)
        needed = not sized or self.ask.objective != "quality"
        return needed or each < PILOT_FRACTION * self.clock.seconds

    def _piloted(
        self, stand: Stand, found: Allocation, belief: Belief, kl: float, effort: FolderEffort
    ) -> Belief:
        """Build the first choice, to learn how predictions and measurements differ on this machine.

        Other work on a machine, at the time when its kernels were timed, makes predictions too slow.
        """
        place = self._kept("pilot")
        if not place.is_dir():
            recipe, told = recipe_for(self.ask, stand, found.choice, effort), (STANDING, LEARNING)
            self._compressed(recipe, place, stand, effort, told)
        if kl:
            real = held_out_kl(place, self.ask.folder.path, self.text.held.numpy())
            belief = compared(belief, kl, real)
        if not self._here(stand):
            return belief
        return paced(stand, self.ask.limits, found.choice, place, belief)

    def _believed(self, stand: Stand) -> Belief:
        """Return what a folder shows of predictions on this machine, measured once."""
        if stand.name not in self.beliefs:
            made = self.work / f"quick-{sha256(str(stand.steps).encode()).hexdigest()[:12]}"
            told = Within(self.teller.part(0.0, STANDING))
            self.beliefs[stand.name] = (
                shown(self.ask, stand, made, self.carry, told) if self._here(stand) else Belief()
            )
        return self.beliefs[stand.name]

    def _here(self, stand: Stand) -> bool:
        """Return whether speed is predicted, and measured, on this machine."""
        return stand.predictor is not None and self.ask.target is None

    def _refined(
        self, stand: Stand, choice: Choice, kl: float, belief: Belief, *, fresh: bool
    ) -> tuple[Choice, float]:
        """Return a better choice of the same cost, as far as time allows."""
        if self.ask.objective != "quality" or not fresh or not stand.swept:
            return choice, kl
        caps = [cap for cap in caps_of(stand, self.ask.limits, belief) if cap.name != "kl"]
        told, path = self.teller.part(LEARNING, REFINING), self._kept("best.json")
        last = min(REFINED * self.clock.seconds, self.planner.deadlines(stand.costs).evolution_s)
        start = kept(path, stand.menus, caps) or choice
        effort = f"{len(self.text.held)} windows"
        with self.planner.timeline.phase("evolution", max(0.0, last - self.clock.spent), effort):
            for generation in evolve(stand, start, caps, self.clock, last, told, self.ask.seed):
                self.generations.append(generation)
                keep(path, stand.menus, generation.choice)
        best = self.generations[-1]
        return (best.choice, best.kl) if best.kl < kl else (choice, kl)

    def _compressed(
        self,
        recipe: Recipe,
        out: Path,
        stand: Stand,
        effort: FolderEffort,
        told: tuple[float, float] = (REFINING, BUILDING),
    ) -> float:
        """Compress a folder; learn from the time that it takes, and return it [s]."""
        began, planned = self.clock.spent, self.planner.folder_s(stand.costs, effort)
        with self.planner.timeline.phase("folder", planned, str(effort)):
            self._carried(recipe, out, stand.drafted, told)
        took = self.clock.spent - began
        self.planner.learn_folder(stand.costs, effort, took)
        return took

    def _carried(
        self,
        recipe: Recipe,
        out: Path,
        draft: Path | None,
        told: tuple[float, float] = (REFINING, BUILDING),
    ) -> None:
        shutil.rmtree(out, ignore_errors=True)
        self.carry(recipe, self.ask.folder, out, Within(self.teller.part(*told)), draft)
