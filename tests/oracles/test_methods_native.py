"""The native solver against its slow twin in torch, whose mathematics is held to the textbook."""

from collections.abc import Generator
from contextlib import contextmanager

import pytest
import torch
from tests.problems import layer, losses
from torch import Tensor

from whet.formats.codec import Search
from whet.formats.codecs import codec_of
from whet.formats.scaled import Scaled
from whet.formats.spec import parse
from whet.kernels.native import missing
from whet.methods.solve import native
from whet.methods.solve.columns import rounded
from whet.methods.solve.complete import Problem
from whet.methods.solve.descent import Descent
from whet.methods.solve.factor import factor
from whet.methods.solve.lattice import Lattice

pytestmark = pytest.mark.skipif(missing() is not None, reason="needs the native extension")

NAMES = [
    "int4-g16",
    "int3-g12-affine",
    "int8-channel-affine",
    "int2-g16-f16",
    "int4-g16-f32",
    "fp4-g16",
    "fp8-e4m3-channel",
    "mxfp4",
    "nvfp4",
    "nf4-g16",
    "log4-g16",
    "apot4-channel",
    "codebook3-channel",
    "codebook4-g16",
    "codebook2-g16-shared",
    "codebook6-channel",
]


@contextmanager
def by_torch(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(native, "missing", lambda: "not asked for")
        yield


def posed(name: str, out: int, inputs: int = 40, masked: bool = False) -> tuple[Problem, Scaled]:
    weight, x, _, _ = layer(out, inputs)
    codec = codec_of(parse(name))
    assert isinstance(codec, Scaled)
    H = x.T @ x
    mask = (weight.abs() > weight.abs().median()).T.float().contiguous() if masked else None
    return Problem(weight.T.contiguous(), H, factor(H, 0.01), mask), codec


def lattice(problem: Problem, codec: Scaled) -> Lattice:
    weight = problem.target.T.contiguous()
    importance = problem.H.diagonal() + problem.factor.ridge
    return problem.lattice(codec, codec.fit(weight, Search("hessian", 20), importance))


def same(ours: Tensor, theirs: Tensor) -> None:
    """Nearly all values are equal: sums that are added up otherwise may break a tie otherwise."""
    near = torch.isclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert near.float().mean() > 0.99


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("out", "masked"), [(5, False), (70, False), (70, True)])
def test_columns_are_those_of_torch(
    name: str, out: int, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, codec = posed(name, out, masked=masked)
    members = lattice(problem, codec)
    assert native.native_columns(problem.target, problem.factor, members) is not None
    values, loss = rounded(problem.target, problem.factor, members)
    with by_torch(monkeypatch):
        expected, _ = rounded(problem.target, problem.factor, members)
    same(values, expected)
    ridge = problem.factor.ridge
    wanted = losses(values, problem.target, problem.H, ridge).float()
    torch.testing.assert_close(loss, wanted, rtol=1e-3, atol=1e-5)
    if masked:
        assert problem.mask is not None
        assert not values[problem.mask == 0].any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("recode", "settle"), [(True, False), (True, True), (False, True)])
def test_a_sweep_is_that_of_torch(
    name: str, recode: bool, settle: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, codec = posed(name, 70)
    walks = [started(problem, codec) for _ in range(2)]
    changed = gone(walks[0], recode, settle)
    with by_torch(monkeypatch):
        expected = gone(walks[1], recode, settle)
    assert abs(changed - expected) <= 0.01 * walks[0].values.numel()
    same(walks[0].values, walks[1].values)
    same(walks[0].lattice.scale, walks[1].lattice.scale)
    gradient = walks[0].gradient.clone()
    walks[0].refresh()
    torch.testing.assert_close(walks[0].gradient, gradient, rtol=1e-3, atol=1e-3)


def started(problem: Problem, codec: Scaled) -> Descent:
    members = lattice(problem, codec)
    values = members.snapped(problem.target)
    return Descent(problem.target, values, problem.H, problem.factor.ridge, members)


def gone(walk: Descent, recode: bool, settle: bool) -> int:
    if recode:
        return walk.sweep(settle=settle)
    walk.settle()
    return 0


@pytest.mark.parametrize("name", ["int4-g16-affine", "codebook3-channel"])
def test_the_number_of_threads_changes_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, codec = posed(name, 200)
    found = list[tuple[Tensor, Tensor]]()
    for threads in (1, 3):
        monkeypatch.setattr(native, "workers", lambda count=threads: count)
        walk = started(problem, codec)
        walk.values.copy_(rounded(problem.target, problem.factor, walk.lattice)[0])
        walk.refresh()
        walk.sweep()
        found.append((walk.values, walk.lattice.scale))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("name", ["int4-tensor", "int3-g12-affine"])
def test_what_it_does_not_know_is_left_to_torch(name: str) -> None:
    problem, codec = posed(name, 8)
    members = lattice(problem, codec)
    target = problem.target if "tensor" in name else problem.target.double()
    assert native.native_columns(target, problem.factor, members) is None
