"""How far a student's next-token distribution is from its teacher's, and from the text.

With teacher p and student q over the outcomes of one token:

    forward       KL(p‖q) = Σ p log(p/q)                                 (arXiv:1503.02531)
    reverse       KL(q‖p)                                                (arXiv:2306.08543)
    jsd           β KL(p‖m) + (1-β) KL(q‖m),  m = βp + (1-β)q            (arXiv:2306.13649, eq. 2)
    skew          KL(p‖ ap + (1-a)q)                                     (arXiv:2402.03898, §3.1)
    skew_reverse  KL(q‖ (1-a)p + aq)

The formula of jsd tends to 0 at β = 0 and 1; there it stands for forward and for reverse, as in the
paper's experiments. Logits are divided by a temperature T first and the result is multiplied by T²,
so that gradients keep their size: that of forward is T (q - p).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

Kind = Literal["forward", "reverse", "jsd", "skew", "skew_reverse"]
LEAST = -1e4  # log-probabilities are kept above this, so that 0 · log 0 is 0

Logs = Float[Tensor, "tokens outcomes"]


@dataclass(frozen=True, slots=True, eq=False)
class Truncated:
    """The most likely tokens of a teacher, and the exact mass of all others.

    `logs` are their log-probabilities at the temperature of training, `tail` the logarithm of what
    is left to the tokens that are not named; -inf where all are.
    """

    places: Int64[Tensor, "tokens kept"]
    logs: Float[Tensor, "tokens kept"]
    tail: Float[Tensor, "tokens"]


Teaching = Float[Tensor, "tokens vocab"] | Truncated  # logits, or what was kept of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A loss of the family: `alpha` · cross-entropy of the text + (1 - `alpha`) · divergence.

    `mix` is β of jsd and the share a of the skewed kinds.
    """

    kind: Kind = "forward"
    temperature: float = 1.0
    alpha: float = 0.0
    mix: float = 0.1

    def __post_init__(self) -> None:
        """Refuse settings out of their range."""
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}, expected above 0")
        for name in ("alpha", "mix"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 to 1")

    def of(
        self,
        student: Float[Tensor, "tokens vocab"],
        teacher: Teaching | None,
        targets: Int64[Tensor, "tokens"],
    ) -> Float[Tensor, "tokens"]:
        """Return the loss of each token.

        Law: equal logits have no divergence; a constant added to a token's logits changes nothing.
        """
        hard = functional.cross_entropy(student.float(), targets, reduction="none")
        if teacher is None:
            return hard
        soft = divergence(*outcomes(student, teacher, self.temperature), self.kind, self.mix)
        soft = soft * self.temperature**2
        return self.alpha * hard + (1 - self.alpha) * soft if self.alpha else soft


def outcomes(
    student: Float[Tensor, "tokens vocab"], teacher: Teaching, temperature: float
) -> tuple[Logs, Logs]:
    """Return log-probabilities of teacher and student over the same outcomes.

    For a truncated teacher these are the tokens that it names and all others as one.
    Law: merging outcomes lowers no divergence below 0 and raises none; naming all tokens is exact.
    """
    logits = _real(student) / temperature
    if not isinstance(teacher, Truncated):
        return (_real(teacher) / temperature).log_softmax(-1), logits.log_softmax(-1)
    whole = logits.logsumexp(-1, keepdim=True)
    named = logits.gather(-1, teacher.places) - whole
    if teacher.places.shape[1] == logits.shape[1]:
        return teacher.logs.to(logits.dtype), named
    others = logits.scatter(-1, teacher.places, -torch.inf).logsumexp(-1, keepdim=True) - whole
    known = torch.cat((teacher.logs, teacher.tail[:, None]), -1).to(logits.dtype)
    return known, torch.cat((named, others), -1)


def truncated(
    logits: Float[Tensor, "tokens vocab"], kept: int, temperature: float = 1.0
) -> Truncated:
    """Return the `kept` most likely tokens and the mass of the others. Law: masses sum to one."""
    logs = (_real(logits) / temperature).log_softmax(-1)
    top, places = logs.topk(min(kept, logs.shape[1]), -1)
    tail = logs.scatter(-1, places, -torch.inf).logsumexp(-1)
    return Truncated(places, top, tail)


def divergence(
    teacher: Logs, student: Logs, kind: Kind = "forward", mix: float = 0.1
) -> Float[Tensor, "tokens"]:
    """Return the divergence of each token from log-probabilities of the same outcomes.

    Law: never negative, and zero for equal distributions.
    Law: jsd at β = ½ is symmetric and at most log 2; skew of share 0 is forward, of share 1 zero.
    """
    p, q = teacher.clamp(min=LEAST), student.clamp(min=LEAST)
    match kind:
        case "forward":
            return _kl(p, q)
        case "reverse":
            return _kl(q, p)
        case "jsd" if mix in (0, 1):
            return _kl(p, q) if mix == 0 else _kl(q, p)
        case "jsd":
            middle = _mixed(p, q, mix)
            return mix * _kl(p, middle) + (1 - mix) * _kl(q, middle)
        case "skew":
            return _kl(p, _mixed(p, q, mix))
        case "skew_reverse":
            return _kl(q, _mixed(q, p, mix))


def mean(
    losses: Float[Tensor, "tokens"], counted: Bool[Tensor, "tokens"] | None = None
) -> Float[Tensor, ""]:
    """Return the mean over the tokens that count. Law: tokens that do not count change nothing."""
    if counted is None:
        return losses.mean()
    return losses.masked_fill(~counted, 0.0).sum() / counted.sum().clamp(min=1)


def _kl(left: Logs, right: Logs) -> Float[Tensor, "tokens"]:
    return (left.exp() * (left - right)).sum(-1)


def _mixed(left: Logs, right: Logs, share: float) -> Logs:
    """Return log(share·left + (1 - share)·right)."""
    if share in (0, 1):
        return left if share == 1 else right
    return torch.logaddexp(left + math.log(share), right + math.log1p(-share))


def _real(logits: Float[Tensor, "tokens vocab"]) -> Float[Tensor, "tokens vocab"]:
    return logits if logits.dtype == torch.float64 else logits.float()
