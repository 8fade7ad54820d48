"""From what the user calls a model to a folder on this disk. Torch-free."""

import re
from importlib.resources import files
from pathlib import Path

from whet.base.errors import MissingError, StorageError, UnsafeError, UnsupportedError
from whet.base.paths import local_path
from whet.store.refusals import PICKLES

ALLOWED = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "README.md"]
IGNORED = [
    "*/*.safetensors", "*/*.json", "*/*.txt", "*/*.model",
    "consolidated*.safetensors", "adapter_*",
]  # fmt: skip
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}(@[\w][\w./-]{0,199})?")
_SECRET = re.compile(r"hf_\w{4,}")


def demo() -> Path:
    """Return the folder of the model that ships with whet."""
    return Path(str(files("whet") / "data" / "demo"))


def resolve(source: str, offline: bool = False) -> Path:  # noqa: FBT001, FBT002
    """Return the folder of a SOURCE: `demo`, a folder, or a hub id `org/name[@revision]`.

    Law: no socket is opened for `demo`, for a folder, or when `offline`.
    """
    if source == "demo":
        return demo()
    path = local_path(source)
    if source and path.exists():
        return path
    if not _HUB_ID.fullmatch(source):
        raise MissingError(
            f"{source or 'an empty name'} does not exist",
            "give a model folder, `demo` or a hub id `org/name`",
        )
    repository, _, revision = source.partition("@")
    return _snapshot(repository, revision or None, offline)


def _snapshot(repository: str, revision: str | None, offline: bool) -> Path:  # noqa: FBT001
    """Return the downloaded snapshot of a repository; only data files are fetched."""
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise UnsupportedError(
            f"{repository} needs huggingface_hub", "pip install huggingface_hub"
        ) from None
    name = f"{repository}@{revision}" if revision else repository
    try:
        folder = huggingface_hub.snapshot_download(
            repository,
            revision=revision,
            allow_patterns=ALLOWED,
            ignore_patterns=IGNORED,
            local_files_only=offline,
        )
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise MissingError(
            f"{name} is not on the hub: {brief(error)}", "check the name; private ones need a login"
        ) from None
    except errors.HFValidationError as error:
        raise MissingError(
            f"{name} does not exist here, and is no hub id: {brief(error)}", "check the name"
        ) from None
    except errors.LocalEntryNotFoundError as error:
        why = "is not in the local cache" if offline else f"cannot be reached: {brief(error)}"
        raise MissingError(f"{name} {why}", "download it while online") from None
    except errors.HfHubHTTPError as error:
        raise MissingError(f"{name} was refused by the hub: {brief(error)}", "try later") from None
    except OSError as error:
        raise StorageError(f"{name} cannot be stored: {brief(error)}", "free some disk") from None
    if not offline and not any(Path(folder).glob("*.safetensors")):
        _explain_no_weights(repository, revision)
    return Path(folder)


def _explain_no_weights(repository: str, revision: str | None) -> None:
    """Raise UnsafeError if the repository has its weights as pickles, which were not fetched."""
    from huggingface_hub import HfApi

    names = HfApi().list_repo_files(repository, revision=revision)
    pickles = [name for name in names if Path(name).suffix.lower() in PICKLES]
    if pickles and not any(name.endswith(".safetensors") for name in names):
        raise UnsafeError(
            f"{repository} has its weights only as {pickles[0]}, a format that can run code",
            "ask its owner for safetensors, or convert it with transformers where you trust it",
        )


def brief(error: Exception) -> str:
    """Return the first line of an error, short and without access tokens."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return _SECRET.sub("hf_…", first)[:160]
