"""The tables of the pages, made from the code; `python -m tests.house.facts` writes them anew.

A page has `<!-- begin: NAME -->` and `<!-- end: NAME -->` around what is made here.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

from pydantic_core import PydanticUndefined
from tests.house.places import ROOT, pages

from whet import api
from whet.api.catalogue import Entry
from whet.base import errors
from whet.base.record import Record, read_records
from whet.cli.lazy import VERBS
from whet.formats.spec import parse
from whet.methods import catalogue
from whet.recipe.schema import recipe_model, step_models
from whet.report import words as say
from whet.report.evidence import estimate
from whet.report.table import Table, numbers, words
from whet.report.tables import measured
from whet.store.gguf.kinds import KINDS

RESULTS = ROOT / "bench" / "results"
NESTED = ("calibration", "allocation")
MARKED = re.compile(r"(<!-- begin: ([\w -]+?) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)


def entries(found: tuple[Entry, ...], *heads: str) -> str:
    facts = list(found[0].facts)
    rows = tuple((f"`{e.name}`", *(e.facts[fact] for fact in facts), e.summary) for e in found)
    return plain(Table(words(*heads), rows))


def plain(data: Table) -> str:
    """A table whose cells are Markdown already."""
    heads = "|".join(f" {column.label} " for column in data.columns)
    rule = "|".join("--:" if column.numeric else "---" for column in data.columns)
    rows = ["|" + "|".join(f" {cell} " for cell in row) + "|" for row in data.rows]
    return "\n".join([f"|{heads}|", f"|{rule}|", *rows])


def verbs() -> str:
    rows = tuple((f"`whet {verb}`", what) for verb, what in VERBS.items())
    return plain(Table(words("verb", "what"), rows))


def methods() -> str:
    rows = tuple((f"`{entry.name}`", entry.summary) for entry in api.methods())
    return plain(Table(words("method", "what"), rows))


def recipe_fields() -> str:
    rows = []
    for name, field in recipe_model().model_fields.items():
        rows.append(_field(name, field))
        if name in NESTED:
            inner = (get_args(field.annotation) or (field.annotation,))[0].model_fields
            rows += [_field(f"{name}.{key}", value) for key, value in inner.items()]
    return plain(Table(words("field", "default", "what"), tuple(rows)))


def _field(name: str, field: Any) -> tuple[str, str, str]:
    what = field.description or (field.annotation.__doc__ or "").partition("\n")[0]
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined or name == "calibration":
        return (f"`{name}`", "" if name == "calibration" else "needed", what)
    return (f"`{name}`", f"`{_said(default)}`", what)


def _said(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return str(list(value))
    return str(value) or '""'


def settings() -> str:
    parts = []
    for name, model in step_models().items():
        fields = {key: f for key, f in model.model_fields.items() if key not in {"use", "where"}}
        rows = tuple(_field(key, field) for key, field in fields.items())
        summary = (catalogue()[name].__doc__ or "").partition("\n")[0]
        shown = plain(Table(words("setting", "default", "what"), rows))
        parts.append(f"### {name}\n\n{summary}\n\n{shown}")
    return "\n\n".join(parts)


def codes() -> str:
    lines = (errors.__doc__ or "").splitlines()
    found = (re.match(r"[├└]── (\w+) \((\d+)\)\s+(.*)", line) for line in lines)
    rows = tuple((match[2], f"`{match[1]}`", match[3]) for match in found if match)
    return plain(Table(numbers("code") + words("kind", "when"), rows))


def presets() -> str:
    """The measured presets, the newest record of each; the smallest KL first."""
    path = RESULTS / "presets.jsonl"
    with path.open(encoding="utf-8") as lines:
        newest: dict[str, Record] = {record.site: record for record in read_records(lines)}
    ordered = sorted(newest.values(), key=lambda record: record.facts["kl_mean"].value)
    rows = tuple(
        (
            f"`{record.site}`",
            say.significant(bits.value) if (bits := record.facts.get("bits_per_weight")) else "–",
            say.size(record.facts["bytes"].value),
            measured(estimate(record, "kl_mean"), "kl_mean"),
            measured(estimate(record, "top1"), "top1"),
            measured(estimate(record, "ppl_delta"), "ppl_delta"),
        )
        for record in ordered
    )
    heads = words("recipe") + numbers("bit per weight", "size", "KL [nat]", "same top 1", "ΔPPL")
    return plain(Table(heads, rows))


def peers() -> str:
    """Tools at equal bits, as one evaluator has measured them; the smallest KL of a size first."""
    with (RESULTS / "peers-quality.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    rows.sort(key=lambda row: (round(row["bits_per_weight"], 1), row["kl_nat"]))
    cells = tuple(
        (
            row["tool"],
            row["setting"],
            f"{row['bits_per_weight']:.2f}",
            f"{row['kl_nat']:.5f}",
            f"{100 * row['top1']:.1f} %",
        )
        for row in rows
    )
    heads = words("tool", "setting") + numbers("bit per weight", "KL [nat]", "same top 1")
    return plain(Table(heads, cells))


def speed() -> str:
    """Engines side by side, the newest row of each kind of work."""
    with (RESULTS / "speed.jsonl").open(encoding="utf-8") as lines:
        newest = {row["row"]: row for row in map(json.loads, lines)}
    rates = ("whet", "llama.cpp", "openvino")
    cells = tuple(
        (
            name,
            *(_rate(row, tool) for tool in rates),
            f"{row['ratio to the best peer']:.2f} ×",
            _share(row.get("part of the bound of bandwidth")),
        )
        for name, row in newest.items()
    )
    heads = words("work") + numbers(
        "whet [token/s]", "llama.cpp [token/s]", "OpenVINO [token/s]", "ratio", "of the bound"
    )
    return plain(Table(heads, cells))


def _rate(row: Mapping[str, Any], tool: str) -> str:
    found = next((name for name in row if name.startswith(f"{tool} ")), None)
    if found is None:
        return "–"
    model = found.removeprefix(f"{tool} ").removesuffix(" [token/s]")
    return f"{say.count(round(row[found]))} ({model})"


def _share(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _limit(row: str) -> str:
    """What a search is given of a uniform recipe: its size, or how fast it generates."""
    preset, _, speed = row.partition("@")
    return f"speed of `{preset}`" if speed else f"size of `{preset}`"


def searches() -> str:
    """The newest search of each row of `bench/search.py`, beside the uniform recipe of its limit."""
    path = RESULTS / "search.jsonl"
    newest: dict[tuple[str, str], Record] = {}
    with path.open(encoding="utf-8") as lines:
        newest = {(record.step, record.site): record for record in read_records(lines)}
    rows = []
    for (step, site), record in sorted(newest.items()):
        if step == "search":
            facts, before = record.facts, newest.get(("uniform", site))
            kl = facts["kl_measured"].value
            alone = before.facts["kl_mean"].value if before else None
            rows.append(
                (
                    _limit(site) if before else f"{site} bit per weight",
                    say.size(facts["size_measured"].value),
                    say.significant(facts["bpw_predicted"].value),
                    say.significant(alone) if alone else "–",
                    say.significant(kl),
                    say.significant(kl / alone, 2) if alone else "–",
                    say.significant(facts["kl_predicted"].value),
                    *(
                        say.count(round(facts[f"decode_{how}"].value))
                        for how in ("measured", "predicted")
                    ),
                )
            )
    heads = words("limit") + numbers(
        "size", "bit per weight", "KL of the recipe", "KL found", "ratio", "KL predicted"
    )
    heads += numbers("token/s", "predicted")
    return plain(Table(heads, tuple(rows)))


def transcript() -> str:
    return "```text\n" + (RESULTS / "transcript.txt").read_text(encoding="utf-8").rstrip() + "\n```"


def rewrites() -> str:
    """What each rewrite does to the graph of the demo."""
    rows = tuple(
        (
            f"`{stage.rewrite}`" if stage.rewrite else "",
            stage.what,
            f"{stage.bound:g}" if stage.rewrite else "",
            say.count(stage.operators),
            say.size(stage.planned),
            say.size(stage.apart),
        )
        for stage in api.graph("demo").stages
    )
    heads = words("rewrite", "what") + numbers("bound", "operators", "planned", "apart")
    return plain(Table(heads, rows))


def gguf() -> str:
    """The block types of GGUF, the format that each is read as, and what both take."""
    shape, rows = (64, 1024), list[tuple[str, ...]]()
    for kind in KINDS.values():
        bits = parse(kind.format).bits(shape) / (64 * 1024)
        sizes = (say.significant(8 * kind.nbytes / kind.size), say.significant(bits))
        rows.append((f"`{kind.name}`", f"`{kind.format}`", *sizes))
    heads = words("blocks", "read as") + numbers("bit per weight in the file", "here")
    return plain(Table(heads, tuple(rows)))


def real_model() -> str:
    """A real model in whole files, the newest row of each setting; the largest file first."""
    with (RESULTS / "real-model.jsonl").open(encoding="utf-8") as lines:
        newest = {(row["tool"], row["setting"]): row for row in map(json.loads, lines)}
    rows = sorted(newest.values(), key=lambda row: -row["bytes"])
    heads = words("tool", "setting") + numbers(
        "file", "made in", "KL, WikiText-2", "KL, novels", "same top 1", "decode", "prefill"
    )
    return plain(Table(heads, tuple(_real_row(row) for row in rows)))


def _real_row(row: dict[str, Any]) -> tuple[str, ...]:
    wikitext, novels = (row["quality"].get(name) for name in ("wikitext2-valid.txt", "valid.txt"))
    return (
        row["tool"],
        f"`{row['setting']}`" if row["tool"] == "whet" else row["setting"],
        say.size(row["bytes"]),
        say.duration(row["seconds"]),
        _divergence(wikitext),
        _divergence(novels),
        f"{100 * wikitext['top1']:.1f} %",
        *(say.count(round(row[work])) if work in row else "–" for work in ("decode", "prefill")),
    )


def _divergence(quality: dict[str, float] | None) -> str:
    if quality is None:
        return "–"
    return f"{quality['kl_nat']:.4f} ± {2 * quality['kl_nat_standard_error']:.4f}"


FACTS: Mapping[str, Callable[[], str]] = {
    "verbs": verbs,
    "recipes": lambda: entries(api.recipes(), "recipe", "steps", "what"),
    "recipe fields": recipe_fields,
    "formats": lambda: entries(api.formats(), "name", "bit per weight", "stored as"),
    "methods": methods,
    "settings": settings,
    "families": lambda: entries(api.families(), "family", "`model_type`", "what"),
    "codes": codes,
    "gguf": gguf,
    "peers": peers,
    "presets": presets,
    "real model": real_model,
    "rewrites": rewrites,
    "search": searches,
    "speed": speed,
    "transcript": transcript,
}


def filled(text: str) -> str:
    """A page with its tables as the code has them now."""
    return MARKED.sub(lambda found: f"{found[1]}{FACTS[found[2]]()}\n{found[3]}", text)


if __name__ == "__main__":
    for page in pages():
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
