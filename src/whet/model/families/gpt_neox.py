"""GPT-NeoX and Pythia: attention and MLP side by side, each head's query, key, value together."""

from whet.model.architecture import Architecture, Norm
from whet.model.config import DEEPEST, Config, flag, head_width, nonlinearity, real, rope, whole
from whet.model.family import Family
from whet.model.roles import ATTENTION, MLP


def read(config: Config) -> Architecture:
    """Read a config."""
    hidden, heads = whole(config, "hidden_size"), whole(config, "num_attention_heads")
    layers = whole(config, "num_hidden_layers", most=DEEPEST)
    theta, fraction = real(config, "rotary_emb_base", 10_000.0), real(config, "rotary_pct", 0.25)
    return Architecture(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=head_width(hidden, heads),
        ffn=whole(config, "intermediate_size"),
        vocab=whole(config, "vocab_size"),
        context=whole(config, "max_position_embeddings", default=2048),
        norm=Norm("layer", real(config, "layer_norm_eps", 1e-5)),
        windows=(None,) * layers,
        parallel=flag(config, "use_parallel_residual", default=True),
        activation=nonlinearity(config, "hidden_act", "gelu"),
        gated=False,
        qkv="interleaved",
        biases=MLP | (ATTENTION if flag(config, "attention_bias", default=True) else frozenset()),
        rope=rope(config, theta=theta, fraction=fraction),
        attention_scale=head_width(hidden, heads) ** -0.5,
        tied=flag(config, "tie_word_embeddings"),
    )


FAMILY = Family(
    name="gpt_neox",
    model_types=("gpt_neox",),
    read=read,
    prefix="gpt_neox.",
    modules={
        "embed": "{p}embed_in",
        "attn.pre": "{p}layers.{i}.input_layernorm",
        "attn.qkv": "{p}layers.{i}.attention.query_key_value",
        "attn.o": "{p}layers.{i}.attention.dense",
        "mlp.pre": "{p}layers.{i}.post_attention_layernorm",
        "mlp.up": "{p}layers.{i}.mlp.dense_h_to_4h",
        "mlp.down": "{p}layers.{i}.mlp.dense_4h_to_h",
        "norm": "{p}final_layer_norm",
        "head": "embed_out",
    },
    ignored=("rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias"),
)
