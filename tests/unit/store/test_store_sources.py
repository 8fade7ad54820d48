"""Sources that other programs have quantized: every number is what its codes mean."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.interop.folders import blocks, round_to_nearest
from tests.native_folders import native, rounding
from tests.quantized import CASES, gptq, plain, quantized, stream
from tests.small import FEW

from whet import api
from whet.base.errors import FolderError, UnsupportedError
from whet.formats.spec import Float
from whet.model.family import find
from whet.store.checkpoint import Checkpoint
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
def test_the_native_engine_computes_what_torch_does(
    name: str, source: Path, tmp_path: Path
) -> None:
    quantized(source, tmp_path / "model", CASES[name])
    folder = Folder(tmp_path / "model")
    ids = np.random.default_rng(0).integers(1, 4096, 12)
    executor = native(folder, precision="bf16", cache="f32")
    found = executor.step(ids, executor.new_cache(), len(ids))
    with torch.no_grad():
        wanted = rounding(folder)(torch.from_numpy(ids)[None])[0].numpy()
    assert np.abs(found - wanted).max() / np.abs(wanted).max() < 0.01


OURS = (
    "int4-g64-affine", "int3-g64", "fp8-e4m3-channel", "mxfp4", "nvfp4", "nf4-g64", "int4-g100",
    "log4-g64-tuned", "codebook3-channel", "2:4(int4-g64)", "sparse50(bf16)",
    "int4-g64 + int2-g64", "int3-g64-affine + lowrank-16",
)  # fmt: skip


@pytest.mark.parametrize("format_", OURS)
def test_what_whet_wrote_decodes_to_what_its_planes_mean(
    format_: str, source: Path, tmp_path: Path
) -> None:
    round_to_nearest(source, tmp_path / "model", blocks(format_))
    coded, folder = Checkpoint(Folder(tmp_path / "model")), Folder(tmp_path / "model", dense=True)
    family = find(folder.config)
    sites = family.sites(family.architecture(folder.config, folder.tensors))
    dense = Checkpoint(folder)
    assert set(folder.tensors) == set(Folder(source).tensors)
    assert all(
        torch.equal(coded.weight(site).dense(), dense.weight(site).dense())
        for site in sites
        if site.tied is None
    )


def stored_pair(path: Path, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> Checkpoint:
    """A folder of some tensors alone, decoded."""
    path.mkdir()
    save_file(tensors, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"quantization_config": config}))
    return Checkpoint(Folder(path, dense=True))


def ct_config(format_: str, **weights: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights}
    return {
        "quant_method": "compressed-tensors", "format": format_, "ignore": ["lm_head"],
        "config_groups": {"group_0": group}, "sparsity_config": {"format": "dense"},
        "kv_cache_scheme": {"num_bits": 8},
    }  # fmt: skip


def test_compressed_tensors_with_act_order_decodes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    codes = torch.from_numpy(random.integers(0, 16, (8, 32)))
    order = torch.from_numpy(random.permutation(32) % 2)
    scale = torch.rand(8, 2, dtype=torch.float32).half()
    tensors = {
        "q.weight_packed": stream(codes, 4),
        "q.weight_scale": scale,
        "q.weight_shape": torch.tensor([8, 32]),
        "q.weight_g_idx": order.to(torch.int32),
    }
    config = ct_config("pack-quantized", num_bits=4, type="int", strategy="group", group_size=16)
    found = stored_pair(tmp_path / "model", tensors, config).tensor("q.weight")
    assert torch.equal(found, (codes - 8) * scale.float()[:, order])


def test_compressed_tensors_with_fp8_blocks_decodes(tmp_path: Path) -> None:
    codes = torch.randn(130, 200).to(torch.float8_e4m3fn)
    scale = torch.rand(2, 2)
    config = ct_config(
        "float-quantized", num_bits=8, type="float", strategy="block", block_structure=[128, 128]
    )
    tensors = {"q.weight": codes, "q.weight_scale": scale}
    found = stored_pair(tmp_path / "model", tensors, config).tensor("q.weight")
    spread = scale.repeat_interleave(128, 0)[:130].repeat_interleave(128, 1)[:, :200]
    assert torch.equal(found, codes.float() * spread)


def test_experts_of_gpt_oss_decode_as_transformers_decodes_them(tmp_path: Path) -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    blocks_ = torch.randint(0, 256, (2, 64, 3, 16), dtype=torch.uint8)
    scales = torch.randint(118, 130, (2, 64, 3), dtype=torch.uint8)
    tensors = {"e.gate_up_proj_blocks": blocks_, "e.gate_up_proj_scales": scales}
    config = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    found = stored_pair(tmp_path / "model", tensors, config).tensor("e.gate_up_proj")
    wanted = convert_moe_packed_tensors(blocks_, scales, dtype=torch.float32)
    assert torch.equal(found, wanted)


def test_stacked_experts_in_fp8_blocks_decode(tmp_path: Path) -> None:
    codes = torch.randn(3, 130, 200).to(torch.float8_e4m3fn)
    scale = torch.rand(3, 2, 2)
    config = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    tensors = {"e.down_proj": codes, "e.down_proj_scale_inv": scale}
    found = stored_pair(tmp_path / "model", tensors, config).tensor("e.down_proj")
    spread = scale.repeat_interleave(128, 1)[:, :130].repeat_interleave(128, 2)[:, :, :200]
    assert torch.equal(found, codes.float() * spread)


def test_settings_of_single_modules_are_heeded(tmp_path: Path) -> None:
    """GPTQModel's `dynamic` gives modules other bits, or leaves them out."""
    case = gptq(8, 32)
    weight = torch.randn(64, 64)
    parts, values = case.write(weight)
    tensors = {f"m.q.{name}": part.contiguous() for name, part in parts.items()}
    config = dict(gptq(4, 64).config) | {"dynamic": {r"+:m\.q": {"bits": 8, "group_size": 32}}}
    found = stored_pair(tmp_path / "model", tensors, config).tensor("m.q.weight")
    assert torch.equal(found, values)


