"""Random members of every scalar format, as their stored planes, and what they mean by the codecs."""

import numpy as np
import torch

from whet.formats import pack
from whet.formats.compose import of
from whet.formats.element import Learned
from whet.formats.spec import Coded, Float, Sum, parse
from whet.formats.weight import Weight
from whet.kernels.levels import levels

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def random_weight(name: str, rows: int, cols: int, seed: int = 0) -> Weight:
    """A weight with random codes, all of which occur, and scales that differ and turn signs."""
    format_, g = parse(name), torch.Generator().manual_seed(seed)
    if isinstance(format_, Float):
        value = torch.randn(rows, cols, generator=g).to(DTYPES[format_.dtype])
        return Weight(format_, {"value": value}, (rows, cols))
    if isinstance(format_, Sum):
        terms = [random_weight(str(t), rows, cols, seed + i) for i, t in enumerate(format_.terms)]
        planes = {f"{i}.{k}": p for i, t in enumerate(terms) for k, p in t.planes.items()}
        return Weight(format_, planes, (rows, cols))
    assert isinstance(format_, Coded)
    shapes = format_.planes((rows, cols))
    planes = {"codes": pack.pack(_codes(format_, rows, cols, g), format_.element.bits)}
    planes["scale"] = _scale(format_, shapes["scale"].shape, g)
    if "zero" in shapes:
        one = format_.grouping == "tensor"
        zero = _codes(format_, format_.groups(cols), 1 if one else rows, g)
        planes["zero"] = pack.pack(zero, format_.element.bits).T.contiguous()
    if "global" in shapes:
        planes["global"] = torch.tensor([0.125])
    if "base" in shapes:
        planes["base"] = torch.tensor([1.5])
    if "levels" in shapes and shapes["levels"].dtype == "I8":
        drawn = torch.randint(-128, 128, shapes["levels"].shape, generator=g)
        planes["levels"] = drawn.to(torch.int8)
    elif "levels" in shapes:
        planes["levels"] = torch.randn(shapes["levels"].shape, generator=g).sort(1).values.half()
    return Weight(format_, planes, (rows, cols))


def _codes(format_: Coded, rows: int, cols: int, g: torch.Generator) -> torch.Tensor:
    codes = torch.randint(0, 2**format_.element.bits, (rows, cols), generator=g).to(torch.uint8)
    table = table_of(format_, {"base": torch.tensor([1.5])})
    if table is None:
        return codes
    return torch.where(torch.from_numpy(np.isfinite(table))[codes.long()], codes, 0)


def _scale(format_: Coded, shape: tuple[int, ...], g: torch.Generator) -> torch.Tensor:
    if format_.scale == "e8m0":
        return torch.randint(110, 135, shape, generator=g).to(torch.uint8)
    size = torch.randn(shape, generator=g).mul(0.5).exp()
    if format_.scale == "e4m3":
        return size.to(torch.float8_e4m3fn)
    turned = torch.where(torch.rand(shape, generator=g) < 0.3, -size, size)
    return turned.to(DTYPES[format_.scale.upper()])


def table_of(format_: Coded | Float, planes: dict[str, torch.Tensor]) -> np.ndarray | None:
    """What the extension is told of the codes."""
    if isinstance(format_, Float) or isinstance(format_.element, Learned):
        return None
    return levels(format_.element, float(planes["base"]) if "base" in planes else None)


def terms(weight: Weight) -> list[Weight]:
    """The terms of a sum, or the weight itself."""
    if not isinstance(weight.format, Sum):
        return [weight]
    return [
        Weight(term, of(i, weight.planes), weight.shape)
        for i, term in enumerate(weight.format.terms)
    ]


def stored(weight: Weight) -> dict[str, np.ndarray]:
    """The planes as bytes."""
    return {
        name: plane.contiguous().view(torch.uint8).numpy().reshape(-1)
        for name, plane in weight.planes.items()
    }


def told(weight: Weight) -> dict[str, np.ndarray]:
    """The planes as the extension takes them: with the table of the codes."""
    table = table_of(weight.format, dict(weight.planes))
    return stored(weight) | ({} if table is None else {"table": table})
