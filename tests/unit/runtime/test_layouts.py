"""Layouts on disk: found again, made anew where damaged or stale, in memory where disks refuse."""

import os
from pathlib import Path

import numpy as np
import pytest

from whet.runtime import layouts
from whet.runtime.layouts import Wanted, place, prepared, read

KEY = {"content": "a", "tier": "generic", "activations": "int8", "version": "1"}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WHET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Makers:
    """Layouts that count how often they are made."""

    def __init__(self) -> None:
        self.made = 0

    def wanted(self) -> list[Wanted]:
        return [Wanted(f"w{i}", 100 + i, lambda i=i: self._make(i)) for i in range(3)]

    def _make(self, number: int) -> np.ndarray:
        self.made += 1
        return np.full(100 + number, number, np.uint8)


def same(found, makers: Makers) -> bool:
    return all(
        np.array_equal(found.layouts[f"w{i}"], np.full(100 + i, i, np.uint8)) for i in range(3)
    )


def test_made_once_then_found(tmp_path: Path):
    makers = Makers()
    first = prepared(tmp_path, KEY, makers.wanted())
    again = prepared(tmp_path, KEY, makers.wanted())
    assert first.made
    assert not again.made
    assert makers.made == 3
    assert same(again, makers)
    assert all(found.ctypes.data % 64 == 0 for found in again.layouts.values())


def test_another_key_makes_them_anew_in_the_same_file(tmp_path: Path, root: Path):
    prepared(tmp_path, KEY, Makers().wanted())
    changed = prepared(tmp_path, {**KEY, "content": "b"}, Makers().wanted())
    assert changed.made
    assert len(list(root.rglob("*.layouts"))) == 1


@pytest.mark.parametrize("where", [0, 9, 20, 40, -1, -40])
def test_damage_is_seen(where: int, tmp_path: Path):
    prepared(tmp_path, KEY, Makers().wanted())
    path = place(tmp_path, KEY)
    data = bytearray(path.read_bytes())
    data[where] ^= 0xFF
    path.write_bytes(data)
    assert read(path, KEY) is None
    makers = Makers()
    assert same(prepared(tmp_path, KEY, makers.wanted()), makers)
    assert makers.made == 3


@pytest.mark.parametrize("size", [0, 1, 63, 64, 200, 400])
def test_a_file_cut_short_is_seen(size: int, tmp_path: Path):
    prepared(tmp_path, KEY, Makers().wanted())
    path = place(tmp_path, KEY)
    path.write_bytes(path.read_bytes()[:size])
    assert read(path, KEY) is None


def test_no_part_of_a_file_is_left_when_making_fails(tmp_path: Path, root: Path):
    def fails() -> np.ndarray:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        prepared(tmp_path, KEY, [*Makers().wanted(), Wanted("x", 1, fails)])
    assert not [path for path in root.rglob("*") if path.is_file()]


def test_disks_that_refuse_are_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WHET_CACHE", str(tmp_path / "file"))
    makers = Makers()
    found = prepared(tmp_path, KEY, makers.wanted())
    assert same(found, makers)
    assert "in memory" in found.note


def test_full_disks_are_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(layouts, "free_disk", lambda path: 10)
    found = prepared(tmp_path, KEY, Makers().wanted())
    assert "too little space" in found.note


def test_where_files_lie(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WHET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert layouts.root() == Path("/x/whet")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert layouts.root() == Path(os.path.expanduser("~")) / ".cache/whet"