def test_early_gptq_folders_say_it_in_a_file_of_its_own(source: Path, tmp_path: Path) -> None:
    case = CASES["gptq4-sym"]
    quantized(source, tmp_path / "model", case)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    told = config.pop("quantization_config")
    told.pop("quant_method")
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    (tmp_path / "model" / "quantize_config.json").write_text(json.dumps(told))
    assert Folder(tmp_path / "model", dense=True).stored_as == "GPTQ int4-g64"


def test_what_does_not_fit_together_is_refused(source: Path, tmp_path: Path) -> None:
    quantized(source, tmp_path / "model", CASES["gptq4-sym"])
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    first = next(name for name in tensors if name.endswith(".scales"))
    save_file(tensors | {first: tensors[first][:-1].contiguous()}, path)
    with pytest.raises(FolderError, match="scales has shape"):
        Folder(tmp_path / "model", dense=True)
    tensors.pop(first)
    save_file(tensors, path)
    with pytest.raises(FolderError, match=r"has no tensor .*scales"):
        Folder(tmp_path / "model", dense=True)


def test_layouts_of_processors_are_refused(source: Path, tmp_path: Path) -> None:
    quantized(source, tmp_path / "model", CASES["awq"])
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["quantization_config"]["version"] = "gemv"
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedError, match="'gemv', expected gemm"):
        Folder(tmp_path / "model")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_compresses_anew(name: str, source: Path, tmp_path: Path) -> None:
    values = quantized(source, tmp_path / "model", CASES[name])
    done = api.compress(tmp_path / "model", "int4-fast", out=tmp_path / "out", set=FEW)
    told = next(r for r in done.records if r.step == "source").notes
    assert told["stored_as"].startswith(CASES[name].words)
    assert told["rounded_again"] == "yes"
    folder = Folder(tmp_path / "out")
    assert folder.config["quantization_config"]["quant_method"] == "compressed-tensors"
    checkpoint = Checkpoint(folder)
    family = find(folder.config)
    sites = family.sites(family.architecture(folder.config, folder.tensors))
    for site in sites:
        if site.tensor in values:
            error = checkpoint.weight(site).dense() - values[site.tensor]
            assert float(error.norm() / values[site.tensor].norm()) < 0.15
