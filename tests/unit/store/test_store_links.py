"""Links: followed inside a folder and a hub cache; elsewhere only where that is asked for."""

import os
import shutil
from pathlib import Path

import pytest

from whet.base.errors import UnsafeError
from whet.store.folder import SINGLE, Folder
from whet.store.regular import FOLLOW, following_links
from whet.store.resolve import demo

COMMIT, DIGEST = "0" * 40, "{:064x}"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The demo's files elsewhere, under the names of their digests."""
    store = tmp_path / "store"
    store.mkdir()
    for number, path in enumerate(sorted(demo().iterdir())):
        shutil.copy(path, store / DIGEST.format(number))
    return store


def linked(folder: Path, target: Path) -> Path:
    """Make a folder whose files are links into `target`."""
    folder.mkdir(parents=True)
    for number, path in enumerate(sorted(demo().iterdir())):
        (folder / path.name).symlink_to(target / DIGEST.format(number))
    return folder


def test_a_hub_cache_whose_blobs_are_a_link_is_read(store: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--org--name"
    repository.mkdir()
    (repository / "blobs").symlink_to(store)
    assert Folder(linked(repository / "snapshots" / COMMIT, repository / "blobs")).tensors


def test_linked_blobs_hold_digests_alone(store: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--org--name"
    repository.mkdir()
    (repository / "blobs").symlink_to(store)
    folder = linked(repository / "snapshots" / COMMIT, repository / "blobs")
    (store / "passwd").write_text("{}")
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(repository / "blobs" / "passwd")
    with pytest.raises(UnsafeError, match="outside its folder"):
        Folder(folder)


def test_links_between_snapshots_of_a_cache_are_followed(tmp_path: Path) -> None:
    repository = tmp_path / "models--org--name"
    shutil.copytree(demo(), repository / "snapshots" / COMMIT)
    (repository / "blobs").mkdir()
    other = repository / "snapshots" / ("1" * 40)
    other.mkdir()
    for path in (repository / "snapshots" / COMMIT).iterdir():
        (other / path.name).symlink_to(path)
    assert Folder(other).tensors


def test_a_folder_of_links_to_a_store(store: Path, tmp_path: Path) -> None:
    folder = linked(tmp_path / "model", store)
    with pytest.raises(UnsafeError) as caught:
        Folder(folder)
    assert "--follow-links" in caught.value.hint
    with following_links():
        opened = Folder(folder)
    assert FOLLOW not in os.environ
    assert opened.tensors == Folder(demo()).tensors
    assert Folder(folder).tensors  # files that open later are of the same folder


def test_followed_links_still_end_at_regular_files(store: Path, tmp_path: Path) -> None:
    folder = linked(tmp_path / "model", store)
    (folder / SINGLE).unlink()
    (folder / SINGLE).symlink_to("/dev/zero")
    with following_links(), pytest.raises(UnsafeError, match="not a regular file"):
        Folder(folder)
