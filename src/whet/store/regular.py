"""Files that a hostile folder names: plain names, regular, and not outside it. Torch-free."""

import stat
from pathlib import Path

from whet.base.errors import FolderError, MissingError, UnsafeError

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

    Links are followed only inside the folder, or, in a hub cache (`…/snapshots/<commit>`), to the
    cache's own `blobs`. Law: whatever `name` is, the file lies there, or UnsafeError is raised.
    """
    path = root / plain_name(name, where)
    target = path.resolve()
    if not any(target.is_relative_to(allowed) for allowed in _homes(root)):
        raise UnsafeError(
            f"{path} is a link to {target}, outside its folder",
            "copy the file into the folder, or give the folder that it lies in",
        )
    return path


def _homes(root: Path) -> tuple[Path, ...]:
    """Return the folders in which the files of `root` may really lie."""
    home = root.resolve()
    cache = home.parent.parent / "blobs"
    return (home, cache) if home.parent.name == "snapshots" and cache.is_dir() else (home,)
