"""What pruning methods share: the problem that a layer poses, and the weight that a mask leaves."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from whet.base.errors import NumericalError
from whet.base.quantity import Quantity
from whet.calibrate.statistics import Cross, Gram, Residual, Statistic, Stats
from whet.formats.codec import Planes, Search
from whet.formats.codecs import codec_of
from whet.formats.pattern import Pattern
from whet.formats.scaled import Scaled
from whet.formats.sparse import Sparse, kept
from whet.formats.spec import Format
from whet.formats.weight import Weight
from whet.methods.solve.admm import support
from whet.methods.solve.complete import Problem, solved
from whet.methods.solve.nearest import nearest_kept
from whet.methods.solve.posed import drift_of, factored
from whet.methods.solve.support import refitted
from whet.methods.solve.target import corrected
from whet.passes.linear_pass import Rewrite


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How a layer's problem is posed: the settings that second-order pruning has in common."""

    damping: float = 0.01
    alpha: float = 0.0
    rho: float = 0.0
    least_tokens: float = 0.1

    @property
    def needs(self) -> tuple[type[Statistic], ...]:
        """Return the statistics that `posed` reads."""
        return (Gram, *((Cross,) if self.alpha else ()), *((Residual,) if self.rho else ()))


def sparse_of(format_: Format) -> Sparse:
    """Return the codec of a sparse format. Raises ValueError for a format that keeps everything."""
    codec = codec_of(format_)
    if not isinstance(codec, Sparse):
        raise ValueError(  # noqa: TRY004 - what a setting out of its range raises
            f"format {format_} keeps every weight, expected one that says how many stay, "
            "e.g. 2:4(bf16), sparse50(int4-g64)"
        )
    return codec


def posed(weight: Float[Tensor, "out in"], stats: Stats, asked: Asked) -> Problem | str:
    """Return the problem of a layer, its target corrected for drift; or why it has none."""
    gram, inputs = stats[Gram], weight.shape[1]
    if gram.tokens < max(asked.least_tokens * inputs, 1):
        return f"{gram.tokens} calibration tokens for {inputs} inputs"
    try:
        found = factored(gram, asked.damping, act_order=False)
    except NumericalError as error:
        return error.message
    target, _ = corrected(weight, drift_of(stats, found, asked.alpha, asked.rho), found)
    return Problem(target, gram.symmetric(), found)


def settled(
    problem: Problem,
    mask: Bool[Tensor, "out in"],
    codec: Sparse,
    search: Search,
    sweeps: int,
    free: Float[Tensor, "in out"] | None = None,
) -> Weight:
    """Return the best weight of a support that is found.

    Plain numbers by exact least squares. Codes by rounding these, or the target column by column,
    and by coordinate descent with the mask as it is. `free` are the least squares, where known.
    """
    own = mask.T.to(problem.target.dtype)
    if free is None:
        free = refitted(problem.target, problem.H, problem.factor.ridge, own)
    if not isinstance(codec.inner, Scaled):
        return nearest_kept(free.T.contiguous().float(), mask, codec)
    bound = replace(problem, mask=own, free=free)
    ((_, found),) = solved(bound, codec.inner, search, sweeps)
    planes: Planes = codec.inner.write(found.values.T.contiguous().float(), found.params)
    return Weight(codec.format, codec.write(planes, mask), (len(mask), mask.shape[1]))


def best_support(
    problem: Problem, pattern: Pattern, turns: int
) -> tuple[Bool[Tensor, "out in"], Float[Tensor, "in out"]]:
    """Return the mask of ADMM, or the one that it began with where that loses less, and its weights.

    The weights are least squares on the mask.
    Law: the loss is never above that of the greatest |T|·√H_jj after least squares.
    """
    H, ridge = problem.H, problem.factor.ridge
    start, found = (support(problem.target, H, ridge, pattern, n) for n in (0, turns))
    (one, before), (two, after) = (_fitted(problem, mask) for mask in (start, found))
    if pattern.of_row(len(problem.target)) is None:
        before, after = before.sum().expand_as(before), after.sum().expand_as(after)
    earlier = before < after
    return torch.where(earlier.unsqueeze(1), start, found), torch.where(earlier, one, two)


