"""Evolution of a choice until a deadline, judged by the model put together from the sweep."""

from collections.abc import Iterator, Sequence

from whet.search.allocate import Cap
from whet.search.ask import Told
from whet.search.clock import Clock
from whet.search.option import Choice
from whet.search.refine import Evolution, Generation, Scope
from whet.search.stand import Stand


def evolve(
    stand: Stand,
    start: Choice,
    caps: Sequence[Cap],
    clock: Clock,
    deadline_s: float,
    told: Told,
    seed: int,
) -> Iterator[Generation]:
    """Yield better and better choices within the caps, until `deadline_s` is spent on the clock.

    The choice that it starts from is judged in any case.
    """
    began = clock.spent

    def fitness(choice: Choice, scope: Scope) -> float:
        told((clock.spent - began) / max(deadline_s - began, 1e-9), "refine")
        return stand.kl(choice, all_tokens=scope == "all")

    evolution = Evolution(stand.menus, caps, fitness, seed)
    yield from evolution.run(start, clock.rounds_until(deadline_s))
