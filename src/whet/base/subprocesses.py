"""What a process of ours that failed has said. Needs nothing."""

import re

_START = "Traceback (most recent call last):"


def failure_reason(code: int, stderr: str) -> str:
    """Return why a Python process ended with `code`: the message of its exception, not the hint."""
    if code < 0:
        return f"it was ended by signal {-code}, perhaps for want of memory"
    after = stderr.rpartition(_START)[2] if _START in stderr else ""
    lines = (line for line in after.splitlines() if line and not line[0].isspace())
    found = next(lines, None) or (stderr.strip().splitlines() or ["no message"])[-1]
    return re.sub(r"^[\w.]+\.(\w+: )", r"\1", found)
