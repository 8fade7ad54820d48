import pytest
import torch
from tests.blocks import demo_block

from whet.formats.spec import Coded, parse
from whet.kernels.arithmetic import arithmetic, sums_codes
from whet.kernels.threads import concurrent
from whet.methods.solve.equalise import as_folded, readers
from whet.methods.solve.groups import spread, sums
from whet.methods.solve.nearest import nearest, weight_error
from whet.methods.solve.threads import SMALL, threads_for
from whet.model.fold import fold


def coded(name: str) -> Coded:
    found = parse(name)
    assert isinstance(found, Coded)
    return found


def test_sums_and_spread_follow_the_groups() -> None:
    x = torch.arange(20.0).view(2, 10)
    assert sums(x, coded("int4-g4")).tolist() == [[6.0, 22.0, 17.0], [46.0, 62.0, 37.0]]
    assert sums(x, coded("int4-channel")).tolist() == [[45.0], [145.0]]
    assert sums(x, coded("int4-tensor")).tolist() == [[190.0]]
    groups = torch.tensor([[1.0, 2.0, 3.0]])
    assert spread(groups, 10, coded("int4-g4")).tolist() == [[1.0] * 4 + [2.0] * 4 + [3.0] * 2]
    assert spread(groups[:, :1], 3, coded("int4-channel")).tolist() == [[1.0] * 3]


def test_a_small_matrix_is_solved_by_one_thread() -> None:
    before = torch.get_num_threads()
    with threads_for(SMALL):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with threads_for(SMALL + 1):
        assert torch.get_num_threads() == before
    with pytest.raises(KeyError), threads_for(1):
        raise KeyError
    assert torch.get_num_threads() == before


def test_jobs_side_by_side_return_what_each_returns_alone() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.inference_mode(), arithmetic("mixed"):
            seen = concurrent([lambda: (torch.is_inference_mode_enabled(), sums_codes())] * 3)
        assert seen == [(True, is_set_in("mixed"))] * 3
        assert concurrent([lambda: 1, lambda: 2]) == [1, 2]
        with pytest.raises(ValueError, match="second"):
            concurrent([lambda: 1, lambda: int("second")])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def is_set_in(precision: str) -> bool:
    with arithmetic(precision):
        return sums_codes()


def test_plain_floats_are_written_as_they_are() -> None:
    from whet.formats.codec import Search

    weight = torch.randn(3, 5)
    new = nearest(weight, parse("f32"), Search())
    assert torch.equal(new.dense(), weight)
    assert weight_error(new, weight).value == 0.0
    assert (
        weight_error(nearest(torch.zeros(2, 4), parse("f32"), Search()), torch.zeros(2, 4)).value
        == 0
    )


def test_readers_are_grouped_by_tap_and_say_why_not() -> None:
    block = demo_block()
    found = {group.tap: group for group in readers(block, ("attn.q", "attn.v", "mlp.down"))}
    assert [site.role for site in found["attn.in"].sites] == ["attn.q", "attn.v"]
    assert found["attn.in"].refusal is None
    assert found["mlp.mid"].weights(block).shape == (256, 768)
    assert set(found) == {"attn.in", "mlp.mid"}


def test_heads_that_share_values_share_their_scale() -> None:
    block = demo_block()
    scale = torch.rand(256, generator=torch.Generator().manual_seed(0)) + 0.5
    used = as_folded(block, "attn.out", scale)
    torch.testing.assert_close(used, fold(block, "attn.out", scale))
    assert as_folded(block, "attn.in", scale) is scale
