"""SOURCE to folder: without a socket wherever that is promised, and hub errors in our words."""

import shutil
import socket
from pathlib import Path
from typing import Any, NoReturn

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.utils
import pytest
from huggingface_hub import errors

from whet.base.errors import MissingError, StorageError, UnsafeError, WhetError
from whet.store.folder import Folder
from whet.store.resolve import ALLOWED, IGNORED, demo, resolve


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every socket is refused and noted."""
    tried: list[str] = []

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        tried.append(repr(args))
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tried


def hub(monkeypatch: pytest.MonkeyPatch, answer: Path | Exception) -> list[dict[str, Any]]:
    """A fake hub: answers every request for a snapshot, and notes them."""
    asked: list[dict[str, Any]] = []

    def snapshot_download(repository: str, **options: Any) -> str:
        asked.append({"repository": repository, **options})
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def http_error(kind: type[errors.HfHubHTTPError], text: str) -> errors.HfHubHTTPError:
    error = kind.__new__(kind)
    Exception.__init__(error, text)
    return error


def test_demo_and_folders_need_no_network(no_network: list[str], tmp_path: Path):
    assert Folder(resolve("demo")).tensors
    assert resolve("demo", offline=True) == demo()
    assert resolve(str(tmp_path)) == tmp_path
    assert resolve(str(tmp_path / "..")) == tmp_path / ".."
    assert no_network == []


def test_a_folder_wins_over_a_hub_id(
    no_network: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve("org/name") == Path("org/name")
    assert no_network == []


@pytest.mark.parametrize("source", ["org/name", "org/name@main"])
def test_offline_opens_no_socket(
    source: str, no_network: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingError, match="not in the local cache") as caught:
        resolve(source, offline=True)
    assert caught.value.code == 66
    assert no_network == []


def test_offline_finds_what_is_cached(
    no_network: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    repository, commit = tmp_path / "models--org--name", "a" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(demo(), repository / "snapshots" / commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    found = resolve("org/name", offline=True)
    assert Folder(found).tensors
    assert no_network == []


def test_hub_id_and_revision(monkeypatch: pytest.MonkeyPatch):
    asked = hub(monkeypatch, demo())
    assert resolve("org/name@refs/pr/1") == demo()
    assert resolve("org/name.v2") == demo()
    assert [(a["repository"], a["revision"]) for a in asked] == [
        ("org/name", "refs/pr/1"),
        ("org/name.v2", None),
    ]
    assert asked[0]["allow_patterns"] == ALLOWED
    assert asked[0]["ignore_patterns"] == IGNORED
    assert asked[0]["local_files_only"] is False


def test_no_code_and_no_pickle_is_fetched():
    files = [
        "config.json", "model-00001-of-00002.safetensors", "tokenizer.model", "chat_template.jinja",
        "modeling_x.py", "pytorch_model.bin", "original/params.json", "onnx/model.onnx", "x.pt",
        "consolidated.safetensors", "adapter_model.safetensors", "sub/model.safetensors",
        "additional_chat_templates/a.jinja", "README.md",
    ]  # fmt: skip
    fetched = huggingface_hub.utils.filter_repo_objects(
        files, allow_patterns=ALLOWED, ignore_patterns=IGNORED
    )
    assert list(fetched) == [*files[:4], "additional_chat_templates/a.jinja", "README.md"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (http_error(errors.RepositoryNotFoundError, "404 not found"), MissingError),
        (http_error(errors.RevisionNotFoundError, "404 no revision"), MissingError),
        (http_error(errors.GatedRepoError, "gated"), MissingError),
        (http_error(errors.HfHubHTTPError, "500 sorry"), MissingError),
        (errors.LocalEntryNotFoundError("cannot connect"), MissingError),
        (OSError(28, "No space left on device"), StorageError),
    ],
    ids=["repository", "revision", "gated", "server", "network", "disk"],
)
def test_errors_of_the_hub(
    error: Exception, kind: type[WhetError], monkeypatch: pytest.MonkeyPatch
):
    hub(monkeypatch, error)
    with pytest.raises(kind, match="org/name") as caught:
        resolve("org/name")
    assert len(str(caught.value).splitlines()) <= 3


def test_tokens_are_not_shown(monkeypatch: pytest.MonkeyPatch):
    secret = "hf_" + "abcdefGHIJ" * 3
    hub(monkeypatch, http_error(errors.HfHubHTTPError, f"401 for {secret}\nmore"))
    with pytest.raises(MissingError) as caught:
        resolve("org/name")
    assert secret not in str(caught.value)
    assert "hf_…" in str(caught.value)


def test_repository_of_pickles_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "config.json").write_text("{}")
    hub(monkeypatch, tmp_path)
    names = ["config.json", "pytorch_model.bin"]
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *a, **k: names)
    with pytest.raises(UnsafeError, match=r"pytorch_model\.bin") as caught:
        resolve("org/name")
    assert caught.value.code == 77


NEITHER = ["nowhere", "/no/such", "a/b/c", "org/", "https://x.y/z", "../x", "org/na me", ""]


@pytest.mark.parametrize("source", NEITHER)
def test_what_is_neither(
    source: str, no_network: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingError, match="does not exist"):
        resolve(source)
    assert no_network == []
