"""What a compressed model takes over from its source's card."""

from pathlib import Path

import pytest

from whet.store.resolve import demo
from whet.store.source_card import inherited, source_card, source_name


def test_what_a_card_inherits():
    head = "license: llama3.2\nlicense_link: LICENSE\nlanguage:\n- en\n- de\ntags: [a]\n"
    text = f"---\n{head}base_model: x/y\n---\n# Model\n"
    assert inherited(text) == {
        "license": "llama3.2",
        "license_link": "LICENSE",
        "language": "en, de",
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# no card",
        "---\n: [\n---\n",
        "---\n- a\n---\n",
        "---\na: &x [1]\nlicense: *x\n---\n",
        "---\nlicense: 3\n---\n",
        "---\n!!python/name:os.system\n---\n",
    ],
)
def test_odd_cards_give_nothing(text):
    assert inherited(text) == {}


def test_a_name_comes_along():
    assert inherited("---\nmodel_name: books\n---\n") == {"name": "books"}


def test_the_demo_has_a_card():
    words = {"license": "cc0-1.0", "language": "en", "pipeline_tag": "text-generation"}
    assert source_card(demo()) == {"name": "books-7m"} | words


def test_no_card_gives_nothing(tmp_path):
    assert source_card(tmp_path) == {}


@pytest.mark.parametrize(
    ("path", "name"),
    [("/c/models--org--my--model/snapshots/0a1b", "org/my--model"), ("/models/llama", "llama")],
)
def test_names(path, name):
    assert source_name(Path(path)) == name
