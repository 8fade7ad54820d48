"""Every error that a user can meet, as a tree; each class carries the exit code of the command.

WhetError (1)
├── RecipeError (2)         a recipe, flag or setting is wrong; names the field, offers the nearest valid one
├── QualityError (3)        a limit or a gate was not met (reload check, too many fallbacks)
├── FitError (4)            the work cannot fit in memory or on disk; raised before work starts
├── FolderError (65)        a model, shard or data file is damaged, inconsistent or holds non-finite numbers
├── FormatError (65)        a matrix cannot be written in the asked number format
├── NumericalError (65)     an algorithm met non-finite or singular data that it could not repair
├── MissingError (66)       a path, repository or revision does not exist
├── UnsupportedError (69)   a family, feature or extra is not available here; says what to install
├── StorageError (74)       the disk is full or refuses
├── StoppedError (75)       stopped on request or locked by another run; run again to resume
├── UnsafeError (77)        refused for safety: pickles, remote code, paths that escape
└── IdentityError (78)      a resumed run's inputs differ from those it was started with
"""

from typing import ClassVar


class WhetError(Exception):
    """Base of every error raised on purpose.

    `message` says what was found, what was expected and where; `hint` says what to do next.
    """

    code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Return the message and, on a second line, the hint."""
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class RecipeError(WhetError):
    """A recipe, flag or setting cannot be carried out as written."""

    code = 2


class QualityError(WhetError):
    """A limit or a quality gate was not met."""

    code = 3


class FitError(WhetError):
    """The work cannot fit in memory or on disk."""

    code = 4


class FolderError(WhetError):
    """A model or data file is damaged or inconsistent."""

    code = 65


class FormatError(WhetError):
    """A matrix cannot be written in this number format."""

    code = 65


class NumericalError(WhetError):
    """Data are non-finite, or a matrix is singular beyond repair."""

    code = 65


class MissingError(WhetError):
    """A path, repository or revision does not exist."""

    code = 66


class UnsupportedError(WhetError):
    """A family, a feature or an optional package is not available here."""

    code = 69


class StorageError(WhetError):
    """The disk is full, or refuses to write."""

    code = 74


class StoppedError(WhetError):
    """The run was stopped, or another run holds the lock; it can be resumed."""

    code = 75


class UnsafeError(WhetError):
    """Refused for safety."""

    code = 77


class IdentityError(WhetError):
    """A resumed run's inputs are not those it was started with."""

    code = 78
