import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

from whet.measure.folder import sizes
from whet.store.resolve import demo
from whet.store.shard import Shard


def test_a_plain_folder_has_its_own_bits() -> None:
    found = sizes(demo())
    shard = Shard(demo() / "model.safetensors")
    assert found.files == sum(path.stat().st_size for path in demo().iterdir())
    assert found.tensors == sum(info.nbytes for info in shard.tensors.values())
    assert found.parameters == found.tensors // 2
    assert found.coded == 0
    assert found.facts()["bits_per_weight_model"].value == 16
    assert "bits_per_weight" not in found.facts()


def test_bits_of_compressed_matrices_count_everything_that_belongs_to_them(tmp_path: Path) -> None:
    for path in demo().iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    module = "model.layers.0.mlp.up_proj"
    kept = {
        name: torch.zeros(info.shape, dtype=torch.bfloat16)
        for name, info in Shard(demo() / "model.safetensors").tensors.items()
        if not name.startswith(module)
    }
    planes = {
        f"{module}.weight_packed": torch.zeros(768, 32, dtype=torch.int32),
        f"{module}.weight_scale": torch.zeros(768, 4, dtype=torch.bfloat16),
    }
    save_file(kept | planes, tmp_path / "model.safetensors")
    found = sizes(tmp_path)
    assert found.coded == 768 * 256
    assert found.facts()["bits_per_weight"].value == 4.25
    assert found.parameters == sizes(demo()).parameters


def test_a_folder_of_no_known_family_has_sizes_but_no_bits(tmp_path: Path) -> None:
    tiny = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    BertModel(BertConfig(**tiny, num_attention_heads=2)).save_pretrained(tmp_path)
    found = sizes(tmp_path)
    assert found.tensors > 0
    assert set(found.facts()) == {"bytes", "bytes_weights"}


@pytest.mark.parametrize("module", ["whet.measure.folder", "whet.measure.intervals"])
def test_sizes_need_no_torch(module: str) -> None:
    code = f"import sys, {module}; assert not {{'torch', 'transformers'}} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
