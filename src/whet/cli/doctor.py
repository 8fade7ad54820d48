"""`whet doctor`."""

from typing import TYPE_CHECKING

from whet.cli.options import verb

if TYPE_CHECKING:
    from whet.api.checks import Check


@verb("doctor")
def command(*, style: str, **_: object) -> int:
    """Show what this machine and this installation can do.

    Names each extra that is missing and the line that installs it. Exit code 0 unless whet itself
    cannot work here.
    """
    from dataclasses import asdict

    from whet import api
    from whet.cli import output

    found = api.doctor()
    if style == "json":
        output.result_json([asdict(check) for check in found])
    else:
        output.result(_table(found))
    return 69 if any(check.state == "problem" for check in found) else 0


def _table(found: "tuple[Check, ...]") -> str:
    """Return the checks as lines, with what to do below those that are not well."""
    from whet.cli import output

    signs = {"ok": "✓", "missing": "–", "problem": "✗"}
    rows: list[tuple[str, str]] = []
    for check in found:
        rows.append((f"{signs[check.state]} {check.name}", check.found))
        if check.hint:
            rows.append(("", f"→ {check.hint}"))
    return output.pairs(rows)
