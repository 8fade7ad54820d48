"""What a search knows of one shape of a model: its units, what each option costs, how to judge a choice."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from whet.base.errors import RecipeError, UnsupportedError
from whet.base.record import Record
from whet.formats.keeping import USUAL, Keeping
from whet.formats.spec import parse
from whet.model.site import Site
from whet.recipe.anatomy import FOREIGN, anatomy
from whet.recipe.plan import refuse_compressed
from whet.recipe.recipe import Step, matches
from whet.search.ask import Ask, Told
from whet.search.assembly import Assembly
from whet.search.database import Database
from whet.search.effort import FolderCosts, ForwardTimes
from whet.search.estimate import Expected, estimates
from whet.search.gradients import Gradients, gradients
from whet.search.option import Choice, Menu, Option, beaten, off_hull
from whet.search.planner import Planner, order_levels
from whet.search.predict import Predictor
from whet.search.probe import time_solvers
from whet.search.schedule import USUAL_FACTORS
from whet.search.sweep import Sweep
from whet.search.text import Text
from whet.search.unit import (
    LEVELS,
    Level,
    Machine,
    Rejected,
    Unit,
    levels_of,
    offered,
    units,
)
from whet.store.checkpoint import Checkpoint
from whet.store.dialects.whet import WHET
from whet.store.folder import Folder
from whet.store.scheme import Scheme

NO_COSTS = FolderCosts(ForwardTimes(1, 0.0, 0.0), 0.0, 0.0, 0.0, USUAL_FACTORS)
FELT = "felt"  # the folder of the backward pass
COSTS = ("kl", "error")  # of an option, as records name them
SHARES = (0.0, 0.15, 1.0)  # of the preparation: where the backward pass ends, and the sweep


@dataclass(frozen=True, slots=True, eq=False)
class Stand:
    """A shape of the model with everything that choices are made from.

    `steps` make the shape from the source, `finish` is done at the end, `draft` makes a model that
    guesses, which lies at `drafted`; `costs` are those of compressing it; `lost` is the KL divergence
    that the shape costs as it is, `forgot` what its keys and values do as they are kept in `cache`
    [nat per token]; `fixed` the size of what no unit holds [byte]. Where it is not `swept`, options have
    estimates of what they cost.
    """

    folder: Folder
    menus: Sequence[Menu]
    rejected: Sequence[Rejected]
    assembly: Assembly | Expected
    predictor: Predictor | None
    fixed: int
    costs: FolderCosts = NO_COSTS
    lost: float = 0.0
    forgot: float = 0.0
    steps: tuple[Step, ...] = ()
    finish: tuple[Step, ...] = ()
    cache: Keeping = USUAL
    draft: tuple[Step, ...] = ()
    drafted: Path | None = None
    name: str = "as it is"
    swept: bool = True

    def kl(self, choice: Choice, *, all_tokens: bool = True) -> float:
        """Return the KL divergence of a choice from the original on held-out text [nat per token]."""
        few = max(1, len(self.assembly.ids) // 4)
        return self.forgot + self.assembly.kl(choice, None if all_tokens else few)

    @property
    def weights(self) -> int:
        """How many numbers the linears of the blocks have."""
        return sum(menu.unit.weights for menu in self.menus if menu.unit.layer is not None)


def units_of(ask: Ask, folder: Folder) -> tuple[Unit, ...]:
    """Return what a search may choose for. Raises where it cannot work on the model."""
    refuse_compressed(folder)
    found = anatomy(folder)
    if found.family == FOREIGN:
        raise UnsupportedError(
            f"{folder.path} runs by the code of transformers, and a search needs the blocks of a "
            "family that whet knows",
            "`whet list families` shows which; `whet compress` takes it with rtn, hqq or gptq.",
        )
    for pattern in ask.skip:
        if not any(matches(pattern, site) for site in found.sites):
            raise RecipeError(f"--skip {pattern}: matches no site", "E.g. --skip embed.")
    mine = [site for site in found.sites if not any(matches(p, site) for p in ask.skip)]
    return units(mine)


def stood(
    ask: Ask,
    folder: Folder,
    text: Text,
    work: Path,
    predictor: Predictor | None,
    told: Told,
    planner: Planner,
    machine: Machine | None = None,
) -> Stand:
    """Return a shape with its options: gradients, then the sweep; what is on disk is used again.

    Without time for a sweep, options have the costs that the gradients lead one to expect. `machine`
    says which levels have no kernels, where no predictor does.
    """
    source, original = Checkpoint(folder), Checkpoint(ask.folder)
    every = units_of(ask, folder)
    offers, rejected = _offers(ask, every, predictor or machine)
    work.mkdir(parents=True, exist_ok=True)
    felt = _gradients(source, text, work / FELT, ask.seed, _share(told, *SHARES[:2]), planner)
    place = work / "levels"
    place.mkdir(exist_ok=True)
    outside = tuple(unit.name for unit in every if unit.layer is None)
    database = Database(place, offers, outside)
    costs = _Costs(folder, predictor, ask.limits.prompt)
    schedule = planner.schedule(every, _order(ask, folder, every, offers), work / "schedule.json")
    time_solvers(source, every, felt, schedule)
    swept = bool(database.done) or planner.may_sweep(schedule, every)
    if swept:
        sweep = Sweep(source, every, database, felt, ask.seed, _share(told, *SHARES[1:]), schedule)
        useless = _swept(ask, sweep, costs, text, planner)
        rejected += tuple(Rejected("", level, reason) for level, reason in useless.items())
        menus = _menus(every, offers, costs, database.records())
    else:
        with planner.timeline.phase("estimate", planner.estimate_s, "no level is tried"):
            menus = _menus(every, offers, costs, tuple(estimates(source, every, offers, felt)))
    assembly = Assembly(source, menus, database, text.held, original)
    known = assembly if swept else Expected(assembly, whole=folder.path == ask.folder.path)
    folder_costs, fixed = planner.folder_costs(schedule, every), _fixed(folder, every)
    return Stand(folder, menus, rejected, known, predictor, fixed, folder_costs, swept=swept)


def _swept(
    ask: Ask, sweep: Sweep, costs: "_Costs", text: Text, planner: Planner
) -> Mapping[str, str]:
    """Sweep; return the levels that turned out useless, with the reason."""
    every, database, schedule = sweep.units, sweep.database, sweep.schedule
    reasons: dict[str, str] = {}

    def screen(fresh: Sequence[Record]) -> dict[str, str]:
        records = (*database.records(), *fresh)
        reasons.update(_useless(ask, every, _menus(every, database.offers, costs, records)))
        return reasons

    def replan() -> None:
        planner.replan(schedule, every)

    with planner.timeline.phase("sweep", schedule.seconds, f"{len(text.swept)} windows"):
        replace(sweep, screen=screen, replan=replan).run(text.swept)
    return screen(())


def _order(
    ask: Ask, folder: Folder, every: Sequence[Unit], offers: Mapping[str, Sequence[Level]]
) -> list[str]:
    """Return the names of all levels, the most useful for the limits first."""
    bits: dict[str, float] = {}
    plain: dict[str, bool] = {}
    for unit in every:
        for one in offers[unit.name][1:]:
            bits.setdefault(str(one), 8 * _nbytes(unit, one) / unit.weights)
            plain.setdefault(str(one), one.method in ("gptq", "rtn"))
    limits, target = ask.limits, None
    if limits.bpw is not None:
        target = limits.bpw.value
    elif limits.size is not None:
        room = limits.size.value - _fixed(folder, every)
        target = 8 * room / sum(unit.weights for unit in every)
    return order_levels(bits, plain, target)


def _useless(ask: Ask, every: Sequence[Unit], menus: Sequence[Menu]) -> dict[str, str]:
    """Return the levels that the blocks so far have shown to be useless, with the reason.

    Where size alone is limited, those that mixtures of two others beat are useless too.
    """
    seen = {menu.unit.name: menu for menu in menus if len(menu.options) > 1}
    blocks = [seen[unit.name] for unit in every if unit.layer is not None and unit.name in seen]
    found = beaten([menu for menu in blocks if menu.unit.layer == 0])
    if ask.limits.timed or ask.objective == "speed":
        return found
    return off_hull(blocks) | found


def recosted(stand: Stand, predictor: Predictor, prompt: int) -> Stand:
    """Return a shape whose options take what another predictor says."""
    costs = _Costs(stand.folder, predictor, prompt)
    menus = tuple(
        Menu(menu.unit, tuple(costs.timed(menu.unit, option) for option in menu))
        for menu in stand.menus
    )
    return replace(stand, menus=menus, predictor=predictor)


def _offers(
    ask: Ask, every: Sequence[Unit], machine: Machine | None
) -> tuple[Mapping[str, tuple[Level, ...]], tuple[Rejected, ...]]:
    """Return what each unit may become, and what none of them may."""
    levels, tables = levels_of(ask.levels or LEVELS), levels_of(ask.tables, table=True)
    offers: dict[str, tuple[Level, ...]] = {}
    rejected: list[Rejected] = []
    for unit in every:
        offers[unit.name], refused = offered(unit, tables if unit.table else levels, machine)
        rejected += refused
    return offers, tuple(rejected)


def _gradients(
    source: Checkpoint, text: Text, place: Path, seed: int, told: Told, planner: Planner
) -> Gradients:
    """Return what the backward pass leaves; one that was finished is not done again."""
    finished, windows = place / "finished", len(text.felt)
    planned, began = windows * planner.times.gradient_s, planner.clock.spent
    with planner.timeline.phase("gradients", planned, f"{windows} windows"):
        if not finished.is_file():
            gradients(source, text.felt, place, seed, told)
            finished.touch()
            planner.learn_forward(windows, planner.clock.spent - began)
    return Gradients(place, text.felt)


@dataclass(frozen=True, slots=True)
class _Costs:
    """What an option takes, of a model as it lies in `folder`."""

    folder: Folder
    predictor: Predictor | None
    prompt: int

    def option(self, unit: Unit, one: Level, record: Record | None) -> Option:
        """Return an option; without a record, that of leaving the unit as it is."""
        if record is None:
            nbytes = sum(_stored(site, self.folder) for site in unit.sites)
            return self.timed(unit, Option(one, 0.0, nbytes))
        kl, error = (record.facts[name].value if name in record.facts else 0.0 for name in COSTS)
        return self.timed(unit, Option(one, kl, _nbytes(unit, one), error))

    def timed(self, unit: Unit, option: Option) -> Option:
        """Return an option with its memory and times, as far as they are known."""
        if (known := self.predictor) is None:
            return option
        stored = self.folder.tensors[unit.sites[0].tensor].info.dtype.lower()
        scheme = Scheme(option.level.format or parse(stored), option.level.input)
        return replace(
            option,
            memory=known.unit_bytes(unit.sites, scheme),
            decode=known.unit_decode(unit.sites, scheme),
            prefill=known.unit_seconds(unit.sites, scheme, self.prompt),
        )


def _menus(
    every: Sequence[Unit],
    offers: Mapping[str, Sequence[Level]],
    costs: _Costs,
    records: Iterable[Record],
) -> tuple[Menu, ...]:
    """Return the options of every unit of which there is a record, and to stay as it is."""
    known = {(record.site, record.notes["level"]): record for record in records}
    found: list[Menu] = []
    for unit in every:
        written = ((one, known.get((unit.name, str(one)))) for one in offers[unit.name])
        options = (
            costs.option(unit, one, record)
            for one, record in written
            if record is not None or one.format is None
        )
        found.append(Menu(unit, tuple(options)))
    return tuple(found)


def _nbytes(unit: Unit, one: Level) -> int:
    """Return the exact size of a unit at a level [byte]."""
    use = one.use()
    return sum(WHET.nbytes(site, Scheme(use.fitted(site).format)) for site in unit.sites)


def _stored(site: Site, folder: Folder) -> int:
    """Return the size of a linear as the source stores it [byte]."""
    stored = folder.tensors[site.tensor].info
    whole = 1
    for size in stored.shape:
        whole *= size
    return stored.nbytes * site.shape[0] * site.shape[1] // whole


def _fixed(folder: Folder, every: Sequence[Unit]) -> int:
    """Return the size of what no unit holds: norms, biases, what is skipped [byte]."""
    model = anatomy(folder).tensors
    everything = sum(folder.tensors[name].info.nbytes for name in model)
    return everything - sum(_stored(site, folder) for unit in every for site in unit.sites)


def _share(told: Told, first: float, last: float) -> Told:
    """Return what tells of a part of the work as a share of the whole."""
    return lambda share, what: told(first + share * (last - first), what)
