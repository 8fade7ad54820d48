"""How good a saved folder is: perplexity, and its distance from the model that it was made from."""

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from whet.base.errors import FolderError, UnsupportedError
from whet.base.machine import peak_rss
from whet.base.quantity import Quantity
from whet.base.record import Record
from whet.measure.divergence import Judged, judged
from whet.measure.intervals import CONFIDENCE, RESAMPLES, Interval, Numbers, bootstrap
from whet.measure.windows import LENGTH, WINDOWS, Windows, windows
from whet.model.family import find
from whet.runtime.engine import Engine, load
from whet.store.folder import Folder
from whet.store.resolve import resolve

BATCH = 4  # windows at a time
TOKENS = 30  # that changed most, with their context
CONTEXT = 24  # tokens shown before each of them
PERCENTILES = {"kl_median": 50.0, "kl_p90": 90.0, "kl_p99": 99.0, "kl_p999": 99.9}
Singles = NDArray[np.float32]
Sums = Mapping[str, Numbers]
Statistic = Callable[[Sums], Numbers]
Told = Callable[[int, int], None]  # windows done, of how many


def compare(
    folder: str | Path,
    against: str | Path | None = None,
    *,
    data: str = "builtin",
    count: int = WINDOWS,
    length: int = LENGTH,
    seed: int = 0,
    told: Told | None = None,
) -> list[Record]:
    """Measure a folder on windows of text; with `against`, beside the model that it was made from.

    Both models read the same windows, so differences are paired. The first record is the
    measurement (step "measure"), the others the tokens that changed most (step "token").
    Law: a folder against itself has KL 0, top-1 agreement 1 and Δ perplexity 0, exactly.
    """
    engine = _decoder(folder)
    original = None if against is None else _decoder(against)
    contexts = [one.context for one in (engine, original) if one]
    tokenizer = (original or engine).tokenizer
    begin = tokenizer.bos_id if tokenizer.adds_bos else None
    found = windows(data, tokenizer, count, min(length, *contexts), begin)
    if original is not None:
        _refuse_strangers(engine, original, found)
    tally = Tally(max(found.documents) + 1, np.zeros(found.tokens, np.float32))
    done = 0
    for tokens, documents in found.batches(BATCH):
        for part in judged(engine, original, tokens):
            tally.add(part, tokens, documents)
        done += len(tokens)
        if told is not None:
            told(done, len(found.rows))
    notes = _notes(found, against)
    measured = Record("measure", "", _facts(tally, found, original is not None, seed), notes=notes)
    return [measured, *(tally.tokens(original) if original else ())]


def _decoder(folder: str | Path) -> Engine:
    """Load a folder, or say why it cannot be measured."""
    path = resolve(str(folder))
    try:
        find(Folder(path).config)
    except UnsupportedError as error:
        raise UnsupportedError(
            f"{path} cannot be measured on text, which needs a decoder of a known family: "
            f"{error.message}",
            "Its size and the error of each layer are in its report: run `whet inspect`.",
        ) from None
    return load(path)


def _refuse_strangers(engine: Engine, original: Engine, found: Windows) -> None:
    """Raise unless both models read and write the same tokens."""
    text = original.tokenizer.decode(found.rows[0].tolist())
    ids = [one.tokenizer.encode(text) for one in (engine, original)]
    if engine.vocab != original.vocab or ids[0] != ids[1]:
        raise FolderError(
            f"{engine.folder} and {original.folder} cannot be compared: they have different tokens "
            f"(vocabularies of {engine.vocab} and {original.vocab})",
            "Give --against the model that the folder was made from.",
        )


def _notes(found: Windows, against: str | Path | None) -> dict[str, str]:
    notes = {"data": found.name, "digest": found.digest, "confidence": f"{CONFIDENCE:.0%}"}
    return notes if against is None else notes | {"against": str(against)}


