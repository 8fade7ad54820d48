"""Made-up records of a search with the shape of real ones: a true allocation, by Lagrange."""

import random
from collections.abc import Iterator
from math import exp
from typing import Any

from tests.unit.report.examples import q

from whet.base.quantity import Quantity
from whet.base.record import Record

ROLES = {
    "attn.in": ("attn.q+attn.k+attn.v", 131_072, 1.0),
    "attn.out": ("attn.o", 65_536, 0.7),
    "mlp.in": ("mlp.gate+mlp.up", 393_216, 1.5),
    "mlp.mid": ("mlp.down", 196_608, 3.1),
}
LEVELS = {  # name: (bits per weight, loss at its bits compared with a uniform grid)
    "int2-g32": (2.75, 1.0),
    "int2-g64": (2.5, 1.25),
    "int3-g32": (3.75, 0.9),
    "int3-g64": (3.25, 1.0),
    "int3-g128": (3.125, 1.35),
    "int4-g32": (4.75, 0.9),
    "int4-g64": (4.25, 1.0),
    "int4-g128": (4.125, 1.3),
    "int5-g64": (5.25, 1.0),
    "int6-g64": (6.25, 1.0),
    "int8-g64": (8.25, 1.0),
    "2:4(int4-g64)": (3.0, 1.9),
}
STANDARD = "int4-g64"
ADDITIVE, HELD = "sum over units", "held-out text"


class Unit:
    """One unit: where it is, how much it has, and what each level costs there."""

    def __init__(self, site: str, layer: str, role: str, weights: int, hurt: float) -> None:
        self.site, self.layer, self.role, self.weights = site, layer, role, weights
        self.nbytes = {name: weights * bits / 8 for name, (bits, _) in LEVELS.items()}
        self.kl = {
            name: hurt * loss * 0.002 * 4.0 ** (2.5 - bits) for name, (bits, loss) in LEVELS.items()
        }

    def best(self, price: float) -> str:
        """The level of least KL + price × bytes."""
        return min(LEVELS, key=lambda name: self.kl[name] + price * self.nbytes[name])


def units(layers: int = 8, seed: int = 0) -> list[Unit]:
    rng = random.Random(seed)
    found = [Unit("embed", "", "embed", 2_097_152, 2.4)]
    for layer in range(layers):
        ends = 1 + 2.5 * exp(-layer) + 1.2 * exp(layer - layers + 1)
        found += [
            Unit(
                f"layers.{layer}.{name}", str(layer), role, many, hurt * ends * rng.uniform(0.5, 2)
            )
            for name, (role, many, hurt) in ROLES.items()
        ]
    return found


def taken(found: list[Unit], price: float) -> dict[str, Any]:
    """What an allocation at a price has."""
    levels = {unit.site: unit.best(price) for unit in found}
    nbytes = sum(unit.nbytes[levels[unit.site]] for unit in found) + 40_000
    kl = sum(unit.kl[levels[unit.site]] for unit in found)
    return {"levels": levels, "size": nbytes, "kl": kl, "decode": 1.55e10 / nbytes}


def searched(layers: int = 8, seed: int = 0) -> list[Record]:
    """The records that a search adds."""
    found = units(layers, seed)
    limit = float(f"{0.53 * sum(unit.nbytes['int8-g64'] for unit in found):.2g}")
    frontier = [taken(found, 3e-8 * 10 ** (-i / 6)) for i in range(-9, 31)]
    frontier = list({point["size"]: point for point in frontier}.values())
    frontier = sorted(frontier, key=lambda point: point["size"])[-21:-1]
    chosen = max((p for p in frontier if p["size"] <= limit), key=lambda p: p["size"])
    records = [_head(found, chosen, limit), *_limits(chosen, limit)]
    for unit in found:
        records += _unit(unit, chosen["levels"][unit.site])
    records += _rejected()
    records += [Record("point", "", _facts(p), notes={"trial": "0"}) for p in frontier]
    records += [*_uniforms(found), *_trials(chosen)]
    for i in range(1, 8):
        kl = chosen["kl"] * (1.06 + 0.3 * exp(-i / 2))
        facts = {"kl": q(kl, "nat", HELD), "evaluations": q(32 * i)}
        records.append(Record("generation", str(i), facts))
    return records


def _facts(point: dict[str, Any]) -> dict[str, Quantity]:
    return {
        "size": q(point["size"], "byte", "counted"),
        "kl": q(point["kl"], "nat", ADDITIVE),
        "decode": q(point["decode"], "token/s", "from the latency table"),
    }


