"""The model card: README.md with the front matter that the Hub reads."""

import re
from collections.abc import Iterator
from math import isfinite
from typing import Any, cast

import yaml

from whet.base.record import Record
from whet.report import summary, tables
from whet.report import words as say
from whet.report.evidence import Evidence, note, value
from whet.report.markdown import escaped, fenced, headlines, quality, table

INHERITED = ("license", "license_name", "license_link", "language", "pipeline_tag")
METRICS = (  # fact, the Hub's type, name
    ("ppl", "perplexity", "Perplexity"),
    ("kl_mean", "kl_divergence", "Mean KL to the original [nat/token]"),
    ("top1", "accuracy", "Same first choice as the original"),
)
LONGEST = 1 << 16  # of the front matter of a source's card [character]


def inherited(readme: str) -> dict[str, str]:
    """Return what a compressed model takes over from its source's card, as notes of its record."""
    found = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", readme[:LONGEST], re.DOTALL)
    if not found or re.search(r"(^|[\s,\[{:])[&*]\w", found[1]):  # anchors could blow it up
        return {}
    try:
        front: Any = yaml.safe_load(found[1])
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    fields = cast("dict[Any, Any]", front) if isinstance(front, dict) else {}
    pairs = ((name, _words(fields.get(name))) for name in INHERITED)
    return {name: words for name, words in pairs if words}


def _words(value: object) -> str:
    """Return a value of the front matter as words: a list of words with commas."""
    if isinstance(value, list):
        return ", ".join(str(item) for item in cast("list[object]", value) if isinstance(item, str))
    return value if isinstance(value, str) else ""


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
    matter |= {"base_model_relation": "quantized", "library_name": "transformers"}
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
    words = ["whet", "quantized", dialect, *(m.format for m in e.modules), *methods]
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
    yield "## Use"
    yield fenced(_use(e), "python")
    yield "or, with whet itself:"
    yield fenced('whet run . "Once upon a time"')
    for heading, data in (("Size", tables.sizes(e)), ("Fallbacks", tables.fallbacks(e))):
        if data is not None:
            yield f"## {heading}"
            yield table(data)
    yield "## How it was made"
    yield _made(e)


def _use(e: Evidence) -> str:
    """Return a program that loads the model."""
    ours = note(e.last("output"), "dialect") == "whet"
    first = "import whet  # teaches transformers to read this folder\n" if ours else ""
    return (
        f"{first}from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained(".")\n'
        'tokenizer = AutoTokenizer.from_pretrained(".")'
    )


def _made(e: Evidence) -> str:
    """Return where the evidence lies, and the command."""
    total = value(e.last("time"), "total")
    spent = f" It took {say.duration(total)}." if total else ""
    told = (
        "`recipe.yaml` holds every setting, `records.jsonl` every measurement, `manifest.json` the "
        f"digest of every file; `report.html` shows them.{spent}"
    )
    command = summary.command(e)
    return f"{told}\n\n{fenced(command)}" if command else told
