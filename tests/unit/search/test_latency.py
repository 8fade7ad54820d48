"""The table of a machine: measured once, kept, and not trusted where it is not its own."""

import json
from pathlib import Path

import pytest

from whet.formats.spec import parse
from whet.measure.product import Product, Time
from whet.search.latency import LARGEST, SMALLEST, Latency, place, rounded

SHAPE = (48, 32)
INT4 = Product(parse("int4-g16"), (SHAPE,))
MACHINE = {"processor": "one", "threads": "1"}


class Clock:
    """A timer by which a product takes 100 seconds, and one more for each row."""

    model_bytes = 1 << 20

    def __init__(self) -> None:
        self.timed: list[tuple[Product, int]] = []

    def refuses(self, product: Product) -> str | None:
        return product.format.refuses(product.shapes[0])

    def time(self, product: Product, rows: int) -> Time:
        self.timed.append((product, rows))
        return Time(100.0 + rows, 10 * len(product.shapes))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "table.json"


def test_what_was_measured_is_kept(path: Path):
    first = Latency(Clock(), path, MACHINE)
    spent = [first.seconds(INT4, rows) for rows in (1, 8, 5, 1)]
    assert [rows for _, rows in first.timer.timed] == [1, 8]
    again = Latency(Clock(), path, MACHINE)
    assert [again.seconds(INT4, rows) for rows in (1, 8, 5, 1)] == spent
    assert again.nbytes(INT4) == 10
    assert again.timer.timed == []
    assert again.note == ""
    assert again.record().facts["measured"].value == 0
    assert again.record().facts["known"].value == 2


def test_rows_between_knots_are_on_a_line_and_long_prompts_add_up(path: Path):
    found = Latency(Clock(), path, MACHINE)
    for rows in (1, 2, 8, 30, 64, 200, 512):
        assert found.seconds(INT4, rows) == pytest.approx(100 + rows)
    assert found.seconds(INT4, 1024) == pytest.approx(2 * 612)
    assert found.seconds(INT4, 1054) == pytest.approx(2 * 612 + 130)


def test_products_are_told_apart(path: Path):
    found = Latency(Clock(), path, MACHINE)
    found.seconds(Product(INT4.format, (SHAPE, SHAPE)), 1)
    found.seconds(INT4, 1)
    found.seconds(Product(parse("int8-g16"), (SHAPE,)), 1)
    found.timer.model_bytes = 1 << 21
    found.seconds(INT4, 1)
    assert len(found.timer.timed) == 4
    assert Latency(Clock(), path, MACHINE).record().facts["known"].value == 4


def test_two_tables_lose_nothing(path: Path):
    one, other = (Latency(Clock(), path, MACHINE) for _ in range(2))
    one.seconds(INT4, 1)
    other.seconds(INT4, 8)
    assert Latency(Clock(), path, MACHINE).record().facts["known"].value == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"machine": {}, "times": {}}',
        '{"machine": MINE}',
        '{"machine": MINE, "times": []}',
        '{"machine": MINE, "times": {"a": 3}}',
        '{"machine": MINE, "times": {"a": [1]}}',
        '{"machine": MINE, "times": {"a": [-1.0, 3]}}',
        '{"machine": MINE, "times": {"a": [1e999, 3]}}',
        '{"machine": MINE, "times": {"a": [NaN, 3]}}',
        '{"machine": MINE, "times": {"a": [true, 3]}}',
        '{"machine": MINE, "times": {"a": [1.0, "3"]}}',
        "\udc80",
    ],
)
def test_files_that_are_damaged_or_of_others_are_made_anew(path: Path, text: str):
    path.parent.mkdir()
    whole = text.replace("MINE", json.dumps(MACHINE))
    path.write_bytes(whole.encode("utf-8", "surrogateescape"))
    found = Latency(Clock(), path, MACHINE)
    assert "not used" in str(found.record().fallback)
    assert found.seconds(INT4, 1) == 101
    assert Latency(Clock(), path, MACHINE).note == ""


def test_places_that_cannot_be_written_to_are_done_without(tmp_path: Path):
    (tmp_path / "file").write_text("")
    found = Latency(Clock(), tmp_path / "file" / "table.json", MACHINE)
    assert found.seconds(INT4, 1) == 101
    assert found.seconds(INT4, 1) == 101
    assert "could not be kept" in found.note
    assert len(found.timer.timed) == 1


def test_refusals_are_reasons(path: Path):
    found = Latency(Clock(), path, MACHINE)
    assert found.refuses(INT4) is None
    assert "rank 40" in str(found.refuses(Product(parse("lowrank-40"), (SHAPE,))))
    assert found.timer.timed == []


def test_where_tables_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WHET_CACHE", str(tmp_path))
    assert place(MACHINE).parent == tmp_path / "latency"
    assert place(MACHINE) != place({**MACHINE, "threads": "2"})


def test_sizes_of_models_are_rounded_up():
    assert [rounded(n) for n in (1, SMALLEST, SMALLEST + 1, 5 << 20, 1 << 40)] == [
        SMALLEST, SMALLEST, 2 * SMALLEST, 8 << 20, LARGEST,
    ]  # fmt: skip
