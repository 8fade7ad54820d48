"""The laws of products: what is optimal, what never rises, what is exact."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.problems import gathered, layer
from torch import Tensor

from whet.formats.codecs import codec_of
from whet.formats.lowrank import leading, opposite
from whet.formats.spec import LowRank, parse
from whet.formats.weight import Weight, written
from whet.methods.lowrank.residual import CodesAndProduct
from whet.methods.lowrank.svd import Svd, affordable
from whet.model.site import Site

PLAIN = {"alpha": 0.0, "alpha_down": 0.0, "rho": 0.0}
FORMATS = [
    "int3-g16-affine + lowrank-4", "int4-g16 + lowrank-3(int8-g64)", "nf4-g16 + lowrank-2",
    "int2-g16 + int2-g16 + lowrank-4", "codebook3-g16-shared + lowrank-2(int4-g16)",
]  # fmt: skip
shapes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))


def norm(x: Tensor, delta: Tensor, damping: float = 0.01) -> float:
    """Return tr(Δ (H + ridge) Δᵀ)."""
    H = x.double().T @ x.double()
    H += damping * H.diagonal().mean() * torch.eye(len(H))
    return float((delta.double() @ H * delta.double()).sum())


def made(x: Tensor, W: Tensor, format_: str, **more) -> Weight:
    use = Svd(format=parse(format_), **PLAIN, **more)
    return use.rewrite(W, gathered(x), "mlp.up", 0).weight


@given(shapes)
@settings(deadline=None, max_examples=30)
def test_the_loss_is_the_squares_of_the_singular_values_left_out(drawn) -> None:
    out, inputs, seed = drawn
    W = torch.randn(out, inputs, generator=torch.Generator().manual_seed(seed)).double()
    singular = torch.linalg.svdvals(W)
    for rank in range(1, min(out, inputs) + 1):
        Q = leading(W, rank)
        eye = torch.eye(rank, dtype=W.dtype)
        torch.testing.assert_close(Q.T @ Q, eye, rtol=0, atol=1e-7)
        lost = (W - Q @ opposite(Q, W)).square().sum()
        torch.testing.assert_close(lost, singular[rank:].square().sum(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("out", "inputs"), [(12, 32), (40, 16)])
def test_full_rank_is_exact(out: int, inputs: int) -> None:
    W, x, _, _ = layer(out, inputs)
    for kind in ("plain", "channels", "outputs"):
        found = made(x, W, f"lowrank-{min(out, inputs)}(f32)", norm=kind).dense()
        torch.testing.assert_close(found, W, rtol=1e-4, atol=1e-5)


def test_a_planted_product_is_found() -> None:
    _, x, _, _ = layer()
    g = torch.Generator().manual_seed(3)
    W = torch.randn(12, 3, generator=g) @ torch.randn(3, 32, generator=g)
    found = made(x, W, "lowrank-3(f32)").dense()
    torch.testing.assert_close(found, W, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_whitening_is_never_worse_for_the_outputs_and_more_rank_never_worse(seed: int) -> None:
    W, x, _, _ = layer(seed=seed)
    before = float("inf")
    for rank in (1, 2, 5, 9, 12):
        lost = {
            kind: norm(x, made(x, W, f"lowrank-{rank}(f32)", norm=kind).dense() - W)
            for kind in ("plain", "channels", "outputs")
        }
        assert lost["outputs"] <= min(lost.values()) * (1 + 1e-4) + 1e-6
        assert lost["outputs"] <= before * (1 + 1e-6)
        before = lost["outputs"]


def test_outputs_and_losses_do_not_depend_on_the_basis_of_the_inputs() -> None:
    W, x, _, _ = layer()
    T = torch.randn(32, 32, generator=torch.Generator().manual_seed(1)) / 6 + torch.eye(32)
    again = made(x @ T, W @ torch.linalg.inv(T).T, "lowrank-4(f32)", damping=1e-7).dense()
    once = made(x, W, "lowrank-4(f32)", damping=1e-7).dense()
    torch.testing.assert_close(x @ T @ again.T, x @ once.T, rtol=1e-2, atol=2e-2)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("seed", [0, 1])
def test_turns_never_raise_the_loss_nor_does_the_product(format_: str, seed: int) -> None:
    W, x, _, _ = layer(seed=seed)
    before = float("inf")
    for rounds in (0, 1, 4):
        use = CodesAndProduct(format=parse(format_), rounds=rounds, **PLAIN)
        done = use.rewrite(W, gathered(x), "mlp.up", 0)
        lost = norm(x, done.weight.dense() - W)
        assert 0 < done.facts["left_of_codes"].value <= 1
        assert lost <= before * (1 + 1e-5)
        assert done.fallback is None
        before = lost


@pytest.mark.parametrize("format_", [*FORMATS, "lowrank-3", "lowrank-5(int8-g16)"])
def test_sizes_and_planes_are_those_of_the_name(format_: str) -> None:
    W, x, _, _ = layer()
    use = (CodesAndProduct if "+" in format_ else Svd)(format=parse(format_))
    weight = use.rewrite(W, gathered(x), "mlp.up", 0).weight
    planes = parse(format_).planes((12, 32))
    assert {n: tuple(p.shape) for n, p in weight.planes.items()} == {
        n: p.shape for n, p in planes.items()
    }
    assert sum(p.nbytes for p in weight.planes.values()) * 8 == parse(format_).bits((12, 32))
    assert torch.equal(weight.rows(3, 9).dense(), weight.dense()[3:9])


@pytest.mark.parametrize("use", [Svd(format=LowRank(3)), CodesAndProduct(format=parse(FORMATS[0]))])
def test_the_same_call_gives_the_same_bits_and_few_tokens_are_said(use) -> None:
    W, x, ideal, drift = layer()
    seen = gathered(x, ideal, drift)
    first, second = (use.rewrite(W, seen, "mlp.down", 0).weight.planes for _ in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)
    few = use.rewrite(W, gathered(x[:2]), "mlp.down", 0)
    assert "2 calibration tokens for 32 inputs" in (few.fallback or "")
    assert torch.equal(few.weight.dense(), written(W, use.format).dense())


def test_rows_and_inputs_of_zeros_do_no_harm() -> None:
    W, x, _, _ = layer()
    W[3], x[:, [0, 9]] = 0, 0
    for use in (Svd(format=LowRank(4)), CodesAndProduct(format=parse(FORMATS[1]))):
        found = use.rewrite(W, gathered(x), "mlp.up", 0).weight.dense()
        assert found.isfinite().all()
        assert found[3].abs().max() < 0.05
    zeros = CodesAndProduct(format=parse(FORMATS[0])).rewrite(W * 0, gathered(x), "mlp.up", 0)
    assert not zeros.weight.dense().any()


def site(role: str = "mlp.up", shape: tuple[int, int] = (768, 256)) -> Site:
    return Site(role, f"layers.0.{role}", shape, "ffn", "hidden", "mlp.in")


@pytest.mark.parametrize("inner", ["", "(int8-g64)", "(f32)"])
@pytest.mark.parametrize("size", [0.001, 0.2, 0.5, 0.8, 1.0])
def test_the_rank_of_a_share_is_the_largest_that_fits(inner: str, size: float) -> None:
    format_ = parse(f"lowrank-1{inner}")
    assert isinstance(format_, LowRank)
    for shape in ((256, 256), (768, 256), (100, 30)):
        found = affordable(format_, shape, size)
        allowed = size * 16 * shape[0] * shape[1]
        assert found.rank == 1 or found.bits(shape) <= allowed
        bigger = LowRank(found.rank + 1, found.inner)
        assert found.rank == min(shape) or bigger.bits(shape) > allowed


def test_ranks_are_known_before_work_and_fit_the_site() -> None:
    assert str(Svd(size=0.8).fitted(site()).format) == "lowrank-153"
    assert (
        str(Svd(format=parse("lowrank-9(int8-g48)")).fitted(site()).format) == "lowrank-9(int8-g32)"
    )
    assert "at most 256" in (LowRank(300).refuses((768, 256)) or "")
    assert Svd().refuses(site("embed"))
    assert CodesAndProduct().refuses(site("embed"))
    assert CodesAndProduct().refuses(site()) is None


@pytest.mark.parametrize(
    ("use", "given", "what"),
    [
        (Svd, {"format": parse("int4-g64")}, "expected a product"),
        (Svd, {"size": 1.5}, "size"),
        (Svd, {"sweeps": -1}, "sweeps"),
        (CodesAndProduct, {"format": parse("lowrank-4")}, "expected e.g. int4-g64"),
        (CodesAndProduct, {"rho": 2.0}, "rho"),
        (CodesAndProduct, {"rounds": -1}, "rounds"),
    ],
)
def test_settings_out_of_range_are_refused(use, given, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        use(**given)


def test_factors_are_what_the_codec_reads() -> None:
    codec = codec_of(parse("lowrank-4"))
    W = layer()[0]
    planes = codec.encode(W)
    left, right = codec.factors(planes, (12, 32))  # type: ignore[attr-defined]
    torch.testing.assert_close(left @ right, codec.decode(planes, (12, 32)))