def _head(found: list[Unit], chosen: dict[str, Any], limit: float) -> Record:
    weights = sum(unit.weights for unit in found)
    size, kl, decode = chosen["size"], chosen["kl"], chosen["decode"]
    facts = {
        "seconds": q(312, "s"),
        "units": q(len(found)),
        "options": q(len(found) * len(LEVELS)),
        "evaluations": q(224),
        "gap": q(0.0012, "1", "the bound of the relaxation"),
        "kl_additive": q(kl, "nat", ADDITIVE),
        "kl_assembled": q(kl * 1.09, "nat", HELD),
        "kl_predicted": q(kl * 0.93, "nat", HELD),
        "kl_measured": q(kl * 0.98, "nat", HELD),
        "size_predicted": q(size, "byte", "counted"),
        "size_measured": q(size, "byte", "the files"),
        "bpw_predicted": q(8 * size / weights, "bit"),
        "decode_predicted": q(decode, "token/s", "from the latency table"),
        "decode_measured": q(decode * 0.96, "token/s", "median of seven"),
        "ttft_predicted": q(0.061, "s"),
        "memory_predicted": q(size * 1.4, "byte"),
    }
    notes = {
        "objective": "quality",
        "source": "demo",
        "text": f"--max-size {limit / 1e6:g}MB --min-decode 3000tok/s --max-kl 0.05",
        "machine": "AMD EPYC 9555, 2 threads",
        "binding": "size",
    }
    return Record("search", "", facts, notes=notes)


def _limits(chosen: dict[str, Any], limit: float) -> Iterator[Record]:
    for name, kind, text, least, unit in (
        ("size", "max", f"--max-size {limit / 1e6:g}MB", limit, "byte"),
        ("decode", "min", "--min-decode 3000tok/s", 3000.0, "token/s"),
        ("kl", "max", "--max-kl 0.05", 0.05, "nat"),
    ):
        found, sign = chosen[name], 1 if kind == "max" else -1
        facts = {"limit": q(least, unit, "asked"), "predicted": q(found, unit)}
        facts |= {"measured": q(found * {"size": 1, "decode": 0.96, "kl": 0.98}[name], unit)}
        facts |= {"slack": q(sign * (least - found) / least)}
        notes = {"kind": kind, "text": text, "binding": "yes" if name == "size" else "no"}
        yield Record("limit", name, facts, notes=notes)


def _unit(unit: Unit, level: str) -> Iterator[Record]:
    facts = {
        "weights": q(unit.weights),
        "sensitivity": q(unit.kl[STANDARD], "nat", HELD),
        "kl": q(unit.kl[level], "nat", HELD),
        "bytes": q(unit.nbytes[level], "byte", "counted"),
        "decode_seconds": q(unit.nbytes[level] * 6e-11, "s"),
    }
    notes = {"layer": unit.layer, "role": unit.role, "modules": f"model.{unit.site}"}
    notes |= {"level": level, "method": "gptq", "standard": STANDARD}
    yield Record("unit", unit.site, facts, notes=notes)
    for name in LEVELS:
        facts = {
            "kl": q(unit.kl[name], "nat", HELD),
            "bytes": q(unit.nbytes[name], "byte", "counted"),
            "error": q(unit.kl[name] * 3),
            "decode_seconds": q(unit.nbytes[name] * 6e-11, "s"),
        }
        told = {"level": name, "method": "gptq", "chosen": "yes" if name == level else "no"}
        yield Record("option", unit.site, facts, notes=told)


def _rejected() -> Iterator[Record]:
    for site, level, reason, many in (
        ("", "int2-g256", "no kernel runs it on this machine", 33),
        ("embed", "2:4(int4-g64)", "an embedding is looked up, not multiplied", 1),
        ("", "int4-g96", "96 does not divide 256 columns", 24),
        ("head", "int8-g64", "shares its storage with the embedding", 1),
    ):
        notes = {"level": level, "reason": reason}
        yield Record("rejected", site, {"units": q(many)}, notes=notes)


def _uniforms(found: list[Unit]) -> Iterator[Record]:
    for name in (
        "int2-g64",
        "int3-g64",
        "int4-g64",
        "int4-g32",
        "int5-g64",
        "int6-g64",
        "int8-g64",
    ):
        nbytes = sum(unit.nbytes[name] for unit in found) + 40_000
        point = {"size": nbytes, "kl": sum(u.kl[name] for u in found), "decode": 1.55e10 / nbytes}
        yield Record("uniform", name, _facts(point))


def _trials(chosen: dict[str, Any]) -> Iterator[Record]:
    told = "int4-g64 ×12, int3-g64 ×20"
    for number, size, kl, notes in (
        (0, 1.0, 1.09, {"state": "complete", "structure": "as it is", "chosen": "yes"}),
        (1, 0.88, 2.6, {"state": "complete", "structure": "ffn 75 %, 200k tokens of distillation"}),
        (2, 1.0, 0.0, {"state": "failed", "structure": "6 layers", "reason": "out of memory"}),
    ):
        facts = {"seconds": q(60 + 40 * number, "s")}
        if kl:
            facts |= _facts(
                {"size": chosen["size"] * size, "kl": chosen["kl"] * kl}
                | {"decode": chosen["decode"] / size}
            )
        yield Record("trial", str(number), facts, notes={"chosen": "no", "levels": told} | notes)
