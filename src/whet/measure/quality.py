"""How good a saved folder is: perplexity, and its distance from the model that it was made from."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from whet.base.errors import UnsupportedError
from whet.base.quantity import Quantity
from whet.base.record import Record
from whet.formats.keeping import Keeping
from whet.measure.divergence import judged
from whet.measure.figures import figures
from whet.measure.folder import sizes
from whet.measure.intervals import CONFIDENCE
from whet.measure.tally import Tally
from whet.measure.windows import LENGTH, WINDOWS, Windows, windows
from whet.model.family import find
from whet.model.opened import opened
from whet.runtime.choice import told as reasons
from whet.runtime.engine import Engine, load, refuse_strangers
from whet.runtime.executor import Choice, Inputs, Kernels
from whet.store.resolve import resolve

Told = Callable[[int, int], None]  # windows done, of how many


def compare(  # noqa: PLR0913
    folder: str | Path,
    against: str | Path | None = None,
    *,
    executor: Choice = "auto",
    kernels: Kernels = "auto",
    cache: Keeping | None = None,
    inputs: Inputs = "int16",
    data: str = "builtin",
    count: int = WINDOWS,
    length: int = LENGTH,
    seed: int = 0,
    offline: bool = False,
    told: Told | None = None,
) -> list[Record]:
    """Measure a folder on windows of text; with `against`, beside the model that it was made from.

    Both models read the same windows, so differences are paired. The first record is the
    measurement (step "measure"), the others the tokens that changed most (step "token").
    `cache` is what the folder's keys and values are kept in; None: what it says itself. `inputs` is what
    the folder's kernels round inputs to, where it does not say; the original has the finest.
    Law: a folder against itself has KL 0, top-1 agreement 1 and Δ perplexity 0, exactly.
    """
    load = partial(_decoder, executor=executor, kernels=kernels, offline=offline)
    engine = load(folder, cache=cache, inputs=inputs)
    original = None if against is None else load(against)
    contexts = [one.context for one in (engine, original) if one]
    found = windows(data, (original or engine).tokenizer, count, min(length, *contexts))
    if original is not None:
        refuse_strangers(engine, original, original.tokenizer.decode(found.rows[0].tolist()))
    tally = _read(engine, original, found, told)
    facts = figures(tally, len(found.rows), beside=original is not None, seed=seed)
    facts |= _sizes(engine, original)
    measured = Record("measure", "", facts, notes=_notes(found, against, engine, original))
    return [measured, *(tally.tokens(original) if original else ())]


def _read(engine: Engine, original: Engine | None, found: Windows, told: Told | None) -> Tally:
    """Let both models read all windows."""
    tally = Tally(max(found.documents) + 1, np.zeros(found.tokens))
    pairs = zip(found.rows, found.documents, strict=True)
    for done, (tokens, document) in enumerate(pairs, start=1):
        for part in judged(engine, original, tokens):
            tally.add(part, tokens, document)
        if told is not None:
            told(done, len(found.rows))
    return tally


def _decoder(
    folder: str | Path,
    *,
    executor: Choice,
    kernels: Kernels,
    cache: Keeping | None = None,
    inputs: Inputs = "int16",
    offline: bool,
) -> Engine:
    """Load a folder, or say why it cannot be measured."""
    path = resolve(str(folder), offline)
    try:
        find(opened(path).config)
    except UnsupportedError as error:
        raise UnsupportedError(
            f"{path} cannot be measured on text, which needs a decoder of a known family: "
            f"{error.message}",
            "Its size and the error of each layer are in its report: run `whet inspect`.",
        ) from None
    return load(path, executor, kernels, cache=cache, inputs=inputs, draft=False)


def _notes(
    found: Windows, against: str | Path | None, engine: Engine, original: Engine | None
) -> dict[str, str]:
    notes = {"data": found.name, "digest": found.digest, "confidence": f"{100 * CONFIDENCE:.0f} %"}
    notes |= {"against": str(against)} if against is not None else {}
    notes |= {"executor": engine.executor.name, "cache": engine.executor.notes.get("cache", "")}
    if "activations" in engine.executor.notes:
        notes |= {"inputs": engine.executor.notes["activations"]}
    if original is not None and original.executor.name != engine.executor.name:
        notes |= {"executor_original": original.executor.name}
    fallback = engine.fallback or (original.fallback if original else ())
    return notes | ({"fallback": reasons(fallback)} if fallback else {})


def _sizes(engine: Engine, original: Engine | None) -> dict[str, Quantity]:
    """Return what the folder takes, and what the original takes."""
    facts = sizes(engine.folder).facts()
    if original is not None:
        taken = float(sizes(original.folder).files)
        facts["bytes_original"] = Quantity(taken, "byte", "all files of the original's folder")
    return facts
