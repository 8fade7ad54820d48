"""Files that a hostile folder names: plain names, regular, and not outside it. Torch-free."""

import os
import re
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from whet.base.errors import FolderError, MissingError, UnsafeError

FOLLOW = "WHET_FOLLOW_LINKS"  # environment variable: "1" where links out of a folder are followed
_TRUSTED: set[Path] = set()  # folders whose links have been followed; their files open later too
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # SHA-1 of git, SHA-256 of git LFS
_FORBIDDEN = frozenset("/\\:\0")


def regular(path: Path) -> int:
    """Return the size [byte] of a regular file.

    Law: a missing path raises MissingError; a pipe, device, socket or folder raises UnsafeError
    and is never opened.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise MissingError(f"{path} does not exist", "check the path") from None
    except OSError as error:
        raise FolderError(f"{path} cannot be read: {error.strerror}", "check its rights") from None
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeError(f"{path} is not a regular file", "replace it by a plain file")
    return status.st_size


def plain_name(name: str, where: str) -> str:
    """Return `name` if it names a file of the folder itself, by the rules of every system.

    Law: names with a separator, a drive, a NUL, control characters, `.` or `..` raise UnsafeError.
    """
    if name in {"", ".", ".."} or _FORBIDDEN & set(name) or not name.isprintable():
        raise UnsafeError(
            f"{where} names the file {name[:80]!r}, expected a plain file name",
            "do not use this folder: it points outside itself",
        )
    return name


def contained(root: Path, name: str, where: str) -> Path:
    """Return the path of the file `name` of the folder `root`.

    Links are followed inside the folder and, in a hub cache (`…/snapshots/<commit>`), inside the
    cache; elsewhere only within `following_links`.
    Law: whatever `name` is, the file lies there, or UnsafeError is raised.
    """
    path = root / plain_name(name, where)
    target = path.resolve()
    if not (_follows_links(root.resolve()) or _is_inside(target, root.resolve())):
        raise UnsafeError(
            f"{path} is a link to {target}, outside its folder",
            "if you trust where it points, give --follow-links (in Python: follow_links=True); "
            "or copy the file into the folder",
        )
    return path


def _is_inside(target: Path, home: Path) -> bool:
    """Return whether a file lies in a folder, or in the hub cache that the folder belongs to."""
    if target.is_relative_to(home):
        return True
    cache = home.parent.parent
    blobs = cache / "blobs"
    if home.parent.name != "snapshots" or not blobs.is_dir():
        return False
    if blobs.is_symlink():  # a cache split over disks: its blobs are named by their digests
        return target.parent == blobs.resolve() and _DIGEST.fullmatch(target.name) is not None
    return target.is_relative_to(cache if cache.name.startswith("models--") else blobs)


def _follows_links(root: Path) -> bool:
    """Return whether links out of a folder are followed: now, or when it was opened."""
    if os.environ.get(FOLLOW) == "1":
        _TRUSTED.add(root)
    return root in _TRUSTED


@contextmanager
def following_links(wanted: bool = True) -> Generator[None]:  # noqa: FBT001, FBT002
    """Follow links to files outside their folder, in this process and in those that it starts."""
    before = os.environ.get(FOLLOW)
    if wanted:
        os.environ[FOLLOW] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(FOLLOW, None)
        else:
            os.environ[FOLLOW] = before
