"""The manifest: any change of any file is found."""

import random
from pathlib import Path

import pytest

from whet.base.errors import FolderError
from whet.store.folder import Folder
from whet.store.manifest import MANIFEST, read_manifest, verify, write_manifest
from whet.store.resolve import demo
from whet.store.side_files import copy_side_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copy_side_files(Folder(demo()), tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.jinja").write_text("{{ messages }}")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "weights.safetensors").write_bytes(bytes(range(256)) * 64)
    write_manifest(tmp_path, {"seed": 1, "versions": {"whet": "0"}})
    return tmp_path


def test_intact(folder: Path):
    assert verify(folder) == []
    assert read_manifest(folder)["facts"] == {"seed": 1, "versions": {"whet": "0"}}


def test_one_flipped_bit_anywhere_is_found(folder: Path):
    chance = random.Random(0)
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size):
        good = path.read_bytes()
        for position in {0, len(good) - 1, *chance.sample(range(len(good)), 12)}:
            bad = bytearray(good)
            bad[position] ^= 1 << chance.randrange(8)
            path.write_bytes(bytes(bad))
            assert verify(folder), (path, position)
        path.write_bytes(good)
    assert verify(folder) == []


def test_truncated_missing_added_and_linked_files(folder: Path):
    weights = folder / "weights.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1])
    assert verify(folder) == ["weights.safetensors has 16383 bytes, expected 16384"]
    weights.unlink()
    assert verify(folder) == ["weights.safetensors is missing"]
    (folder.parent / "elsewhere").write_bytes(good)
    weights.symlink_to(folder.parent / "elsewhere")
    assert verify(folder) == ["weights.safetensors is not a regular file"]
    weights.unlink()
    weights.write_bytes(good)
    (folder / "evil.py").write_text("")
    assert verify(folder) == ["evil.py is not in the manifest"]


def test_rewritten_manifest_is_found(folder: Path):
    path = folder / MANIFEST
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 2'))
    assert verify(folder) == [f"{MANIFEST} was changed after it was written"]
    path.write_text("{}")
    assert "version" in verify(folder)[0]
    path.write_text('{"version": 1, "files": {"empty": 3}, "facts": {}}')
    assert "empty has no entry that can be read" in verify(folder)


def test_folder_without_manifest():
    with pytest.raises(FolderError, match="no manifest"):
        verify(demo())


def test_same_files_give_the_same_manifest(folder: Path):
    before = (folder / MANIFEST).read_bytes()
    write_manifest(folder, {"versions": {"whet": "0"}, "seed": 1})
    assert (folder / MANIFEST).read_bytes() == before
