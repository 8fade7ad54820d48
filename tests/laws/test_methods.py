"""Laws that hold for every method."""

import re
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from pathlib import Path

import pytest
import torch
from tests.blocks import demo_block, hidden, observing, spooled
from tests.problems import gathered, layer

from whet.base.errors import RecipeError
from whet.calibrate.statistics import Gram, Stats
from whet.formats.activation import Activation
from whet.formats.spec import Coded, Format, parse
from whet.methods import catalogue, method
from whet.methods.quantize.awq import Awq
from whet.methods.quantize.gptq import Gptq
from whet.methods.quantize.hqq import Hqq
from whet.methods.quantize.rtn import Rtn
from whet.methods.quantize.smoothquant import SmoothQuant
from whet.methods.solve import equalise
from whet.model.fold import fold
from whet.model.site import Site
from whet.passes.block_pass import BlockPass
from whet.passes.linear_pass import LinearPass
from whet.passes.model_pass import ModelPass

FORMATS = [
    "int4-g16", "int2-g16-affine", "int3-channel", "int8-tensor", "int4-g12-affine", "nf4-g16",
    "log4-g16", "mxfp4", "nvfp4", "fp8-e4m3-channel", "codebook3-g16-shared", "bf16",
]  # fmt: skip
SUM = "int2-g16 + int2-g16"
LINEAR = {
    "rtn": lambda f: Rtn(format=parse(f)),
    "rtn-hessian": lambda f: Rtn(format=parse(f), range="hessian"),
    "hqq": lambda f: Hqq(format=parse(f), iterations=4),
    "gptq": lambda f: Gptq(format=parse(f), sweeps=2),
}
UNSOURCED = {"activations", "hqq", "rtn"}  # nobody's in particular, or no arXiv number
NEEDED = {
    "depth": {"keep": 1}, "experts": {"keep": 1}, "gqa": {"heads": 1}, "heads": {"keep": 1},
    "window": {"tokens": 8},
}  # what a step cannot go without  # fmt: skip
DTYPES = {
    "U8": torch.uint8, "BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32,
    "F8_E4M3": torch.float8_e4m3fn,
}  # fmt: skip


def stats(tokens: int = 256) -> Stats:
    _, x, ideal, drift = layer(tokens=tokens)
    return gathered(x, ideal, drift)


