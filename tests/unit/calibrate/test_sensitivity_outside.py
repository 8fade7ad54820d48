"""What embedding and head are expected to lose, beside the textbook's sums over tokens."""

from pathlib import Path

import pytest
import torch
from tests.interop.pipeline import saved, tiny

from whet.calibrate.backward import BackwardPass
from whet.calibrate.hidden_states import MemoryBudget
from whet.calibrate.sensitivity import rounding_loss
from whet.calibrate.sensitivity_outside import outside_sensitivities
from whet.formats.spec import parse
from whet.model import decoder
from whet.model.family import find
from whet.store.checkpoint import Checkpoint
from whet.store.folder import Folder

FORMATS = (parse("int4-g16"), parse("int8-g16"), parse("nf4-g16"))


@pytest.mark.parametrize("case", ["llama", "llama-tied"])
def test_each_token_counts_once(case: str, tmp_path: Path) -> None:
    source = Checkpoint(Folder(saved(tiny(case), tmp_path / "model")))
    ids = torch.randint(0, 60, (2, 24), generator=torch.Generator().manual_seed(1))
    walk = BackwardPass(source, ids, tmp_path / "walk", 0, lambda *_: None, MemoryBudget(0))
    for _ in walk.blocks():
        pass
    found = {
        one.role: one.kl
        for one in outside_sensitivities(source, ids, walk.entering(), walk.leaving(), FORMATS)
    }
    family = find(source.config)
    arch = family.architecture(source.config, source.names())
    table = decoder.embedding(source, family, arch).linear.weight.dense()
    gradient = torch.cat([part for _, part in walk.entering().chunks(1)]).flatten(0, 1)
    rows = torch.zeros_like(table)
    for token, g in zip(ids.flatten().tolist(), gradient, strict=True):
        rows[token] += g.square() / ids.numel()
    tied = decoder.embedding(source, family, arch) if arch.tied else None
    head = decoder.head(source, family, arch, tied)
    assert head.norm is not None
    outputs = torch.zeros_like(head.linear.weight.dense())
    for state in torch.cat([part for _, part in walk.leaving().chunks(1)]).flatten(0, 1):
        with torch.no_grad():
            p = head(state[None]).softmax(-1)[0]
            outputs += torch.outer(p * (1 - p), head.norm(state[None])[0].square()) / ids.numel()
    for format_ in FORMATS:
        looked_up = rounding_loss(table, rows, format_)
        multiplied = rounding_loss(head.linear.weight.dense(), outputs, format_)
        if arch.tied:
            assert found["embed"][format_] == pytest.approx(looked_up + multiplied, rel=1e-3)
        else:
            assert found["embed"][format_] == pytest.approx(looked_up, rel=1e-3)
            assert found["head"][format_] == pytest.approx(multiplied, rel=1e-3)
