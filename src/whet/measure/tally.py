"""What is kept of each token while two models read: sums by document, KL, and the worst tokens."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from whet.base.quantity import Quantity
from whet.base.record import Record
from whet.measure.divergence import Judged
from whet.measure.intervals import Numbers
from whet.runtime.engine import Engine
from whet.runtime.executor import Ids

TOKENS = 30  # that changed most, with their context
CONTEXT = 24  # tokens shown before each of them


@dataclass(slots=True)
class Tally:
    """Sums of each document, KL of each token, and the tokens that changed most so far.

    Room for the KL of all tokens is made at once, eight bytes each; nothing else grows.
    """

    documents: int
    kls: Numbers
    sums: dict[str, Numbers] = field(default_factory=dict[str, Numbers])
    most: list["Changed"] = field(default_factory=list["Changed"])
    seen: int = 0

    def add(self, part: Judged, tokens: Ids, document: int) -> None:
        """Account for some tokens of a sequence, which belongs to a document."""
        for name, values in _terms(part).items():
            self.sums.setdefault(name, np.zeros(self.documents))[document] += values.sum()
        self.kls[self.seen : self.seen + len(part.kl)] = part.kl
        for index in np.argsort(-part.kl, kind="stable")[:TOKENS].tolist():
            self._offer(part, index, tokens[: part.start + index + 1])
        self.seen += len(part.kl)

    def _offer(self, part: Judged, index: int, context: Ids) -> None:
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
        "tokens": np.ones(len(part.kl)), "scored": part.scored, "kl": part.kl,
        "loss": part.loss, "loss_original": part.loss_original, "same": same,
        "gain": part.gain, "gain_squared": np.square(part.gain),
    }  # fmt: skip
    return {name: values.astype(np.float64) for name, values in found.items()}
