"""Settings out of their range, refused in one wording."""

from collections.abc import Mapping


def within(
    use: object, *, shares: tuple[str, ...] = (), least: Mapping[str, float | int] | None = None
) -> None:
    """Raise ValueError unless `shares` lie between 0 and 1, and each of `least` is as much or more."""
    for name in shares:
        if not 0 <= getattr(use, name) <= 1:
            raise ValueError(f"{name} is {getattr(use, name)}, expected 0 to 1")
    for name, bound in (least or {}).items():
        if getattr(use, name) < bound:
            raise ValueError(f"{name} is {getattr(use, name)}, expected {bound} or more")
