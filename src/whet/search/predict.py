"""How fast a model will be, and how much memory it will take, before it is built.

What is not linears (attention, norms, sampling, waiting for threads) is timed once, in a model of the
same architecture and about the same size, what its linears take taken off. A prediction adds the
times of linears, unit by unit, to that.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from whet.formats.keeping import USUAL, Keeping
from whet.formats.spec import BF16, Format
from whet.formats.terms import terms
from whet.graph import ir
from whet.graph.executors.build import ONE_MATRIX
from whet.graph.executors.native import joined
from whet.graph.ir import Graph, steps
from whet.graph.lower import lower
from whet.graph.memory import plan
from whet.graph.weights import Part, whole
from whet.measure.product import Product
from whet.measure.rest import Linears, Rest, kept, rest
from whet.model.architecture import Architecture
from whet.model.family import Family, find
from whet.model.opened import opened
from whet.model.site import Site
from whet.runtime.engine import Engine
from whet.runtime.native import Native
from whet.search.profile import Profile
from whet.store.contents import Contents
from whet.store.scheme import Scheme

Unit = tuple[Site, ...]
Formats = Mapping[str, Format]  # of each site, by its module

MULTIPLIES_NOTHING = "it is looked up, and no input is multiplied by it"
STEP = 512  # tokens of a prompt that the engine computes at once
DOUBLE = 8  # of a logit as tokens are chosen by it [byte]
POWERS = tuple(2**n for n in range(3, 24))  # lengths of prompts that are modelled [token]


@runtime_checkable
class Cost(Protocol):
    """What linears cost: `whet.search.latency.Latency`, `whet.search.profile.Profile`."""

    def seconds(self, product: Product, rows: int) -> float:
        """Return the time of a product with so many rows of input [s]."""
        ...

    def refuses(self, product: Product) -> str | None:
        """Return why nothing multiplies by a product's matrices, or None."""
        ...

    def nbytes(self, product: Product) -> int:
        """Return the size of a product's matrices as they are laid out [byte]."""
        ...


@runtime_checkable
class Timed(Protocol):
    """What times the rest of a model: `rest` of `whet.measure.rest`, or of `whet.measure.apart`."""

    def __call__(self, engine: Engine, *, others: Linears | None, memory: bool) -> Rest:
        """Return it; `others` are linears that the engine does not time apart."""
        ...


@dataclass(frozen=True, slots=True)
class Guide:
    """A smaller model that guesses for a large one.

    tokens   that a step of the large model gives with it; `guesses` before each such step [1]
    seconds  of a guess; `first`: of the small model's own first token after the prompt [s]
    memory   of its weights, keys and values [byte]
    """

    tokens: float
    guesses: float
    seconds: float
    first: float
    memory: int


