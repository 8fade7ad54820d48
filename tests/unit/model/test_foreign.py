"""Models without a family, through transformers' own code."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from tests.unit.model.tiny import GPT2, tokens
from torch import Tensor
from transformers import BertConfig, GPT2Config, PreTrainedModel, T5Config

from whet.base.errors import FolderError, RecipeError, UnsupportedError
from whet.model.foreign import Foreign

BERT = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
T5 = {"vocab_size": 61, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
KINDS = ("bert", "bert-body", "t5", "gpt2")


class Count:
    def __init__(self, channels: int) -> None:
        self.channels, self.tokens = channels, 0

    def add(self, x: Tensor, /) -> None:
        assert x.shape[1] == self.channels
        self.tokens += len(x)


def made(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    match kind:
        case "bert":
            return transformers.BertForMaskedLM(BertConfig(**BERT))
        case "bert-body":
            return transformers.BertModel(BertConfig(**BERT))
        case "t5":
            return transformers.T5ForConditionalGeneration(T5Config(**T5))
        case _:
            return transformers.GPT2LMHeadModel(GPT2Config(**GPT2))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def opened(kind: str, folder: Path, dtype: torch.dtype = torch.float32) -> Foreign:
    made(kind).to(dtype).save_pretrained(folder)
    return Foreign(folder)


def batch(kind: str) -> dict[str, Tensor]:
    extra = {"decoder_input_ids": tokens(5)} if kind == "t5" else {}
    return {"input_ids": tokens(7)} | extra


@torch.no_grad()
def outputs(foreign: Foreign, kind: str) -> Tensor:
    return foreign.model(**batch(kind))[0]


def test_lists_its_linears_but_not_the_output_embedding(kind: str, tmp_path: Path):
    foreign = opened(kind, tmp_path)
    counts = {"bert": 13, "bert-body": 13, "t5": 32, "gpt2": 8}
    assert len(foreign.sites) == counts[kind]
    heads = {"bert": "cls.predictions.decoder", "t5": "lm_head", "gpt2": "lm_head"}
    assert not {site.role for site in foreign.sites} & set(foreign.skipped)
    if kind in heads:
        assert "output" in foreign.skipped[heads[kind]]


def test_observes_the_inputs_of_linears(kind: str, tmp_path: Path):
    foreign = opened(kind, tmp_path)
    names = [site.role for site in foreign.sites]
    seen = foreign.observe([batch(kind)] * 2, names, Count)
    assert list(seen) == names
    assert {count.tokens for count in seen.values()} <= {4, 20, 28}
    assert not any(module._forward_pre_hooks for module in foreign.model.modules())


def test_replacing_by_the_same_changes_nothing_and_by_another_does(kind: str, tmp_path: Path):
    foreign = opened(kind, tmp_path)
    before = outputs(foreign, kind)
    for site in foreign.sites:
        foreign.replace(site.role, foreign.weight(site.role).dense())
    assert torch.equal(outputs(foreign, kind), before)
    site = foreign.sites[0]
    foreign.replace(site.role, 2 * foreign.weight(site.role).dense())
    assert not torch.equal(outputs(foreign, kind), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_saved_computes_the_same(kind: str, dtype: torch.dtype, tmp_path: Path):
    foreign = opened(kind, tmp_path / "one", dtype)
    for site in foreign.sites:
        foreign.replace(site.role, 1.5 * foreign.weight(site.role).dense())
    foreign.save(tmp_path / "two")
    again = Foreign(tmp_path / "two")
    bound = 1e-6 if dtype == torch.float32 else 0.02
    assert float((outputs(again, kind) - outputs(foreign, kind)).norm()) < bound * float(
        outputs(foreign, kind).norm()
    )
    assert json.loads((tmp_path / "two/config.json").read_text())["dtype"] == str(dtype)[6:]


def test_refuses_other_names_and_shapes(tmp_path: Path):
    foreign = opened("bert", tmp_path)
    with pytest.raises(RecipeError, match="output embedding"):
        foreign.weight("cls.predictions.decoder")
    with pytest.raises(RecipeError, match="no such linear"):
        foreign.weight("nothing")
    with pytest.raises(FolderError, match="shape"):
        foreign.replace(foreign.sites[0].role, torch.zeros(2, 2))


def test_refuses_a_class_that_transformers_does_not_have(tmp_path: Path):
    made("bert").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    for name in ("BertForMindReading", "logging", "BertConfig"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"architectures": [name]}))
        with pytest.raises(UnsupportedError, match=name):
            Foreign(tmp_path)
