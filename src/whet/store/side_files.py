"""What a loader needs beside the weights: tokenizer, templates, settings. Torch-free."""

from pathlib import Path

from whet.store.durable import file_chunks, storage_error, write_atomic, write_json
from whet.store.folder import Folder, gguf_file
from whet.store.json_file import read_json
from whet.store.loaded import is_side_file
from whet.store.regular import contained
from whet.store.tokenizer_settings import CODE, SETTINGS, without_code


def copy_side_files(folder: Folder, into: Path) -> tuple[str, ...]:
    """Copy every file that is neither weights nor code and that a loader reads; return their names.

    Configurations and tables by name; jinja, tokenizer models, vocabularies and text by suffix. Code that
    the tokenizer's settings name is named no more.
    """
    if (file := gguf_file(folder.path)) is not None:
        return _made(file, into)
    names = tuple(name for name in folder.files if is_side_file(name))
    for name in names:
        parts = Path(name)
        source = contained(folder.path / parts.parent, parts.name, str(folder.path))
        target = into / parts
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(target, error) from None
        if name == SETTINGS and CODE in (settings := read_json(source)):
            write_json(target, without_code(settings))
        else:
            write_atomic(target, file_chunks(source), source.stat().st_size)
    return names


def _made(path: Path, into: Path) -> tuple[str, ...]:
    """Write the files that a GGUF file stands for; return their names."""
    from whet.store.gguf.tokenizer import files_of

    made = files_of(path)
    for name, value in made.items():
        write_json(into / name, value)
    return tuple(made)
