"""Publishing: whole or nothing, whatever fails; one run at a time; modes follow the umask."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from whet.base.errors import FitError, RecipeError, StoppedError, StorageError
from whet.store import publish as publishing_module
from whet.store.durable import write_atomic, write_json
from whet.store.folder import Folder
from whet.store.manifest import MANIFEST, verify, write_manifest
from whet.store.publish import (
    check_output,
    lock,
    publish,
    publishing,
    require_space,
    stage,
    staging_path,
)
from whet.store.resolve import demo
from whet.store.side_files import copy_side_files
from whet.store.writer import Shards

CALLS = ("open", "write", "fsync", "replace", "mkdir", "close")


def build(staging: Path, value: float = 1.0) -> None:
    """A small model folder: side files, two shards and an index, a manifest."""
    copy_side_files(Folder(demo()), staging)
    write_json(staging / "config.json", {"model_type": "llama"})
    shards = Shards(staging, max_bytes=30)
    shards.put("a", torch.full((6,), value))
    shards.put("b", torch.full((6,), value))
    shards.finish()
    write_manifest(staging, {"value": value})


def run(out: Path, value: float = 1.0, *, overwrite: bool = False) -> None:
    with publishing(out, overwrite=overwrite) as staging:
        build(staging, value)


def snapshot(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def fail_at(monkeypatch: pytest.MonkeyPatch, name: str, nth: int, code: int) -> Callable[[], bool]:
    """Make the nth call of `os.<name>` fail; tell whether it was reached."""
    real, count = getattr(os, name), [0]

    def failing(*args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        if count[0] == nth:
            if name == "close":
                real(*args, **kwargs)
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    monkeypatch.setattr(os, name, failing)
    return lambda: count[0] >= nth


def test_publishes_whole(tmp_path: Path):
    out = tmp_path / "out"
    run(out)
    assert Folder(out).tensors.keys() == {"a", "b"}
    assert verify(out) == []
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def points(name: str) -> Iterator[int]:
    yield from (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 16, 20, 25, 30, 40)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("name", CALLS)
def test_a_failing_disk_leaves_nothing(name: str, code: int, tmp_path: Path):
    reached = 0
    for nth in points(name):
        out = tmp_path / str(nth) / "out"
        with pytest.MonkeyPatch.context() as monkeypatch:
            hit = fail_at(monkeypatch, name, nth, code)
            with contextlib.suppress(StorageError):
                run(out)
            reached += hit()
        parent = out.parent
        left = list(parent.iterdir()) if parent.exists() else []
        if out.exists():
            assert verify(out) == []
        assert [path for path in left if path != out] == []
    assert reached or name == "mkdir"


@pytest.mark.parametrize("name", ["write", "fsync", "replace"])
def test_a_failing_disk_keeps_the_old_output(name: str, tmp_path: Path):
    out = tmp_path / "out"
    run(out)
    old = snapshot(out)
    for nth in points(name):
        with pytest.MonkeyPatch.context() as monkeypatch:
            hit = fail_at(monkeypatch, name, nth, errno.ENOSPC)
            try:
                run(out, 2.0, overwrite=True)
            except StorageError:
                assert snapshot(out) == old
                assert [path.name for path in tmp_path.iterdir()] == ["out"]
                continue
        if not hit():
            break
        old = snapshot(out)


def test_message_says_path_needed_and_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fail_at(monkeypatch, "write", 1, errno.ENOSPC)
    with pytest.raises(StorageError) as caught:
        write_atomic(tmp_path / "file", [b"x" * 1000], 1000)
    for part in (str(tmp_path / "file"), "1000 bytes needed", "bytes free", "No space left"):
        assert part in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data[:3])))
    write_atomic(tmp_path / "file", [b"0123456789", b"abc"])
    assert (tmp_path / "file").read_bytes() == b"0123456789abc"


def test_file_size_limit_of_the_system(tmp_path: Path):
    code = f"""
        import resource, signal
        from pathlib import Path
        from whet.base.errors import StorageError
        from whet.store.durable import write_atomic
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            write_atomic(Path({str(tmp_path)!r}) / "big", [b"x" * 50_000])
        except StorageError as error:
            print(error.code)
    """
    assert python(code).stdout.strip() == "74"
    assert list(tmp_path.iterdir()) == []


def python(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, check=False, timeout=60, **options,
    )  # fmt: skip


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002])
def test_modes_follow_the_umask(mask: int, tmp_path: Path):
    before = os.umask(mask)
    try:
        run(tmp_path / "out")
    finally:
        os.umask(before)
    for path in (tmp_path / "out").rglob("*"):
        expected = 0o777 if path.is_dir() else 0o666
        assert path.stat().st_mode & 0o777 == expected & ~mask, path
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o777 & ~mask


def test_second_process_is_told_who_holds_the_lock(tmp_path: Path):
    code = f"""
        import time
        from pathlib import Path
        from whet.store.publish import lock
        with lock(Path({str(tmp_path / "out")!r})):
            print("held", flush=True)
            time.sleep(60)
    """
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        began = time.perf_counter()
        with (
            pytest.raises(StoppedError, match=f"process {holder.pid}") as caught,
            lock(tmp_path / "out"),
        ):
            pass
        assert time.perf_counter() - began < 5
        assert caught.value.code == 75
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()
    with lock(tmp_path / "out"):  # a lock dies with its holder
        pass
    assert list(tmp_path.iterdir()) == []


def test_same_process_cannot_lock_twice(tmp_path: Path):
    with (
        lock(tmp_path / "a"),
        lock(tmp_path / "b"),
        pytest.raises(StoppedError),
        lock(tmp_path / "a"),
    ):
        pass


def test_kill_between_the_two_renames_is_put_right(tmp_path: Path):
    out = tmp_path / "out"
    run(out)
    old = snapshot(out)
    out.rename(tmp_path / ".out.replaced")
    with lock(out):
        assert snapshot(out) == old
    (tmp_path / ".out.replaced").mkdir()
    with lock(out):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_stage_can_be_kept_and_is_swept(tmp_path: Path):
    out = tmp_path / "out"
    staging = stage(out)
    (staging / "part").write_text("1")
    (staging / ".part.tmp-123").write_text("half")
    assert stage(out, fresh=False) == staging_path(out)
    assert [path.name for path in staging.iterdir()] == ["part"]
    assert list(stage(out).iterdir()) == []


def test_existing_output_is_not_replaced_unasked(tmp_path: Path):
    out = tmp_path / "out"
    run(out)
    with pytest.raises(RecipeError, match="exists"):
        check_output(out)
    with pytest.raises(RecipeError):
        run(out)
    run(out, 3.0, overwrite=True)
    assert torch.frombuffer(Folder(out).read("a"), dtype=torch.float32)[0] == 3


def test_folders_of_others_are_never_replaced(tmp_path: Path):
    (tmp_path / "precious").write_text("x")
    with pytest.raises(RecipeError, match=MANIFEST):
        check_output(tmp_path, overwrite=True)
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        with pytest.raises(RecipeError, match="not a folder"):
            check_output(tmp_path / name, overwrite=True)
    (tmp_path / "empty").mkdir()
    check_output(tmp_path / "empty")
    run(tmp_path / "empty")


def test_unwritable_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(StorageError):
        check_output(tmp_path / "out")


def test_space_is_required_before_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    require_space(tmp_path / "a" / "b", 1)
    monkeypatch.setattr(publishing_module, "free_bytes", lambda path: 10**9)
    with pytest.raises(FitError, match="2000000000 bytes") as caught:
        require_space(tmp_path / "out", 2 * 10**9)
    assert caught.value.code == 4


def test_an_error_in_between_leaves_nothing(tmp_path: Path):
    def interrupted() -> None:
        with publishing(tmp_path / "out") as staging:
            build(staging)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_publish_moves_nothing_when_the_output_appears_meanwhile(tmp_path: Path):
    staging = stage(tmp_path / "out")
    build(staging)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_text("theirs")
    with pytest.raises(RecipeError):
        publish(staging, tmp_path / "out")
    assert (tmp_path / "out" / "x").read_text() == "theirs"
