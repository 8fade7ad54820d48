"""Keys and values in fewer bits: what they take, and that they are rounded as the textbook says."""

import numpy as np
import pytest
import torch

from whet.base.errors import FolderError, RecipeError
from whet.formats.keep import full_keys, full_values, token_by_token
from whet.formats.keeping import (
    BITS,
    GROUP,
    KEEPINGS,
    KEY,
    PAGE,
    keeping_of,
    padded,
    page_bytes,
    parse_keeping,
)
from whet.kernels.native import missing, native

DIMS = [8, 12, 16, 40, 64, 80, 128]


def heads(dim: int, time: int = PAGE, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, time, dim, generator=torch.Generator().manual_seed(seed))


def between(numbers: np.ndarray, bits: int) -> np.ndarray:
    """Round a row to evenly spaced values from its least to its largest, by the textbook."""
    rounded = lambda x: float(torch.tensor(x).bfloat16())  # noqa: E731
    low, top = rounded(float(numbers.min())), 2**bits - 1
    scale = rounded(float(numbers.max() - numbers.min()) / top)
    if scale == 0:
        return np.full_like(numbers, low)
    return np.array([min(max(round((x - low) / scale), 0), top) * scale + low for x in numbers])


@pytest.mark.skipif(missing() is not None, reason="no kernels")
@pytest.mark.parametrize("keeping", KEEPINGS)
@pytest.mark.parametrize("dim", DIMS)
def test_pages_take_what_the_engine_allots(keeping: str, dim: int) -> None:
    assert native().PAGE == PAGE
    pool = native().Pool(2, 3, dim, 5, 1, 1, keeping)
    assert pool.page_bytes == 2 * 3 * page_bytes(keeping, dim)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("dim", [12, 40, 64])
def test_full_pages_are_coded_as_the_textbook_says(bits: int, dim: int) -> None:
    x = heads(dim)
    keeping = f"kv{bits}"
    keys, values = full_keys(x, keeping), full_values(x, keeping)
    page = x[1, 2].numpy()
    for c in range(dim):
        np.testing.assert_allclose(keys[1, 2, :, c], between(page[:, c], bits), rtol=1e-6)
    filled = np.pad(page, ((0, 0), (0, padded(dim) - dim)))
    for t in (0, 5, PAGE - 1):
        for first in range(0, padded(dim), GROUP):
            expected = between(filled[t, first : first + GROUP], bits)
            count = min(GROUP, dim - first)
            found = values[1, 2, t, first : first + count]
            np.testing.assert_allclose(found, expected[:count], rtol=1e-6)


def test_int8_has_a_scale_for_each_token_of_a_head() -> None:
    x = heads(24)
    x[0, 0, 0] = 0
    found = token_by_token(x, "int8")
    top = x.abs().amax(-1, keepdim=True)
    assert bool(((found - x).abs() <= top / 254 * 1.0001).all())
    assert bool((found[0, 0, 0] == 0).all())
    for one in (0, 7):
        row = x[1, 1, one]
        codes = (found[1, 1, one] / (row.abs().max() / 127)).round()
        assert torch.equal(codes, (row * (127 / row.abs().max())).round())


@pytest.mark.parametrize("keeping", ["kv4", "kv2"])
def test_more_bits_lose_less_and_nothing_leaves_its_range(keeping: str) -> None:
    x = heads(64).bfloat16().float()
    for rows, found in (
        (x.mT, full_keys(x, keeping).mT),
        (x.unflatten(-1, (-1, GROUP)), full_values(x, keeping).unflatten(-1, (-1, GROUP))),
    ):
        width = rows.amax(-1) - rows.amin(-1)
        step = width / (2 ** BITS[keeping] - 1)
        assert bool(((found - rows).abs().amax(-1) <= 0.5 * step + 0.02 * width).all())
    error = [(full_keys(x, kind) - x).square().mean() for kind in ("kv4", "kv2")]
    assert error[0] < error[1] / 8


def test_plain_kinds_round_to_their_type() -> None:
    x = heads(16)
    assert torch.equal(token_by_token(x, "f32"), x)
    assert torch.equal(token_by_token(x, "bf16"), x.bfloat16().float())
    assert torch.equal(token_by_token(x, "f16"), x.half().float())


def test_names() -> None:
    assert [parse_keeping(name) for name in KEEPINGS] == list(KEEPINGS)
    with pytest.raises(RecipeError, match=r"'fp8', expected one of f32"):
        parse_keeping("fp8")


def test_what_a_config_says() -> None:
    assert keeping_of({}) is None
    assert keeping_of({KEY: "int8"}) == "int8"
    with pytest.raises(FolderError, match=r"'int9', expected one of f32"):
        keeping_of({KEY: "int9"})
