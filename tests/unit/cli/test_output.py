"""Results as text and as JSON."""

import json
import math

from whet.cli import output
from whet.report.table import Column, Table


def test_columns_are_aligned_also_with_wide_characters():
    table = Table(
        (Column("name"), Column("n", numeric=True)), (("模型", "1"), ("ab\x1b[1m", "1,000"))
    )
    assert output.columns(table).splitlines() == ["name      n", "模型      1", "ab    1,000"]


def test_pairs():
    assert output.pairs([("a", "1"), ("long", "2")]) == "a     1\nlong  2"


def test_json_is_strict(capsys):
    output.result_json({"a": [math.nan, math.inf, 1.5], "b": (1, "x")})
    assert json.loads(capsys.readouterr().out) == {"a": [None, None, 1.5], "b": [1, "x"]}


def test_results_have_no_control_characters(capsys):
    output.result("a\x1b[31mb\tc\nd\x07")
    output.tell("e\x1b]0;x\x07")
    assert capsys.readouterr() == ("ab\tc\nd\n", "e\n")
