"""Codes, and a product of two narrow matrices for what they left of the outputs.

The product is the best of its rank for the outputs (EoRA, arXiv:2410.21271, §3; L²QER,
arXiv:2402.02446, weighs channels alone; QERA, arXiv:2410.06040, proves the exact solution). The
codes are those of GPTQ-complete. Then both take turns, as in LoftQ (arXiv:2310.08659) and CALDERA
(arXiv:2405.18886, §4). The better of two beginnings is taken: codes first, or the product first and
codes for the rest, whose ranges are narrower. After that codes are chosen knowing that the left
factor will be the best one for them: with the Gram matrix of what the right factor does not reach.
A turn is kept if it goes downhill. The mathematics is in `whet.methods.solve`.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from whet.calibrate.statistics import Stats
from whet.formats.codec import Planes, Scalar, Search
from whet.formats.codecs import codec_of, scalar_of
from whet.formats.compose import joined
from whet.formats.element import Integer
from whet.formats.spec import Coded, Corrected, Format, LowRank
from whet.formats.weight import Weight, written
from whet.methods.solve.aiming import Aiming
from whet.methods.solve.checks import within
from whet.methods.solve.complete import (
    Problem,
    Rule,
    Solved,
    added,
    improved_terms,
    planes_of,
    solved,
)
from whet.methods.solve.facts import loss, share
from whet.methods.solve.nearest import weight_error
from whet.methods.solve.product import Coding, Product, freed, nearest_product, right_of
from whet.methods.solve.threads import threads_for
from whet.model.site import Site
from whet.passes.linear_pass import Rewrite, says

DEFAULT = Corrected(Coded(Integer(4)), LowRank(16))


@dataclass(frozen=True, slots=True, kw_only=True)
class CodesAndProduct(Aiming):
    """Round as gptq does, and add a product of two narrow matrices for what that left."""

    name: ClassVar[str] = "residual"
    format: Format = field(
        default=DEFAULT, metadata=says("codes and product, e.g. int4-g64 + lowrank-16")
    )
    rounds: int = field(
        default=4, metadata=says("turns of codes and product; 0: codes, then the product, once [1]")
    )
    sweeps: int = field(
        default=4, metadata=says("passes of coordinate descent for each turn; 0: GPTQ alone [1]")
    )
    range: Rule = field(default="hessian", metadata=says("what the range of a group minimises"))
    range_steps: int = field(default=20, metadata=says("ranges tried for each group [1]"))

    def check(self) -> None:
        """Refuse settings out of their range, and formats without codes or product."""
        if not isinstance(self.format, Corrected):
            raise ValueError(f"format is {self.format}, expected e.g. int4-g64 + lowrank-16")  # noqa: TRY004 - settings are values
        Aiming.check(self)
        within(self, least={"rounds": 0, "range_steps": 1})

    def refuses(self, site: Site) -> str | None:
        """Refuse embeddings, which read no activation, and codes that are no grid of levels."""
        if site.role == "embed":
            return "the rows of an embedding are looked up"
        assert isinstance(self.format, Corrected)
        if not isinstance(codec_of(self.format.codes), Scalar):
            return f"{self.format.codes} has no levels to round to"
        return None

    def rewrite(
        self, weight: Float[Tensor, "out in"], stats: Stats, role: str, seed: int
    ) -> Rewrite:
        """Return the codes and the product of least output error that were found."""
        with threads_for(weight.numel()):
            return self._rewritten(weight, stats, role)

    def _rewritten(self, weight: Float[Tensor, "out in"], stats: Stats, role: str) -> Rewrite:
        aim = self.aim(weight, stats, role)
        if isinstance(aim, str):
            return self._plain(weight, aim)
        problem = aim.problem
        first, best = self._turns(problem)
        new = Weight(self.format, best.planes, (weight.shape[0], weight.shape[1]))
        facts = aim.facts(best.values)
        alone = loss(problem.factor, first - problem.target)
        lost = loss(problem.factor, best.values - problem.target)
        facts["left_of_codes"] = share(lost, alone, "output error ÷ that of the codes alone")
        return Rewrite(new, facts, aim.fallback)

    def _turns(self, problem: Problem) -> tuple[Tensor, "Pair"]:
        """Return what the codes alone would be, and the best pair of all turns."""
        assert isinstance(self.format, Corrected)
        codes, form = scalar_of(self.format.codes), self.format.product
        search = Search(self.range, self.range_steps)
        alone = solved(problem, codes, search, self.sweeps)
        least = self._best(problem, Pair(alone, nothing(form, problem.target)), alone)
        if self.rounds:
            kept = nearest_product(problem, form, "outputs", self._coding)
            rest = replace(problem, target=problem.target - kept.values)
            least = self._best(problem, least, solved(rest, codes, search, self.sweeps))
        for _ in range(self.rounds):
            onward = freed(problem, right_of(least.product))
            best = self._best(problem, least, improved_terms(onward, least.terms, self.sweeps))
            if best is least:
                break
            least = best
        return added(alone), least

    @property
    def _coding(self) -> Coding:
        return Coding(Search("hessian"), self.sweeps)

    def _best(self, problem: Problem, least: "Pair", terms: Solved) -> "Pair":
        """Return the better of a pair, and of other codes with the product that is best for them."""
        assert isinstance(self.format, Corrected)
        left = replace(problem, target=problem.target - added(terms))
        found = Pair(terms, nearest_product(left, self.format.product, "outputs", self._coding))
        return found if found.loss(problem) < least.loss(problem) else least

    def _plain(self, weight: Float[Tensor, "out in"], why: str) -> Rewrite:
        """Return the weight rounded to nearest and the plain product of what is left, saying why."""
        new = written(weight, self.format)
        facts = {"weight_error": weight_error(new, weight)}
        return Rewrite(new, facts, f"rounded to nearest: {why}")


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Codes and a product."""

    terms: Solved
    product: Product

    @property
    def values(self) -> Float[Tensor, "in out"]:
        """Return what they add up to."""
        return added(self.terms) + self.product.values

    @property
    def planes(self) -> Planes:
        """Return the planes of both."""
        return joined([planes_of(self.terms), self.product.planes])

    def loss(self, problem: Problem) -> float:
        """Return the loss of all outputs, damped."""
        return float(problem.factor.energy(self.values - problem.target).double().sum())


def nothing(form: LowRank, target: Float[Tensor, "in out"]) -> Product:
    """Return the product that is zero."""
    zeros = torch.zeros_like(target)
    return Product(form, written(zeros.T.float(), form).planes, zeros)
