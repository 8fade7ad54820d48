"""Text from outside cannot move the cursor, set titles, reorder or hide."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whet.base.text import plain, visible


@given(st.text(alphabet=st.characters(), max_size=60))
def test_no_control_character_survives(text):
    assert not [c for c in plain(text) if unicodedata.category(c) == "Cc"]


@given(
    st.text(
        alphabet=st.characters(blacklist_categories=("Cc", "Cf", "Zl", "Zp", "Cs")), max_size=40
    )
)
def test_ordinary_text_stays(text):
    assert plain(text) == text


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;owned\x07name", "name"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;ZWNobw==\x07x", "x"),
        ("\x9b2Jx", "x"),
        ("\x1bPq#0\x1b\\x", "x"),
        ("a\rb\x08c\x7f", "abc"),
        ("abc\u202egpj.exe", "abcgpj.exe"),
        ("line\u2028two", "linetwo"),
        ("lone \ud800", "lone ?"),
        ("\x1b", ""),
    ],
)
def test_sequences_go(dirty, clean):
    assert plain(dirty) == clean


def test_kept_characters_stay():
    assert plain("a\nb\tc", keep="\n") == "a\nbc"


def test_visible_is_one_line():
    assert visible("a\r\nb\tc\x07") == "a⏎b⇥c"