def made(name: str, format_: str) -> LinearPass:
    return LINEAR[name](format_)


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("format_", [*FORMATS, SUM])
def test_a_rewrite_is_honest_about_its_format(name: str, format_: str) -> None:
    use = made(name, format_)
    if format_ == SUM and name != "gptq":
        pytest.skip("one method is enough; hqq refuses sums")
    weight = layer()[0]
    done = use.rewrite(weight, stats(), "mlp.up", 0)
    assert done.weight.format == parse(format_)
    assert done.weight.shape == (12, 32)
    planes = parse(format_).planes((12, 32))
    assert {n: tuple(p.shape) for n, p in done.weight.planes.items()} == {
        n: p.shape for n, p in planes.items()
    }
    assert {n: p.dtype for n, p in done.weight.planes.items()} == {
        n: DTYPES[p.dtype] for n, p in planes.items()
    }
    dense = done.weight.dense()
    assert torch.isfinite(dense).all()
    assert (dense - weight).square().sum() < 0.5 * weight.square().sum()
    assert all(fact.unit and fact.how for fact in done.facts.values())
    assert done.fallback is None


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("format_", ["int4-g16", "int3-channel", "mxfp4", "codebook3-g16"])
def test_outputs_are_independent_where_the_format_lets_them_be(name: str, format_: str) -> None:
    if name == "hqq":
        pytest.skip("rows share the unit of its norm")
    weight, x, ideal, drift = layer()
    rows = torch.tensor([7, 2, 9])
    use = made(name, format_)
    whole = use.rewrite(weight, gathered(x, ideal, drift), "mlp.up", 0).weight.dense()
    few = gathered(x, ideal, drift[:, rows])
    part = use.rewrite(weight[rows], few, "mlp.up", 0).weight.dense()
    torch.testing.assert_close(part, whole[rows], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("format_", ["int4-g16-affine", "nf4-g16", "mxfp4", "nvfp4", "log4-g16"])
def test_twice_the_weight_gives_twice_the_result(name: str, format_: str) -> None:
    weight, x, ideal, drift = layer()
    use = made(name, format_)
    once = use.rewrite(weight, gathered(x, ideal, drift), "mlp.up", 0).weight.dense()
    twice = use.rewrite(2 * weight, gathered(x, ideal, 2 * drift), "mlp.up", 0).weight.dense()
    torch.testing.assert_close(twice, 2 * once, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("format_", ["int4-g16", "int2-g16-affine", "nf4-channel"])
def test_the_same_call_gives_the_same_bits(name: str, format_: str) -> None:
    weight, seen = layer()[0], stats()
    planes = [made(name, format_).rewrite(weight, seen, "mlp.up", 0).weight.planes for _ in "ab"]
    assert all(torch.equal(planes[0][plane], planes[1][plane]) for plane in planes[0])


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("format_", ["int4-g16", "int3-g16-affine", "mxfp4", "log4-g16"])
def test_rows_and_groups_of_zeros_stay_zero(name: str, format_: str) -> None:
    weight = layer()[0]
    weight[3] = 0
    weight[5, :16] = 0
    use = made(name, format_)
    seen = gathered(layer()[1])
    dense = use.rewrite(weight, seen, "mlp.up", 0).weight.dense()
    assert not dense[3].any()
    assert torch.isfinite(dense).all()


@pytest.mark.parametrize("name", LINEAR)
def test_inputs_that_are_never_active_do_no_harm(name: str) -> None:
    weight, x, _, _ = layer()
    x[:, [0, 9, 31]] = 0
    dense = made(name, "int4-g16").rewrite(weight, gathered(x), "mlp.up", 0).weight.dense()
    lost = (dense - weight)[:, [0, 9, 31]].abs()
    assert lost.max() < weight.abs().max() / 7, "kept near what rounding gives, not zeroed"
    assert not (dense[:, [0, 9, 31]] == 0).all()


# GPTQ and its data


@pytest.mark.parametrize("tokens", [0, 1, 2])
def test_too_few_tokens_are_said_and_rounding_is_plain(tokens: int) -> None:
    weight = layer()[0]
    done = Gptq(least_tokens=0.1).rewrite(weight, stats(tokens), "mlp.experts.3.up", 0)
    assert done.fallback == f"rounded to nearest: {tokens} calibration tokens for 32 inputs"
    plain = Rtn(range="hessian" if tokens else "mse", range_steps=20)
    torch.testing.assert_close(
        done.weight.dense(), plain.rewrite(weight, stats(tokens), "", 0).weight.dense()
    )


def test_few_tokens_are_damped_more() -> None:
    weight = layer()[0]
    damping = [
        Gptq().rewrite(weight, stats(tokens), "mlp.up", 0).facts["damping"].value
        for tokens in (16, 64, 256)
    ]
    assert damping == pytest.approx([0.04, 0.01, 0.01])


def test_a_matrix_that_no_damping_repairs_is_said() -> None:
    seen = Stats((Gram,), 32)
    seen.add(torch.randn(64, 32, generator=torch.Generator().manual_seed(0)))
    seen[Gram].total[0, 1] = seen[Gram].total[1, 0] = 1e12
    done = Gptq(alpha=0.0, alpha_down=0.0, rho=0.0).rewrite(layer()[0], seen, "mlp.up", 0)
    assert done.fallback is not None
    assert "no Cholesky factor" in done.fallback
    assert torch.isfinite(done.weight.dense()).all()
    seen[Gram].total[0, 0] = torch.nan
    done = Gptq(alpha=0.0, alpha_down=0.0, rho=0.0).rewrite(layer()[0], seen, "mlp.up", 0)
    assert done.fallback is not None
    assert "not finite" in done.fallback


def test_raised_damping_is_said() -> None:
    seen = Stats((Gram,), 32)
    seen.add(torch.eye(32).repeat(4, 1))
    seen[Gram].total[0, 1] = seen[Gram].total[1, 0] = 6.0
    done = Gptq(alpha=0.0, alpha_down=0.0, rho=0.0).rewrite(layer()[0], seen, "mlp.up", 0)
    assert done.fallback == "damping raised to 1, since H had no Cholesky factor below"


def test_statistics_are_read_not_changed() -> None:
    weight, seen = layer()[0], stats()
    before = {kind: one.mean().clone() for kind, one in seen.held.items() if hasattr(one, "mean")}
    for use in (Gptq(), Gptq(format=parse(SUM)), Rtn(range="hessian")):
        use.rewrite(weight, seen, "mlp.up", 0)
    for kind, mean in before.items():
        assert torch.equal(seen[kind].mean(), mean)


def test_only_what_is_needed_is_asked_for() -> None:
    assert Rtn().needs == Hqq().needs == ()
    assert [kind.__name__ for kind in Rtn(range="hessian").needs] == ["Energy"]
    assert [kind.__name__ for kind in Gptq().needs] == ["Gram", "Cross", "Residual"]
    assert Gptq(alpha=0.0, alpha_down=0.0, rho=0.0).needs == (Gram,)


def test_refusals_are_known_before_work() -> None:
    embed = Site("embed", "embed", (10, 4), "vocab", "hidden", "")
    assert Gptq().refuses(embed)
    assert Rtn().refuses(embed) is None
    assert Hqq(format=parse(SUM)).refuses(embed)
    assert Hqq().refuses(embed) is None


# methods over blocks


@pytest.mark.parametrize("use", [Awq(steps=2), SmoothQuant()], ids=lambda use: use.name)
def test_rescaling_changes_nothing_that_a_block_computes(tmp_path: Path, use: BlockPass) -> None:
    block, x = demo_block(1), hidden(256)
    observe = observing(block, spooled(tmp_path / "x", x))
    with torch.no_grad():
        before = block(x)
        change = use.rewrite(block, tuple(site.role for site in block.sites), observe)
        for tap, scale in change.folds.items():
            assert torch.isfinite(scale).all()
            assert (scale > 0).all()
            fold(block, tap, scale)
        after = block(x)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3 * float(before.abs().max()))
    assert set(change.facts) == set(block.taps)
    assert not change.fallbacks


def test_smoothing_evens_out_the_channels(tmp_path: Path) -> None:
    block, x = demo_block(1), hidden(256)
    observe = observing(block, spooled(tmp_path / "x", x))
    use = method("smoothquant")()
    assert isinstance(use, BlockPass)
    change = use.rewrite(block, ("attn.q", "mlp.up"), observe)
    assert list(change.folds) == ["attn.in", "mlp.in"]
    for facts in change.facts.values():
        assert facts["outlier_after"].value < facts["outlier_before"].value


def test_a_tap_that_cannot_be_rescaled_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block, x = demo_block(1), hidden(256)
    observe = observing(block, spooled(tmp_path / "x", x))
    monkeypatch.setattr(equalise, "foldable", lambda block, tap: "it is bolted down")
    for name in ("awq", "smoothquant"):
        use = method(name)()
        assert isinstance(use, BlockPass)
        change = use.rewrite(block, ("attn.q",), observe)
        assert change.fallbacks == {"attn.in": "channels left as they are: it is bolted down"}
        assert not change.folds


# the catalogue


def test_every_method_is_found_and_documented() -> None:
    found = catalogue()
    assert list(found) == [
        "activation", "activations", "alps", "awq", "depth", "distill", "experts", "ffn", "finetune",
        "gptq", "gqa", "gradient", "heads", "hidden", "hqq", "kv_cache", "magnitude", "plain", "qat",
        "reconstruct",
        "regularise", "residual", "ria", "rtn", "smoothquant", "sparsegpt", "student", "svd", "wanda",
        "window",
    ]  # fmt: skip
    for name, use in found.items():
        doc = f"{import_module(use.__module__).__doc__} {use.__doc__}"
        assert name in UNSOURCED or re.search(r"arXiv:\d{4}\.\d{5}", doc), name
        assert use.__module__.endswith(name)
        assert issubclass(use, LinearPass | BlockPass | ModelPass)
        assert (use.__doc__ or "").strip()


def test_settings_are_plain_and_say_what_they_mean() -> None:
    plain = {str, int, float, bool, tuple}
    for use in catalogue().values():
        assert is_dataclass(use)
        given = NEEDED.get(use.name, {})
        assert {one.name for one in fields(use) if one.default is MISSING} <= given.keys()
        for one in fields(use):
            assert one.metadata["doc"], (use, one.name)
            kind = type(given.get(one.name, one.default))
            assert kind in plain or issubclass(kind, Format | Activation), (use, one.name)
            if kind in {int, float}:
                assert re.search(r"\[(1|token)\]", one.metadata["doc"]), (use, one.name)
        assert use(**given) == use(**given)


def test_an_unknown_method_is_answered_with_the_nearest() -> None:
    assert method("gptq") is Gptq
    with pytest.raises(RecipeError) as caught:
        method("gtpq")
    assert caught.value.hint == "Did you mean 'gptq'?"
    with pytest.raises(RecipeError, match="unknown method") as caught:
        method("zzzzzz")
    assert "activation, activations, alps, awq" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gptq", {"alpha": 1.5}),
        ("gptq", {"sweeps": -1}),
        ("gptq", {"damping": -0.1}),
        ("hqq", {"power": 1.0}),
        ("smoothquant", {"strength": 2.0}),
        ("awq", {"steps": 0}),
    ],
)
def test_a_setting_out_of_range_is_refused(name: str, settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        method(name)(**settings)


def test_the_default_format_is_a_format_of_codes() -> None:
    assert isinstance(Gptq().format, Coded)
    assert str(Gptq().format) == str(Rtn().format) == "int4-g64"
    assert str(Hqq().format) == "int4-g64-affine"
