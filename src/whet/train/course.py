"""The loop that trains: AdamW on a schedule, with exact resume.

AdamW: arXiv:1711.05101. Gradients are clipped by their common norm (arXiv:1211.5063).
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from whet.base.errors import NumericalError, StoppedError
from whet.train.parallel import Team
from whet.train.schedule import Schedule, share
from whet.train.sharded import is_divided, whole
from whet.train.state import State

STATE = "training.safetensors"
OFTEN = 60.0  # between two saved states [s]
MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's

Loss = Callable[[int, int], Tensor]  # (step, part of it) -> mean loss of that part
Told = Callable[[float, str], None]
Log = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How far, how fast and how steadily to go down; `parts` batches make one step."""

    steps: int
    lr: float
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    weight_decay: float = 0.0
    clip: float = 1.0
    parts: int = 1
    betas: tuple[float, float] = (0.9, 0.95)


def silent(step: int, values: Mapping[str, float]) -> None:
    """Log nothing."""


def untouched(step: int) -> None:
    """Change nothing, before or after a step."""


@dataclass(eq=False)
class Descent:
    """Parameters on their way down; everything that matters is kept in `work`.

    Law: stopped and taken up again, it gives the same losses and parameters, bit for bit.
    Law: several processes that share the parts of a step give the losses of one, but for rounding.
    """

    parameters: Mapping[str, nn.Parameter]
    course: Course
    work: Path
    told: Told
    stopped: Callable[[], bool]
    log: Log = silent
    before: Callable[[int], None] = untouched  # what sees and changes a step's gradients
    after: Callable[[int], None] = untouched  # what else a step changes, e.g. masks
    rates: Mapping[str, float] = field(default_factory=dict[str, float])  # by name, ÷ the course's
    beside: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])  # kept as they are
    losses: list[float] = field(default_factory=list[float])

    def __post_init__(self) -> None:
        """Make the optimiser, and go back to where an earlier run has left off."""
        self.team = Team.joined()
        self.optimizer = torch.optim.AdamW(
            [
                {
                    "params": [p],
                    "weight_decay": self.course.weight_decay if p.dim() > 1 else 0.0,
                    "peak": self.course.lr * self.rates.get(name, 1.0),
                }
                for name, p in self.parameters.items()
            ],
            lr=self.course.lr,
            betas=self.course.betas,
        )
        self._reopen()

    def run(self, loss: Loss) -> list[float]:
        """Take every step that is not taken; return the loss of each."""
        saved, began, first = time.monotonic(), time.monotonic(), len(self.losses)
        for step in range(first, self.course.steps):
            if self.team.agreed(asked=self.stopped()):
                self._keep()
                raise StoppedError(
                    f"stopped before step {step + 1} of {self.course.steps}; what is trained is "
                    f"kept in {self.work}",
                    "Run the same command to go on.",
                )
            self.losses.append(self._step(step, loss))
            if self.team.agreed(asked=time.monotonic() - saved > OFTEN):
                self._keep()
                saved = time.monotonic()
            pace = (time.monotonic() - began) / (step + 1 - first)
            self.told((step + 1) / self.course.steps, self._told(step, pace))
        return self.losses

    def _step(self, step: int, loss: Loss) -> float:
        """Go one step down; return the loss before it."""
        course, total, copies = self.course, 0.0, self._copies
        rate = share(step, course.steps, course.schedule, course.warmup)
        self.optimizer.zero_grad(set_to_none=True)
        for part in self.team.share(course.parts):
            value = loss(step, part)
            (value * copies / course.parts).backward()
            total += float(value.detach()) / course.parts
        total = self.team.summed(total, self._own())
        if not torch.isfinite(torch.tensor(total)):
            raise NumericalError(
                f"the loss of step {step + 1} is {total}", f"Lower lr, which is {course.lr:g}."
            )
        self.before(step)
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), course.clip or torch.inf)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["peak"]
        self.optimizer.step()
        self.after(step)
        self.log(step, {"loss": total, "lr": rate * course.lr, "gradient": float(whole(norm))})
        return total

    @property
    def _copies(self) -> int:
        """How many processes' gradients one is the mean of: `fully_shard` takes no sums."""
        return self.team.size if any(map(is_divided, self.parameters.values())) else 1

    def _own(self) -> list[nn.Parameter]:
        """Return the parameters whose gradients are those of this process's parts alone.

        A gradient that nothing has reached is zero: every parameter takes every step.
        """
        for parameter in self.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [p for p in self.parameters.values() if not is_divided(p)]

    def _told(self, step: int, pace: float) -> str:
        left, recent = pace * (self.course.steps - step - 1), self.losses[-16:]
        wait = f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
        loss = sum(recent) / len(recent)
        return f"step {step + 1} of {self.course.steps}, loss {loss:.4f}, {wait} left"

    def _keep(self) -> None:
        """Write the state in one rename; no process goes on before it is there."""
        self._state.write(self._kept(), self.losses, first=self.team.first)
        self.team.agreed(asked=False)

    def _reopen(self) -> None:
        if self._state.path.is_file():
            self.losses = self._state.read(self._kept())
            for state in self.optimizer.state.values():
                state["step"] = torch.tensor(float(len(self.losses)))

    @property
    def _state(self) -> State:
        return State(self.work / STATE, self.course.steps)

    def _kept(self) -> dict[str, Tensor]:
        """Return all that steps change; moments that are not yet there are made."""
        found = {f"beside.{name}": value for name, value in self.beside.items()}
        for name, parameter in self.parameters.items():
            state = self.optimizer.state[parameter]
            if not state:
                zeros = {moment: torch.zeros_like(parameter) for moment in MOMENTS}
                state |= {"step": torch.tensor(0.0)} | zeros
            found[f"parameter.{name}"] = parameter.detach()
            found |= {f"{moment}.{name}": state[moment] for moment in MOMENTS}
        return found
