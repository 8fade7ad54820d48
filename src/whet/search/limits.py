"""What a user asks for: limits, all of them hard, and what is to be best within them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypedDict, Unpack

from whet.base.errors import RecipeError

Objective = Literal["quality", "speed", "size"]
Kind = Literal["max", "min"]
UNITS = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # [byte]  # fmt: skip
MEASURES = {
    "kl": "nat", "ppl": "1", "size": "byte", "bpw": "bit", "decode": "token/s", "ttft": "s",
    "memory": "byte",
}  # units of what limits are on  # fmt: skip
PROMPT = 512  # for which the time to the first token is meant, unless said [token]
CONTEXT = 64  # after which memory is meant, unless said [token]


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit: on the size, the bits per weight, the speed …, as a number of its unit."""

    name: str
    kind: Kind
    value: float
    unit: str
    text: str  # as it was asked for: "--max-size 400MB"

    def slack(self, found: float) -> float:
        """Return the share of the limit that a value leaves [1]; negative where it is broken."""
        left = self.value - found if self.kind == "max" else found - self.value
        return left / self.value if self.value else (0.0 if left >= 0 else -1.0)


@dataclass(frozen=True, slots=True)
class Limits:
    """All limits; None where there is none; `prompt` of `ttft` and `context` of `memory` [token].

    `size` [byte] is that of the weight files; `bpw` [bit] counts the linears of the blocks; `decode`
    [token/s]; `ttft` [s]; `memory` [byte]; `kl` [nat per token]; `ppl`: relative increase [1].
    """

    size: Limit | None = None
    bpw: Limit | None = None
    decode: Limit | None = None
    ttft: Limit | None = None
    memory: Limit | None = None
    kl: Limit | None = None
    ppl: Limit | None = None
    prompt: int = PROMPT
    context: int = CONTEXT

    def __iter__(self) -> Iterator[Limit]:
        """Iterate over the limits that there are."""
        for name in ("size", "bpw", "decode", "ttft", "memory", "kl", "ppl"):
            found = getattr(self, name)
            if found is not None:
                yield found

    @property
    def text(self) -> str:
        """Return all limits as they were asked for."""
        return " ".join(limit.text for limit in self)

    @property
    def timed(self) -> bool:
        """Whether a limit is on speed or memory, which need a machine."""
        return any(limit is not None for limit in (self.decode, self.ttft, self.memory))


class Words(TypedDict, total=False):
    """Limits in the words of the command line, as `Limits` has them."""

    max_size: str | None
    max_bpw: float | None
    min_decode: str | None
    max_ttft: str | None
    max_memory: str | None
    max_kl: float | None
    max_ppl_increase: str | None


def limits(**words: Unpack[Words]) -> Limits:
    """Return limits from the words of the command line. Raises RecipeError for what is no limit."""
    if unknown := sorted(words.keys() - Words.__annotations__.keys()):
        raise RecipeError(
            f"{unknown[0]} is no limit", f"Limits are {', '.join(Words.__annotations__)}."
        )
    first, prompt = (words.get("max_ttft") or "").partition("@")[::2]
    most, context = (words.get("max_memory") or "").partition("@")[::2]
    return Limits(
        size=_limit("size", "max", words.get("max_size"), "byte", _bytes),
        bpw=_limit("bpw", "max", words.get("max_bpw"), "bit", float),
        decode=_limit("decode", "min", words.get("min_decode"), "token/s", _rate),
        ttft=_limit("ttft", "max", first or None, "s", _seconds, _at(prompt)),
        memory=_limit("memory", "max", most or None, "byte", _bytes, _at(context)),
        kl=_limit("kl", "max", words.get("max_kl"), "nat", float),
        ppl=_limit("ppl", "max", words.get("max_ppl_increase"), "1", _share),
        prompt=_tokens("ttft", prompt, PROMPT),
        context=_tokens("memory", context, CONTEXT),
    )


FLAGS = {"ppl": "--max-ppl-increase"}


def _limit(
    name: str, kind: Kind, given: object, unit: str, read: "type[float] | object", tail: str = ""
) -> Limit | None:
    if given is None:
        return None
    flag = FLAGS.get(name, f"--{kind}-{name}")
    try:
        value = float(read(given))  # type: ignore[operator]
    except (ValueError, TypeError):
        raise RecipeError(f"{flag} {given}: not understood", EXAMPLES[name]) from None
    if not 0 < value < float("inf"):
        raise RecipeError(f"{flag} {given}: expected a number above 0", EXAMPLES[name])
    return Limit(name, kind, value, unit, f"{flag} {given}{tail}")


EXAMPLES = {
    "size": "Write a size, e.g. --max-size 400MB or --max-size 1.5GiB.",
    "bpw": "Write bits, e.g. --max-bpw 4.2.",
    "decode": "Write tokens per second, e.g. --min-decode 40tok/s.",
    "ttft": "Write seconds and the length of the prompt, e.g. --max-ttft 0.5s@512.",
    "memory": "Write a size and, if you like, a context, e.g. --max-memory 1GB@8192.",
    "kl": "Write nats per token, e.g. --max-kl 0.02.",
    "ppl": "Write a share, e.g. --max-ppl-increase 2%.",
}


def _bytes(text: str) -> float:
    """Read "400MB", "1.5 GiB", "120000"."""
    found = re.fullmatch(r"\s*([0-9.]+)\s*([a-zA-Z]*)\s*", text)
    if found is None:
        raise ValueError(text)
    unit = found[2].lower() or "b"
    if unit not in UNITS:
        raise ValueError(text)
    return float(found[1]) * UNITS[unit]


def _rate(text: str) -> float:
    """Read "40tok/s", "40 t/s", "40"."""
    return float(re.sub(r"\s*(tok(en)?s?|t)/s\s*$", "", text))


def _seconds(text: str) -> float:
    """Read "0.5s", "500ms", "0.5", "10m"."""
    return duration(text)


def duration(text: str) -> float:
    """Read a time [s]: "0.5s", "500ms", "30m", "1h30m", "90"."""
    factor = {"ms": 1e-3, "s": 1, "m": 60, "min": 60, "h": 3600, "": 1}
    part = r"([0-9.]+)\s*(ms|s|min|m|h)"
    parts: list[tuple[str, str]] = re.findall(part, text)
    if not re.fullmatch(rf"\s*(?:{part}\s*)+", text):
        parts = [(text.strip(), "")]
    return sum(float(number) * factor[unit] for number, unit in parts)


def _share(text: str) -> float:
    """Read "2%" or "0.02"."""
    return float(text.rstrip("% ")) / 100 if "%" in text else float(text)


def _at(tokens: str) -> str:
    return f"@{tokens}" if tokens else ""


def _tokens(name: str, text: str, usual: int) -> int:
    if not text:
        return usual
    if not text.isdecimal() or not int(text):
        raise RecipeError(f"--max-{name} @{text}: expected a number of tokens", EXAMPLES[name])
    return int(text)
