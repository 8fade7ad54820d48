"""How much faster a model generates when a smaller one guesses for it, on real text. Torch-free."""

from collections.abc import Callable
from time import perf_counter

from whet.base.quantity import Quantity
from whet.base.record import Record
from whet.measure.speed import medians
from whet.measure.windows import windows
from whet.runtime.engine import Engine

PROMPTS, LENGTH, NEW = 16, 128, 64  # texts, and their and the answers' lengths [token]
HOW = "greedy, after pieces of a text, with and without a draft in turn"
Told = Callable[[int, int], None]  # texts done, of how many


def guided(engine: Engine, draft: Engine, data: str, told: Told | None = None) -> Record:
    """Generate greedily after pieces of a text, with and without a draft in turn (step "draft").

    Raises FolderError where the two models' tokens differ, UnsupportedError where one cannot take back
    what it has read.
    """
    both = Engine(engine.folder, engine.executor)
    both.guided(draft)
    length = min(LENGTH, (min(engine.context, draft.context) + 1) // 2)
    texts = windows(data, engine.tokenizer, PROMPTS, length)
    rates: list[tuple[float, float]] = []
    for done, ids in enumerate(texts.rows, start=1):
        rates.append((_rate(both, ids.tolist()), _rate(engine, ids.tolist())))
        if told is not None:
            told(done, len(texts.rows))
    tally = both.guessed
    facts = {
        **medians("decode_guided", [one for one, _ in rates], "token/s", HOW),
        **medians("decode_alone", [other for _, other in rates], "token/s", HOW),
        **medians("gain", [one / other for one, other in rates], "1", HOW),
        "tokens_a_step": Quantity(
            tally.tokens_a_step, "1", "tokens for each step of the large model"
        ),
        "guesses_a_step": Quantity(tally.guessed / max(tally.steps, 1), "1", "guesses before each"),
        "right": Quantity(tally.accepted / max(tally.guessed, 1), "1", "share of guesses"),
    }
    notes = {"folder": engine.folder.name, "draft": draft.folder.name, "data": texts.name}
    return Record("draft", "", facts, notes=notes)


def _rate(engine: Engine, ids: list[int]) -> float:
    """Return how fast a model generates after the first token [token/s]."""
    new = max(2, min(NEW, engine.context - len(ids)))
    moments = [perf_counter() for _ in engine.generate(ids, max_tokens=new, stop_ids=())]
    return (len(moments) - 1) / (moments[-1] - moments[0])
