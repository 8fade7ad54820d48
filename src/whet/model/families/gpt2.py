"""GPT-2: learned positions, layer norms, matrices stored as (in, out)."""

from whet.model.architecture import Architecture, Norm
from whet.model.config import DEEPEST, Config, flag, head_width, nonlinearity, real, refuse, whole
from whet.model.family import Family
from whet.model.roles import ATTENTION, MLP


def read(config: Config) -> Architecture:
    """Read a config."""
    refuse(config, "add_cross_attention", "cross-attention")
    hidden, heads = whole(config, "n_embd", "hidden_size"), whole(config, "n_head")
    layers = whole(config, "n_layer", "num_hidden_layers", most=DEEPEST)
    scaled = flag(config, "scale_attn_weights", default=True)
    return Architecture(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=head_width(hidden, heads),
        ffn=whole(config, "n_inner", default=4 * hidden),
        vocab=whole(config, "vocab_size"),
        context=whole(config, "n_positions", "max_position_embeddings", default=1024),
        norm=Norm("layer", real(config, "layer_norm_epsilon", 1e-5)),
        windows=(None,) * layers,
        activation=nonlinearity(config, "activation_function", "gelu_new"),
        gated=False,
        qkv="joined",
        biases=ATTENTION | MLP,
        attention_scale=head_width(hidden, heads) ** -0.5 if scaled else 1.0,
        scale_by_depth=flag(config, "scale_attn_by_inverse_layer_idx"),
        position_offset=0,
        tied=flag(config, "tie_word_embeddings", default=True),
    )


FAMILY = Family(
    name="gpt2",
    model_types=("gpt2",),
    read=read,
    prefix="transformer.",
    modules={
        "embed": "{p}wte",
        "positions": "{p}wpe",
        "attn.pre": "{p}h.{i}.ln_1",
        "attn.qkv": "{p}h.{i}.attn.c_attn",
        "attn.o": "{p}h.{i}.attn.c_proj",
        "mlp.pre": "{p}h.{i}.ln_2",
        "mlp.up": "{p}h.{i}.mlp.c_fc",
        "mlp.down": "{p}h.{i}.mlp.c_proj",
        "norm": "{p}ln_f",
        "head": "lm_head",
    },
    transposed=True,
    ignored=(".attn.bias", ".attn.masked_bias"),
)