def _fitted(
    problem: Problem, mask: Bool[Tensor, "out in"]
) -> tuple[Float[Tensor, "in out"], Float[Tensor, "out"]]:
    """Return least squares on a mask, and the loss of each output."""
    own = mask.T.to(problem.target.dtype)
    free = refitted(problem.target, problem.H, problem.factor.ridge, own)
    return free, problem.factor.energy(free - problem.target)


def error(problem: Problem, weight: Float[Tensor, "out in"], new: Weight) -> Quantity:
    """Return what a layer's output loses to its target, as a share of its energy."""
    found, ridge = problem.factor, problem.factor.ridge
    delta = new.dense().T.to(problem.target.dtype) - problem.target
    lost = found.energy(delta) - ridge * delta.square().sum(0)
    before = weight.T.to(problem.target.dtype)
    whole = float((found.energy(before) - ridge * before.square().sum(0)).double().sum())
    share = max(float(lost.double().sum()) / whole, 0.0) if whole > 0 else 0.0
    return Quantity(share, "1", "tr((Q-T)H(Q-T)ᵀ) ÷ tr(WHWᵀ), T the target")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filling:
    """What becomes of the weights that a criterion keeps."""

    refit: bool
    sweeps: int
    steps: int
    asked: Asked = Asked()

    @property
    def needs(self) -> tuple[type[Statistic], ...]:
        """Return the statistics that are read."""
        return self.asked.needs if self.refit else ()


def filled(
    weight: Float[Tensor, "out in"],
    mask: Bool[Tensor, "out in"],
    codec: Sparse,
    stats: Stats,
    filling: Filling,
    importance: Float[Tensor, "in"] | None = None,
) -> Rewrite:
    """Return what a mask leaves of a weight, by least squares where that is asked for."""
    search = Search("mse" if importance is None else "hessian", filling.steps)
    if not filling.refit:
        return Rewrite(nearest_kept(weight, mask, codec, search, importance), _sparse(weight, mask))
    problem = posed(weight, stats, filling.asked)
    if isinstance(problem, str):
        new = nearest_kept(weight, mask, codec, search, importance)
        return Rewrite(new, _sparse(weight, mask), f"kept weights left as they were: {problem}")
    new = settled(problem, mask, codec, Search("hessian", filling.steps), filling.sweeps)
    facts = {"output_error": error(problem, weight, new), **_sparse(weight, mask)}
    return Rewrite(new, facts)


def unable(weight: Float[Tensor, "out in"], codec: Sparse, why: str) -> Rewrite:
    """Return a weight pruned by magnitude, saying why by nothing better."""
    mask = kept(weight.abs(), codec.pattern)
    return Rewrite(
        nearest_kept(weight, mask, codec), _sparse(weight, mask), f"pruned by magnitude: {why}"
    )


def solution(
    problem: Problem, weight: Float[Tensor, "out in"], mask: Bool[Tensor, "out in"], new: Weight
) -> Rewrite:
    """Return a rewrite with what is known of it."""
    why = None
    if problem.factor.raised:
        why = f"damping raised to {problem.factor.damping:g}, since H had no Cholesky factor below"
    damping = Quantity(problem.factor.damping, "1", "ridge ÷ mean of H's diagonal")
    facts = {"output_error": error(problem, weight, new), "damping": damping}
    return Rewrite(new, facts | _sparse(weight, mask), why)


def _sparse(weight: Float[Tensor, "out in"], mask: Bool[Tensor, "out in"]) -> dict[str, Quantity]:
    pruned = 1 - float(mask.double().mean())
    whole = float(weight.double().square().sum())
    gone = float((weight.double() * ~mask).square().sum())
    return {
        "sparsity": Quantity(pruned, "1", "weights that are not kept ÷ weights"),
        "magnitude_pruned": Quantity(gone / whole if whole else 0.0, "1", "‖W not kept‖² ÷ ‖W‖²"),
    }
