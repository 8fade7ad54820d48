"""Sizes as people write them: 400MB, 1.5GiB."""

from pydantic import ByteSize, TypeAdapter, ValidationError

from whet.base.errors import RecipeError

_READ = TypeAdapter(ByteSize)


def parse_size(text: str | int, flag: str) -> int:
    """Return a size [byte]; `flag` names the setting in the error."""
    try:
        size = int(_READ.validate_python(text))
    except ValidationError as error:
        raise RecipeError(
            f"{flag} {text} is not a size", "Write a number with a unit: 400MB, 1.5GiB."
        ) from error
    if size <= 0:
        raise RecipeError(f"{flag} {text} is not a size above zero", "Write e.g. 400MB, 1.5GiB.")
    return size
