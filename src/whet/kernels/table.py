"""The kernel table: which kernel multiplies by a weight, and why the others refuse. Needs no torch.

    integer     integer codes times int8 activations, summed exactly within a step; codes that stand
                for integers too, by a table of at most 16
    table       any codes, looked up as bf16, times bf16 activations; plain numbers
    reference   everything, decoded to float32 in torch

The first that does not refuse is taken. A sum of formats, or a product, is multiplied term by term,
so a kernel refuses it where it refuses a term; factors take bf16 activations. A sparse format is
judged as its inner format, in whose kernel it runs at least dense.
"""

from dataclasses import dataclass
from typing import Literal

from whet.formats.spec import Format, Shape
from whet.formats.terms import terms
from whet.kernels.described import described
from whet.kernels.native import missing, native

Mode = Literal["int8", "token8", "bf16"]
MODES: tuple[Mode, ...] = ("int8", "token8", "bf16")


@dataclass(frozen=True, slots=True)
class Machine:
    """What kernels run on: the tier of instructions, or why there are no native kernels."""

    tier: str = ""
    missing: str | None = None


def machine() -> Machine:
    """Return this machine."""
    reason = missing()
    return Machine(missing=reason) if reason is not None else Machine(native().chosen_tier())


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel of the extension, by the name that it has there."""

    name: str

    def refuses(
        self,
        format_: Format,
        shape: Shape,
        machine: Machine,
        mode: Mode = "int8",
        input_scale: float = 0.0,
    ) -> str | None:
        """Return why it does not multiply such a weight by activations of a mode, or None.

        Law: None exactly where the extension packs the weight for this kernel or an earlier one.
        """
        if machine.missing is not None:
            return machine.missing
        for term in terms(format_, shape):
            taken: Mode = mode if term.side == "whole" else "bf16"  # by factors
            given = (described(term.format), *term.shape, machine.tier, taken, input_scale)
            if reason := native().refusals(*given)[self.name]:
                return reason if term.format is format_ else f"{term.format}: {reason}"
        return None


@dataclass(frozen=True, slots=True)
class Reference:
    """Plain torch: refuses nothing."""

    name: str = "reference"

    def refuses(
        self,
        format_: Format,
        shape: Shape,
        machine: Machine,
        mode: Mode = "int8",
        input_scale: float = 0.0,
    ) -> str | None:
        """Return None."""
        return None


KERNELS: tuple[Kernel | Reference, ...] = (Kernel("integer"), Kernel("table"), Reference())


@dataclass(frozen=True, slots=True)
class Decision:
    """The kernel that multiplies by a weight, and why those before it do not."""

    kernel: str
    refusals: tuple[tuple[str, str], ...]  # kernel, reason


def decision(
    format_: Format,
    shape: Shape,
    machine: Machine,
    mode: Mode = "int8",
    input_scale: float = 0.0,
) -> Decision:
    """Return which kernel multiplies by a weight of this format and shape.

    Law: the reference is taken only where every other kernel has refused, with a reason each.
    """
    refusals: list[tuple[str, str]] = []
    for kernel in KERNELS:
        reason = kernel.refuses(format_, shape, machine, mode, input_scale)
        if reason is None:
            return Decision(kernel.name, tuple(refusals))
        refusals.append((kernel.name, reason))
    raise AssertionError("the reference refuses nothing")
