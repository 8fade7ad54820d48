import errno
from pathlib import Path

import pytest
import torch

from whet.base.errors import FolderError, StorageError
from whet.calibrate import spool as module
from whet.calibrate.spool import Spool


def test_what_was_written_is_read_back_in_any_order(tmp_path: Path) -> None:
    x = torch.randn(5, 3, 4)
    spool = Spool.create(tmp_path / "x", (5, 3, 4))
    spool.write(3, x[3:])
    spool.write(0, x[:3])
    spool.flush()
    assert torch.equal(spool.read(0, 5), x)
    assert torch.equal(torch.cat([part for _, part in spool.chunks(2)]), x)
    assert [start for start, _ in spool.chunks(2)] == [0, 2, 4]
    assert spool.read(5, 9).shape == (0, 3, 4)


def test_bf16_rounds_once_and_halves_the_file(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 4)
    spool = Spool.create(tmp_path / "x", (2, 3, 4), "BF16")
    spool.write(0, x)
    assert torch.equal(spool.read(0, 2), x.bfloat16().float())
    assert spool.nbytes == 2 * 3 * 4 * 2


def test_a_later_run_opens_it(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 4)
    Spool.create(tmp_path / "x", (2, 3, 4), "F32").write(0, x)
    again = Spool.open(tmp_path / "x")
    assert again.shape == (2, 3, 4)
    assert torch.equal(again.read(0, 2), x)
    again.delete()
    again.delete()
    assert not again.path.exists()


@pytest.mark.parametrize("damage", ["short", "long", "garbage", "kind", "empty"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x"
    Spool.create(path, (2, 3, 4))
    data = path.read_bytes()
    damaged = {
        "short": data[:-1],
        "long": data + b"x",
        "garbage": b"\xff" * len(data),
        "kind": data.replace(b"whet spool", b"whet spoof"),
        "empty": b"",
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(FolderError, match=str(path)):
        Spool.open(path)


def test_a_file_cut_short_while_it_is_used_is_an_error(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path / "x", (2, 3, 4))
    with spool.path.open("r+b") as file:
        file.truncate(module.HEADER + spool.sample_bytes)
    with pytest.raises(FolderError, match="cut short"):
        spool.read(0, 2)


def test_a_full_disk_says_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_reserve", full)
    with pytest.raises(StorageError, match=r"\d+ bytes needed, \d+ free"):
        Spool.create(tmp_path / "x", (2, 3, 4))
    with pytest.raises(StorageError, match="cannot write"):
        Spool.create(tmp_path / "none" / "x", (2, 3, 4))
