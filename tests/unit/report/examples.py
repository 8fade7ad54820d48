"""Made-up records with the shape of real ones."""

import random
from collections.abc import Iterator
from math import exp

from whet.base.quantity import Quantity
from whet.base.record import Record

ROLES = ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down")
NAMES = dict(
    zip(
        ROLES,
        (
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
        ),
        strict=True,
    )
)
SHAPES = dict(
    zip(
        ROLES,
        ((256, 256), (128, 256), (128, 256), (256, 256), (768, 256), (768, 256), (256, 768)),
        strict=True,
    )
)
HOW = "mean over tokens"
BYTE = "counted from the planes"


def q(value: float, unit: str = "1", how: str = HOW) -> Quantity:
    return Quantity(float(value), unit, how)


def interval(name: str, value: float, half: float, unit: str = "1") -> dict[str, Quantity]:
    how = "bootstrap over documents"
    return {
        name: q(value, unit),
        f"{name}_low": q(value - half, unit, how),
        f"{name}_high": q(value + half, unit, how),
    }


def compressed(layers: int = 8, experts: int = 0, scale: int = 1, seed: int = 0) -> list[Record]:
    """The records of a compressed folder, before anything was measured."""
    rng = random.Random(seed)
    records: list[Record] = []
    after = before = 0.0
    for layer in range(layers):
        for role, module in _places(layer, experts):
            base = (
                role.replace("experts.", "")
                .translate(str.maketrans("", "", "0123456789"))
                .replace("..", ".")
            )
            out, inp = SHAPES[base]
            weights = out * inp * scale
            nbytes = weights * 4.25 / 8
            before, after = before + 2 * weights, after + nbytes
            notes = {"role": role, "layer": str(layer), "format": "int4-g64"}
            records.append(
                Record(
                    "scheme",
                    module,
                    {"bits_per_weight": q(4.25, "bit", BYTE), "bytes": q(nbytes, "byte", BYTE)},
                    notes=notes | {"activation": "", "reason": ""},
                )
            )
            error = (
                0.004
                * exp(rng.gauss(0, 0.45))
                * (2.2 if base == "mlp.down" else 1)
                * (1 + layer / layers)
            )
            records.append(
                Record(
                    "gptq", module, {"output_error": q(error), "seconds": q(0.4, "s")}, notes=notes
                )
            )
        drift = q(0.002 * (layer + 1) ** 1.25)
        records.append(
            Record(
                "block",
                f"layers.{layer}",
                {"drift": drift, "seconds": q(4.1, "s"), "peak_rss": q(6.1e8, "byte")},
            )
        )
    rest = 2_100_000 * scale
    return [*_opening(before + rest), *records, *_closing(before + rest, after + rest)]


def _places(layer: int, experts: int) -> Iterator[tuple[str, str]]:
    for role in ROLES:
        if experts and role.startswith("mlp"):
            for i in range(experts):
                name = NAMES[role].removeprefix("mlp.")
                yield (
                    role.replace("mlp.", f"mlp.experts.{i}."),
                    f"model.layers.{layer}.mlp.experts.{i}.{name}",
                )
        else:
            yield role, f"model.layers.{layer}.{NAMES[role]}"


def _opening(nbytes: float) -> Iterator[Record]:
    yield Record(
        "command",
        "",
        notes={
            "argv": '["whet", "compress", "demo", "--recipe", "int4", "-o", "demo-int4"]',
            "version": "0.1.0",
        },
    )
    yield Record(
        "environment",
        "",
        {"memory": q(25.2e9, "byte", "psutil")},
        notes={
            "os": "Linux 6.8",
            "cpu": "AMD EPYC 9555",
            "isa": "avx512f avx512_vnni",
            "torch": "2.13.0",
            "transformers": "5.23.0",
            "python": "3.11.7",
            "threads": "2",
        },
    )
    yield Record(
        "source",
        "",
        {"bytes": q(nbytes, "byte", BYTE), "parameters": q(nbytes / 2, "1", BYTE)},
        notes={
            "path": "demo",
            "name": "books-7m",
            "family": "llama",
            "model_type": "llama",
            "license": "apache-2.0",
        },
    )
    yield Record(
        "recipe",
        "",
        notes={
            "name": "int4",
            "yaml": "name: int4\nsteps:\n- use: gptq\n  where: [blocks]\n  format: int4-g64\n"
            "calibration:\n  source: builtin\n  samples: 128\n  length: 512\nseed: 0\n",
        },
    )
    yield Record(
        "calibration",
        "",
        {"tokens": q(65536), "samples": q(128)},
        notes={"source": "builtin", "digest": "9f2c" * 16},
    )
    yield Record(
        "plan",
        "",
        {
            "output_bytes": q(6.1e6, "byte"),
            "peak_rss": q(6.4e8, "byte"),
            "disk": q(2e8, "byte"),
            "seconds": q(48, "s"),
        },
    )
    yield Record("skip", "model.embed_tokens", notes={"reason": "no step selects it"})
    yield Record("skip", "lm_head", notes={"reason": "shares its storage with the embedding"})


