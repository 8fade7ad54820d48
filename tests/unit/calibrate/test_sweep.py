import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from whet.base.errors import NumericalError
from whet.calibrate.carried import Carried
from whet.calibrate.hidden_states import HiddenStates, create_states
from whet.calibrate.statistics import Cross, Energy, Gram, Residual
from whet.calibrate.sweep import advance, drift, observe
from whet.formats.activate import quantized
from whet.formats.activation import parse_activation
from whet.formats.spec import Float
from whet.formats.weight import written
from whet.model.linear import Linear
from whet.model.site import Site

Tap = Callable[[str, Tensor], None]
WIDE, MID, SAMPLES, TIME = 4, 6, 10, 3


def site(role: str, out: int, inputs: int, tap: str) -> Site:
    return Site(role, role, (out, inputs), "a", "b", tap, 0)


class Small(nn.Module):
    """Two residual linears, then experts that see some of the tokens."""

    linears: ClassVar[dict[str, Linear]] = {}
    taps = ("first.in", "second.in", "experts.0.in", "experts.1.in")
    sites = (
        site("first", MID, WIDE, "first.in"),
        site("second", WIDE, MID, "second.in"),
        site("experts.0", WIDE, WIDE, "experts.0.in"),
        site("experts.1", WIDE, WIDE, "experts.1.in"),
    )

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(MID, WIDE, generator=g))
        self.second = nn.Parameter(torch.randn(WIDE, MID, generator=g) / 4)
        self.ran = 0

    def forward(self, hidden: Tensor, cache: None = None, tap: Tap | None = None) -> Tensor:
        say = tap or (lambda *_: None)
        say("first.in", hidden)
        mid = torch.relu(hidden @ self.first.T)
        say("second.in.residual", hidden)
        say("second.in", mid)
        hidden = hidden + mid @ self.second.T
        self.ran += 1
        chosen = hidden[..., 0] > 0
        say("experts.0.in", hidden[chosen])
        if (~chosen).all():
            say("experts.1.in", hidden[~chosen])
        return hidden


def spooled(path: Path, x: Tensor) -> HiddenStates:
    spool = create_states(path, tuple(x.shape))
    spool.write(0, x)
    return spool


