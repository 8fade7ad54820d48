"""What a second-order method works on, made of statistics: the factor of H, and the drift."""

from weakref import WeakKeyDictionary

from whet.calibrate.statistics import Cross, Gram, Residual, Stats
from whet.methods.solve.factor import Factor, factor
from whet.methods.solve.target import Drift

FACTORS: WeakKeyDictionary[Gram, dict[tuple[int, float, bool], Factor]] = WeakKeyDictionary()
ENOUGH = 2.0  # tokens an input below which damping grows


def factored(gram: Gram, damping: float, *, act_order: bool = True) -> Factor:
    """Return the factor of H; linears that read the same inputs share it.

    Damping grows where there are few tokens. Raises NumericalError where no damping is enough.
    """
    damping *= max(1.0, ENOUGH * len(gram.total) / gram.tokens)
    known = FACTORS.setdefault(gram, {})
    key = (gram.tokens, damping, act_order)
    if key not in known:
        known[key] = factor(gram.symmetric(), damping, act_order=act_order)
    return known[key]


def drift_of(stats: Stats, alpha: float, rho: float) -> Drift:
    """Return what a site can be corrected for: statistics that saw every token."""
    tokens = stats[Gram].tokens
    cross = stats[Cross] if Cross in stats and stats[Cross].tokens == tokens else None
    pull = stats[Residual] if Residual in stats and stats[Residual].tokens == tokens else None
    return Drift(cross and cross.total, pull and pull.total, alpha, rho)
