"""What a search has found: the folder, the choice, and everything that led to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from whet.search.allocate import Allocation
from whet.search.ask import Ask
from whet.search.build import Measured
from whet.search.choose import Belief
from whet.search.clock import Phase
from whet.search.option import Choice
from whet.search.recover import Recovery
from whet.search.refine import Generation
from whet.search.stand import Stand
from whet.search.trials import Trials


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A folder that keeps every limit.

    `first` is the exact choice by single losses, `choice` the one that was built; `assembled` its KL
    divergence put together from the database [nat per token]; `expected` and `seen` are predictions
    and measurements of the folder, by the name of the limit. `recovery` is what training has made of
    it, where there was time.
    """

    ask: Ask
    stand: Stand
    first: Allocation
    choice: Choice
    folder: Path
    expected: Mapping[str, float]
    seen: Measured
    belief: Belief
    assembled: float
    trials: Trials
    generations: tuple[Generation, ...]
    recovery: Recovery | None = None
    phases: tuple[Phase, ...] = ()
    seconds: float = 0.0
