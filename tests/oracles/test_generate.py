"""Greedy tokens are those of transformers, on the demo and on tiny random models of each family."""

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GenerationConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from whet.runtime.engine import Engine, load
from whet.runtime.sample import Sampling
from whet.store.resolve import demo

PROMPTS = ["It was a dark night, and the", "“No,” said", "\n\nChapter"]
TINY = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 64,
}  # fmt: skip
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**TINY, tie_word_embeddings=True),
    "mistral": MistralConfig(**TINY, sliding_window=8),
    "qwen3": Qwen3Config(**TINY),
    "gemma2": Gemma2Config(**TINY, sliding_window=8, query_pre_attn_scalar=8),
}


def transformers_tokens(
    model: PreTrainedModel, ids: list[int], count: int, penalty: float = 1.0
) -> list[int]:
    settings = GenerationConfig(do_sample=False, max_new_tokens=count, repetition_penalty=penalty)
    found = model.generate(torch.tensor([ids]), generation_config=settings)
    return found[0, len(ids) :].tolist()


def whet_tokens(engine: Engine, ids: list[int], count: int, penalty: float = 1.0) -> list[int]:
    sampling = Sampling(repetition_penalty=penalty)
    return list(engine.generate(ids, sampling, count, stop_ids=()))


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_tokens_of_the_demo_equal_those_of_transformers(penalty: float) -> None:
    engine = load("demo", "reference")
    oracle = AutoModelForCausalLM.from_pretrained(demo(), dtype=torch.float32)
    oracle.generation_config = GenerationConfig()
    for prompt in PROMPTS:
        ids = engine.encode(prompt)
        assert whet_tokens(engine, ids, 24, penalty) == transformers_tokens(
            oracle, ids, 24, penalty
        )


@pytest.mark.parametrize("family", CONFIGS)
def test_greedy_tokens_of_random_models_equal_those_of_transformers(
    family: str, tmp_path: Path
) -> None:
    torch.manual_seed(7)
    oracle = AutoModelForCausalLM.from_config(CONFIGS[family]).float().eval()
    for name, parameter in oracle.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.05 if "embed" in name else 0.3)
    oracle.save_pretrained(tmp_path)
    oracle.generation_config = GenerationConfig()
    ids = torch.randint(96, (11,)).tolist()
    found = whet_tokens(load(tmp_path, "reference"), ids, 30, penalty=1.2)
    assert found == transformers_tokens(oracle, ids, 30, penalty=1.2)
    assert len(set(found)) > 8
