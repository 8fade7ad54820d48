"""A checkpoint: tensors as stored, weights oriented, misfits named, little read."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from whet.base.errors import FolderError, UnsupportedError
from whet.formats.spec import Float
from whet.model.site import Site, Stack
from whet.store.checkpoint import Checkpoint
from whet.store.folder import Folder
from whet.store.resolve import demo
from whet.store.shard import Shard
from whet.store.writer import write_shard

NAMES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
SITE = Site("attn.q", "m", (3, 2), "out", "hidden", "attn.in", layer=0)


def checkpoint(
    path: Path, config: dict[str, object] | None = None, **tensors: torch.Tensor
) -> Checkpoint:
    (path / "config.json").write_text(json.dumps(config or {}))
    write_shard(path / "model.safetensors", {k.replace("_", "."): v for k, v in tensors.items()})
    return Checkpoint(Folder(path))


def test_mapped_and_read_are_equal():
    read, mapped = Checkpoint(Folder(demo())), Checkpoint(Folder(demo()), mapped=True)
    for name in read.names():
        assert read.raw_tensor(name).equal(mapped.raw_tensor(name))
        assert read.tensor(name).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_plain_weight(dtype: torch.dtype, tmp_path: Path):
    value = torch.arange(6.0).reshape(3, 2).to(dtype)
    weight = checkpoint(tmp_path, m_weight=value).weight(SITE)
    assert weight.dense().equal(value.float())
    assert str(weight.format) == NAMES[dtype]


def test_transposed_weight(tmp_path: Path):
    value = torch.arange(6.0).reshape(2, 3)
    weight = checkpoint(tmp_path, m_weight=value).weight(replace(SITE, transposed=True))
    assert weight.dense().equal(value.T)
    assert weight.planes["value"].is_contiguous()


def test_double_precision_is_read_as_single(tmp_path: Path):
    value = torch.rand(3, 2, dtype=torch.float64)
    weight = checkpoint(tmp_path, m_weight=value).weight(SITE)
    assert weight.format == Float("F32")
    assert weight.dense().equal(value.float())


def test_stacked_experts_are_read_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    joined = torch.arange(4 * 6 * 2.0).reshape(4, 6, 2)
    source = checkpoint(tmp_path, joined=joined)
    site = replace(SITE, module="experts.2.up", stack=Stack("joined", 2, 3, 6))
    sizes: list[int] = []
    real = Shard.read

    def read(self: Shard, name: str, start: int = 0, stop: int | None = None) -> bytearray:
        sizes.append((stop or 0) - start)
        return real(self, name, start, stop)

    monkeypatch.setattr(Shard, "read", read)
    assert source.weight(site).dense().equal(joined[2, 3:6])
    assert sizes == [6 * 2 * 4]
    with pytest.raises(FolderError, match="item 9"):
        source.weight(replace(site, stack=Stack("joined", 9, 3, 6)))


def test_misfits_are_named(tmp_path: Path):
    with pytest.raises(FolderError, match=r"m\.weight has shape \(2, 2\), expected \(3, 2\)"):
        checkpoint(tmp_path, m_weight=torch.zeros(2, 2)).weight(SITE)
    with pytest.raises(FolderError, match="I8, expected a float"):
        checkpoint(tmp_path, m_weight=torch.zeros(3, 2, dtype=torch.int8)).weight(SITE)
    with pytest.raises(FolderError, match=r"no tensor m\.weight"):
        checkpoint(tmp_path, other=torch.zeros(1)).weight(SITE)


def test_empty_and_scalar_tensors(tmp_path: Path):
    source = checkpoint(tmp_path, a=torch.zeros(0, 3), b=torch.tensor(4.0))
    assert source.raw_tensor("a").shape == (0, 3)
    assert source.raw_tensor("b").item() == 4


def whet(**keys: object) -> dict[str, object]:
    return {"quant_method": "whet", "version": 1, **keys}


def compressed(**keys: object) -> dict[str, object]:
    return {"quant_method": "compressed-tensors", **keys}


def scheme(**keys: object) -> dict[str, object]:
    return whet(schemes=[keys])


UNREADABLE: list[tuple[object, type[Exception]]] = [
    ({"quant_method": "gptq"}, FolderError),
    ({}, UnsupportedError),
    ([], FolderError),
    (whet(version=2), FolderError),
    (whet(), FolderError),
    (scheme(format="int99-g64", modules=[]), FolderError),
    (scheme(modules=["m"]), FolderError),
    (scheme(format="nf4-g64", modules="m"), FolderError),
    (scheme(format="nf4-g64", modules=["m", "m"]), FolderError),
    (scheme(format=4, modules=["m"]), FolderError),
    (compressed(), FolderError),
    (compressed(config_groups={"g": 1}), FolderError),
    (compressed(config_groups={}, kv_cache_scheme={"num_bits": 8}), UnsupportedError),
    (compressed(config_groups={"g": {"targets": [], "format": "marlin-24"}}), UnsupportedError),
]


@pytest.mark.parametrize(("config", "error"), UNREADABLE)
def test_quantization_configs_that_cannot_be_read(
    config: object, error: type[Exception], tmp_path: Path
):
    with pytest.raises(error):
        checkpoint(tmp_path, {"quantization_config": config}, m_weight=torch.zeros(3, 2))
