"""Smaller shapes of a model, and what keys and values are kept in: the outer choices of a search."""

from dataclasses import dataclass, replace
from typing import Any

from whet.formats.keeping import USUAL, Keeping
from whet.formats.spec import parse
from whet.methods import catalogue
from whet.model.architecture import Architecture
from whet.model.config import Config
from whet.passes.model_pass import ModelPass
from whet.recipe.recipe import Step

FFN = (0.0, 0.125, 0.25, 0.375)  # shares of the feed-forward channels that may go
DROPPED = 4  # layers that may go: a quarter of them, at most so many
TRAINED = (0, 1, 4)  # how much training follows, in units of the tokens that time allows
MULTIPLE = 32  # feed-forward channels are left in multiples of this, where all blocks are alike
DRAFTED = "int8-channel"  # what a draft is rounded to
RATE = 0.0003  # of training back


@dataclass(frozen=True, slots=True)
class Space:
    """How many layers and key-value heads may go at most, and what a unit of training is [token].

    `caches`: what keys and values may be kept in; `drafts`: how many layers a model that guesses may
    keep, 0 for none.
    """

    layers: int = 0
    kv: int = 0
    tokens: int = 0
    ffn: tuple[float, ...] = (0.0,)
    caches: tuple[Keeping, ...] = (USUAL,)
    drafts: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True)
class Structure:
    """What is cut away, and on how many tokens the model is then distilled from the original.

    `ffn`: share of the feed-forward channels that go; `layers`: blocks that go; `kv`: key-value heads
    that go, with their query heads. `cache`: what keys and values are kept in. `draft`: layers of a
    model that guesses for this one, 0 without one, and `learning` the tokens it is distilled on.
    """

    ffn: float = 0.0
    layers: int = 0
    kv: int = 0
    tokens: int = 0
    cache: Keeping = USUAL
    draft: int = 0
    learning: int = 0

    @property
    def shape(self) -> "Structure":
        """The same shape with keys and values kept as usual, and without a draft."""
        return replace(self, cache=USUAL, draft=0, learning=0)

    @property
    def alone(self) -> "Structure":
        """The same without a draft."""
        return replace(self, draft=0, learning=0)

    @property
    def drafting(self) -> "Structure":
        """The draft alone, which is the same for all shapes."""
        return Structure(draft=self.draft, learning=self.learning)

    @property
    def whole(self) -> bool:
        """Whether nothing is cut away."""
        return not (self.ffn or self.layers or self.kv)

    def tapers(self, arch: Architecture) -> bool:
        """Whether every block gets a width of its own: not where layers go, which ones is not known."""
        return bool(self.ffn) and not self.layers and arch.experts is None

    def __str__(self) -> str:
        """Return it in words: "1 layer and 0.25 of the ffn less, 200,000 tokens of distillation"."""
        kept = "" if self.cache == USUAL else f", keys and values in {self.cache}"
        if self.draft:
            learnt = f" ({self.learning:,} tokens of distillation)" if self.learning else ""
            kept += (
                f", a draft of {self.draft} layer{'s' if self.draft > 1 else ''}{learnt} guesses"
            )
        if self.whole:
            return f"as it is{kept}"
        gone = [f"{self.layers} layer{'s' if self.layers > 1 else ''}"] if self.layers else []
        where = "" if self.layers else " (where it counts least)"
        gone += [f"{self.ffn:.3g} of the ffn{where}"] if self.ffn else []
        gone += [f"{self.kv} key-value head{'s' if self.kv > 1 else ''}"] if self.kv else []
        trained = f", {self.tokens:,} tokens of distillation" if self.tokens else ""
        return f"{' and '.join(gone)} less{trained}{kept}"

    def steps(self, arch: Architecture, widths: tuple[int, ...] = ()) -> tuple[Step, ...]:
        """Return the steps that make the shape of a model; `widths` of its blocks, where they differ."""
        found: list[Step] = []
        if self.layers:
            found.append(_step("depth", keep=arch.layers - self.layers))
        if self.kv:
            found.append(_step("heads", keep=arch.kv_heads - self.kv))
        if widths:
            found.append(_step("ffn", channels=widths))
        elif self.ffn:
            found.append(_step("ffn", share=self.ffn, multiple=MULTIPLE))
        if self.tokens and found:
            found.append(_step("distill", tokens=self.tokens, lr=RATE))
        return tuple(found)

    def guessing(self, arch: Architecture) -> tuple[Step, ...]:
        """Return the steps that make the draft, of the original."""
        if not self.draft:
            return ()
        found = [_step("depth", keep=self.draft)]
        if self.learning:
            found.append(_step("distill", tokens=self.learning, lr=RATE))
        tables = ("embed",) if arch.tied else ("embed", "head")
        rounded: Any = catalogue()["rtn"]
        return (*found, Step(rounded(format=parse(DRAFTED)), ("blocks", *tables)))

    def finish(self) -> tuple[Step, ...]:
        """Return the steps that follow once numbers are rounded."""
        return () if self.cache == USUAL else (_step("kv_cache", keep=self.cache),)


def refused(steps: tuple[Step, ...], config: Config) -> str | None:
    """Return why a model cannot have the shape that these steps make, or None."""
    for step in steps:
        assert isinstance(step.use, ModelPass)
        if reason := step.use.refuses(config):
            return f"{step.use.name}: {reason}"
        config = step.use.config(config)
    return None


def _step(name: str, **settings: Any) -> Step:  # noqa: ANN401 (the settings of any method)
    made: Any = catalogue()[name]
    return Step(made(**settings))


def space_of(
    arch: Architecture, tokens: int, caches: tuple[Keeping, ...], *, drafts: bool = False
) -> Space:
    """Return which smaller shapes of a model are tried, and with `drafts` which models that guess."""
    small = tuple(dict.fromkeys((0, arch.layers // 4))) if drafts else (0,)
    return Space(min(DROPPED, arch.layers // 4), arch.kv_heads // 4, tokens, FFN, caches, small)
