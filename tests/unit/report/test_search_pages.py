"""The part of the pages about a search: complete, well-formed, offline, its points lead to rows."""

import math
import re
from itertools import combinations
from xml.etree import ElementTree

import pytest
from tests.unit.report import examples, searched
from tests.unit.report.test_pages import PAYLOADS, Page

from whet.base.quantity import Quantity
from whet.base.record import Record
from whet.report import palette
from whet.report.evidence import evidence
from whet.report.render import pages
from whet.report.search import grids, labels, plot
from whet.report.search.found import searched as found
from whet.report.svg import DEEP, STEPS

RECORDS = searched.searched()
SEARCH = found(evidence(RECORDS))
FIGURES = {
    "size": plot.by_size(SEARCH),
    "speed": plot.by_speed(SEARCH),
    "grids": grids.allocation(SEARCH),
    "refinement": grids.refinement(SEARCH.generations),
}


def page(records):
    return pages(records)["report.html"]


def changed(change):
    """The records of the search, each fact changed."""
    return [
        Record(r.step, r.site, {n: change(f) for n, f in r.facts.items()}, r.fallback, r.notes)
        for r in RECORDS
    ]


def test_the_made_up_search_is_believable():
    assert (len(SEARCH.units), len(SEARCH.trials), len(SEARCH.frontier)) == (33, 3, 20)
    assert len({option.level for option in SEARCH.units[0].options}) == 12


@pytest.mark.parametrize("name", FIGURES)
def test_drawings_are_valid_xml(name):
    root = ElementTree.fromstring(FIGURES[name])
    assert root.tag == "svg"
    assert root.find("title").text


@pytest.mark.parametrize("layers", [1, 8, 48])
def test_every_unit_is_in_the_heat_maps_with_its_level(layers):
    search = found(evidence(searched.searched(layers)))
    titles = [e.text for e in ElementTree.fromstring(grids.allocation(search)).iter("title")]
    for unit in search.units:
        assert sum(told.startswith(f"{unit.site} (") for told in titles) == 2
        assert any(
            told.startswith(f"{unit.site} ({unit.role}): {unit.level} by") for told in titles
        )


def test_every_cell_says_its_level():
    words = [e.text for e in ElementTree.fromstring(FIGURES["grids"]).iter("text")]
    for unit in SEARCH.units:
        assert unit.level in words


def test_every_model_with_both_numbers_is_in_the_plot_and_leads_to_its_row():
    text = page(RECORDS)
    rows = set(re.findall(r'<tr id="(r\d+)"', text))
    for name, letter, fact in (("size", "p", "size"), ("speed", "q", "decode")):
        links = list(ElementTree.fromstring(FIGURES[name]).iter("a"))
        here = getattr(SEARCH.chosen, fact)
        there = [
            m for m in plot.marks(SEARCH) if m.kl and here / 2.5 <= getattr(m, fact) <= here * 2.5
        ]
        assert len(links) == len(there) > 25
        for link in links:
            assert link.get("href")[1:] in rows
            assert link.get("id") == link.get("href").replace("#r", letter)
            assert link.find("title").text
    assert len(rows) == len(plot.marks(SEARCH))
    identities = re.findall(r' id="([^"]+)"', text)
    assert len(identities) == len(set(identities))


def test_the_row_of_a_point_is_that_of_its_model():
    text = page(RECORDS)
    for i, mark in enumerate(plot.marks(SEARCH)):
        row = re.search(rf'<tr id="r{i}">(.*?)</tr>', text)[1]
        name = re.search(r"<td[^>]*>(?:<a [^>]*>)?([^<]*)<", row)[1]
        assert mark.kind == "point" or name == plot.mark_name(mark)
        assert mark.size is None or plot.say.size(mark.size) in row


def test_limits_are_lines():
    for name, many in (("size", 2), ("speed", 2)):
        assert FIGURES[name].count('class="limit"') == many
    assert "--max-size 4.6MB" in FIGURES["size"]
    assert "--min-decode 3000tok/s" in FIGURES["speed"]


@pytest.mark.parametrize("name", ["size", "speed"])
@pytest.mark.parametrize("seed", range(4))
def test_no_words_of_the_plot_overlap(name, seed):
    search = found(evidence(searched.searched(seed=seed)))
    drawn = plot.by_size(search) if name == "size" else plot.by_speed(search)
    boxes = []
    for link in ElementTree.fromstring(drawn).iter("a"):
        for word in link.iter("text"):
            place = labels.Label(
                float(word.get("x")), float(word.get("y")), word.get("text-anchor")
            )
            boxes.append(labels.box_of(place, word.text))
    assert len(boxes) > 5
    for a, b in combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_words_without_room_are_left_out():
    crowd = [(50.0, 50.0, "words")] * 60
    found_places = labels.placed(crowd, [], (0.0, 0.0, 100.0, 100.0))
    boxes = [labels.box_of(place, "words") for place in found_places if place]
    assert 0 < len(boxes) < 60
    for a, b in combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_the_page_needs_nothing_from_outside():
    text = page(examples.compressed() + RECORDS)
    assert not re.search(r"https?:|//\w|@import|url\(|<script", text)
    read = Page(text)
    assert all(value.startswith("#") for _, name, value in read.attributes if name == "href")
    assert not any(name == "style" for _, name, _ in read.attributes)


