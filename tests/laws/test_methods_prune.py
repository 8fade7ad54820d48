"""The laws of pruning, for every method that chooses which weights stay."""

from itertools import combinations

import pytest
import torch
from tests.problems import gathered, layer

from whet.calibrate.statistics import Gram, Stats
from whet.formats.codecs import codec_of
from whet.formats.pattern import Within
from whet.formats.sparse import Sparse, kept
from whet.formats.spec import Sparse as Named
from whet.formats.spec import parse
from whet.formats.weight import Weight, written
from whet.methods import catalogue
from whet.methods.prune.alps import Alps
from whet.methods.prune.magnitude import Magnitude
from whet.methods.prune.ria import Ria
from whet.methods.prune.sparsegpt import SparseGpt
from whet.methods.prune.wanda import Wanda
from whet.methods.quantize.gptq import Gptq
from whet.methods.quantize.hqq import Hqq
from whet.methods.quantize.rtn import Rtn
from whet.methods.solve.factor import factor
from whet.methods.solve.prune import Asked, error, posed
from whet.methods.solve.support import NARROW, refitted
from whet.model.site import Site
from whet.passes.linear_pass import LinearPass

METHODS = {
    "magnitude": Magnitude,
    "magnitude-refit": lambda **settings: Magnitude(refit=True, **settings),
    "wanda": Wanda,
    "wanda-refit": lambda **settings: Wanda(refit=True, **settings),
    "ria": Ria,
    "ria-refit": lambda **settings: Ria(refit=True, **settings),
    "sparsegpt": SparseGpt,
    "sparsegpt-refit": lambda **settings: SparseGpt(refit=True, **settings),
    "alps": Alps,
}
FORMATS = [
    "2:4(bf16)", "2:4(int4-g16)", "4:8(int3-channel)", "sparse50(f32)", "sparse62.5(int4-g16-affine)",
    "sparse50-tensor(bf16)", "sparse50-tensor(nf4-g16)", "1:4(nvfp4)",
]  # fmt: skip
NONE = {"alpha": 0.0, "rho": 0.0}


def made(name: str, format_: str, **settings) -> LinearPass:
    return METHODS[name](format=parse(format_), **settings)


def seen(tokens: int = 256) -> Stats:
    _, x, ideal, drift = layer(tokens=tokens)
    return gathered(x, ideal, drift)


def mask_of(weight: Weight) -> torch.Tensor:
    codec = codec_of(weight.format)
    assert isinstance(codec, Sparse)
    return codec.mask(weight.planes, weight.shape)


def lost(new: torch.Tensor, weight: torch.Tensor, H: torch.Tensor) -> torch.Tensor:
    delta = (new - weight).double()
    return ((delta @ H.double()) * delta).sum(1)


def test_every_pruning_method_is_here() -> None:
    named = {n for n, use in catalogue().items() if issubclass(use, LinearPass) and use.prunes}
    assert named == {name.partition("-")[0] for name in METHODS}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("format_", FORMATS)
def test_counts_are_exact_and_what_is_not_kept_is_zero(name: str, format_: str) -> None:
    weight, wanted = layer()[0], parse(format_)
    assert isinstance(wanted, Named)
    done = made(name, format_).rewrite(weight, seen(), "mlp.up", 0)
    assert done.weight.format == wanted
    planes = {n: tuple(p.shape) for n, p in done.weight.planes.items()}
    assert planes == {n: p.shape for n, p in wanted.planes((12, 32)).items()}
    mask = mask_of(done.weight)
    assert int(mask.sum()) == wanted.pattern.of_matrix(12, 32)
    if (row := wanted.pattern.of_row(32)) is not None:
        assert (mask.sum(1) == row).all()
    if isinstance(wanted.pattern, Within):
        assert (mask.unflatten(1, (-1, wanted.pattern.group)).sum(2) == wanted.pattern.kept).all()
    dense = done.weight.dense()
    assert torch.isfinite(dense).all()
    assert not dense[~mask].any()
    assert (dense - weight).square().sum() < weight.square().sum()
    assert all(fact.unit and fact.how for fact in done.facts.values())
    assert done.facts["sparsity"].value == pytest.approx(1 - float(mask.double().mean()))
    assert done.fallback is None


