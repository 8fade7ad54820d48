"""The model card: README.md with the front matter that the Hub reads."""

import re
import shlex
from collections.abc import Iterator
from math import isfinite
from typing import Any

import yaml

from whet.base.record import Record
from whet.report import resources, summary, tables
from whet.report.evidence import Evidence, note
from whet.report.markdown import escaped, fenced, headlines, quality, table
from whet.report.search import account
from whet.report.search import tables as found
from whet.report.search.found import searched
from whet.store.source_card import INHERITED

METRICS = (  # fact, the Hub's type, name
    ("ppl", "perplexity", "Perplexity"),
    ("kl_mean", "kl_divergence", "Mean KL to the original [nat/token]"),
    ("top1", "accuracy", "Same first choice as the original"),
)


def card(e: Evidence) -> str:
    """Return the model card. Law: its front matter is YAML that reads back as `front(e)`."""
    head = yaml.safe_dump(front(e), sort_keys=False, allow_unicode=True, width=100)
    return f"---\n{head}---\n\n" + "\n\n".join(_blocks(e)) + "\n"


def front(e: Evidence) -> dict[str, Any]:
    """Return the front matter: what the Hub lists this model by."""
    source = e.last("source")
    matter: dict[str, Any] = {}
    if base := model_id(summary.base_model(e)):
        matter |= {"base_model": base}
    relation = "quantized" if e.modules or not e.every("stage") else "finetune"
    matter |= {"base_model_relation": relation, "library_name": "transformers"}
    matter |= {"pipeline_tag": "text-generation"}
    for name in INHERITED:
        if told := note(source, name):
            matter[name] = told.split(", ") if name == "language" else told
    matter["tags"] = _tags(e)
    results = [_result(record) for record in e.measures]
    if results:
        matter["model-index"] = [{"name": model_name(e), "results": results}]
    return matter


def model_id(text: str) -> str:
    """Return a name as the Hub writes names: letters, digits, `-_.` and one slash."""
    parts = [re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip("-.") for part in text.split("/")[-2:]]
    return "/".join(part for part in parts if part)[:96]


def model_name(e: Evidence) -> str:
    """Return the name of the compressed model."""
    parts = [model_id(part) for part in (summary.title(e), summary.recipe_name(e))]
    return "-".join(part for part in parts if part)


def _tags(e: Evidence) -> list[str]:
    """Return the words that the Hub finds this model by."""
    methods = [part for m in e.modules for part in m.method.split(" + ") if part]
    dialect = note(e.last("output"), "dialect")
    whole = [step for r in e.every("stage") for step in note(r, "steps").split(" + ")]
    kind = "quantized" if e.modules or not whole else "pruned"
    words = ["whet", kind, dialect, *(m.format for m in e.modules), *methods, *whole]
    return [tag for tag in dict.fromkeys(words) if tag][:24]


def _result(record: Record) -> dict[str, Any]:
    """Return one measurement as the Hub writes it."""
    data = note(record, "data", "text")
    return {
        "task": {"type": "text-generation"},
        "dataset": {"name": data, "type": model_id(data) or "text"},
        "metrics": [
            {"type": kind, "value": float(f"{record.facts[fact].value:.6g}"), "name": label}
            for fact, kind, label in METRICS
            if fact in record.facts and isfinite(record.facts[fact].value)
        ],
    }


def _blocks(e: Evidence) -> Iterator[str]:
    """Yield the paragraphs below the front matter."""
    yield f"# {escaped(model_name(e))}"
    yield escaped(" ".join(summary.sentences(e)))
    yield headlines(e)
    yield from quality(e)
    yield from _searched(e)
    yield "## Use"
    yield fenced(_use(e), "python")
    yield "or, with whet itself:"
    yield fenced('whet run . "Once upon a time"')
    for heading, data in (("Size", resources.sizes(e)), ("Fallbacks", tables.fallbacks(e))):
        if data is not None:
            yield f"## {heading}"
            yield table(data)
    yield "## How it was made"
    yield _made(e)


def _searched(e: Evidence) -> Iterator[str]:
    """Yield what a search was asked for, and how its limits were kept."""
    if search := searched(e):
        yield "## The search"
        yield escaped(account.headline(search))
        if limits := found.limits(search):
            yield table(limits)


def _use(e: Evidence) -> str:
    """Return a program that loads the model.

    compressed-tensors 0.18 to 0.20 cannot load zero points without whet's help (`store.mend`).
    """
    ours = note(e.last("output"), "dialect") == "whet"
    ours = ours or any("-affine" in module.format for module in e.modules)
    first = "import whet  # teaches transformers to read this folder\n" if ours else ""
    return (
        f"{first}from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained(".")\n'
        'tokenizer = AutoTokenizer.from_pretrained(".")'
    )


def _made(e: Evidence) -> str:
    """Return where the evidence lies, and the command that makes the same bytes again.

    Nothing of one run alone: equal results have equal cards.
    """
    told = (
        "`recipe.yaml` holds every setting, `records.jsonl` every measurement, `manifest.json` the "
        "digest of every file; `report.html` shows them. The same bytes again:"
    )
    source = note(e.last("source"), "path") or "SOURCE"
    return f"{told}\n\n{fenced(f'whet compress {shlex.quote(source)} --recipe recipe.yaml')}"
