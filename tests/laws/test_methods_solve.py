"""Laws of the mathematics that methods share."""

from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.problems import gathered, generator, grid, layer, losses, problem
from torch import Tensor

from whet.base.errors import NumericalError
from whet.calibrate.statistics import Cross, Gram, Residual
from whet.formats.codec import Search
from whet.formats.codecs import codec_of, scalar_of
from whet.formats.scaled import Scaled
from whet.formats.spec import parse
from whet.methods.solve import slabs
from whet.methods.solve.columns import rounded
from whet.methods.solve.complete import Problem, Solution, improved, planes_of, solved
from whet.methods.solve.descent import Descent
from whet.methods.solve.factor import factor
from whet.methods.solve.lattice import Lattice
from whet.methods.solve.levels import relevel
from whet.methods.solve.posed import drift_of
from whet.methods.solve.target import Drift, corrected
from whet.methods.solve.trust import explained, trusted

GRIDS = ["int4-g16", "int3-g12-affine", "int2-channel", "int4-tensor-affine"]
CODED = [
    *GRIDS,
    "nf4-g16",
    "fp4-g16",
    "mxfp4",
    "nvfp4",
    "log4-g16",
    "apot4-channel",
    "fp8-e4m3-tensor",
]
LEARNED = ["codebook2-channel", "codebook3-g16", "codebook2-g16-shared", "codebook3-tensor"]


def codec(name: str) -> Scaled:
    found = codec_of(parse(name))
    assert isinstance(found, Scaled)
    return found


def alone(problem: Problem, name: str, search: Search, sweeps: int) -> Solution:
    """Return the solution for a format that is no sum."""
    ((_, found),) = solved(problem, codec(name), search, sweeps)
    return found


def start(name: str, seed: int = 0) -> tuple[Descent, Lattice]:
    target, H, lattice, found = problem(name, seed=seed)
    values, _ = rounded(target, found, lattice)
    return Descent(target, values, H, found.ridge, lattice), lattice


# the factor


def test_the_factor_is_that_of_the_damped_matrix_in_its_order() -> None:
    _, H, _, found = problem("int4-g16")
    damped = H + found.ridge * torch.eye(len(H))
    torch.testing.assert_close(found.lower @ found.lower.T, damped[found.order][:, found.order])
    assert (H.diagonal()[found.order].diff() >= 0).all(), "the largest are rounded first"
    right = torch.randn(len(H), 5, generator=generator(1), dtype=torch.float64)
    torch.testing.assert_close(damped @ found.solve(right), right)
    torch.testing.assert_close(found.energy(right), ((damped @ right) * right).sum(0))
    assert not found.raised


@pytest.mark.parametrize("tokens", [1, 3])
def test_a_matrix_of_low_rank_has_a_factor(tokens: int) -> None:
    x = torch.randn(tokens, 32, generator=generator(0))
    found = factor(x.T @ x, 0.01)
    assert torch.isfinite(found.lower).all()


def test_damping_is_raised_when_it_must_be_and_says_so() -> None:
    H = torch.eye(8)
    H[0, 1] = H[1, 0] = 1.5
    found = factor(H, 0.01)
    assert found.raised
    assert found.damping == pytest.approx(1.0)


def test_what_no_damping_repairs_is_an_error() -> None:
    H = torch.eye(8)
    H[0, 1] = H[1, 0] = 1e9
    with pytest.raises(NumericalError, match="Cholesky"):
        factor(H, 0.01)
    H[0, 0] = torch.nan
    with pytest.raises(NumericalError, match="not finite"):
        factor(H, 0.01)


# rounding column by column