@dataclass(frozen=True, slots=True)
class Predictor:
    """Predictions for models of one architecture.

    `cache`: what keys and values are kept in; `guide`: the draft that a model generates with.
    Law: every time is a sum over units, and the rest.
    """

    family: Family
    arch: Architecture
    cost: Cost
    rest: Rest
    cache: Keeping = USUAL
    guide: Guide | None = None

    def rest_decode(self, context: int) -> float:
        """Return what a token takes besides linears, with so many tokens before it [s]."""
        alone, guide = self.rest.token + self.rest.attended * context, self.guide
        if guide is None:
            return alone
        return (alone + guide.guesses * guide.seconds) / guide.tokens

    def rest_memory(self, context: int) -> int:
        """Return what the process holds besides weights, with a sequence of so many tokens [byte]."""
        guess = self.guide.memory if self.guide is not None else 0
        return self.rest.memory + kept(self.arch, context, self.cache) + guess

    def rest_first(self, prompt: int) -> float:
        """Return what the first token takes besides linears [s]."""
        guess = self.guide.first if self.guide is not None else 0.0
        return self.rest.until_first(prompt) + guess

    def unit_decode(self, sites: Sequence[Site], scheme: Scheme) -> float:
        """Return the time of one unit for one token that is generated [s].

        With a draft, of a step that reads all guesses, divided among the tokens that it gives.
        """
        if self.guide is None:
            return self.unit_seconds(sites, scheme, 1)
        rows = 1 + round(self.guide.guesses)
        return self.unit_seconds(sites, scheme, rows) / self.guide.tokens

    def unit_seconds(self, sites: Sequence[Site], scheme: Scheme, rows: int) -> float:
        """Return the time of one unit in a step of `rows` tokens [s].

        The head has one row in any step; of experts, those that are active are counted.
        """
        if _looked_up(sites[0], self.arch):
            return 0.0
        unit = product(sites, scheme)
        if sites[0].layer is None:
            return self.cost.seconds(unit, 1)
        if ".experts." not in sites[0].role or self.arch.experts is None:
            return self.cost.seconds(unit, rows)
        each = rows * self.arch.experts.active / self.arch.experts.count
        return self.cost.seconds(unit, max(1, round(each))) * min(1.0, each)

    def unit_bytes(self, sites: Sequence[Site], scheme: Scheme) -> int:
        """Return the memory of the weights of one unit [byte]; of a table, nothing to speak of."""
        if _looked_up(sites[0], self.arch):
            return 0
        return self.cost.nbytes(product(sites, scheme))

    def refuses(self, sites: Sequence[Site], scheme: Scheme) -> str | None:
        """Return why the engine has no kernels for a unit in some format, or None."""
        format_ = scheme.format
        for site in sites:
            if _looked_up(site, self.arch) or site.role == "embed":
                found = [term.side for term in terms(format_, site.shape)]
                if "left" in found:
                    return f"an embedding in {format_} has no rows to look up"
            if _looked_up(site, self.arch):
                reason = format_.refuses(site.shape) or (scheme.activation and MULTIPLIES_NOTHING)
            elif ".experts." in site.role and sum(1 for _ in terms(format_, site.shape)) > 1:
                reason = ONE_MATRIX
            else:
                reason = self.cost.refuses(product((site,), scheme))
            if reason:
                return reason
        return None

    def step(self, formats: Formats, rows: int) -> float:
        """Return the time of all linears but the head's in a step of `rows` tokens [s]."""
        chosen = (unit for unit in self.split(formats) if unit[0].layer is not None)
        return sum(self.unit_seconds(unit, _scheme(unit, formats), rows) for unit in chosen)

    def head(self, formats: Formats) -> float:
        """Return the time of the head's linear, of one row [s]."""
        chosen = (unit for unit in self.split(formats) if unit[0].layer is None)
        return sum(self.unit_seconds(unit, _scheme(unit, formats), 1) for unit in chosen)

    def decode(self, formats: Formats, context: int = 0) -> float:
        """Return the time of a token that has `context` tokens before it [s]."""
        linears = self.step(formats, 1) + self.head(formats)
        return linears + self.rest_decode(context)

    def first(self, formats: Formats, prompt: int) -> float:
        """Return the time from a prompt of so many tokens to the first token [s]."""
        whole_steps, last = divmod(prompt, STEP)
        spent = whole_steps * self.step(formats, STEP) if whole_steps else 0.0
        spent += self.step(formats, last) if last else 0.0
        return spent + self.head(formats) + self.rest_first(prompt)

    def memory(self, formats: Formats, context: int = 0) -> int:
        """Return the peak memory of a process with a sequence of `context` tokens [byte]."""
        weights = sum(self.unit_bytes(u, _scheme(u, formats)) for u in self.split(formats))
        return weights + self.rest_memory(context)

    def split(self, formats: Formats) -> Iterator[Unit]:
        """Yield units with those divided whose sites have different formats, as the engine does."""
        for unit in units(self.family, self.arch):
            groups: dict[Format, list[Site]] = {}
            for site in unit:
                groups.setdefault(formats[site.module], []).append(site)
            yield from (tuple(group) for group in groups.values())


