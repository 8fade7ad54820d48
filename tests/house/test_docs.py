"""The pages say what the code does: tables, commands, links, both languages in step."""

import re
import shlex

import pytest
import yaml
from tests.house.facts import FACTS, MARKED, filled
from tests.house.places import PAGES, ROOT, pages

from whet.cli.lazy import VERBS
from whet.cli.main import whet
from whet.recipe.file import loads
from whet.report.evidence import EVENTS

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def name(page):
    return page.relative_to(ROOT).as_posix()


def text(page):
    return (ROOT / page).read_text(encoding="utf-8")


def commands(page):
    """The commands that a page tells its readers to type."""
    for language, block in FENCE.findall(text(page)):
        if language == "sh":
            yield from (line for line in block.splitlines() if line.strip())


@pytest.mark.parametrize("page", pages(), ids=name)
def test_tables_are_those_of_the_code(page):
    assert filled(text(page)) == text(page), "python -m tests.house.facts"


def test_every_fact_has_its_page():
    assert {found[1] for page in pages() for found in MARKED.findall(text(page))} == FACTS.keys()


@pytest.mark.parametrize("page", pages(), ids=name)
def test_commands_parse(page):
    for line in commands(page):
        words = shlex.split(line, comments=True)
        if words and words[0] == "whet":
            verb = whet.get_command(whet.make_context("whet", [], resilient_parsing=True), words[1])
            assert verb is not None, line
            verb.make_context(words[1], words[2:])


@pytest.mark.parametrize("page", pages(), ids=name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text(page)):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target


def test_both_readmes_have_the_same_commands():
    assert list(commands("README.md")) == list(commands("README.zh.md"))
    assert [b for lang, b in FENCE.findall(text("README.md")) if lang != "sh"] == [
        b for lang, b in FENCE.findall(text("README.zh.md")) if lang != "sh"
    ]


def test_both_readmes_have_the_same_pictures_and_tables():
    facts = [[found[1] for found in MARKED.findall(text(page))] for page in PAGES[:2]]
    assert facts[0] == facts[1]
    pictures = [re.findall(r"(?:src=\"|!\[[^\]]*\]\()([^\")]+)", text(page)) for page in PAGES[:2]]
    assert pictures[0] == pictures[1]


def test_the_readme_begins_with_the_two_commands():
    assert list(commands("README.md"))[:2] == ["make demo", "make test"]
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"demo", "test"} <= set(targets)


def test_every_kind_of_record_is_described():
    described = set(re.findall(r"`(\w+)`", text("docs/evidence.md")))
    assert described >= EVENTS


def test_recipes_in_the_pages_are_recipes():
    blocks = [found for page in pages() for found in FENCE.findall(text(page))]
    found = [block for language, block in blocks if language == "yaml" and "steps:" in block]
    assert found
    for block in found:
        assert loads(block).name == yaml.safe_load(block)["name"]


def test_every_verb_is_in_the_readme():
    for verb in VERBS:
        assert f"whet {verb}" in text("README.md"), verb


@pytest.mark.parametrize("page", pages(), ids=name)
def test_nothing_is_left_to_be_filled_in(page):
    assert not re.search(r"placeholder|lorem|coming soon|\?\?\?|TB" r"D", text(page), re.IGNORECASE)
