"""Widths of blocks: the best that fit, by every combination; blocks that do nothing give most."""

from itertools import product
from pathlib import Path

import pytest
import torch
from tests.small import small_model
from tests.unit.model.tiny import source

from whet.base.errors import UnsupportedError
from whet.methods.structure.ffn import Ffn
from whet.model.family import find
from whet.model.source import InMemory
from whet.search.gradients import Gradients, gradients
from whet.search.structure import Structure, refused
from whet.search.widths import Curve, allotted, widths
from whet.store.checkpoint import Checkpoint
from whet.store.folder import Folder


def curves(seed: int, blocks: int, bend: float) -> list[Curve]:
    """Random losses at six widths; bent ones do not fall evenly."""
    draw = torch.Generator().manual_seed(seed)
    found: list[Curve] = []
    for block in range(blocks):
        loss = torch.rand(6, generator=draw).cumsum(0) ** bend * (1 + block)
        loss[0] = 0.0
        found.append([(96 - 16 * i - block, float(one)) for i, one in enumerate(loss)])
    return found


@pytest.mark.parametrize("bend", [1.0, 2.0, 0.5])
@pytest.mark.parametrize("kept", [80, 150, 221, 288])
def test_no_other_widths_that_fit_lose_less(kept: int, bend: float) -> None:
    given = curves(kept, 3, bend)
    every = [
        (sum(cost for _, cost in one), tuple(width for width, _ in one))
        for one in product(*given)
        if sum(width for width, _ in one) <= kept
    ]
    found = allotted(given, kept)
    lost = sum(dict(curve)[width] for curve, width in zip(given, found, strict=True))
    assert sum(found) <= kept
    assert lost == pytest.approx(min(every)[0])


def test_what_cannot_fit_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="no widths of 3 blocks have 20 channels"):
        allotted(curves(0, 3, 1.0), 20)


def test_a_block_that_does_nothing_gives_most(tmp_path: Path) -> None:
    stored = Checkpoint(Folder(small_model(tmp_path / "model", layers=3), dense=True))
    tensors = {name: stored.tensor(name).clone() for name in stored.names()}
    tensors["model.layers.1.mlp.down_proj.weight"].zero_()
    model = InMemory(stored.config, tensors)
    ids = torch.randint(400, (8, 64), generator=torch.Generator().manual_seed(0))
    gradients(model, ids, tmp_path / "felt", 0, lambda share, what: None)
    found = widths(model, Gradients(tmp_path / "felt", ids), 0.2)
    channels = stored.config["intermediate_size"]
    assert min(found) == found[1] <= 0.5 * channels
    assert found[0] + found[2] > 2 * 0.8 * channels
    assert sum(found) <= 3 * 0.8 * channels


def test_a_shape_names_the_widths_that_were_found() -> None:
    model = source("llama-tied")
    arch = find(model.config).architecture(model.config)
    shape = Structure(ffn=0.25)
    assert shape.tapers(arch)
    assert not Structure(ffn=0.25, layers=1).tapers(arch)
    (step,) = shape.steps(arch, (48, 24))
    assert isinstance(step.use, Ffn)
    assert step.use.channels == (48, 24)
    assert refused((step,), model.config) is None
    assert "ffn: it has 2 blocks" in (refused(shape.steps(arch, (48,)), model.config) or "")