def _closing(before: float, after: float) -> Iterator[Record]:
    yield Record(
        "output",
        "",
        {
            "bytes": q(after, "byte", BYTE),
            "source_bytes": q(before, "byte", BYTE),
            "bits_per_weight": q(4.25, "bit", BYTE),
            "bits_per_weight_model": q(6.9, "bit", BYTE),
        },
        notes={"dialect": "compressed-tensors", "reason": "", "files": "1"},
    )
    yield Record(
        "verify",
        "",
        {"max_relative_error": q(2.1e-5), "greedy_tokens_equal": q(1.0)},
        notes={"how": "reloaded in a fresh process"},
    )
    yield Record(
        "time",
        "",
        {
            "total": q(47.3, "s"),
            "calibrate": q(13.1, "s"),
            "solve": q(25.4, "s"),
            "write": q(1.2, "s"),
            "reload check": q(5.9, "s"),
        },
    )


def measured() -> list[Record]:
    """The records that a measurement adds."""
    facts = (
        interval("kl_mean", 0.00383, 0.00021, "nat")
        | interval("top1", 0.9534, 0.0041)
        | interval("ppl", 42.27, 0.52)
    )
    facts |= interval("ppl_delta", 0.136, 0.043) | interval("delta_p_rms", 0.0123, 0.0006)
    facts |= {
        "ppl_original": q(42.134),
        "kl_median": q(0.00204, "nat"),
        "kl_p90": q(0.0081, "nat"),
        "kl_p99": q(0.0312, "nat"),
        "kl_p999": q(0.127, "nat"),
        "kl_max": q(0.83, "nat"),
        "tokens": q(61320),
        "windows": q(120),
        "documents": q(12),
        "peak_rss": q(3.3e8, "byte"),
    }
    records = [
        Record(
            "measure",
            "",
            facts,
            notes={
                "data": "builtin validation text",
                "digest": "ab" * 32,
                "against": "demo",
                "confidence": "95 %",
            },
        )
    ]
    contexts = (
        "It was a dark night, and the wind had risen so that the old",
        "“I never said that,” cried the captain, and he turned to the",
        "the house upon the hill was\nnot",
        "in the year of our Lord one thousand seven",
        "She looked at him with a kind of",
        "and so they went down together to the",
    )
    for i in range(30):
        facts = {
            "kl": q(0.83 * 0.9**i, "nat"),
            "p_original": q(0.41, "1", "of the original's first choice"),
            "p_compressed": q(0.08 + i / 100, "1", "of the same token"),
        }
        notes = {
            "context": contexts[i % 6],
            "original": (" house", " first", " hundred", ".\n")[i % 4],
            "compressed": (" man", " other", " and", ",")[i % 4],
        }
        records.append(Record("token", "", facts, notes=notes))
    return records


def timed() -> list[Record]:
    """The records that a timing adds."""
    facts = (
        interval("prefill_512", 8120.0, 95.0, "token/s")
        | interval("decode", 412.0, 6.1, "token/s")
        | interval("ttft", 0.064, 0.002, "s")
        | interval("memory_read", 4.4e10, 1e9, "byte/s")
        | {"peak_rss": q(2.2e8, "byte"), "peak_rss_model": q(1e8, "byte")}
    )
    notes = {"threads": "2", "executor": "reference", "weights": "decoded at use", "runs": "7"}
    slower = {name: q(0.8 * fact.value, fact.unit) for name, fact in facts.items()}
    return [
        Record("speed", "", facts, notes=notes | {"folder": "demo-int4"}),
        Record("speed", "", slower, notes=notes | {"folder": "demo"}),
    ]


def scored() -> list[Record]:
    """The records that downstream tasks add."""
    facts = interval("acc", 0.412, 0.02) | interval("acc_norm", 0.433, 0.02)
    return [Record("task", "", facts, notes={"task": "arc_easy", "version": "1.0"})]


def fallen() -> list[Record]:
    """A method that could not do what it was asked."""
    site = "model.layers.5.mlp.down_proj"
    notes = {"role": "mlp.down", "layer": "5", "format": "int4-g64"}
    return [
        Record(
            "gptq",
            site,
            {"output_error": q(0.021)},
            "rounded to nearest: the Hessian is singular at damping 0.1",
            notes,
        )
    ]
