"""What codes of a source stand for is stored in 16 bits where no step selects it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.gguf_files import converted

from whet.model.opened import opened
from whet.recipe.file import read
from whet.recipe.pipeline import pipeline
from whet.store.checkpoint import Checkpoint
from whet.store.resolve import demo
from whet.store.rounded import Half, half_of, rounded

NUMBERS = np.array(
    [0, -0.0, 1, 1 + 2**-8, 1 + 3 * 2**-8, 3e-40, 6e-8, 65520, 3.4e38, np.inf, -np.inf, 1 / 3], "f4"
)


@pytest.mark.parametrize(("half", "dtype"), [("BF16", torch.bfloat16), ("F16", torch.float16)])
def test_numbers_are_rounded_as_torch_rounds_them(half: Half, dtype: torch.dtype):
    numbers = np.concatenate([NUMBERS, np.random.default_rng(0).standard_normal(999, np.float32)])
    expected = torch.from_numpy(numbers).to(dtype).view(torch.int16).numpy()
    assert np.array_equal(rounded(numbers, half).view(np.int16), expected)
    assert (rounded(np.array([np.nan], "f4"), "BF16") == 0x7FC0).all()


def test_the_type_is_that_of_the_model():
    assert half_of({"dtype": "float16"}) == "F16"
    assert half_of({"torch_dtype": "bfloat16"}) == half_of({"dtype": "float32"}) == "BF16"


def test_only_matrices_that_no_step_selects_are_rounded(tmp_path: Path):
    file = converted(demo(), tmp_path / "x.gguf", "Q8_0")
    source = opened(file, dense=True)
    embedding = "model.embed_tokens.weight"
    assert embedding in source.decoded
    left = pipeline(read("int4"), source).folder
    assert left.tensors[embedding].info.dtype == "F32"  # it is quantized
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: r\nsteps:\n- use: rtn\n  format: int4-g32\n  where: [mlp.down]\n")
    left = pipeline(read(str(recipe)), source).folder
    dtypes = {name: stored.info.dtype for name, stored in left.tensors.items()}
    assert dtypes[embedding] == "BF16"
    assert dtypes["model.layers.0.mlp.down_proj.weight"] == "F32"
    assert dtypes["model.norm.weight"] == source.tensors["model.norm.weight"].info.dtype
    name = "model.layers.1.mlp.up_proj.weight"
    exact, found = Checkpoint(source).tensor(name), Checkpoint(left).tensor(name)
    assert torch.equal(found, exact.to(torch.bfloat16))
