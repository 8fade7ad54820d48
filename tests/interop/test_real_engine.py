"""The engine on a real model: right answers, and nothing added to what the file says."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import whet
from whet.kernels.native import missing
from whet.runtime.engine import Engine
from whet.runtime.sample import Sampling

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
TEXT = (
    "The river rises in the hills to the north of the town, and runs for some forty miles through farms "
    "and woods before it meets the sea. In spring it floods the meadows on both banks, which are left to "
    "the cattle; in late summer a child can walk across it without wetting more than the knees. The "
    "mill, built in 1784 and last used in the war, stands where the road to the market crosses it."
)


def reference_module() -> ModuleType:
    path = Path(__file__).parents[2] / "bench" / "real_model" / "reference.py"
    spec = importlib.util.spec_from_file_location("real_model_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def gguf() -> Path:
    module = reference_module()
    try:
        return module.reference_model()
    except module.UnreachableError as error:
        pytest.skip(str(error))


def log_probabilities(engine: Engine, ids: np.ndarray) -> np.ndarray:
    executor = engine.executor
    logits = executor.step(ids, executor.new_cache(), len(ids)).astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def test_the_answer_of_a_gguf_file_is_right(gguf: Path):
    engine = whet.load(gguf, kernels="require")
    answer = engine.chat(QUESTION, Sampling(), max_tokens=16).read()
    assert answer.startswith("The capital of France is Paris.")


def test_the_engine_adds_nothing_to_a_gguf_file(gguf: Path):
    exact = whet.load(gguf, executor="reference")
    ids = np.asarray(exact.encode(TEXT), np.int64)
    known = log_probabilities(exact, ids)
    kept = {
        inputs: divergence(known, log_probabilities(whet.load(gguf, inputs=inputs), ids))
        for inputs in ("int16", "int8")
    }
    assert kept["int16"] <= 1e-4
    assert kept["int8"] >= 10 * kept["int16"]  # what the flag trades for speed
    exactly = whet.load(gguf, cache="f32")
    assert divergence(known, log_probabilities(exactly, ids)) <= 1e-6


@pytest.mark.parametrize("format_", ["int8-channel", "int4-g64", "int3-g64-affine"])
def test_the_engine_adds_nothing_to_a_folder(format_: str, gguf: Path, tmp_path: Path):
    recipe = tmp_path / "recipe.yaml"
    steps = (
        f"- use: rtn\n  format: {format_}\n- use: rtn\n  where: [embed, head]\n  format: int8-g64\n"
    )
    recipe.write_text(f"name: rounded\nsteps:\n{steps}")
    whet.compress(gguf, recipe=str(recipe), out=tmp_path / "out")
    exact = whet.load(tmp_path / "out", executor="reference")
    ids = np.asarray(exact.encode(TEXT), np.int64)
    found = log_probabilities(whet.load(tmp_path / "out", kernels="require"), ids)
    assert divergence(log_probabilities(exact, ids), found) <= 1e-4