@dataclass(slots=True)
class Tally:
    """Sums of each document, KL of each token, and the tokens that changed most so far.

    Room for the KL of all tokens is made at once, four bytes each; nothing else grows.
    """

    documents: int
    kls: Singles
    sums: dict[str, Numbers] = field(default_factory=dict[str, Numbers])
    most: list["Changed"] = field(default_factory=list["Changed"])
    seen: int = 0

    def add(self, part: Judged, tokens: Tensor, documents: list[int]) -> None:
        """Account for some tokens of a batch; `documents` has one number for each of its rows."""
        time = tokens.shape[1]
        places = part.start + np.arange(len(part.kl))
        owners = np.asarray(documents)[places // time]
        for name, values in _terms(part).items():
            held = self.sums.setdefault(name, np.zeros(self.documents))
            held += np.bincount(owners, values, self.documents)
        self.kls[self.seen : self.seen + len(part.kl)] = part.kl.numpy()
        for index in part.kl.topk(min(TOKENS, len(part.kl))).indices.tolist():
            row, position = divmod(part.start + index, time)
            self._offer(part, index, tokens[row, : position + 1])
        self.seen += len(part.kl)

    def _offer(self, part: Judged, index: int, context: Tensor) -> None:
        held = Changed(
            float(part.kl[index]),
            -(self.seen + index),
            (float(part.p_original[index]), float(part.p[index])),
            (int(part.first_original[index]), int(part.first[index])),
            tuple(context[-CONTEXT:].tolist()),
        )
        keep = heapq.heappush if len(self.most) < TOKENS else heapq.heappushpop
        keep(self.most, held)

    def tokens(self, original: Engine) -> Iterator[Record]:
        """Yield the tokens that changed most as records, the most changed first."""
        for changed in sorted(self.most, reverse=True):
            if changed.kl > 0:
                yield changed.record(original)


@dataclass(frozen=True, slots=True, order=True)
class Changed:
    """A token whose prediction changed: KL, place (for ties: the first wins), and what was said."""

    kl: float
    place: int
    p: tuple[float, float]
    first: tuple[int, int]
    context: tuple[int, ...]

    def record(self, engine: Engine) -> Record:
        """Return the evidence."""
        before, after = (_shown(engine, self.context, token) for token in self.first)
        how = "probability of the original's first choice"
        facts = {
            "kl": Quantity(self.kl, "nat", "KL of the next-token distributions"),
            "p_original": Quantity(self.p[0], "1", f"{how}, original"),
            "p_compressed": Quantity(self.p[1], "1", f"{how}, compressed"),
        }
        context = engine.tokenizer.decode(self.context)
        notes = {"context": context, "original": before, "compressed": after}
        return Record("token", "", facts, notes=notes)


def _shown(engine: Engine, context: tuple[int, ...], token: int) -> str:
    """Return a token as text after its context, or by its name where it is no text."""
    stream = engine.tokenizer.stream(after=context)
    text = stream.push(token)
    return text if text else engine.tokenizer.token(token)


def _terms(part: Judged) -> dict[str, Numbers]:
    """Return what is summed over the tokens of each document."""
    same = part.first == part.first_original
    found = {
        "tokens": part.scored.new_ones(len(part.kl)), "scored": part.scored, "kl": part.kl,
        "loss": part.loss, "loss_original": part.loss_original, "same": same,
        "gain": part.gain, "gain_squared": part.gain.square(),
    }  # fmt: skip
    return {name: values.double().numpy() for name, values in found.items()}


def _perplexity(name: str) -> Statistic:
    return lambda sums: np.exp(sums[name] / sums["scored"])


def _mean(name: str, over: str) -> Statistic:
    return lambda sums: sums[name] / sums[over]


def _delta(sums: Sums) -> Numbers:
    return _perplexity("loss")(sums) - _perplexity("loss_original")(sums)


def _ratio(sums: Sums) -> Numbers:
    return np.exp((sums["loss"] - sums["loss_original"]) / sums["scored"])


def _root_mean_square(sums: Sums) -> Numbers:
    return np.sqrt(sums["gain_squared"] / sums["scored"])


ALONE: dict[str, tuple[str, str, Statistic]] = {
    "ppl": ("1", "exp of the mean surprise by the next token", _perplexity("loss")),
}
BESIDE: dict[str, tuple[str, str, Statistic]] = ALONE | {
    "ppl_original": (
        "1", "exp of the mean surprise by the next token, original", _perplexity("loss_original"),
    ),
    "ppl_delta": (
        "1", "perplexity minus the original's, paired",
        _delta,
    ),
    "ppl_ratio": (
        "1", "perplexity over the original's, paired",
        _ratio,
    ),
    "kl_mean": ("nat", "mean over tokens of KL(original || compressed)", _mean("kl", "tokens")),
    "top1": (
        "1", "share of tokens whose most likely next token is the original's",
        _mean("same", "tokens"),
    ),
    "delta_p_mean": (
        "1", "mean change of the probability of the next token", _mean("gain", "scored"),
    ),
    "delta_p_rms": (
        "1", "root mean square change of the probability of the next token",
        _root_mean_square,
    ),
}  # fmt: skip


def _facts(tally: Tally, found: Windows, beside: bool, seed: int) -> dict[str, Quantity]:  # noqa: FBT001
    """Return all numbers, those over documents with their intervals."""
    table = BESIDE if beside else ALONE
    statistics = {name: statistic for name, (_, _, statistic) in table.items()}
    spans = bootstrap(tally.sums, statistics, seed)
    facts: dict[str, Quantity] = {}
    for name, (unit, how, _) in table.items():
        facts |= _interval(name, spans[name], unit, how)
    if beside:
        facts |= _percentiles(tally.kls)
    counts = {"tokens": tally.seen, "windows": len(found.rows), "documents": tally.documents}
    facts |= {name: Quantity(float(n), "1", "counted") for name, n in counts.items()}
    models = "both models" if beside else "one model"
    facts["peak_rss"] = Quantity(float(peak_rss()), "byte", f"largest resident size, {models}")
    return facts


def _interval(name: str, found: Interval, unit: str, how: str) -> dict[str, Quantity]:
    """Return a number and, where they are known, the ends of its interval."""
    facts = {name: Quantity(found.value, unit, how)}
    ends = {"low": found.low, "high": found.high}
    drawn = f"{CONFIDENCE:.0%} interval, bootstrap over documents, {RESAMPLES} resamples"
    return facts | {
        f"{name}_{end}": Quantity(value, unit, drawn)
        for end, value in ends.items()
        if value is not None
    }


def _percentiles(kls: Singles) -> dict[str, Quantity]:
    found = {
        name: Quantity(float(np.percentile(kls, share)), "nat", f"{share:g} % of tokens have less")
        for name, share in PERCENTILES.items()
    }
    return found | {"kl_max": Quantity(float(kls.max()), "nat", "largest of a token")}
