"""Small layers to compress: correlated inputs, heavy-tailed weights, drift; seeds are fixed."""

import torch
from torch import Tensor

from whet.calibrate.statistics import Cross, Energy, Gram, Residual, Stats
from whet.formats.codec import Params, Search
from whet.formats.codecs import codec_of
from whet.formats.scaled import Scaled
from whet.formats.spec import parse
from whet.methods.solve.factor import factor
from whet.methods.solve.lattice import Lattice


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layer(out: int = 12, inputs: int = 32, tokens: int = 256, seed: int = 0) -> tuple[Tensor, ...]:
    """Return W, and x, x̃ and r̃-r of some tokens; inputs are correlated, one of them large."""
    g = generator(seed)
    mix = torch.randn(inputs, inputs, generator=g) / inputs**0.5 + 0.5 * torch.eye(inputs)
    x = torch.randn(tokens, inputs, generator=g) @ mix
    x[:, inputs // 3] *= 5
    weight = torch.randn(out, inputs, generator=g) * torch.rand(out, inputs, generator=g).rsqrt()
    ideal = x + 0.1 * torch.randn(tokens, inputs, generator=g) @ mix
    return weight / inputs**0.5, x, ideal, 0.1 * torch.randn(tokens, out, generator=g)


def gathered(x: Tensor, ideal: Tensor | None = None, drift: Tensor | None = None) -> Stats:
    stats = Stats((Gram, Cross, Residual, Energy), x.shape[1])
    stats.add(x, ideal, drift)
    return stats


def grid(weight: Tensor, name: str, inputs: int, rule: str = "mse") -> tuple[Lattice, Params]:
    codec = codec_of(parse(name))
    assert isinstance(codec, Scaled)
    params = codec.fit(weight.float(), Search(rule))
    return Lattice(codec, params, inputs), params


def problem(
    name: str, out: int = 12, inputs: int = 32, seed: int = 0, damping: float = 0.01
) -> tuple[Tensor, Tensor, "Lattice", object]:
    """Return T (transposed) and H in float64, a lattice, and the factor of H."""
    weight, x, _, _ = layer(out, inputs, seed=seed)
    H = (x.T @ x).double()
    lattice, _ = grid(weight, name, inputs)
    return weight.T.double().contiguous(), H, lattice, factor(H, damping)


def losses(values: Tensor, target: Tensor, H: Tensor, ridge: float = 0.0) -> Tensor:
    """Return the loss of each output, by its definition."""
    delta = (values - target).double()
    return ((H.double() @ delta) * delta).sum(0) + ridge * delta.square().sum(0)


def textbook_share(drift: Tensor, x: Tensor, inverse: Tensor) -> float:
    """Return the adjusted R² of a regression of drift on inputs, over its plain R²."""
    drift, x = drift.double(), x.double()
    tokens, inputs = x.shape
    plain = float((drift.T @ x @ inverse @ x.T @ drift).trace() / drift.square().sum())
    adjusted = 1 - (1 - plain) * tokens / (tokens - inputs)
    return min(1.0, max(0.0, adjusted / plain))


def textbook_shares(
    ideal: Tensor, drift: Tensor, x: Tensor, inverse: Tensor
) -> tuple[float, Tensor]:
    """Return how far drift of the inputs is believed, and of each output what it is added to."""
    rows = [textbook_share(drift[:, [row]], x, inverse) for row in range(drift.shape[1])]
    return textbook_share(ideal - x, x, inverse), torch.tensor(rows, dtype=torch.float64)
