"""What a second-order method works on, made of statistics: the factor of H, and the drift."""

from dataclasses import replace
from threading import Lock
from weakref import WeakKeyDictionary

from jaxtyping import Float
from torch import Tensor

from whet.calibrate.statistics import Cross, Gram, Residual, Statistic, Stats
from whet.methods.solve.factor import Factor, factor
from whet.methods.solve.target import Drift, corrected
from whet.methods.solve.trust import explained, trusted

FACTORS: WeakKeyDictionary[Gram, dict[tuple[int, float, bool], Factor]] = WeakKeyDictionary()
_ONE_AT_A_TIME = Lock()  # linears of one input are solved side by side
ENOUGH = 2.0  # tokens an input below which damping grows


def factored(gram: Gram, damping: float, *, act_order: bool = True) -> Factor:
    """Return the factor of H; linears that read the same inputs share it.

    Damping grows where there are few tokens. Raises NumericalError where no damping is enough.
    """
    damping *= max(1.0, ENOUGH * len(gram.total) / gram.tokens)
    key = (gram.tokens, damping, act_order)
    with _ONE_AT_A_TIME:
        known = FACTORS.setdefault(gram, {})
        if key not in known:
            known[key] = factor(gram.symmetric(), damping, act_order=act_order)
        return known[key]


def drift_of(stats: Stats, factor: Factor, alpha: float, rho: float) -> Drift:
    """Return what a site can be corrected for, as far as statistics that saw every token tell of it.

    `alpha` and `rho` are what is asked for; from few tokens less is taken (`whet.methods.solve.trust`).
    Law: the correction of an output does not depend on the others.
    """
    tokens, inputs = stats[Gram].tokens, len(factor.lower)
    found = Drift()
    if alpha and Cross in stats and (cross := stats[Cross]).tokens == tokens:
        seen = explained(cross.total, factor).sum()
        share = float(trusted(seen, cross.energy.sum(), inputs, tokens))
        found = replace(found, cross=cross.total, alpha=alpha * share)
    if rho and Residual in stats and (pull := stats[Residual]).tokens == tokens:
        share = trusted(explained(pull.total, factor), pull.energy, inputs, tokens)
        found = replace(found, residual=pull.total, rho=rho * share)
    return found


def needed(alpha: float, rho: float) -> tuple[type[Statistic], ...]:
    """Return the statistics that `aimed` reads."""
    return (Gram, *((Cross,) if alpha else ()), *((Residual,) if rho else ()))


def aimed(
    weight: Float[Tensor, "out in"], stats: Stats, alpha: float, rho: float, damping: float
) -> Float[Tensor, "out in"]:
    """Return the target of a weight, as far as statistics tell of drift; an expert's tap tells of none."""
    if not any(kind in stats and stats[kind].tokens for kind in (Cross, Residual)):
        return weight
    found = factor(stats[Gram].symmetric(), damping)
    target, _ = corrected(weight, drift_of(stats, found, alpha, rho), found)
    return target.T.contiguous()
