"""Reading a `config.json` written by any release of transformers, old or new. Needs no torch."""

import math
from collections.abc import Mapping
from typing import Any, cast

from whet.base.errors import FolderError, UnsupportedError
from whet.model.architecture import Architecture, Nonlinearity, Norm, Rope, Stretch

Config = Mapping[str, Any]
FOREIGN = "Other models can be compressed through transformers: see `foreign` in the documentation."

NONLINEARITIES: dict[str, Nonlinearity] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
LARGEST, DEEPEST = 2**31, 10_000  # a size, and a number of blocks, beyond which a config is damaged
DAMAGED = "Restore the file from where the model came from."
STRETCHES: tuple[Stretch, ...] = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")


def whole(config: Config, *names: str, default: int | None = None, most: int = LARGEST) -> int:
    """Return a positive integer, under the first of some names that is there."""
    value = next((config[name] for name in names if config.get(name) is not None), default)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most:
        return value
    raise FolderError(
        f"config.json has {names[0]} = {value!r}; expected a positive integer up to {most}",
        "Is this the folder of a language model? Download it again if the file is damaged.",
    )


def real(config: Config, name: str, default: float | None = None) -> float:
    """Return a finite number."""
    value = config.get(name, default)
    value = default if value is None else value
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise FolderError(f"config.json has {name} = {value!r}; expected a number", DAMAGED)


def positive(config: Config, name: str, default: float | None = None) -> float:
    """Return a finite number above 0."""
    value = real(config, name, default)
    if value > 0:
        return value
    raise FolderError(f"config.json has {name} = {value!r}; expected more than 0", DAMAGED)


def part(config: Config, name: str) -> Config:
    """Return an object inside a config; an empty one where there is none."""
    value = config.get(name) or {}
    if isinstance(value, Mapping):
        return cast("Config", value)
    raise FolderError(f"config.json has {name} = {value!r}; expected an object", DAMAGED)


def listed(config: Config, name: str, *kinds: type) -> tuple[Any, ...] | None:
    """Return a list whose items are of some types, or `None` where there is none."""
    value = config.get(name)
    if value is None:
        return None
    if isinstance(value, list) and all(type(item) in kinds for item in cast("list[Any]", value)):
        return tuple(cast("list[Any]", value))
    wanted = " or ".join(kind.__name__ for kind in kinds)
    raise FolderError(f"config.json has {name} = {value!r}; expected a list of {wanted}", DAMAGED)


def head_width(hidden: int, heads: int) -> int:
    """Return the channels of each head, where heads share all of them."""
    if hidden % heads:
        raise FolderError(
            f"config.json has {hidden} channels; expected a multiple of the {heads} attention heads",
            DAMAGED,
        )
    return hidden // heads


def flag(config: Config, name: str, *, default: bool = False) -> bool:
    """Return a truth value."""
    value = config.get(name)
    return default if value is None else bool(value)


def cap(config: Config, name: str, default: float | None = None) -> float | None:
    """Return a number, or `None` where the config says null."""
    return None if config.get(name, default) is None else real(config, name, default)


def nonlinearity(config: Config, name: str, default: str) -> Nonlinearity:
    """Return the activation function that a config names."""
    word = config.get(name) or default
    if isinstance(word, str) and word in NONLINEARITIES:
        return NONLINEARITIES[word]
    known = ", ".join(sorted(NONLINEARITIES))
    raise UnsupportedError(f"config.json has {name} = {word!r}; supported: {known}")


def refuse(config: Config, name: str, what: str) -> None:
    """Refuse a model whose config switches something on."""
    if config.get(name):
        raise UnsupportedError(
            f"config.json has {name} = {config[name]!r}: {what} is not supported",
            FOREIGN,
        )


def rope(
    config: Config,
    *,
    theta: float = 10_000.0,
    fraction: float = 1.0,
    layer_type: str | None = None,
) -> Rope:
    """Return the rotary positions: `rope_parameters`, or `rope_theta` and `rope_scaling` of old."""
    given = part(config, "rope_parameters") or part(config, "rope_scaling")
    given = _of_layers(given, layer_type)
    fields = {
        **{k: config[k] for k in ("rope_theta", "partial_rotary_factor") if k in config},
        **given,
    }
    kind = fields.get("rope_type") or fields.get("type") or "default"
    kind = "longrope" if "short_factor" in fields else kind  # Phi 3 has called it su and yarn
    if kind not in STRETCHES:
        known = ", ".join(STRETCHES)
        raise UnsupportedError(
            f"config.json asks for rotary positions of type {kind!r}; supported: {known}"
        )
    plain = Rope(
        theta=positive(fields, "rope_theta", theta),
        fraction=positive(fields, "partial_rotary_factor", fraction),
        kind=kind,
    )
    return plain if kind == "default" else _stretched(plain, fields, config)


def _of_layers(given: Config, layer_type: str | None) -> Config:
    """Return the rotary positions of a type of layer, where they are given for each type.

    Without a type all layers must have the same.
    """
    if not given or not all(isinstance(value, Mapping) for value in given.values()):
        return given
    if layer_type is not None and layer_type in given:
        return part(given, layer_type)
    kinds = [part(given, name) for name in given]
    if layer_type is not None or any(kind != kinds[0] for kind in kinds):
        raise UnsupportedError(
            f"config.json has rotary positions for {', '.join(given)}; expected "
            + (f"some for {layer_type}" if layer_type else "the same for all layers"),
            FOREIGN,
        )
    return kinds[0]


