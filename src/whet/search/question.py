"""What a search refuses before any work, what it may choose, and by what it is known again."""

from collections.abc import Mapping
from pathlib import Path

from whet.base.errors import RecipeError
from whet.calibrate.tokens import Tokens
from whet.formats.keeping import USUAL, Keeping
from whet.kernels.native import missing
from whet.measure.windows import windows
from whet.recipe.identity import check, identity
from whet.search.ask import Ask
from whet.search.recover import affordable, fits_memory
from whet.search.stand import units_of
from whet.search.unit import LEVELS
from whet.store.durable import write_json
from whet.store.tokenizer import Tokenizer

COUNTED = "weights and activations"  # in costs of levels; a sweep that counted less is not taken
DRAFT_FRACTION = 0.03  # of the time, that a draft is trained for at least ten thousand tokens
FEWER: tuple[Keeping, ...] = ("int8", "kv4")  # that keys and values may be kept in


def refuse(ask: Ask) -> None:
    """Raise, before any work, if the question has no answer."""
    if not list(ask.limits):
        raise RecipeError("a search needs a limit", "E.g. --max-size 400MB, or --max-kl 0.02.")
    quality = ask.limits.kl or ask.limits.ppl
    if ask.objective != "quality" and quality is None:
        raise RecipeError(
            f"the best {ask.objective} without a limit on quality is a useless model",
            "Add --max-kl or --max-ppl-increase.",
        )
    units_of(ask, ask.folder)
    windows(ask.data, Tokenizer(ask.folder.path), 1)


def caches_of(ask: Ask) -> tuple[Keeping, ...]:
    """Return what keys and values may be kept in: in fewer bits, where that helps keep a limit."""
    if ask.caches:
        return tuple(ask.caches)
    return (USUAL, *FEWER) if ask.limits.timed or ask.objective == "speed" else (USUAL,)


def drafts_of(ask: Ask) -> bool:
    """Return whether models that guess are tried: where tokens are to come faster, here and now.

    Not where there is no time or memory to train one: a draft that is not trained guesses badly.
    """
    wanted = ask.limits.decode is not None or ask.objective == "speed"
    here = ask.target is None and missing() is None
    weights = sum(unit.weights for unit in units_of(ask, ask.folder))
    trains = affordable(DRAFT_FRACTION * ask.seconds, weights) > 0 and fits_memory(weights)
    return wanted and here and ask.structures and trains


def share(folder: Path, mine: Mapping[str, str]) -> None:
    """Take a folder of earlier sweeps, if they are of the same model, levels and text."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "identity.json"
    others = [name for name in folder.iterdir() if not name.name.startswith(f".{path.name}")]
    if others and not path.is_file():
        raise RecipeError(f"{folder} holds something else", "Name an empty folder with --sweep.")
    if path.is_file():
        check(path, mine, "Restore them, or name another folder with --sweep.")
    else:
        write_json(path, mine)  # which another process may do at the same time, with the same words


def identity_of(ask: Ask, calibrated: Tokens) -> Mapping[str, str]:
    """Return what a search that goes on must share with the one before; limits may be others.

    Of the text its tokens count, wherever it lies.
    """
    levels = tuple(ask.levels) or LEVELS
    asked = (levels, ask.tables, ask.skip, ask.seed, ask.structures, COUNTED)
    return identity(repr(asked), ask.folder.digest(), calibrated.digest)