@pytest.mark.parametrize("name", CODED)
def test_for_a_diagonal_matrix_it_is_rounding_to_nearest(name: str) -> None:
    target, H, lattice, _ = problem(name)
    found = factor(H.diagonal().diag(), 0.01)
    values, _ = rounded(target, found, lattice)
    torch.testing.assert_close(values, lattice.snapped(target), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", CODED)
def test_the_scale_of_the_matrix_changes_nothing(name: str) -> None:
    target, H, lattice, found = problem(name)
    values, loss = rounded(target, found, lattice)
    again, greater = rounded(target, factor(64 * H, 0.01), lattice)
    assert torch.equal(values, again)
    torch.testing.assert_close(greater, 64 * loss)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("act_order", [True, False])
def test_the_loss_is_the_sum_of_squared_errors(name: str, act_order: bool) -> None:
    target, H, lattice, _ = problem(name)
    found = factor(H, 0.01, act_order=act_order)
    values, loss = rounded(target, found, lattice)
    torch.testing.assert_close(loss, losses(values, target, H, found.ridge))


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("leaf", [1, 7, 16, 48])
def test_the_size_of_leaves_changes_nothing(name: str, leaf: int) -> None:
    target, _, lattice, found = problem(name)
    values, _ = rounded(target, found, lattice, leaf)
    assert torch.equal(values, rounded(target, found, lattice)[0])


@pytest.mark.parametrize("name", CODED)
def test_a_target_on_the_grid_stays(name: str) -> None:
    target, _, lattice, found = problem(name)
    on_grid = lattice.snapped(target)
    values, loss = rounded(on_grid, found, lattice)
    torch.testing.assert_close(values, on_grid, rtol=1e-6, atol=0)
    assert float(loss.max()) < 1e-9


@pytest.mark.parametrize("name", ["int3-channel", "nf3-channel"])
def test_permuting_inputs_permutes_the_result(name: str) -> None:
    target, H, lattice, found = problem(name)
    order = torch.randperm(len(H), generator=generator(5))
    moved = factor(H[order][:, order].contiguous(), 0.01)
    values, _ = rounded(target[order].contiguous(), moved, lattice)
    torch.testing.assert_close(values, rounded(target, found, lattice)[0][order])


@pytest.mark.parametrize("name", ["int3-g16", "int3-g16-affine", "nf4-channel"])
def test_outputs_are_independent(name: str) -> None:
    weight, x, _, _ = layer()
    H = (x.T @ x).double()
    some = torch.tensor([1, 5, 6])
    found = factor(H, 0.01)
    whole = alone(Problem(weight.T.double().contiguous(), H, found), name, Search(), 3)
    part = weight[some].T.double().contiguous()
    few = alone(Problem(part, H, found), name, Search(), 3)
    torch.testing.assert_close(few.values, whole.values[:, some])


def test_so_many_outputs_at_a_time_have_the_same_sum(monkeypatch) -> None:
    one, other = torch.randn(37, 24), torch.randn(37, 24)
    monkeypatch.setattr(slabs, "NUMBERS", 8 * 24)
    assert slabs.inner(one, other) == pytest.approx(float((one.double() * other).sum()))


@pytest.mark.parametrize("name", [*CODED, *LEARNED])
@pytest.mark.parametrize("sweeps", [0, 1])  # with more, outputs end together when none changes
def test_so_many_outputs_at_a_time_change_nothing(name: str, sweeps: int, monkeypatch) -> None:
    weight, x, _, _ = layer()
    weight = torch.cat([weight, 2 * weight.flip(0), weight * weight.roll(1, 0)])
    H = x.T @ x
    asked = Problem(weight.T.contiguous(), H, factor(H, 0.01))
    at_once = alone(asked, name, Search(), sweeps)
    planes = planes_of(((codec(name), at_once),))
    monkeypatch.setattr(slabs, "NUMBERS", 8 * len(H))
    assert len(slabs.slabs(*weight.shape)) > 1
    for plane, stored in planes_of(((codec(name), at_once),)).items():
        assert stored.equal(planes[plane]), plane
    parts = alone(asked, name, Search(), sweeps)
    torch.testing.assert_close(parts.values, at_once.values)
    torch.testing.assert_close(parts.loss, at_once.loss)
    torch.testing.assert_close(parts.params.scale, at_once.params.scale)
    written = codec(name).write(parts.values.T.contiguous().float(), parts.params)
    read = codec(name).decode(written, (weight.shape[0], weight.shape[1]))
    torch.testing.assert_close(read, parts.values.T.float(), rtol=1e-3, atol=1e-6)


# coordinate descent


@pytest.mark.parametrize("name", CODED)
def test_no_sweep_raises_the_loss(name: str) -> None:
    walk, _ = start(name)
    before = losses(walk.values, walk.target, walk.H, walk.ridge)
    slack = 1e-6 * before.sum()
    total = "tensor" in name
    for settle in (False, True, True, False):
        walk.sweep(settle=settle)
        after = losses(walk.values, walk.target, walk.H, walk.ridge)
        torch.testing.assert_close(walk.loss(), after, rtol=1e-5, atol=float(slack))
        assert (
            (after.sum() if total else after).le((before.sum() if total else before) + slack).all()
        )
        before = after


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_at_the_end_no_single_code_can_be_improved(name: str, seed: int) -> None:
    walk, lattice = start(name, seed)
    while walk.sweep(settle=False):
        pass
    best = losses(walk.values, walk.target, walk.H, walk.ridge)
    for column in range(len(walk.values)):
        for step in (-1, 1):
            moved = walk.values.clone()
            scale = lattice.scale[column // lattice.group]
            moved[column] = lattice.nearest(moved[column] + step * scale, column)
            after = losses(moved, walk.target, walk.H, walk.ridge)
            assert (after >= best - 1e-9 * best.sum()).all()


@pytest.mark.parametrize("name", CODED)
def test_settling_scales_never_raises_the_loss(name: str) -> None:
    walk, _ = start(name)
    before = losses(walk.values, walk.target, walk.H, walk.ridge).sum()
    walk.settle()
    after = losses(walk.values, walk.target, walk.H, walk.ridge).sum()
    assert after <= before * (1 + 1e-6)


def test_a_settled_scale_has_no_slope() -> None:
    walk, lattice = start("int3-channel-f32")
    walk.settle()
    unit = walk.values / lattice.scale
    slope = (unit * walk.gradient).sum(0)
    curve = (unit * (walk.H @ unit)).sum(0)
    assert float((slope / curve / lattice.scale[0]).abs().max()) < 1e-6


def test_a_settled_zero_point_cannot_be_improved() -> None:
    walk, lattice = start("int2-channel-affine-f32")
    for _ in range(8):
        walk.settle()
    assert lattice.zero is not None
    best = losses(walk.values, walk.target, walk.H, walk.ridge)
    for step in (-1, 1):
        zero = lattice.zero[0] + step
        moved = walk.values - step * lattice.scale[0]
        after = losses(moved, walk.target, walk.H, walk.ridge)
        allowed = (zero >= 0) & (zero <= lattice.top)
        assert (after >= best - 1e-9)[allowed].all()


def reachable(target: Tensor, lattice: Lattice) -> list[list[float]]:
    """Return every value that each input of the one output can take."""
    found = []
    for column in range(len(target)):
        scale = lattice.scale[column // lattice.group]
        ratios = torch.arange(-4.0, 4.0)
        found.append(sorted({float(lattice.nearest(r * scale, column)) for r in ratios}))
    return found


@given(st.integers(0, 2**31))
@settings(max_examples=6, deadline=None)
def test_for_few_inputs_the_best_is_at_most_descent_is_at_most_gptq(seed: int) -> None:
    target, H, lattice, found = problem("int2-channel", out=1, inputs=6, seed=seed)
    values, gptq = rounded(target, found, lattice)
    walk = Descent(target, values, H, found.ridge, lattice)
    while walk.sweep(settle=False):
        pass
    every = torch.tensor(list(product(*reachable(target, lattice))), dtype=torch.float64).T
    best = losses(every, target, H, found.ridge).min()
    descended = losses(values, target, H, found.ridge)
    assert best <= descended * (1 + 1e-9)
    assert (descended <= gptq * (1 + 1e-6)).all()


# the whole


@pytest.mark.parametrize("name", [*CODED, *LEARNED])
def test_no_output_is_worse_than_rounding_to_nearest(name: str) -> None:
    weight, x, _, _ = layer(seed=3)
    H = x.T @ x
    found = factor(H, 0.01)
    target = weight.T.contiguous()
    one = Problem(target, H, found)
    done = alone(one, name, Search("hessian"), 4)
    params = codec(name).fit(weight, Search("hessian"), H.diagonal() + found.ridge)
    nearest = Lattice(codec(name), params, len(H)).snapped(target)
    ours, theirs = (
        losses(done.values, target, H, found.ridge),
        losses(nearest, target, H, found.ridge),
    )
    if "tensor" in name or "shared" in name:
        ours, theirs = ours.sum(), theirs.sum()
    assert (ours <= theirs * (1 + 1e-5)).all()
    written = codec(name).write(done.values.T.contiguous(), done.params)
    again = codec(name).decode(written, (12, 32))
    torch.testing.assert_close(again, done.values.T, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LEARNED)
def test_fitting_learned_levels_never_raises_the_loss(name: str) -> None:
    weight, x, _, _ = layer()
    H = x.T @ x
    lattice, _ = grid(weight, name, 32)
    target = weight.T.contiguous()
    walk = Descent(target, lattice.snapped(target), H, 0.0, lattice)
    before = losses(walk.values, target, H).sum()
    for _ in range(3):
        relevel(walk)
        after = losses(walk.values, target, H).sum()
        assert after <= before * (1 + 1e-6)
        torch.testing.assert_close(lattice.snapped(walk.values), walk.values, rtol=1e-5, atol=1e-6)
        before = after
    assert before < losses(grid(weight, name, 32)[0].snapped(target), target, H).sum()


@pytest.mark.parametrize("name", ["int3-g16-affine", "nf4-g16", "codebook2-channel"])
def test_going_on_from_a_solution_is_never_worse(name: str) -> None:
    weight, x, _, _ = layer()
    H = x.T @ x
    one = Problem(weight.T.contiguous(), H, factor(H, 0.01))
    first = alone(one, name, Search(), 1)
    again = improved(one, codec(name), first, 3)
    assert (again.loss <= first.loss * (1 + 1e-5)).all()


@pytest.mark.parametrize("name", ["int2-g16 + int2-g16", "int3-channel + nf2-g16"])
def test_a_second_term_lowers_the_loss(name: str) -> None:
    weight, x, _, _ = layer()
    H = x.T @ x
    one = Problem(weight.T.contiguous(), H, factor(H, 0.01))
    (first, _), (_, second) = terms = solved(one, scalar_of(parse(name)), Search(), 3)
    values = terms[0][1].values + terms[1][1].values
    expected = losses(values, one.target, H, one.factor.ridge).float()
    torch.testing.assert_close(second.loss, expected, rtol=1e-3, atol=1e-4)
    single = alone(one, str(first.format), Search(), 3)
    assert second.loss.sum() < 0.5 * single.loss.sum()
    joint = solved(one, scalar_of(parse(name)), Search(), 0)
    assert second.loss.sum() < joint[1][1].loss.sum()


def test_many_bits_reach_the_target() -> None:
    weight, x, _, _ = layer()
    H = x.T @ x
    one = Problem(weight.T.contiguous(), H, factor(H, 0.01))
    lost = [float(alone(one, f"int{b}-g16", Search(), 2).loss.sum()) for b in range(2, 9)]
    assert all(fine < coarse / 2.5 for coarse, fine in pairwise(lost))


def test_dead_inputs_keep_what_rounding_gives_them() -> None:
    weight, x, _, _ = layer()
    x[:, [3, 17]] = 0
    H = x.T @ x
    target = weight.T.contiguous()
    done = alone(Problem(target, H, factor(H, 0.01)), "int4-channel", Search(), 0)
    params = codec("int4-channel").fit(weight, Search())
    nearest = Lattice(codec("int4-channel"), params, 32).snapped(target)
    assert torch.equal(done.values[[3, 17]], nearest[[3, 17]])
    swept = alone(Problem(target, H, factor(H, 0.01)), "int4-g16", Search(), 4)
    assert (swept.values[[3, 17]] - target[[3, 17]]).abs().max() < weight.abs().max() / 7


# the target


@pytest.mark.parametrize(("alpha", "rho"), [(1.0, 1.0), (1.0, 0.0), (0.5, 0.5)])
def test_the_target_stands_for_the_outputs_of_the_uncompressed_model(
    alpha: float, rho: float
) -> None:
    weight, x, ideal, drift = (t.double() for t in layer())
    H, cross, pull = x.T @ x, (ideal - x).T @ x, drift.T @ x
    found = factor(H, 0.0)
    target, shift = corrected(weight, Drift(cross, pull, alpha, rho), found)
    torch.testing.assert_close(shift, losses(weight.T, target, H), rtol=1e-4, atol=1e-6)

    def wanted(values: Tensor) -> Tensor:
        far = (x @ values - ideal @ weight.T - (drift if rho else 0)).square().sum(0)
        return alpha * far + (1 - alpha) * (x @ values - x @ weight.T).square().sum(0)

    one, other = (torch.randn(32, 12, generator=generator(s), dtype=torch.float64) for s in (1, 2))
    ours = losses(one, target, H) - losses(other, target, H)
    torch.testing.assert_close(ours, wanted(one) - wanted(other), rtol=1e-6, atol=1e-4)


def test_without_drift_the_target_is_the_weight() -> None:
    weight, x, _, _ = layer()
    found = factor(x.T @ x, 0.01)
    nothing = torch.zeros(32, 32)
    for drift in (Drift(), Drift(nothing, None), Drift(nothing, torch.zeros(12, 32))):
        target, shift = corrected(weight, drift, found)
        assert torch.equal(target, weight.T)
        assert not shift.any()


def test_statistics_have_the_units_of_the_target() -> None:
    weight, x, ideal, drift = layer()
    stats = gathered(x, ideal, drift)
    found = factor(stats[Gram].symmetric(), 0.01)
    sums = Drift(stats[Cross].total, stats[Residual].total, 1.0, 1.0)
    means = Drift(stats[Cross].mean(), stats[Residual].mean(), 1.0, 1.0)
    other = factor(stats[Gram].mean(), 0.01)
    torch.testing.assert_close(
        corrected(weight, sums, found)[0], corrected(weight, means, other)[0]
    )


# how far the target is to be believed


def test_drift_that_inputs_explain_is_believed_and_noise_is_not() -> None:
    inputs, tokens = 32, 128
    x = torch.randn(tokens, inputs, generator=generator(0))
    told = x @ torch.randn(inputs, 6, generator=generator(1))
    noise = torch.randn(tokens, 400, generator=generator(2))
    found = factor(x.T @ x, 1e-6)

    def share(drift: Tensor) -> Tensor:
        seen = explained(drift.T @ x, found)
        torch.testing.assert_close(seen.mean() / drift.square().sum(0).mean(), wanted(drift))
        return trusted(seen, drift.square().sum(0), inputs, tokens)

    def wanted(drift: Tensor) -> Tensor:
        fit = x @ torch.linalg.lstsq(x, drift).solution
        return fit.square().sum() / drift.square().sum()

    assert (share(told) > 0.999).all()
    assert 0.0 <= float(share(noise).mean()) < 0.15
    half = share(told[:, :1] + noise * told[:, :1].std())
    assert 0.5 < float(half.mean()) < 0.95
    assert not trusted(torch.ones(2), torch.ones(2), 32, 32).any()
    assert not trusted(torch.zeros(2), torch.zeros(2), 32, 64).any()


def test_what_is_learned_from_few_tokens_does_not_harm_others() -> None:
    """Correcting in full does: it follows the noise of the tokens that it saw."""
    inputs, rows = 32, 12
    weight = torch.randn(rows, inputs, generator=generator(0))

    def loss(asked: float, believed: bool) -> float:
        lost = 0.0
        for seed in range(20):
            x, drift = (
                torch.randn(2, 64, inputs, generator=generator(100 * kind + seed))
                for kind in (1, 2)
            )
            stats = gathered(x[0], x[0] + drift[0], torch.zeros(64, rows))
            found = factor(stats[Gram].symmetric(), 1e-6)
            full = Drift(stats[Cross].total, None, asked, 0.0)
            target, _ = corrected(
                weight, drift_of(stats, found, asked, 0.0) if believed else full, found
            )
            far = x[1] @ target - (x[1] + drift[1]) @ weight.T
            lost += float(far.square().sum())
        return lost

    without = loss(0.0, believed=False)
    assert loss(1.0, believed=False) > 1.5 * without
    assert loss(1.0, believed=True) < 1.05 * without