def inputs(seed: int = 0) -> Tensor:
    return torch.randn(SAMPLES, TIME, WIDE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_statistics_are_those_of_the_whole(tmp_path: Path, batch: int) -> None:
    block, x = Small(), inputs()
    spool = spooled(tmp_path / "x", x)
    stats = observe(block, None, Carried(spool), None, "second.in", (Gram, Energy), batch)
    mid = torch.relu(x @ block.first.T).flatten(0, 1).detach()
    torch.testing.assert_close(stats[Gram].mean(), mid.T @ mid / len(mid))
    assert stats.tokens == SAMPLES * TIME
    assert block.ran == 0, "the forward pass stops at the tap"


def test_the_reference_runs_in_lock_step(tmp_path: Path) -> None:
    block, ideal, x, y = Small(0), Small(1), inputs(0), inputs(1)
    pair = Carried(spooled(tmp_path / "x", x)), Carried(spooled(tmp_path / "y", y))
    stats = observe(block, ideal, *pair, "second.in", (Cross, Residual), 4)
    a = torch.relu(x @ block.first.T).flatten(0, 1).detach()
    b = torch.relu(y @ ideal.first.T).flatten(0, 1).detach()
    torch.testing.assert_close(stats[Cross].mean(), (b - a).T @ a / len(a))
    torch.testing.assert_close(stats[Residual].mean(), (y - x).flatten(0, 1).T @ a / len(a))


def test_statistics_are_of_what_linears_read(tmp_path: Path) -> None:
    block, x = Small(), inputs()
    to_int4 = parse_activation("int4-token")
    block.linears = {"first": Linear(written(block.first.detach(), Float("F32")), None, to_int4)}
    stats = observe(block, None, Carried(spooled(tmp_path / "x", x)), None, "first.in", (Gram,), 4)
    read = quantized(x, to_int4).flatten(0, 1)
    torch.testing.assert_close(stats[Gram].mean(), read.T @ read / len(read))
    assert not torch.allclose(read, x.flatten(0, 1), atol=1e-3)


def test_a_tap_that_no_linear_reads_is_as_wide_as_the_residual_stream(tmp_path: Path) -> None:
    block = Small()
    block.sites = block.sites[1:]
    stats = observe(
        block, None, Carried(spooled(tmp_path / "x", inputs())), None, "first.in", (Gram,), 4
    )
    assert stats[Gram].mean().shape == (WIDE, WIDE)


def test_experts_count_their_own_tokens(tmp_path: Path) -> None:
    block, x = Small(), inputs()
    pair = Carried(spooled(tmp_path / "x", x)), Carried(spooled(tmp_path / "y", x))
    stats = {tap: observe(block, Small(1), *pair, tap, (Gram,), 4) for tap in block.taps}
    assert stats["first.in"].tokens == SAMPLES * TIME
    assert stats["experts.0.in"].tokens == int((block(x)[..., 0] > 0).sum())
    assert stats["experts.1.in"].tokens == 0
    assert stats["experts.1.in"].channels == WIDE


def test_advance_writes_what_the_block_returns(tmp_path: Path) -> None:
    block, x = Small(), inputs()
    made = advance(block, Carried(spooled(tmp_path / "x", x)), tmp_path / "y", 3)
    torch.testing.assert_close(made.read(0, SAMPLES), block(x).detach())
    assert drift(made, made) == 0.0
    lost = (x - made.read(0, SAMPLES)).square().sum() / made.read(0, SAMPLES).square().sum()
    assert drift(spooled(tmp_path / "x", x), made, 3) == pytest.approx(float(lost), rel=1e-5)


def many(count: int) -> Tensor:
    return inputs().repeat(count // SAMPLES, 1, 1)


def test_a_sample_that_is_not_finite_is_left_out_and_named(tmp_path: Path) -> None:
    block, x = Small(), many(200)
    x[17, 1, 2] = float("nan")
    stats = observe(block, None, Carried(spooled(tmp_path / "x", x)), None, "second.in", (Gram,), 8)
    assert stats.dropped == {17}
    assert stats.tokens == 199 * TIME
    assert torch.isfinite(stats[Gram].mean()).all()


def test_an_activation_that_overflows_inside_is_left_out(tmp_path: Path) -> None:
    block, x = Small(), many(200)
    x[33] = 3e38
    ideal = Small()
    spool = spooled(tmp_path / "x", x)
    stats = observe(block, ideal, Carried(spool), Carried(spool), "second.in", (Gram, Cross), 8)
    assert stats.dropped == {33}
    assert torch.isfinite(stats[Cross].mean()).all()


def test_too_many_bad_samples_are_an_error_that_names_them(tmp_path: Path) -> None:
    x = many(200)
    x[5:9] = float("inf")
    with pytest.raises(NumericalError, match=r"4 of 200 .*samples 5, 6, 7, 8"):
        observe(Small(), None, Carried(spooled(tmp_path / "x", x)), None, "second.in", (Gram,), 8)


def test_nothing_of_a_block_outlives_the_walk(tmp_path: Path) -> None:
    spool = spooled(tmp_path / "x", inputs())
    gc.disable()
    try:
        block, ideal = Small(), Small(1)
        watched = [weakref.ref(block), weakref.ref(ideal), weakref.ref(block.first)]
        stats = observe(block, ideal, Carried(spool), Carried(spool), "second.in", (Gram, Cross), 4)
        spool = advance(block, Carried(spool), tmp_path / "y", 4)
        del block, ideal
        assert [ref() for ref in watched] == [None] * 3
        assert stats.tokens
    finally:
        gc.enable()
