"""The pages: safe, offline, complete, the same for the same records."""

import math
import re
import subprocess
import sys
from base64 import b64encode
from functools import cache
from hashlib import sha256
from html.parser import HTMLParser

import pytest
import yaml
from tests.unit.report import examples

from whet.base.quantity import Quantity
from whet.base.record import Record, append_records
from whet.report.card import front, model_id
from whet.report.evidence import evidence
from whet.report.markdown import escaped, fenced
from whet.report.render import pages, write_pages

PAYLOADS = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</style><script>1</script>",
    "</title><b>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "<svg onload=alert(1)>",
    "<!--",
    "-->",
    "]]>",
    "&lt;script&gt;",
    "{{7*7}}",
    "{% raw %}",
    "javascript:alert(1)",
    "[x](javascript:alert(1))",
    "![x](http://evil.example/x.png)",
    "`code` ``` ~~~",
    "| a | b |",
    "---\nbase_model: evil",
    "\x1b]0;owned\x07",
    "\x1b[2J\x1b[31m",
    "\u202egpj.exe",
    "a\x00b",
    "\ud800",
    "http://evil.example",
    "*bold* _it_ #h",
    "x\n\n# heading",
    "!!python/object/apply:os.system [id]",
    "&a [*a]",
]
VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Every element and attribute of a page; asserts that elements nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], set(), [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def everything():
    return (
        examples.compressed()
        + examples.fallen()
        + examples.measured()
        + examples.timed()
        + examples.scored()
    )


def poisoned(payload):
    """Every text of the examples, replaced by a payload."""
    for record in everything():
        facts = {
            name if i % 2 else f"{name}": Quantity(f.value, payload, payload)
            for i, (name, f) in enumerate(record.facts.items())
        }
        if record.step == "speed":
            facts[payload] = Quantity(1.0, payload, payload)
        notes = dict.fromkeys(record.notes, payload) | {payload: payload}
        notes |= {"layer": record.notes["layer"]} if "layer" in record.notes else {}
        fallback = payload if record.fallback else None
        step = record.step if record.step != "gptq" or "7" in record.site else payload
        yield Record(step, record.site and f"{record.site}{payload}", facts, fallback, notes)


@cache
def poisoned_pages(payload):
    return pages(poisoned(payload))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_the_page_shows_payloads_and_runs_none(payload):
    page = Page(poisoned_pages(payload)["report.html"])
    assert page.tags <= {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "header",
        "footer",
        "section",
        "nav",
        "a",
        "div",
        "span",
        "p",
        "small",
        "h1",
        "h2",
        "h3",
        "dl",
        "dt",
        "dd",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "pre",
        "details",
        "summary",
        "svg",
        "g",
        "rect",
        "line",
        "path",
        "circle",
        "text",
    }
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in {"src", "srcset", "action", "style", "xlink:href"}, (tag, name)
        assert name != "href" or value.startswith("#"), value


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_page_carries_control_characters(payload):
    for text in poisoned_pages(payload).values():
        assert not re.search(
            "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text
        )


@pytest.mark.parametrize("payload", PAYLOADS)
def test_the_card_keeps_its_front_matter(payload):
    text = poisoned_pages(payload)["README.md"]
    matter = yaml.safe_load(text.split("---\n")[1])
    assert matter["base_model_relation"] == "quantized"
    assert re.fullmatch(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?", matter.get("base_model", "none"))


def test_markdown_has_no_live_payload():
    body = pages(poisoned("<b>[x](http://evil.example)|`"))["report.md"]
    outside = re.sub(r"(`{3,})\w*\n.*?\n\1", "", body, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)[<|`]x?b", outside)
    assert "](" not in outside.replace("\\]", "")


def test_fences_are_longer_than_what_they_hold():
    assert fenced("a ```` b").startswith("`````\n")
    assert escaped("a|b") == "a\\|b"


def test_the_page_needs_nothing_from_outside():
    text = pages(everything())["report.html"]
    assert not re.search(r"https?:|//\w|@import|url\(", text)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = (
        "default-src 'none'; style-src 'sha256-" + digest + "'; base-uri 'none'; form-action 'none'"
    )
    page = Page(text)
    assert ("meta", "content", policy) in page.attributes
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_the_page_shows_what_matters():
    text = " ".join(Page(pages(everything())["report.html"]).words)
    for words in (
        "2.70 ×",
        "0.00383",
        "95.34 %",
        "whet compress demo --recipe int4",
        "rounded to nearest",
        "shares its storage",
        "AMD EPYC",
        "Where the damage is",
    ):
        assert words in text


def test_the_example_has_every_figure():
    text = pages(everything())["report.html"]
    assert text.count("<svg") == 5


@pytest.mark.parametrize(
    "records",
    [
        [],
        examples.compressed(),
        examples.measured(),
        examples.timed(),
        examples.fallen(),
        examples.compressed(1),
    ],
)
def test_missing_records_leave_gaps_and_no_errors(records):
    made = pages(records)
    Page(made["report.html"])
    if not any(r.step == "measure" for r in records):
        assert "Not measured yet" in made["report.html"]
        assert "whet measure" in made["report.md"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 0.0, -1.0, 1e300])
def test_numbers_gone_wrong_are_shown(bad):
    records = [
        Record(
            r.step,
            r.site,
            {n: Quantity(bad, f.unit, f.how) for n, f in r.facts.items()},
            r.fallback,
            r.notes,
        )
        for r in everything()
    ]
    for text in pages(records).values():
        assert "nan" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL).split()
    Page(pages(records)["report.html"])


def test_each_single_record_may_be_missing():
    records = everything()
    for step in {record.step for record in records}:
        page = Page(pages(r for r in records if r.step != step)["report.html"])
        assert {"html", "body", "h1"} <= page.tags


def test_a_large_mixture_of_experts_stays_small():
    records = examples.compressed(48, experts=32)
    assert len(pages(records)["report.html"].encode()) < 2_000_000


def test_same_records_same_pages():
    assert pages(everything()) == pages(everything())


def test_written_pages_are_those_of_the_records(tmp_path):
    append_records(tmp_path / "records.jsonl", everything())
    written = write_pages(tmp_path)
    assert {p.name: p.read_text(encoding="utf-8") for p in written} == pages(everything())
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "README.md",
        "records.jsonl",
        "report.html",
        "report.md",
    ]


def test_the_front_matter_reads_back():
    e = evidence(everything())
    text = pages(everything())["README.md"]
    assert yaml.safe_load(text.split("---\n")[1]) == front(e)
    assert front(e)["license"] == "apache-2.0"
    assert front(e)["base_model"] == "books-7m"
    assert front(e)["model-index"][0]["results"][0]["metrics"][1]["value"] == 0.00383


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("org/model", "org/model"),
        ("../../etc/x y", "etc/x-y"),
        ("<script>", "script"),
        ("", ""),
        ("a/b/c", "b/c"),
    ],
)
def test_model_ids(name, expected):
    assert model_id(name) == expected


def test_reports_need_no_torch():
    heavy = {"torch", "numpy", "transformers", "pydantic"}
    program = f"import sys, whet.report.render; assert not {heavy} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
