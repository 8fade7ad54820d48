"""Text from outside (names, paths, prompts, tokens), made safe to show."""

import re
import unicodedata

ESCAPES = re.compile(
    "\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?"  # OSC: window titles, links, clipboards
    "|\x1b[PX^_][^\x1b]*(?:\x1b\\\\)?"  # DCS, SOS, PM, APC
    "|(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor movements
    "|\x1b[ -/]*[0-~]?"  # the other two-byte sequences
)
HIDDEN = frozenset("\u200e\u200f\u061c\u2028\u2029\ufeff")  # marks that reorder or break a line


def plain(text: str, keep: str = "") -> str:
    """Return the text without escape sequences, control and reordering characters.

    `keep` names control characters that stay, e.g. a line feed. Lone surrogates become `?`.
    Law: the result has no character of the Unicode class Cc outside `keep`.
    """
    if text.isprintable():
        return text
    safe = ESCAPES.sub("", text).encode("utf-8", "replace").decode("utf-8")
    return "".join(char for char in safe if char in keep or _shown(char))


def _shown(char: str) -> bool:
    """Return whether a character only shows itself."""
    bidirectional = "\u202a" <= char <= "\u202e" or "\u2066" <= char <= "\u2069"
    return char not in HIDDEN and not bidirectional and unicodedata.category(char) != "Cc"


def visible(text: str) -> str:
    """Return the text on one line: line feeds and tabs are shown as signs, controls are gone."""
    return plain(text.replace("\r\n", "\n").replace("\n", "⏎").replace("\t", "⇥"))