def test_every_class_has_a_rule_and_every_part_a_colour():
    records = examples.compressed(2, experts=2) + RECORDS
    records += [
        Record("scheme", site, {"bits_per_weight": examples.q(4.25), "bytes": examples.q(1e5)}, None,
               {"role": role, "layer": layer, "format": "int4-g64"})
        for site, role, layer in (("e", "embed", ""), ("h", "head", ""), ("m", "mlp.up", "0"))
    ]  # fmt: skip
    records.append(Record("stage", "1", {"parameters": examples.q(3e6), "bytes": examples.q(6e6)}))
    text = page(records)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    used = {c for found_class in re.findall(r'class="([^"]*)"', text) for c in found_class.split()}
    assert {"c0", "c6", "b3"} <= used
    assert [name for name in used if not re.search(rf"\.{re.escape(name)}\b", style)] == []


def contrast(a, b):
    """The ratio of the luminances of two colours, WCAG 2.2, section 1.4.3."""
    found_luminances = []
    for colour in (a, b):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        found_luminances.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    low, high = sorted(found_luminances)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(
    ("ramp", "mode", "inks"),
    [
        (palette.LIGHT, 0, ("low-ink", "high-ink")),
        (palette.DARK, 1, ("low-ink", "high-ink")),
        (palette.COOL_LIGHT, 0, ("cool-low", "cool-high")),
        (palette.COOL_DARK, 1, ("cool-low", "cool-high")),
    ],
)
def test_words_on_colours_are_legible(ramp, mode, inks):
    text = page(RECORDS)
    low, high = (re.findall(rf"--{ink}: (#\w{{6}})", text)[mode] for ink in inks)
    for step in range(STEPS):
        colour = palette.colour(ramp, step / (STEPS - 1))
        assert contrast(colour, high if step >= DEEP else low) > 3.7


@pytest.mark.parametrize(
    "steps", [{"search"}, {"search", "unit"}, {"search", "trial"}, {"search", "point"}]
)
def test_a_few_kinds_of_records_are_enough(steps):
    made = pages([r for r in RECORDS if r.step in steps])
    Page(made["report.html"])
    for text in made.values():
        assert "The search looked for the least damage" in text


def test_bare_records_are_enough():
    made = pages(
        [Record("search", ""), Record("unit", "embed"), Record("unit", "layers.0.attn.in")]
    )
    assert "without limits" in made["report.html"]


@pytest.mark.parametrize("step", sorted({record.step for record in RECORDS}))
def test_each_kind_of_record_may_be_missing(step):
    read = Page(page(r for r in RECORDS if r.step != step))
    assert "h1" in read.tags


@pytest.mark.parametrize("fact", ["kl", "size", "decode", "bytes", "weights", "slack", "limit"])
def test_each_fact_may_be_missing(fact):
    records = [
        Record(r.step, r.site, {n: f for n, f in r.facts.items() if n != fact}, None, r.notes)
        for r in RECORDS
    ]
    assert "h1" in Page(page(records)).tags


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 0.0, -1.0, 1e300, 1e-300])
def test_numbers_gone_wrong_are_shown(bad):
    read = Page(page(changed(lambda fact: Quantity(bad, fact.unit, fact.how))))
    assert "h1" in read.tags


@pytest.mark.parametrize("payload", PAYLOADS)
def test_payloads_are_shown_and_not_run(payload):
    records = [
        Record(r.step, r.site and r.site + payload, r.facts, None,
               {n: w if n in {"layer", "kind", "chosen"} else w + payload for n, w in r.notes.items()})
        for r in RECORDS
        if r.step != "option"
    ]  # fmt: skip
    read = Page(page(records))
    assert not {"script", "img", "b"} & read.tags
    for _, name, value in read.attributes:
        assert not name.startswith("on")
        assert name not in {"src", "style"}
        assert name != "href" or value.startswith("#")


def test_the_card_has_a_sentence_and_the_limits():
    text = pages(examples.compressed() + RECORDS)["README.md"]
    assert "It took int4-g32 in" in text
    assert re.search(r"\| size \| --max-size 4\.6MB \| ≤ 4\.6 MB \|", text)


def test_a_folder_without_a_search_says_nothing_of_one():
    for text in pages(examples.compressed()).values():
        assert "The search" not in text
        assert 'id="search"' not in text


def test_the_markdown_has_every_table():
    text = pages(RECORDS)["report.md"]
    for heading in (
        "## The search",
        "### Limits",
        "### Allocation",
        "### The most sensitive units",
        "### What more or less room would do",
        "### Predicted and measured",
        "### What was considered",
        "### What was not offered",
    ):
        assert f"\n{heading}\n" in text