def units(family: Family, arch: Architecture) -> tuple[Unit, ...]:
    """Return the sites of an architecture, those together that the engine multiplies by at once.

    Law: every site is in one unit, but a head that shares the embedding's storage.
    """
    graph = joined(lower(family, arch, lambda site: whole(site, Scheme(BF16))))
    found = tuple(_multiplied(graph))
    return found if arch.tied else ((family.embed_site(arch),), *found)


def product(sites: Sequence[Site], scheme: Scheme) -> Product:
    """Return what the engine multiplies by at once where sites read one input."""
    return Product(scheme.format, tuple(site.shape for site in sites), scheme.activation)


def formats_of(contents: Contents) -> Formats:
    """Return the formats of a saved folder, by module; of a head that is tied, the embedding's."""
    family = find(contents.config)
    sites = family.sites(family.architecture(contents.config, contents.names()))
    return {site.module: contents.format(site) for site in sites if site.tied is None}


def calibrated(
    engine: Engine, cost: Cost, *, memory: bool = True, timed: Timed = rest
) -> Predictor:
    """Return predictions for models like the one in an engine, of which the rest is `timed` now.

    Its weights should take about as much memory as those to be predicted (`whet.measure.rest`).
    With `memory`, a fresh process loads its folder; without, memory is that of weights and cache.
    """
    contents = Contents(opened(engine.folder), mapped=True)
    family = find(contents.config)
    arch = family.architecture(contents.config, contents.names())
    bare = Predictor(family, arch, cost, Rest(0.0, 0.0, ((1, 0.0),), 0))
    formats = formats_of(contents)

    def experts(rows: int) -> float:
        found = (unit for unit in bare.split(formats) if ".experts." in unit[0].role)
        return sum(bare.unit_seconds(unit, _scheme(unit, formats), rows) for unit in found)

    found = timed(engine, others=experts if arch.experts is not None else None, memory=memory)
    assert isinstance(engine.executor, Native), "only native kernels are timed"
    return replace(bare, rest=found, cache=engine.executor.program.machine.cache)


def modelled(
    family: Family, arch: Architecture, profile: Profile, cache: Keeping = USUAL
) -> Predictor:
    """Return predictions for a machine described by a profile, keys and values kept in `cache`.

    Besides linears: the overhead of each operator, keys and values read for each token, attention's
    products of a prompt, logits as they are chosen from, and the buffers of the largest step.
    """
    graph = joined(lower(family, arch, lambda site: whole(site, Scheme(BF16))))
    idle = sum(not isinstance(op, ir.Linear | ir.View | ir.Experts) for op in graph.ops)
    step = idle * profile.overhead + 2 * DOUBLE * arch.vocab / profile.bandwidth
    lengths = sorted({1, arch.context, *(n for n in POWERS if n < arch.context)})
    pairs = 2 * arch.layers * arch.heads * arch.head_dim / profile.bf16.gemm  # causal: half of 4
    first = tuple((n, step * -(-n // STEP) + pairs * n * n) for n in lengths)
    buffers = plan(graph, min(STEP, arch.context)).nbytes + DOUBLE * arch.vocab
    memory = int(profile.process) + buffers
    attended = kept(arch, 1, cache) / profile.bandwidth
    return Predictor(family, arch, profile, Rest(step, attended, first, memory), cache)


def _multiplied(graph: Graph) -> Iterator[Unit]:
    for op in (step for whole_op in graph.ops for step in steps(whole_op)):
        if isinstance(op, ir.Linear):
            yield _sites(op.parts)
        elif isinstance(op, ir.Experts):
            for one in op.experts:
                first = (one.up,) if one.gate is None else (one.gate, one.up)
                yield _sites(first)
                yield _sites((one.down,))


def _sites(parts: Sequence[Part]) -> Unit:
    return tuple({part.site.module: part.site for part in parts}.values())


def _scheme(unit: Unit, formats: Formats) -> Scheme:
    return Scheme(formats[unit[0].module])


def _looked_up(site: Site, arch: Architecture) -> bool:
    """Return whether a site is a table only, which no product reads."""
    return site.role == "embed" and not arch.tied
