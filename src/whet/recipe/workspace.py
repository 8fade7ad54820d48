"""The folder that a run works in, beside its output: locked, resumable, gone when it is done."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal

from whet.base.errors import IdentityError, MissingError, QualityError, StoppedError
from whet.recipe.identity import Identity, check
from whet.recipe.progress import finished
from whet.store.durable import storage_error, write_json
from whet.store.publish import check_output, discard, lock, publish, stage, staging_path

Resume = Literal["auto", "required", "never"]
KEPT = (StoppedError, IdentityError, QualityError, KeyboardInterrupt)  # what leaves it for later


class Workspace:
    """Holds the output's lock and its staging folder; used as a context.

    After success, and after an error that running again cannot help, nothing of it is left. What an
    earlier run has left stays until a run of the same identity takes it over.
    """

    def __init__(self, out: Path, resume: Resume, *, overwrite: bool = False) -> None:
        check_output(out, overwrite=overwrite)
        self.out, self.resume, self.overwrite = out, resume, overwrite
        self.folder = staging_path(out)
        self._ours = False
        self._held = ExitStack()

    def __enter__(self) -> "Workspace":
        """Take the lock; open what an earlier run has left, if it may be resumed."""
        with ExitStack() as stack:
            stack.enter_context(lock(self.out))
            stack.push(self._settle)
            self._open()
            self._held = stack.pop_all()
        return self

    def _open(self) -> None:
        found = (self.folder / "identity.json").is_file()
        started = self.resume != "never" and found and finished(self.folder) > 0
        if self.resume == "required" and not started:
            raise MissingError(
                f"no interrupted run for {self.out}", "Run without --resume required."
            )
        self._ours = not started
        stage(self.out, fresh=not started)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release the lock; remove the folder unless it can be of use."""
        self._held.__exit__(kind, error, trace)

    def _settle(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._ours and (kind is None or not issubclass(kind, KEPT)):
            discard(self.out)
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise storage_error(Path(error.filename or self.folder), error) from error

    def identify(self, mine: Identity) -> int:
        """Return how many parts are done already, after checking that they are of the same run."""
        path = self.folder / "identity.json"
        if path.is_file():
            check(path, mine)
        else:
            write_json(path, mine)
        self._ours = True
        return finished(self.folder)

    @property
    def final(self) -> Path:
        """Return where the folder to be published is made."""
        return self.folder / "final"

    def publish(self) -> None:
        """Rename the finished folder to its place."""
        publish(self.final, self.out, overwrite=self.overwrite)
