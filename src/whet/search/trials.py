"""The outer loop: which shape of the model to round, chosen by Optuna, with a journal on disk.

Optuna: Akiba and others, arXiv:1907.10902. The limits are constraints of the sampler; a trial that
fails is kept as a record with its reason and does not end the search. Several processes may share a
journal, and a search that was killed finds its finished trials there.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from whet.base.errors import QualityError, StoppedError, UnsupportedError, WhetError
from whet.base.quantity import Quantity
from whet.base.record import Record
from whet.base.seed import stream_seed
from whet.formats.keeping import Keeping
from whet.search.limits import MEASURES
from whet.search.structure import TRAINED, Space, Structure

STUDY = "whet search"


@dataclass(frozen=True, slots=True)
class Score:
    """What a trial is worth: its value (less is better), and by how much it breaks each limit.

    `facts` are predictions of the whole model; `broken` shares of limits, above 0 where broken [1];
    `levels` says how often each level was taken.
    """

    value: float
    facts: Mapping[str, float]
    broken: Mapping[str, float]
    levels: str

    @property
    def feasible(self) -> bool:
        """Whether every limit is kept."""
        return all(share <= 0 for share in self.broken.values())


Judge = Callable[[Structure], Score]


class Trials:
    """A study whose trials are structures; each is judged once."""

    def __init__(self, journal: Path, seed: int, space: Space) -> None:
        self.space = space
        self.study = _study(journal, seed)
        self.failed: list[Structure] = []  # here and now; what failed in another run is tried again

    def run(self, judge: Judge, more: Callable[[bool], bool]) -> None:
        """Judge the model as it is, however keys are kept; then other shapes while there is time.

        Narrower ones come first: of what can be cut, channels that count least cost least. `more` is
        asked for time with whether a shape has been found that keeps all limits.
        """
        for cache in self.space.caches:
            if Structure(cache=cache) not in self._known():
                self.study.enqueue_trial(self._narrower(0.0, cache))
        for draft in self.space.drafts[1:]:
            if self._with_draft(Structure(), draft) not in self._known():
                self.study.enqueue_trial(self._narrower(0.0, self.space.caches[0], draft))
        narrower = [ffn for ffn in self.space.ffn if ffn]
        while not self._kept_otherwise() or more(self.best is not None):
            if narrower and not self._waiting():
                self.study.enqueue_trial(self._narrower(narrower.pop(0), self.space.caches[0]))
            if not self._next(judge):
                return

    @property
    def best(self) -> Structure | None:
        """Return the structure of least value that keeps every limit; None if there is none."""
        found = self._best()
        return None if found is None else Structure(**found.user_attrs["structure"])

    @property
    def lasted(self) -> float:
        """Return how long the best trial took, in this process or an earlier one [s]."""
        found = self._best()
        return 0.0 if found is None else found.duration.total_seconds()

    def _best(self) -> Any:  # noqa: ANN401 (Optuna's trial)
        kept = [t for t in self._finished() if t.user_attrs.get("feasible")]
        return min(kept, key=lambda t: cast("float", t.value), default=None)

    def records(self) -> list[Record]:
        """Return a record of every trial that was begun (step "trial")."""
        best = self.best
        every = self.study.get_trials(deepcopy=False)
        return [_record(trial, best) for trial in every if trial.state.name != "PRUNED"]

    def _finished(self) -> list[Any]:
        """Return the trials that were judged."""
        every = self.study.get_trials(deepcopy=False)
        return [trial for trial in every if trial.state.name == "COMPLETE"]

    def _kept_otherwise(self) -> bool:
        """Return whether the model as it is was judged, however keys are kept; that takes seconds."""
        known = self._known()
        return all(Structure(cache=cache) in known for cache in self.space.caches)

    def _waiting(self) -> bool:
        """Return whether trials wait that were asked for."""
        return any(trial.state.name == "WAITING" for trial in self.study.get_trials(deepcopy=False))

    def _narrower(self, ffn: float, cache: Keeping, draft: int = 0) -> dict[str, Any]:
        asked = {"ffn": ffn, "layers": 0, "kv": 0, "trained": TRAINED[-1], "cache": cache}
        return asked | {"draft": draft}

    def _with_draft(self, structure: Structure, draft: int) -> Structure:
        learning = TRAINED[-1] * self.space.tokens if draft else 0
        return replace(structure, draft=draft, learning=learning)

    def _next(self, judge: Judge) -> bool:
        """Judge one more structure; return False once chance finds only known ones."""
        import optuna

        for _ in range(20):
            trial = self.study.ask()
            structure = self._asked(trial)
            if structure not in self._known():
                break
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            return False
        trial.set_user_attr("structure", asdict(structure))
        try:
            score = judge(structure)
        except WhetError as error:
            trial.set_user_attr("reason", error.message)
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
            first = structure == Structure(cache=self.space.caches[0])
            fault = first and not isinstance(error, QualityError)
            if fault or isinstance(error, StoppedError):
                raise  # what is wrong with the model as it is, is wrong with every shape of it
            self.failed.append(structure)
            return True
        trial.set_user_attr("facts", dict(score.facts))
        trial.set_user_attr("levels", score.levels)
        trial.set_user_attr("broken", dict(score.broken))
        trial.set_user_attr("feasible", score.feasible)
        for name, share in score.broken.items():
            trial.set_constraint(name, share)
        self.study.tell(trial, score.value)
        return True

    def _asked(self, trial: Any) -> Structure:  # noqa: ANN401 (Optuna's trial)
        """Return the structure that a trial suggests."""
        ffn = trial.suggest_categorical("ffn", self.space.ffn)
        layers = trial.suggest_int("layers", 0, self.space.layers)
        kv = trial.suggest_int("kv", 0, self.space.kv)
        trained = trial.suggest_categorical("trained", TRAINED)
        cache = trial.suggest_categorical("cache", self.space.caches)
        draft = trial.suggest_categorical("draft", self.space.drafts)
        whole = Structure(ffn, layers, kv).whole
        tokens = 0 if whole else trained * self.space.tokens
        return self._with_draft(Structure(ffn, layers, kv, tokens, cache), draft)

    def _known(self) -> list[Structure]:
        """Return the structures that need not be judged again."""
        judged = [Structure(**trial.user_attrs["structure"]) for trial in self._finished()]
        return judged + self.failed


def _study(journal: Path, seed: int) -> Any:  # noqa: ANN401 (Optuna's study)
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise UnsupportedError(
            "a search needs optuna, which is not installed here", 'pip install "whet[search]"'
        ) from error
    optuna.logging.set_verbosity(logging.ERROR)
    sampler = optuna.samplers.TPESampler(
        seed=stream_seed(seed, "trials") % 2**32, n_startup_trials=4
    )
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.create_study(
        study_name=STUDY, storage=storage, sampler=sampler, load_if_exists=True
    )


def _record(trial: Any, best: Structure | None) -> Record:  # noqa: ANN401 (Optuna's trial)
    """Return the record of a trial."""
    told = trial.user_attrs
    structure = Structure(**told["structure"]) if "structure" in told else None
    facts = {
        name: Quantity(value, MEASURES[name], "predicted for the whole model")
        for name, value in told.get("facts", {}).items()
    }
    if trial.duration is not None:
        facts["seconds"] = Quantity(trial.duration.total_seconds(), "s", "wall time")
    state = {"COMPLETE": "complete", "FAIL": "failed"}.get(trial.state.name, "not finished")
    if state == "complete" and not told.get("feasible"):
        state = "infeasible"
    broken = [name for name, share in told.get("broken", {}).items() if share > 0]
    notes = {
        "state": state,
        "structure": str(structure) if structure else "",
        "chosen": "yes" if structure is not None and structure == best else "no",
        "levels": told.get("levels", ""),
    }
    reason = told.get("reason") or (f"breaks {', '.join(broken)}" if broken else "")
    return Record(
        "trial", str(trial.number), facts, notes=notes | ({"reason": reason} if reason else {})
    )