@pytest.mark.parametrize("name", METHODS)
def test_no_sparsity_changes_nothing(name: str) -> None:
    settings = NONE if "alps" in name or "gpt" in name else {}
    weight = layer()[0]
    done = made(name, "sparse0(f32)", **settings).rewrite(weight, seen(), "mlp.up", 0)
    torch.testing.assert_close(done.weight.dense(), weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_the_same_call_gives_the_same_bits(name: str) -> None:
    weight, stats = layer()[0], seen()
    use = made(name, "2:4(int4-g16)")
    one, two = (use.rewrite(weight, stats, "mlp.up", 0).weight.planes for _ in "ab")
    assert all(torch.equal(one[plane], two[plane]) for plane in one)


@pytest.mark.parametrize("name", METHODS)
def test_outputs_are_independent_where_the_pattern_lets_them_be(name: str) -> None:
    if name.startswith("ria"):
        pytest.skip("the share in a column reads all rows")
    weight, x, ideal, drift = layer()
    rows, use = torch.tensor([7, 2, 9]), made(name, "2:4(int4-g16)")
    whole = use.rewrite(weight, gathered(x, ideal, drift), "mlp.up", 0).weight.dense()
    part = use.rewrite(weight[rows], gathered(x, ideal, drift[:, rows]), "mlp.up", 0)
    torch.testing.assert_close(part.weight.dense(), whole[rows], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_rows_of_zeros_and_inputs_never_active_do_no_harm(name: str) -> None:
    weight, x, _, _ = layer()
    weight[3] = 0
    x[:, [0, 9, 31]] = 0
    dense = made(name, "2:4(int4-g16)").rewrite(weight, gathered(x), "mlp.up", 0).weight.dense()
    assert not dense[3].any()
    assert torch.isfinite(dense).all()


@pytest.mark.parametrize("name", ["wanda", "ria", "sparsegpt", "alps", "wanda-refit"])
def test_without_tokens_magnitude_decides_and_is_said_to(name: str) -> None:
    weight = layer()[0]
    done = made(name, "2:4(bf16)").rewrite(weight, seen(0), "mlp.up", 0)
    assert done.fallback is not None
    assert done.fallback.startswith("pruned by magnitude: ")
    plain = Magnitude(format=parse("2:4(bf16)")).rewrite(weight, seen(0), "mlp.up", 0)
    assert torch.equal(done.weight.dense(), plain.weight.dense())


def test_few_tokens_leave_kept_weights_as_they_are_and_it_is_said() -> None:
    done = Wanda(format=parse("2:4(f32)"), refit=True).rewrite(layer()[0], seen(2), "mlp.up", 0)
    assert done.fallback == "kept weights left as they were: 2 calibration tokens for 32 inputs"
    assert torch.equal(done.weight.dense(), layer()[0] * mask_of(done.weight))


@pytest.mark.parametrize("pattern", ["2:4", "sparse50", "sparse50-tensor"])
def test_for_uncorrelated_inputs_second_order_is_wanda_without_updates(pattern: str) -> None:
    weight = layer()[0]
    stats = Stats((Gram,), 32)
    stats.add(torch.diag(torch.linspace(0.5, 4.0, 32)).repeat(8, 1))
    ridge = factor(stats[Gram].symmetric(), 0.01).ridge
    scores = weight.abs() * (stats[Gram].symmetric().diagonal() + ridge).sqrt()
    codec = codec_of(parse(f"{pattern}(f32)"))
    assert isinstance(codec, Sparse)
    mask = kept(scores, codec.pattern)
    for name, settings in (("sparsegpt", {"block": 32}), ("alps", NONE)):
        done = made(name, f"{pattern}(f32)", **settings).rewrite(weight, stats, "mlp.up", 0)
        assert torch.equal(mask_of(done.weight), mask), name
        torch.testing.assert_close(done.weight.dense(), weight * mask, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("wide", [False, True])
def test_least_squares_is_never_worse_and_its_gradient_vanishes(
    wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if wide:
        monkeypatch.setattr("whet.methods.solve.support.NARROW", 0)
    weight, x, _, _ = layer(16, 48, 300)
    H = (x.T @ x).double()
    ridge = 0.01 * float(H.diagonal().mean())
    target = weight.T.double().contiguous()
    for name in ("2:4", "sparse50-tensor", "sparse0"):
        codec = codec_of(parse(f"{name}(f32)"))
        assert isinstance(codec, Sparse)
        mask = kept(weight.abs(), codec.pattern).T.double()
        found = refitted(target, H, ridge, mask)
        assert not found[mask == 0].any()
        gradient = (H + ridge * torch.eye(48)) @ (found - target) * mask
        assert gradient.abs().max() < 1e-5 * H.abs().max() * target.abs().max()
        damped = H + ridge * torch.eye(48, dtype=torch.float64)
        before = lost((target * mask).T, target.T, damped)
        assert (lost(found.T, target.T, damped) <= before * (1 + 1e-9) + 1e-20).all()
    assert NARROW == 1024


def test_methods_do_better_the_more_they_see() -> None:
    names = ("magnitude", "wanda", "wanda-refit", "sparsegpt-refit", "alps")
    totals = dict.fromkeys(names, 0.0)
    for seed in range(4):
        weight, x, _, _ = layer(24, 64, 512, seed=seed)
        stats = gathered(x)
        for name in names:
            done = made(name, "2:4(f32)").rewrite(weight, stats, "mlp.up", 0)
            totals[name] += float(lost(done.weight.dense(), weight, stats[Gram].mean()).sum())
    assert totals["alps"] < totals["sparsegpt-refit"] < totals["wanda"] < totals["magnitude"]
    assert totals["wanda-refit"] < totals["wanda"]


def test_alps_lies_near_the_best_mask_of_all() -> None:
    ratios = []
    for seed in range(6):
        weight, x, _, _ = layer(6, 8, 64, seed=seed)
        stats = gathered(x)
        use = Alps(format=parse("sparse50(f32)"), **NONE)
        H = stats[Gram].symmetric().double()
        ridge = factor(H, 0.01 * 1.0).ridge
        damped = H + ridge * torch.eye(8, dtype=torch.float64)
        best = torch.full((6,), torch.inf, dtype=torch.float64)
        for places in combinations(range(8), 4):
            mask = torch.zeros(8, 6, dtype=torch.float64)
            mask[list(places)] = 1
            found = refitted(weight.T.double(), H, ridge, mask)
            best = torch.minimum(best, lost(found.T, weight.double(), damped))
        new = use.rewrite(weight, stats, "mlp.up", 0).weight.dense().double()
        ours = lost(new, weight.double(), damped)
        assert (ours >= best * (1 - 1e-4)).all()
        ratios.append(float(ours.sum() / best.sum()))
    assert sum(ratios) / len(ratios) < 1.25


def test_the_unit_of_an_input_does_not_matter_but_to_magnitude() -> None:
    weight, x, _, _ = layer()
    units = torch.exp2(
        torch.randint(-3, 4, (32,), generator=torch.Generator().manual_seed(0)).float()
    )
    for name, same in (("wanda", True), ("magnitude", False)):
        use = made(name, "2:4(f32)")
        one = mask_of(use.rewrite(weight, gathered(x), "mlp.up", 0).weight)
        two = mask_of(use.rewrite(weight / units, gathered(x * units), "mlp.up", 0).weight)
        assert torch.equal(one, two) is same


def test_more_sparsity_costs_more_where_masks_are_nested() -> None:
    weight, stats = layer()[0], seen()
    H = stats[Gram].mean()
    totals: list[float] = []
    for percent in (0, 25, 50, 75):
        use = made("magnitude-refit", f"sparse{percent}(f32)")
        new = use.rewrite(weight, stats, "mlp.up", 0).weight.dense()
        totals.append(float(lost(new, weight, H).sum()))
    assert totals == sorted(totals)


def test_two_of_four_is_a_half_and_costs_more_than_the_best_half() -> None:
    weight, stats = layer()[0], seen()
    found = {
        name: made("alps", f"{name}(f32)", **NONE).rewrite(weight, stats, "", 0)
        for name in ("2:4", "sparse50")
    }
    problem = posed(weight, stats, Asked())
    assert not isinstance(problem, str)
    losses = {name: error(problem, weight, done.weight).value for name, done in found.items()}
    assert losses["sparse50"] < losses["2:4"]


# rounding what was pruned


@pytest.mark.parametrize("use", [Gptq, Rtn, lambda **s: Rtn(range="hessian", **s)])
@pytest.mark.parametrize(
    "name", ["2:4(int4-g16)", "sparse50(int3-channel)", "sparse50-tensor(nf4-g16)"]
)
def test_rounding_keeps_the_zeros_that_pruning_has_made(use, name: str) -> None:
    format_ = parse(name)
    assert isinstance(format_, Named)
    weight = layer()[0]
    pruned = written(weight, Named(format_.pattern, parse("bf16"))).dense()
    pruned[2, :] = 0
    done = use(format=format_).rewrite(pruned, seen(), "mlp.up", 0)
    assert done.weight.format == format_
    assert not done.weight.dense()[pruned == 0].any()
    assert done.weight.dense().count_nonzero() > pruned.count_nonzero() // 2


def test_joint_pruning_and_rounding_beats_one_after_the_other() -> None:
    joint = after = 0.0
    for seed in range(3):
        weight, x, _, _ = layer(24, 64, 512, seed=seed)
        stats = gathered(x)
        one = Alps(format=parse("2:4(int4-g32)")).rewrite(weight, stats, "mlp.up", 0)
        pruned = SparseGpt(format=parse("2:4(bf16)")).rewrite(weight, stats, "mlp.up", 0)
        two = Gptq(format=parse("2:4(int4-g32)")).rewrite(pruned.weight.dense(), stats, "", 0)
        H = stats[Gram].mean()
        joint += float(lost(one.weight.dense(), weight, H).sum())
        after += float(lost(two.weight.dense(), weight, H).sum())
    assert joint < 0.7 * after


def test_refusals_are_known_before_work() -> None:
    embed = Site("embed", "embed", (12, 32), "vocab", "hidden", "")
    for name in METHODS:
        use = made(name, "2:4(bf16)")
        assert bool(use.refuses(embed)) is (name != "magnitude")
    assert Hqq(format=parse("2:4(int4-g16)")).refuses(embed)
    for kind in (Magnitude, Wanda, Ria, SparseGpt, Alps):
        with pytest.raises(ValueError, match=r"keeps every weight, expected .* 2:4"):
            kind(format=parse("int4-g64"))
        with pytest.raises(ValueError, match="damping is -1"):
            kind(damping=-1.0)


def test_only_what_is_needed_is_asked_for() -> None:
    told = {name: [kind.__name__ for kind in made(name, "2:4(bf16)").needs] for name in METHODS}
    assert told == {
        "magnitude": [], "magnitude-refit": ["Gram"], "wanda": ["Energy"], "wanda-refit": ["Gram"],
        "ria": ["Energy"], "ria-refit": ["Gram"], "sparsegpt": ["Gram"], "sparsegpt-refit": ["Gram"],
        "alps": ["Gram", "Cross", "Residual"],
    }  # fmt: skip
