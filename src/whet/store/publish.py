"""An output folder appears whole or not at all: lock, stage, flush, rename. Torch-free."""

import contextlib
import os
import shutil
from collections.abc import Generator
from pathlib import Path

from whet.base.errors import FitError, RecipeError, StoppedError, StorageError
from whet.store.durable import free_bytes, storage_error, sync_folder
from whet.store.manifest import MANIFEST

RESERVE = 64 << 20  # kept free on the disk [byte]


def staging_path(out: Path) -> Path:
    """Return the folder in which OUT is built, beside it so that a rename suffices."""
    return _beside(out, "partial")


def check_output(out: Path, *, overwrite: bool = False) -> None:
    """Raise, before any work, if OUT could not be published.

    An existing folder is replaced only if it is empty, or if `overwrite` and whet wrote it.
    """
    try:
        _check_output(out, overwrite=overwrite)
    except OSError as error:
        raise storage_error(out, error) from None


def _check_output(out: Path, *, overwrite: bool) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise RecipeError(f"{out} exists and is not a folder", "choose another output folder")
    if out.exists() and any(out.iterdir()):
        if not overwrite:
            raise RecipeError(f"{out} exists", "choose another output folder, or use --overwrite")
        if not (out / MANIFEST).is_file():
            raise RecipeError(
                f"{out} has no {MANIFEST}, so whet did not write it and will not replace it",
                "choose another output folder, or remove it yourself",
            )
    parent = out.absolute().parent
    if parent.exists() and not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        raise StorageError(f"{parent} is not a folder that can be written to", "choose another")


def require_space(out: Path, needed: int) -> None:
    """Raise FitError if the disk that would hold OUT lacks `needed` bytes."""
    free = free_bytes(out.absolute())
    if free is not None and free < needed + RESERVE:
        raise FitError(
            f"{out} needs {needed} bytes of disk, {free} are free", "free some, or write elsewhere"
        )


@contextlib.contextmanager
def lock(out: Path) -> Generator[None]:
    """Hold OUT for this process; another run on it fails at once with StoppedError.

    The lock dies with its holder. What an earlier run left behind half-published is put right here.
    """
    path = _beside(out, "lock")
    with _folder_for(path):
        try:
            descriptor = _acquire(path)
        except OSError as error:
            raise storage_error(path, error) from None
        try:
            _recover(out)
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(descriptor)


@contextlib.contextmanager
def _folder_for(path: Path) -> Generator[None]:
    """Make the folders above a path; at the end remove those of them that are empty again."""
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(path, error) from None
        yield
    finally:
        with contextlib.suppress(OSError):
            for folder in missing:
                folder.rmdir()


def stage(out: Path, *, fresh: bool = True) -> Path:
    """Return the staging folder of OUT, made if need be; `fresh` empties it first.

    To be called under the lock. Temporary files that a killed run left in it are removed.
    """
    staging = staging_path(out)
    try:
        if fresh and staging.exists():
            shutil.rmtree(staging)
        staging.mkdir(parents=True, exist_ok=True)
        for stray in staging.rglob(".*.tmp-*"):
            stray.unlink()
    except OSError as error:
        raise storage_error(staging, error) from None
    return staging


def discard(out: Path) -> None:
    """Remove the staging folder of OUT."""
    shutil.rmtree(staging_path(out), ignore_errors=True)


def publish(staging: Path, out: Path, *, overwrite: bool = False) -> None:
    """Flush every file of `staging` to the disk and rename it to OUT.

    Law: at every moment OUT is absent, the old folder or the new folder, whole.
    """
    check_output(out, overwrite=overwrite)
    replaced = _beside(out, "replaced")
    try:
        _sync_tree(staging)
        if out.exists():
            out.replace(replaced)
        staging.replace(out)
        sync_folder(out.absolute().parent)
    except OSError as error:
        if replaced.exists() and not out.exists():
            replaced.replace(out)
        raise storage_error(out, error) from None
    shutil.rmtree(replaced, ignore_errors=True)


@contextlib.contextmanager
def publishing(out: Path, *, overwrite: bool = False) -> Generator[Path]:
    """Yield a fresh staging folder; publish it as OUT at the end, or leave nothing on an error."""
    check_output(out, overwrite=overwrite)
    with lock(out), contextlib.ExitStack() as undone:
        undone.callback(discard, out)
        staging = stage(out)
        yield staging
        publish(staging, out, overwrite=overwrite)
        undone.pop_all()


def _beside(out: Path, kind: str) -> Path:
    absolute = out.absolute()
    return absolute.with_name(f".{absolute.name}.{kind}")


def _recover(out: Path) -> None:
    """Finish what a run that was killed inside `publish` began."""
    replaced = _beside(out, "replaced")
    try:
        if replaced.exists() and not out.exists():
            replaced.replace(out)
        elif replaced.exists():
            shutil.rmtree(replaced)
    except OSError as error:
        raise storage_error(replaced, error) from None


def _sync_tree(folder: Path) -> None:
    """Flush all files of a folder and the folder itself."""
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            descriptor = os.open(Path(root) / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(root))


def _acquire(path: Path) -> int:
    """Return a descriptor of the lock file, locked by us and still under its name."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        with contextlib.ExitStack() as undone:
            undone.callback(os.close, descriptor)
            _lock_now(descriptor, path)
            # its holder may have removed the file between our opening and locking it
            if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
                _sign(descriptor, path)
                undone.pop_all()
                return descriptor


def _sign(descriptor: int, path: Path) -> None:
    """Write our process number into the lock file, or remove the file."""
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _lock_now(descriptor: int, path: Path) -> None:
    """Lock the file or raise StoppedError, without waiting."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue] (Windows only)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(descriptor, 32).decode(errors="replace").strip() or "another process"
        raise StoppedError(
            f"{path} is locked by process {holder}", "wait until that run ends, or stop it"
        ) from None
