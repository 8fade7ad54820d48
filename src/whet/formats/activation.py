"""How the input of a linear is quantized: a value with a text name. Needs no torch.

    int8-token             symmetric, a scale for each token, computed when it runs (dynamic)
    int8-token-affine      with a zero point
    int8-tensor-static     one scale, fixed by calibration
    int8-g128              a scale for each token and each 128 channels, dynamic
    int16-g32              codes of 16 bits, which kernels multiply as two halves of 8
    int4-token, fp8-e4m3-token, fp8-e4m3-tensor-static

Law: `parse_activation(str(a)) == a`.
"""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, cast

from whet.base.errors import RecipeError

EXAMPLES: tuple[str, ...] = (
    "int8-token", "int8-token-affine", "int8-tensor", "int8-tensor-static",
    "int8-tensor-affine-static", "int8-g128", "int8-g64-affine", "int4-token", "int4-g32", "int16-g32",
    "fp8-e4m3-token", "fp8-e4m3-tensor-static", "fp8-e4m3-g128",
)  # fmt: skip
Element = Literal["int4", "int8", "int16", "fp8-e4m3"]
_NAME = re.compile(
    r"(?P<element>int4|int8|int16|fp8-e4m3)-(?P<strategy>token|tensor|g[1-9]\d*)"
    r"(?P<affine>-affine)?(?P<static>-static)?"
)


@dataclass(frozen=True, slots=True)
class Activation:
    """An element type and what shares a scale."""

    element: Element = "int8"
    strategy: Literal["token", "tensor", "group"] = "token"
    group: int = 0
    affine: bool = False
    static: bool = False

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        reason = None
        if self.static and self.strategy != "tensor":
            reason = "only one scale for the whole tensor can be fixed before the tokens are known"
        if self.affine and self.element == "fp8-e4m3":
            reason = "floating-point numbers have no zero point"
        if self.element == "int16" and (self.affine or self.strategy != "group"):
            reason = "codes of 16 bits are symmetric, with a scale for some channels: int16-g32"
        if (self.strategy == "group") != (self.group > 0):
            reason = f"a group of {self.group} channels with the strategy {self.strategy}"
        if reason:
            raise RecipeError(f"activation {self}: {reason}", _hint("int8"))

    @property
    def bits(self) -> int:
        """Width of a code [bit]."""
        return {"int4": 4, "int16": 16}.get(self.element, 8)

    def __str__(self) -> str:
        """Return the name, e.g. `int8-token`."""
        shared = f"g{self.group}" if self.strategy == "group" else self.strategy
        tail = "-affine" * self.affine + "-static" * self.static
        return f"{self.element}-{shared}{tail}"


def parse_activation(text: str) -> Activation:
    """Read the name of an activation format."""
    found = _NAME.fullmatch(text.strip().lower())
    if found is None:
        raise RecipeError(f"unknown activation format {text.strip()!r}", _hint(text))
    shared = found["strategy"]
    grouped = shared[0] == "g"
    return Activation(
        cast("Element", found["element"]),
        "group" if grouped else cast('Literal["token", "tensor"]', shared),
        int(shared[1:]) if grouped else 0,
        found["affine"] is not None,
        found["static"] is not None,
    )


def _hint(text: str) -> str:
    near = get_close_matches(text, EXAMPLES, n=1, cutoff=0.6)
    known = [name for name in EXAMPLES if name.startswith(text.strip().lower())]
    if known:
        return f"choose one of {', '.join(known)}"
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(EXAMPLES)}"
