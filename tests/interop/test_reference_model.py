"""A real pretrained chat model from first to last: read, made plain, compressed, run, measured, verified."""

from pathlib import Path

import pytest
import torch
from bench.real_model.reference import UnreachableError, reference_model
from transformers import AutoModelForCausalLM

import whet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."


@pytest.fixture(scope="module")
def gguf() -> Path:
    try:
        return reference_model()
    except UnreachableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def plain(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as a folder of Hugging Face in bfloat16."""
    return whet.compress(gguf, "plain", out=tmp_path_factory.mktemp("plain") / "bf16").path


@pytest.fixture(scope="module")
def int4(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whet.compress(plain, "int4-fast", out=tmp_path_factory.mktemp("int4") / "out").path


def test_plain_has_the_numbers_that_transformers_reads(gguf: Path, plain: Path) -> None:
    expected = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    ).state_dict()
    found = AutoModelForCausalLM.from_pretrained(plain, dtype=torch.bfloat16).state_dict()
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor.bfloat16(), found[name]), name


@pytest.mark.parametrize("executor", ["native", "reference"])
@pytest.mark.parametrize("source", ["gguf", "plain"])
def test_the_question_is_answered(
    source: str, executor: str, request: pytest.FixtureRequest
) -> None:
    engine = whet.load(request.getfixturevalue(source), executor=executor)
    messages = [{"role": "user", "content": QUESTION}]
    assert engine.chat(messages, max_tokens=12).read().strip().startswith(ANSWER)


def test_it_is_measured_and_verified(plain: Path, int4: Path) -> None:
    facts = whet.measure(int4, against=plain)[0].facts
    assert 0 < facts["kl_mean"].value < 0.5
    assert whet.verify(int4) == []
