"""`whet explain`: the account of a search, of any folder that whet wrote, and of none."""

import json

import pytest
from tests.unit.report import examples, searched

import whet
from whet import api
from whet.base.errors import MissingError
from whet.base.record import append_records
from whet.cli.main import code


@pytest.fixture
def found(tmp_path):
    append_records(tmp_path / "records.jsonl", examples.compressed() + searched.searched())
    return tmp_path


@pytest.fixture
def plain(tmp_path):
    append_records(tmp_path / "records.jsonl", examples.compressed() + examples.fallen())
    return tmp_path


def test_a_search_is_explained(found, capsys):
    assert code(["explain", str(found)]) == 0
    shown = capsys.readouterr().out
    for words in (
        "The search looked for the least damage",
        "What binds: size",
        "Fewer went to embed",
        "Taken nowhere: 2:4(int4-g64)",
        "kB more would lower the predicted KL",
        "an embedding is looked up, not multiplied",
        "layer  attn.in   attn.out  mlp.in    mlp.mid",
        "layers.7.mlp.mid",
    ):
        assert words in shown
    assert max(len(line) for line in shown.split("Limits")[0].splitlines()) <= 100


def test_every_layer_is_in_the_grid(found):
    sections = dict(whet.explain(found).sections)
    first = [row[0] for row in sections["Allocation"].rows]
    ends = [[int(part) for part in row.split("–")] for row in first]
    assert [layer for end in ends for layer in range(end[0], end[-1] + 1)] == list(range(8))


def test_as_json_it_gives_the_records(found, capsys):
    assert code(["explain", str(found), "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told.keys() == {"path", "account", "records"}
    assert {"search", "unit", "option"} <= {record["step"] for record in told["records"]}
    assert told["account"][0].startswith("The search looked for")


def test_without_a_search_the_steps_are_told(plain, capsys):
    assert code(["explain", str(plain)]) == 0
    shown = capsys.readouterr().out
    for words in (
        "was compressed with the recipe int4",
        "rounded to nearest: the Hessian is singular",
        "The modules that changed most",
        "whet measure FOLDER --against demo",
    ):
        assert words in shown
    assert "The search" not in shown


@pytest.mark.parametrize("name", ["", "none"])
def test_what_cannot_be_explained_is_refused(tmp_path, name, capsys):
    assert code(["explain", str(tmp_path / name)]) == 66
    assert "that whet has written" in capsys.readouterr().err
    with pytest.raises(MissingError):
        api.explain(tmp_path / name)


def test_damaged_records_are_an_error(tmp_path, capsys):
    (tmp_path / "records.jsonl").write_text("{}\n", encoding="utf-8")
    assert code(["explain", str(tmp_path)]) == 65
    assert "line 1: not a record" in capsys.readouterr().err
