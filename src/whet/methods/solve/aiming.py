"""What methods have in common that fit a weight to its outputs: settings, and the problem they pose."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from whet.base.errors import NumericalError
from whet.base.quantity import Quantity
from whet.calibrate.statistics import Cross, Gram, Residual, Statistic, Stats
from whet.methods.solve.checks import within
from whet.methods.solve.complete import Problem
from whet.methods.solve.facts import raised, told
from whet.methods.solve.posed import drift_of, factored
from whet.methods.solve.target import corrected
from whet.passes.linear_pass import LinearPass, says


@dataclass(frozen=True, slots=True, eq=False)
class Aim:
    """The problem of a layer, for a target that makes good what earlier layers have lost."""

    weight: Float[Tensor, "out in"]
    problem: Problem
    shift: Float[Tensor, "out"]

    def facts(self, values: Float[Tensor, "in out"]) -> dict[str, Quantity]:
        """Return what is known of a solution."""
        problem = self.problem
        return told(self.weight, problem.target, self.shift, problem.factor, values)

    @property
    def fallback(self) -> str | None:
        """Return what the factor of H took, if more than was asked for."""
        return raised(self.problem.factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aiming(LinearPass):
    """A fit to a layer's outputs, by second-order statistics of its inputs."""

    damping: float = field(
        default=0.01, metadata=says("added to H's diagonal, as a share of its mean [1]")
    )
    sweeps: int = field(default=4, metadata=says("passes of coordinate descent over codes [1]"))
    alpha: float = field(
        default=0.75, metadata=says("how far inputs are corrected for earlier damage, 0 to 1 [1]")
    )
    alpha_down: float = field(
        default=0.75, metadata=says("the same for mlp.down, whose inputs drift most [1]")
    )
    rho: float = field(
        default=0.75, metadata=says("how far o and down repair the residual stream, 0 to 1 [1]")
    )
    least_tokens: float = field(
        default=0.1, metadata=says("tokens an input below which no statistics are heeded [1]")
    )

    def __post_init__(self) -> None:
        """Refuse settings out of their range."""
        self.check()

    def check(self) -> None:
        """Refuse settings out of their range."""
        least = {"damping": 0, "sweeps": 0, "least_tokens": 0}
        within(self, shares=("alpha", "alpha_down", "rho"), least=least)

    @property
    def needs(self) -> tuple[type[Statistic], ...]:
        """Return the Gram matrix, and what the corrections for drift read."""
        return self.statistics()

    def statistics(self) -> tuple[type[Statistic], ...]:
        """Return what `aim` reads."""
        cross = (Cross,) if self.alpha or self.alpha_down else ()
        return (Gram, *cross, *((Residual,) if self.rho else ()))

    def aim(
        self, weight: Float[Tensor, "out in"], stats: Stats, role: str, *, act_order: bool = True
    ) -> Aim | str:
        """Return the problem of a layer; or why it has none."""
        gram, inputs = stats[Gram], weight.shape[1]
        if gram.tokens < max(self.least_tokens * inputs, 1):
            return f"{gram.tokens} calibration tokens for {inputs} inputs"
        try:
            found = factored(gram, self.damping, act_order=act_order)
        except NumericalError as error:
            return error.message
        alpha = self.alpha_down if role.endswith(".down") else self.alpha
        target, shift = corrected(weight, drift_of(stats, found, alpha, self.rho), found)
        return Aim(weight, Problem(target, gram.symmetric(), found), shift)
