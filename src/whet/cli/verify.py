"""`whet verify`."""

from pathlib import Path

import click

from whet.base.errors import FolderError
from whet.cli.options import verb


@verb("verify")
@click.argument("folder")
def command(*, folder: str, style: str, **_: object) -> int:
    """Check every file of a folder against its manifest.

    Names each file that was changed, removed or added since whet wrote the folder. Exit code 0 if
    nothing was, 65 otherwise.
    """
    from whet import api
    from whet.cli import output
    from whet.store.folder import gguf_file

    differences = api.verify(folder)
    if style == "json":
        output.result_json({"intact": not differences, "differences": differences})
    elif differences:
        output.result("\n".join(differences))
    elif gguf_file(Path(folder)) is not None:
        output.result(f"{folder}: every block is whole, every number finite; it has no manifest")
    else:
        output.result(f"{folder}: every file is as whet wrote it")
    return FolderError.code if differences else 0
