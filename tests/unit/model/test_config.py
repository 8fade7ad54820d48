"""Reading configs of old and new releases, and refusing what cannot be read."""

import math
from typing import Any

import pytest

from whet.base.errors import FolderError, UnsupportedError, WhetError
from whet.model.architecture import Architecture
from whet.model.family import families, find

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
LLAMA = SIZES | {"model_type": "llama"}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
FACTORS = {"short_factor": [1.0] * 3, "long_factor": [2.0] * 3}  # of 0.75 × 8 channels


def read(config: dict[str, Any]) -> Architecture:
    return find(config).architecture(config)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            {"model_type": "llama", "rope_theta": 5e5, "rope_scaling": None},
            {"model_type": "llama", "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
        ),
        (
            {
                "model_type": "llama",
                "rope_theta": 5e5,
                "rope_scaling": {"rope_type": "llama3"} | LLAMA3,
            },
            {
                "model_type": "llama",
                "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5} | LLAMA3,
            },
        ),
        (
            {"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2}},
            {"model_type": "llama", "rope_parameters": {"rope_type": "linear", "factor": 2.0}},
        ),
        (
            {"model_type": "gpt_neox", "rotary_pct": 0.5, "rotary_emb_base": 500},
            {
                "model_type": "gpt_neox",
                "rope_parameters": {"partial_rotary_factor": 0.5, "rope_theta": 500.0},
            },
        ),
        (
            {
                "model_type": "phi3",
                "partial_rotary_factor": 0.75,
                "original_max_position_embeddings": 32,
                "rope_scaling": {"type": "su"} | FACTORS,
            },
            {
                "model_type": "phi3",
                "rope_parameters": {
                    "rope_type": "longrope",
                    "partial_rotary_factor": 0.75,
                    "original_max_position_embeddings": 32,
                }
                | FACTORS,
            },
        ),
        (
            {
                "model_type": "gemma3_text",
                "rope_theta": 1e6,
                "rope_local_base_freq": 5e3,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
                "sliding_window_pattern": 2,
            },
            {
                "model_type": "gemma3_text",
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 5e3},
                },
                "layer_types": ["sliding_attention", "full_attention"] * 2,
            },
        ),
        (
            {"model_type": "gemma2"},
            {
                "model_type": "gemma2",
                "layer_types": ["sliding_attention", "full_attention"] * 2,
                "sliding_window": 4096,
            },
        ),
        (
            {"model_type": "mixtral", "num_local_experts": 8},
            {"model_type": "mixtral", "rope_parameters": {"rope_theta": 1e6}},
        ),
    ],
)
def test_old_and_new_configs_read_the_same(old: dict[str, Any], new: dict[str, Any]):
    assert read(SIZES | old) == read(SIZES | new)


def test_missing_fields_take_the_familys_defaults():
    gemma = read(SIZES | {"model_type": "gemma2"})
    assert (gemma.tied, gemma.head_dim, gemma.attention_cap, gemma.logit_cap) == (True, 256, 50, 30)
    assert read(SIZES | {"model_type": "mistral"}).windows == (4096,) * 4
    assert read(SIZES | {"model_type": "mistral", "sliding_window": None}).windows == (None,) * 4
    assert not read(LLAMA).tied
    assert read(LLAMA).kv_heads == 4


def test_a_given_attention_factor_is_taken_as_it_is():
    yarn = {"rope_type": "yarn", "factor": 4.0}
    found = read(LLAMA | {"rope_scaling": yarn}).rope
    assert found is not None
    assert found.gain == pytest.approx(0.1 * math.log(4) + 1)
    found = read(LLAMA | {"rope_scaling": yarn | {"attention_factor": 1.5, "factor": 1.0}}).rope
    assert found is not None
    assert found.gain == 1.5


def test_null_switches_a_cap_off():
    assert (
        read(SIZES | {"model_type": "gemma2", "attn_logit_softcapping": None}).attention_cap is None
    )


def test_windows_begin_where_the_config_says():
    config = SIZES | {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 3}
    assert read(config | {"sliding_window": 7}).windows == (None, None, None, 7)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"model_type": "bert"}, UnsupportedError, ["'bert'", "llama", "qwen3_moe"]),
        ({"model_type": None}, UnsupportedError, ["None"]),
        ({"text_config": {}}, UnsupportedError, ["known families"]),
        ({"architectures": ["LlamaForSequenceClassification"]}, UnsupportedError, ["another task"]),
        ({"hidden_size": None}, FolderError, ["hidden_size = None", "positive integer"]),
        ({"hidden_size": "32"}, FolderError, ["hidden_size = '32'"]),
        ({"num_hidden_layers": 0}, FolderError, ["num_hidden_layers = 0"]),
        ({"vocab_size": True}, FolderError, ["vocab_size = True"]),
        ({"hidden_size": 30}, FolderError, ["hidden_size = 30", "4 attention heads"]),
        ({"num_key_value_heads": 3}, FolderError, ["4 attention heads", "3 key-value"]),
        ({"rms_norm_eps": "x"}, FolderError, ["rms_norm_eps = 'x'"]),
        ({"hidden_act": "snake"}, UnsupportedError, ["'snake'", "silu"]),
        ({"rope_scaling": {"type": "spiral"}}, UnsupportedError, ["'spiral'", "yarn"]),
        ({"model_type": "gpt2", "add_cross_attention": True}, UnsupportedError, ["cross"]),
        (
            {"model_type": "gemma2", "use_bidirectional_attention": True},
            UnsupportedError,
            ["later"],
        ),
        (
            {"model_type": "gemma2", "layer_types": ["full_attention"]},
            FolderError,
            ["1 layer_types"],
        ),
        (
            {"model_type": "opt", "word_embed_proj_dim": 16, "ffn_dim": 48},
            UnsupportedError,
            ["word_embed_proj_dim = 16"],
        ),
    ],
)
def test_refuses_what_it_cannot_read(
    change: dict[str, Any], kind: type[WhetError], words: list[str]
):
    with pytest.raises(kind) as caught:
        read(LLAMA | change)
    assert all(word in caught.value.message for word in words)


def test_unknown_families_are_told_of_the_other_way():
    with pytest.raises(UnsupportedError) as caught:
        find({"model_type": "bert"})
    assert "foreign" in caught.value.hint
    assert all(name in caught.value.message for name in families())
