"""Sources that other programs have quantized: every number is what its codes mean."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.native_folders import native, rounding
from tests.quantized import CASES, plain, quantized
from tests.small import FEW
from whet import api
from whet.base.errors import FolderError, UnsupportedError
from whet.formats.spec import Float
from whet.model.family import find
from whet.store.checkpoint import Checkpoint
from whet.store.dtypes import tensor_of
from whet.store.folder import Folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain(tmp_path_factory.mktemp("plain") / "model")


@pytest.fixture(scope="module", params=CASES)
def case(
    request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, dict[str, torch.Tensor]]:
    name: str = request.param
    path = tmp_path_factory.mktemp("source") / name
    return name, path, quantized(source, path, CASES[name])


Made = tuple[str, Path, dict[str, torch.Tensor]]


def test_decodes_to_what_the_codes_mean(case: Made) -> None:
    name, path, values = case
    folder = Folder(path, dense=True)
    assert "quantization_config" not in folder.config
    assert folder.stored_as.startswith(CASES[name].words)
    checkpoint = Checkpoint(folder)
    for tensor, wanted in values.items():
        found = checkpoint.tensor(tensor)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted, rtol=2e-7, atol=1e-9)
    assert not {n for n in folder.tensors if "qzeros" in n or "scale" in n.lower() or "map" in n}


def test_runs_by_the_codes_that_are_stored(case: Made) -> None:
    name, path, values = case
    folder = Folder(path)
    checkpoint = Checkpoint(folder)
    family = find(folder.config)
    sites = family.sites(family.architecture(folder.config, folder.tensors))
    mine = [site for site in sites if site.tensor in values]
    for site in mine:
        weight = checkpoint.weight(site)
        assert isinstance(weight.format, Float) is not CASES[name].runs
        torch.testing.assert_close(weight.dense(), values[site.tensor], rtol=3e-7, atol=1e-9)
    assert len(mine) == len(values)


@pytest.mark.parametrize("name", ["gptq4", "gptq3", "awq", "fp8-block", "nf4-nested", "llm-int8"])
def test_the_native_engine_computes_what_torch_does(name: str, source: Path, tmp_path: Path) -> None:
    quantized(source, tmp_path / "model", CASES[name])
    folder = Folder(tmp_path / "model")
    ids = np.random.default_rng(0).integers(1, 4096, 12)
    executor = native(folder, precision="bf16", cache="f32")
    found = executor.step(ids, executor.new_cache(), len(ids))
    with torch.no_grad():
        wanted = rounding(folder)(torch.from_numpy(ids)[None])[0].numpy()
    assert np.abs(found - wanted).max() / np.abs(wanted).max() < 0.01
