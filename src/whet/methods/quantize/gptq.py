"""GPTQ-complete: second-order rounding for every scalar format, with little left on the table.

The objective is that of Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ" (arXiv:2210.17323, §3), for a
target that makes good what earlier layers have lost (QEP, arXiv:2504.09629; GPTAQ,
arXiv:2504.02692), followed by coordinate descent (QuantEase, arXiv:2309.01885). The mathematics is
in `whet.methods.solve`.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from whet.base.quantity import Quantity
from whet.calibrate.statistics import Gram, Stats
from whet.formats.codec import Scalar, Search
from whet.formats.codecs import codec_of
from whet.formats.element import Integer
from whet.formats.sparse import Sparse, kept
from whet.formats.spec import Coded, Corrected, Format, LowRank
from whet.formats.weight import Weight, written
from whet.methods.solve.aiming import Aiming
from whet.methods.solve.checks import within
from whet.methods.solve.complete import Problem, Rule, added, planes_of, solved
from whet.methods.solve.facts import Facts
from whet.methods.solve.nearest import nearest
from whet.methods.solve.support import refitted
from whet.methods.solve.threads import threads_for
from whet.model.site import Site
from whet.passes.linear_pass import Rewrite, says


@dataclass(frozen=True, slots=True, kw_only=True)
class Gptq(Aiming):
    """Second-order rounding with coordinate descent, for every format of codes."""

    name: ClassVar[str] = "gptq"
    format: Format = field(default=Coded(Integer(4)), metadata=says("number format of the result"))
    act_order: bool = field(
        default=True, metadata=says("round the inputs of greatest mean square first")
    )
    sweeps: int = field(
        default=4, metadata=says("passes of coordinate descent after GPTQ; 0 for plain GPTQ [1]")
    )
    range: Rule = field(default="hessian", metadata=says("what the range of a group minimises"))
    range_steps: int = field(default=20, metadata=says("ranges tried for each group [1]"))

    def check(self) -> None:
        """Refuse settings out of their range."""
        Aiming.check(self)
        within(self, least={"range_steps": 1})

    def refuses(self, site: Site) -> str | None:
        """Refuse embeddings, which read no activation, and products."""
        if isinstance(self.format, LowRank | Corrected):
            return f"gptq rounds to codes, and {self.format} holds a product; use residual or svd"
        return "an embedding reads no activations; use rtn" if site.role == "embed" else None

    def rewrite(
        self, weight: Float[Tensor, "out in"], stats: Stats, role: str, seed: int
    ) -> Rewrite:
        """Return the weight of least output error that was found."""
        with threads_for(weight.numel()):
            return self._rewritten(weight, stats, role)

    def _rewritten(self, weight: Float[Tensor, "out in"], stats: Stats, role: str) -> Rewrite:
        whole = codec_of(self.format)
        codec = whole.inner if isinstance(whole, Sparse) else whole
        if not isinstance(codec, Scalar):
            return Rewrite(written(weight, self.format))
        aim = self.aim(weight, stats, role, act_order=self.act_order)
        if isinstance(aim, str):
            return self._plain(weight, stats[Gram], aim)
        problem, search = aim.problem, Search(self.range, self.range_steps)
        if isinstance(whole, Sparse):
            problem = _bound(problem, weight)
        terms = solved(problem, codec, search, self.sweeps)
        planes = planes_of(terms)
        if isinstance(whole, Sparse):
            planes = whole.write(planes, kept(weight.abs(), whole.pattern))
        new = Weight(self.format, planes, (weight.shape[0], weight.shape[1]))
        began = Quantity(
            sum(part.kept for _, part in terms), "1", "outputs that rounding to nearest began"
        )
        facts = Facts(lambda: aim.facts(added(terms)) | {"rows_from_rtn": began})
        return Rewrite(new, facts, aim.fallback)

    def _plain(self, weight: Float[Tensor, "out in"], gram: Gram, why: str) -> Rewrite:
        """Return the weight rounded to nearest, saying why."""
        importance = gram.diagonal()
        usable = bool(importance.any()) and bool(importance.isfinite().all())
        search = Search("hessian" if usable else "mse", self.range_steps)
        new = nearest(weight, self.format, search, importance if usable else None)
        return Rewrite(new, {}, f"rounded to nearest: {why}")


def _bound(problem: Problem, weight: Float[Tensor, "out in"]) -> Problem:
    """Return a problem in which what is zero stays zero: the mask that an earlier step has left."""
    own = (weight != 0).T.to(problem.target.dtype)
    free = refitted(problem.target, problem.H, problem.factor.ridge, own)
    return replace(problem, mask=own, free=free)
