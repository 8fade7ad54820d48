"""Progress on a terminal and elsewhere."""

import io
import time

import pytest
from rich.console import Console

from whet.cli.pace import Pace
from whet.cli.progress import Bar, Lines, watched
from whet.recipe.progress import Progress


def test_a_line_now_and_then_even_while_nothing_advances():
    said = []
    lines = Lines(every=0.02, say=said.append)
    lines.start(4, "compress")
    lines.advance(1, "block 1 of 2\x1b[2J")
    time.sleep(0.2)
    lines.note("a fallback\x07")
    lines.finish()
    assert sum(line.startswith("compress: 1 of 4, block 1 of 2,") for line in said) >= 2
    assert "a fallback" in said
    assert said[-1].startswith("compress: done in ")
    quiet = len(said)
    time.sleep(0.06)
    assert len(said) == quiet


def test_closing_says_nothing_of_success():
    said = []
    lines = Lines(every=60.0, say=said.append)
    lines.start(4, "compress")
    lines.close()
    lines.finish()
    assert said == []


class Clock:
    """A time that tests set."""

    now = 0.0

    def __call__(self):
        return self.now


def paced(total, reports, within=None):
    clock = Clock()
    pace = Pace(total, within, clock)
    for now, done in reports:
        clock.now = now
        pace.advance(done)
    return pace, clock


def test_what_an_earlier_run_did_does_not_make_this_one_look_fast():
    pace, _ = paced(12, [(0.0, 5), (10.0, 6), (20.0, 7)])
    assert pace.left() == 50.0


def test_one_quick_unit_tells_nothing():
    pace, clock = paced(10, [(0.0, 0), (0.1, 1)])
    clock.now = 30.0
    assert pace.left() is None


def test_the_slowest_of_the_last_units_tells_the_pace():
    pace, clock = paced(10, [(0.0, 0), (0.1, 1), (10.1, 2)])
    assert pace.left() == 80.0
    clock.now = 15.1
    assert pace.left() == 75.0


def test_one_slow_unit_does_not_slow_the_others():
    pace, clock = paced(6, [(0.0, 0), (1.0, 1), (2.0, 2)])
    clock.now = 12.0
    assert pace.left() == 3.0


def test_several_units_at_a_time():
    pace, _ = paced(64, [(0.0, 0), (8.0, 4)])
    assert pace.left() == 120.0


def test_no_more_is_left_than_there_is_time():
    pace, clock = paced(10, [(0.0, 0), (0.1, 1), (10.1, 2)], within=60.0)
    assert pace.left() == pytest.approx(49.9)
    clock.now = 100.0
    assert pace.left() is None


def test_nothing_is_left_at_the_end():
    pace, _ = paced(2, [(0.0, 0), (1.0, 1), (2.0, 2)])
    assert pace.left() is None
    assert pace.elapsed == 2.0


def test_the_bar(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(
        "rich.console.Console", lambda **_: Console(file=shown, force_terminal=True, width=100)
    )
    bar = Bar()
    bar.start(4, "compress")
    bar.advance(2, "block [bold]2[/bold]")
    bar._rich.refresh()
    bar.note("note [red]x[/red]\x1b[2J")
    bar.finish()
    bar.finish()
    text = shown.getvalue()
    assert "block [bold]2[/bold]" in text
    assert "note [red]x[/red]" in text
    assert "100 %" in text
    assert "\x1b[2J" not in text


def test_a_bar_that_has_not_begun_takes_anything(capsys):
    bar = Bar()
    bar.advance(1, "x")
    bar.note("hello")
    bar.close()
    assert "hello" in capsys.readouterr().err


def test_watching_ends_whatever_happens(monkeypatch):
    for terminal in (True, False):
        monkeypatch.setattr("whet.cli.progress.is_terminal", lambda terminal=terminal: terminal)
        with watched() as shown:
            assert isinstance(shown, Bar if terminal else Lines)
            told: Progress = shown
            told.start(1, "x")


def test_no_colour_is_honoured(monkeypatch):
    from whet.cli import output

    monkeypatch.setattr("whet.cli.output.is_terminal", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert output.coloured()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not output.coloured()


def test_a_name_is_said_once():
    lines = Lines(every=60.0)
    lines.start(64, "windows")
    lines.advance(12, "windows")
    assert lines.line().startswith("windows: 12 of 64, ")
    assert lines.line().count("windows") == 1
    lines.close()
