"""Products run natively as two, the second added in place: equal to the torch engine."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit.model.tiny import tokens

from whet.base.errors import UnsupportedError
from whet.kernels.native import missing

if missing() is not None:
    pytest.skip(str(missing()), allow_module_level=True)

from tests.native_folders import native, rounding, tiny

from whet.kernels.native import native as extension
from whet.runtime.native import refusals
from whet.runtime.used import used

CASES = ["llama", "llama-tied", "phi3", "gpt_neox", "gemma2", "opt"]  # split, joined, interleaved
FORMS = [
    "lowrank-8", "lowrank-5(int8-g16)", "int4-g32 + lowrank-4", "int3-g16-affine + lowrank-4(int8-g64)",
    "int2-g16 + int2-g16 + lowrank-3", "nf4-g32 + lowrank-2",
]  # fmt: skip
MIXED = {"": "int4-g32 + lowrank-4", "embed": "f32", "attn.k": "lowrank-7", "mlp.up": "int4-g32"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHET_CACHE", str(tmp_path / "cache"))


def far(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def spread(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()))


def cut(executor, ids: np.ndarray, bounds: list[int]) -> np.ndarray:
    held = executor.new_cache()
    pairs = itertools.pairwise(bounds)
    return np.concatenate([executor.step(ids[a:b], held, b - a) for a, b in pairs])


@torch.no_grad()
def expected(folder, ids: np.ndarray) -> np.ndarray:
    return rounding(folder)(torch.from_numpy(ids)[None])[0].numpy()


def errors(folder) -> list[tuple[float, float]]:
    """The farthest logit, and the root mean square, with activations in bf16 and in int8.

    Alike for one, five and forty tokens at once. Codes read int8 inputs, which 32 channels feel:
    codes alone are as far off as codes and product, 0.02 in root mean square; the farthest of 2,440
    logits is what the wider bound is for.
    """
    ids = tokens(40, batch=1)[0].numpy()
    known = expected(folder, ids)
    found: list[tuple[float, float]] = []
    for precision in ("bf16", "int8"):
        executor = native(folder, precision=precision, cache="f32", tokens=64)
        whole = cut(executor, ids, [0, 40])
        found.append((far(whole, known), spread(whole, known)))
        for pieces in ([0, 5, 6, 11, 40], [0, 35, 36, 37, 38, 39, 40]):
            assert np.array_equal(cut(executor, ids, pieces), whole)
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES)
def test_products_equal_the_reference(case: str, form: str, tmp_path: Path):
    bf16, int8 = errors(tiny(tmp_path / "model", case, {"": form, "embed": "f32"}))
    assert max(bf16) <= 0.02
    assert int8[0] <= 0.1
    assert int8[1] <= 0.03


def test_linears_of_several_formats_stay_apart(tmp_path: Path):
    bf16, int8 = errors(tiny(tmp_path / "model", "llama", MIXED))
    assert max(bf16) <= 0.02
    assert int8[0] <= 0.1
    assert int8[1] <= 0.03


@pytest.mark.parametrize("tier", extension().tiers())
def test_every_tier(tier: str, tmp_path: Path):
    folder = tiny(tmp_path / "model", "llama", {"": "int4-g16 + lowrank-3", "embed": "f32"})
    ids = tokens(21, batch=1)[0].numpy()
    executor = native(folder, tier=tier, precision="bf16", cache="f32")
    assert far(cut(executor, ids, [0, 21]), expected(folder, ids)) <= 0.02


@torch.no_grad()
def test_quantized_inputs_are_seen_by_codes_and_product_alike(tmp_path: Path):
    scheme = {"": "f32", "mlp.up": "int8-channel + lowrank-3, int8-token"}
    folder = tiny(tmp_path / "model", "llama", scheme)
    ids = tokens(21, batch=1)[0].numpy()
    found = cut(native(folder, cache="f32"), ids, [0, 21])
    assert far(found, expected(folder, ids)) <= 0.02


def test_the_products_of_a_step_share_what_they_can(tmp_path: Path):
    folder = tiny(tmp_path / "model", "llama", {"": "int4-g32 + lowrank-4", "embed": "f32"})
    program = native(folder).program
    layers, names = 2, program.names
    assert names.count("linear") == 3 * (4 * layers + 1), "codes, first factors, second factors"


def test_experts_and_looked_up_tables_are_refused_with_a_reason(tmp_path: Path):
    mixture = tiny(tmp_path / "a", "mixtral", {"": "lowrank-4", "embed": "f32"})
    assert any("an expert multiplies by one matrix" in reason for reason in refusals(mixture))
    with pytest.raises(UnsupportedError, match="an expert multiplies by one matrix"):
        native(mixture)
    table = tiny(tmp_path / "b", "llama", {"": "f32", "embed": "lowrank-4"})
    with pytest.raises(UnsupportedError, match="no rows to look up"):
        native(table)


def test_what_multiplies_is_told(tmp_path: Path):
    folder = tiny(tmp_path / "model", "llama", {"": "int4-g32 + lowrank-4", "embed": "f32"})
    found = next(one for one in used(folder) if one.module.endswith("q_proj"))
    assert found.format == "int4-g32 + lowrank-4"
    assert found.kernel.count(" + ") == 2
    assert found.kernel.endswith("activations int16 and bf16")
