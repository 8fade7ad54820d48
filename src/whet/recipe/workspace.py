"""The folder that a run works in, beside its output: locked, resumable, gone when it is done."""

from pathlib import Path
from types import TracebackType
from typing import Literal

from whet.base.errors import IdentityError, MissingError, QualityError, StoppedError
from whet.recipe.identity import Identity, check
from whet.recipe.progress import finished
from whet.store.durable import write_json
from whet.store.publish import check_output, discard, lock, publish, stage, staging_path

Resume = Literal["auto", "required", "never"]
KEPT = (StoppedError, IdentityError, QualityError, KeyboardInterrupt)  # what leaves it for later


class Workspace:
    """Holds the output's lock and its staging folder; used as a context.

    After success, and after an error that running again cannot help, nothing of it is left.
    """

    def __init__(self, out: Path, resume: Resume, *, overwrite: bool = False) -> None:
        check_output(out, overwrite=overwrite)
        self.out, self.resume, self.overwrite = out, resume, overwrite
        self.folder = staging_path(out)
        self._lock = lock(out)

    def __enter__(self) -> "Workspace":
        """Take the lock; open what an earlier run has left, if it may be resumed."""
        self._lock.__enter__()
        started = (self.folder / "identity.json").is_file() and finished(self.folder) > 0
        if self.resume == "required" and not started:
            self._lock.__exit__(None, None, None)
            raise MissingError(
                f"no interrupted run for {self.out}", "Run without --resume required."
            )
        stage(self.out, fresh=self.resume == "never" or not started)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release the lock; remove the folder unless it can be of use."""
        if kind is None or not issubclass(kind, KEPT):
            discard(self.out)
        self._lock.__exit__(None, None, None)

    def identify(self, mine: Identity) -> int:
        """Return how many parts are done already, after checking that they are of the same run."""
        path = self.folder / "identity.json"
        if path.is_file():
            check(path, mine)
        else:
            write_json(path, mine)
        return finished(self.folder)

    @property
    def final(self) -> Path:
        """Return where the folder to be published is made."""
        return self.folder / "final"

    def publish(self) -> None:
        """Rename the finished folder to its place."""
        publish(self.final, self.out, overwrite=self.overwrite)
