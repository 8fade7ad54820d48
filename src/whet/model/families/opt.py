"""OPT (arXiv:2205.01068): learned positions that start at row two, ReLU, layer norms."""

from whet.base.errors import UnsupportedError
from whet.model.architecture import PRE, SUM, Architecture, Norm
from whet.model.config import DEEPEST, FOREIGN, Config, flag, head_width, nonlinearity, whole
from whet.model.family import Family
from whet.model.roles import ATTENTION, MLP


def read(config: Config) -> Architecture:
    """Read a config."""
    hidden, heads = whole(config, "hidden_size"), whole(config, "num_attention_heads")
    _check(config, hidden)
    layers = whole(config, "num_hidden_layers", most=DEEPEST)
    before = flag(config, "do_layer_norm_before", default=True)
    return Architecture(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=head_width(hidden, heads),
        ffn=whole(config, "ffn_dim"),
        vocab=whole(config, "vocab_size"),
        context=whole(config, "max_position_embeddings", default=2048),
        norm=Norm(
            "layer", 1e-5, affine=flag(config, "layer_norm_elementwise_affine", default=True)
        ),
        windows=(None,) * layers,
        norms=PRE if before else SUM,
        final_norm=before and not flag(config, "_remove_final_layer_norm"),
        activation=nonlinearity(config, "activation_function", "relu"),
        gated=False,
        biases=ATTENTION | MLP if flag(config, "enable_bias", default=True) else frozenset(),
        attention_scale=head_width(hidden, heads) ** -0.5,
        position_offset=2,
        tied=flag(config, "tie_word_embeddings", default=True),
    )


def _check(config: Config, hidden: int) -> None:
    narrow = whole(config, "word_embed_proj_dim", default=hidden)
    if narrow != hidden:
        raise UnsupportedError(
            f"config.json has word_embed_proj_dim = {narrow} beside hidden_size = {hidden}: "
            "projections around the embedding are not supported",
            FOREIGN,
        )


FAMILY = Family(
    name="opt",
    model_types=("opt",),
    read=read,
    prefix="model.decoder.",
    modules={
        "embed": "{p}embed_tokens",
        "positions": "{p}embed_positions",
        "attn.pre": "{p}layers.{i}.self_attn_layer_norm",
        "attn.sum": "{p}layers.{i}.self_attn_layer_norm",
        "attn.q": "{p}layers.{i}.self_attn.q_proj",
        "attn.k": "{p}layers.{i}.self_attn.k_proj",
        "attn.v": "{p}layers.{i}.self_attn.v_proj",
        "attn.o": "{p}layers.{i}.self_attn.out_proj",
        "mlp.pre": "{p}layers.{i}.final_layer_norm",
        "mlp.sum": "{p}layers.{i}.final_layer_norm",
        "mlp.up": "{p}layers.{i}.fc1",
        "mlp.down": "{p}layers.{i}.fc2",
        "norm": "{p}final_layer_norm",
        "head": "lm_head",
    },
)