def _stretched(plain: Rope, fields: Config, config: Config) -> Rope:
    context = whole(config, "max_position_embeddings", default=2048)
    trained = context
    if plain.kind != "dynamic":
        trained = whole(config, "original_max_position_embeddings", default=context)
        if "original_max_position_embeddings" not in config:
            trained = whole(fields, "original_max_position_embeddings", default=context)
    factor = positive(fields, "factor", context / trained)
    return Rope(
        theta=plain.theta,
        fraction=plain.fraction,
        kind=plain.kind,
        factor=factor,
        trained=trained,
        gain=_gain(plain.kind, factor, trained, fields),
        low=real(fields, "low_freq_factor", 1.0),
        high=real(fields, "high_freq_factor", 4.0),
        fast=positive(fields, "beta_fast", 32.0),
        slow=positive(fields, "beta_slow", 1.0),
        truncate=flag(fields, "truncate", default=True),
        short=_factors(fields, "short_factor"),
        long=_factors(fields, "long_factor"),
    )


def _factors(fields: Config, name: str) -> tuple[float, ...]:
    """Return what the frequencies are divided by, one by one."""
    factors = listed(fields, name, int, float) or ()
    return tuple(positive({name: factor}, name) for factor in factors)


def _gain(kind: Stretch, factor: float, trained: int, fields: Config) -> float:
    """Return what cosine and sine are multiplied by, so that attention stays as sharp as it was."""
    if kind not in ("yarn", "longrope"):
        return 1.0
    if fields.get("attention_factor") is not None:
        return real(fields, "attention_factor")
    if factor <= 1:
        return 1.0
    if kind == "longrope":
        return math.sqrt(1 + math.log(factor) / math.log(trained))
    if fields.get("mscale") and fields.get("mscale_all_dim"):
        return _sharpness(factor, real(fields, "mscale")) / _sharpness(
            factor, real(fields, "mscale_all_dim")
        )
    return _sharpness(factor, 1.0)


def _sharpness(factor: float, strength: float) -> float:
    return 0.1 * strength * math.log(factor) + 1


def window(config: Config, default: int | None) -> int | None:
    """Return how far back attention sees [token]; null says all the way."""
    if config.get("sliding_window", default) is None:
        return None
    return whole(config, "sliding_window", default=default)


def windows(config: Config, width: int | None, sliding: tuple[bool, ...]) -> tuple[int | None, ...]:
    """Return the window of each block; `layer_types` of the config goes before `sliding`."""
    kinds = listed(config, "layer_types", str)
    if kinds is not None:
        sliding = tuple(kind == "sliding_attention" for kind in kinds)
    return tuple(width if slides else None for slides in sliding)


def upper_windows(config: Config, layers: int) -> tuple[int | None, ...]:
    """Return windows for the blocks from `max_window_layers` on, where windows are in use."""
    if not flag(config, "use_sliding_window"):
        return (None,) * layers
    first = config.get("max_window_layers", 28)
    return windows(config, window(config, 4096), tuple(i >= first for i in range(layers)))


def decoder(config: Config, head_dim: int | None = None) -> Architecture:
    """Return the architecture that most configs describe; a family replaces what differs."""
    layers = whole(config, "num_hidden_layers", most=DEEPEST)
    hidden, heads = whole(config, "hidden_size"), whole(config, "num_attention_heads")
    head_dim = whole(config, "head_dim", default=head_dim or hidden // heads)
    return Architecture(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=whole(config, "num_key_value_heads", default=heads),
        head_dim=head_dim,
        ffn=whole(config, "intermediate_size"),
        vocab=whole(config, "vocab_size"),
        context=whole(config, "max_position_embeddings", default=2048),
        norm=Norm("rms", real(config, "rms_norm_eps", 1e-6)),
        windows=(None,) * layers,
        activation=nonlinearity(config, "hidden_act", "silu"),
        rope=rope(config),
        attention_scale=head_dim**-0.5,
        tied=flag(config, "tie_word_embeddings"),
    )


def checked(arch: Architecture) -> Architecture:
    """Return an architecture whose sizes agree with each other."""
    if arch.hidden % arch.heads and arch.head_dim == arch.hidden // arch.heads:
        raise FolderError(
            f"config.json has hidden_size = {arch.hidden}; "
            f"expected a multiple of the {arch.heads} attention heads"
        )
    if arch.heads % arch.kv_heads:
        raise FolderError(
            f"config.json has {arch.heads} attention heads; "
            f"expected a multiple of the {arch.kv_heads} key-value heads"
        )
    if len(arch.windows) != arch.layers:
        raise FolderError(
            f"config.json has {len(arch.windows)} layer_types for {arch.layers} layers"
        )
    if arch.experts is not None and arch.experts.active > arch.experts.count:
        raise FolderError(
            f"config.json has {arch.experts.count} experts, of which {arch.experts.active} are to run",
            DAMAGED,
        )
    for turns in (arch.rope, arch.local_rope):
        if turns is not None:
            _check_rope(turns, arch.head_dim)
    return arch


def _check_rope(turns: Rope, width: int) -> None:
    """Refuse rotary positions that heads of this width cannot have."""
    turned = int(width * turns.fraction)
    if not 2 <= turned <= width or turned % 2 or turns.theta <= 1:
        raise FolderError(
            f"config.json turns {turned} of {width} channels of a head, base {turns.theta:g}; "
            "expected an even number of them and a base above 1",
            DAMAGED,
        )
    if turns.kind == "longrope" and {len(turns.short), len(turns.long)} != {turned // 2}:
        raise FolderError(
            f"config.json has {len(turns.short)} short_factor and {len(turns.long)} long_factor; "
            f"expected {turned // 2} of each",
            DAMAGED,
        )
