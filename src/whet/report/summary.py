"""What was done, in plain words, and the three numbers that matter."""

import json
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import cast

from whet.report import words as say
from whet.report.evidence import Estimate, Evidence, estimate, note, value


@dataclass(frozen=True, slots=True)
class Headline:
    """One of the numbers that matter: what it is, the number, its interval, and a sentence."""

    label: str
    number: str
    interval: str
    sentence: str


def title(e: Evidence) -> str:
    """Return the name of the model."""
    return base_model(e).rsplit("/", 1)[-1] or "model"


def base_model(e: Evidence) -> str:
    """Return the hub id of the source, or the last part of its path."""
    source = e.last("source")
    if told := note(source, "name"):
        return told
    path = note(source, "path").replace("\\", "/").partition("@")[0]
    is_hub_id = path.count("/") == 1 and not path.startswith((".", "/", "~"))
    return path if is_hub_id else PurePosixPath(path).name


def recipe_name(e: Evidence) -> str:
    """Return the name of the recipe."""
    return note(e.last("recipe"), "name")


def command(e: Evidence) -> str:
    """Return the exact command; `argv` is a JSON list or already text."""
    text = note(e.last("command"), "argv")
    try:
        words: object = json.loads(text)
    except ValueError:
        return text
    return (
        shlex.join(str(word) for word in cast("list[object]", words))
        if isinstance(words, list)
        else text
    )


def headlines(e: Evidence) -> tuple[Headline, ...]:
    """Return size, damage and the share of first choices kept."""
    return (_size(e), _damage(e), _kept(e))


def _size(e: Evidence) -> Headline:
    """Return how much smaller the model became."""
    output = e.last("output")
    before, after = value(output, "source_bytes"), value(output, "bytes")
    if not before or not after:
        return Headline("smaller", "–", "", "The size was not recorded.")
    told = f"{say.size(before)} → {say.size(after)}"
    bits = value(output, "bits_per_weight")
    sentence = f"{say.significant(bits)} bit per compressed weight" if bits else ""
    if not bits and (stages := e.every("stage")):
        sentence = f"{say.short_count(value(stages[-1], 'parameters') or 0.0)} parameters"
    if bits and (whole := value(output, "bits_per_weight_model")):
        sentence += f", {say.significant(whole)} over the whole model"
    return Headline("smaller", say.times(before / after), told, sentence)


def _damage(e: Evidence) -> Headline:
    """Return the mean KL to the original, and what became of the perplexity."""
    kl = estimate(e.quality, "kl_mean")
    if kl is None:
        return Headline("KL to the original", "–", "", "Not measured yet: run whet measure.")
    before, after = value(e.quality, "ppl_original"), value(e.quality, "ppl")
    sentence = "nat per token, on average"
    if before and after:
        sentence = (
            f"nat per token; perplexity {say.significant(before, 4)} → {say.significant(after, 4)}"
        )
        delta = estimate(e.quality, "ppl_delta")
        sentence += f" ({signed(delta)})" if delta else ""
    return Headline("KL to the original", _bare(kl), _interval(kl), sentence)


def signed(found: Estimate) -> str:
    """Return a difference with its sign: `+0.14 ± 0.05`."""
    number, half = say.with_error(found.value, found.half or 0.0)
    sign = "" if number.startswith("−") else "+"
    return f"{sign}{number} ± {half}" if found.half else f"{sign}{number}"


def _kept(e: Evidence) -> Headline:
    """Return the share of tokens whose first choice stayed."""
    top = estimate(e.quality, "top1")
    if top is None:
        return Headline("same first choice", "–", "", "Not measured yet: run whet measure.")
    low, high = (None if end is None else 100 * end for end in (top.low, top.high))
    scaled = Estimate(100 * top.value, low, high, "%", top.how)
    sentence = "of tokens, the compressed model's most likely next token is the original's"
    return Headline("same first choice", f"{_bare(scaled)} %", _interval(scaled), sentence)


def _bare(found: Estimate) -> str:
    """Return a number cut to what its interval allows."""
    return (
        say.with_error(found.value, found.half)[0] if found.half else say.significant(found.value)
    )


def _interval(found: Estimate) -> str:
    """Return an interval: `0.0040 – 0.0044`."""
    if found.low is None or found.high is None or not found.half:
        return ""
    return " – ".join(say.with_error(end, found.half)[0] for end in (found.low, found.high))


def sentences(e: Evidence) -> tuple[str, ...]:
    """Return what was done, in plain words, one fact a sentence."""
    told = (
        _what(e),
        _stored(e),
        _staged(e),
        _converted(e),
        _how_weights(e),
        _drafted(e),
        _calibrated(e),
        _checked(e),
    )
    told += (_exceptions(e),)
    return tuple(sentence for sentence in told if sentence)


def _what(e: Evidence) -> str:
    """Return which model was compressed with which recipe."""
    source = e.last("source")
    parameters = value(source, "parameters")
    family = note(source, "family")
    about = [f"{say.short_count(parameters)} parameters"] if parameters else []
    about += [f"{family} family"] if family else []
    aside = f" ({', '.join(about)})" if about else ""
    recipe = f" with the recipe {recipe_name(e)}" if recipe_name(e) else ""
    return f"{title(e)}{aside} was compressed{recipe}."


def _stored(e: Evidence) -> str:
    """Return what a quantized source is stored in."""
    source = e.last("source")
    told = note(source, "stored_as")
    if not told:
        return ""
    again = "; rounding it again adds to the errors that it had"
    return f"The source is stored as {told}, decoded exactly" + (
        f"{again}." if note(source, "rounded_again") == "yes" else "."
    )


def _converted(e: Evidence) -> str:
    """Return how many numbers another type has changed."""
    changed, of = (value(e.last("plain"), name) for name in ("changed", "numbers"))
    if changed is None or not of:
        return ""
    if not changed:
        return "Every number is stored exactly."
    rounded = f"{say.count(round(changed))} of {say.count(round(of))}"
    return f"The type that numbers are stored in rounds {rounded}."


def _staged(e: Evidence) -> str:
    """Return what became of the size of a model that was changed as a whole."""
    stages = e.every("stage")
    if not stages:
        return ""
    steps = say.listing([note(stage, "steps") for stage in stages])
    before = value(e.last("source"), "parameters") or 0.0
    last = value(stages[-1], "parameters") or 0.0
    return (
        f"It was changed in {say.plural(len(stages), 'stage')}, {steps}: "
        f"{say.short_count(before)} → {say.short_count(last)} parameters."
    )


def _drafted(e: Evidence) -> str:
    """Return which smaller model guesses for this one."""
    record = e.last("drafted")
    size, steps = value(record, "bytes"), note(record, "steps")
    if size is None:
        return ""
    return (
        f"A draft of {say.size(round(size))} ({steps}) lies inside and guesses when it generates."
    )


def _how_weights(e: Evidence) -> str:
    """Return in which formats the weights are now, and by which methods."""
    if not e.modules:
        return ""
    formats = Counter(m.format for m in e.modules)
    methods = list(dict.fromkeys(m.method for m in e.modules if m.method))
    (first, many), *others = formats.most_common(4)
    also = [f"{say.count(n)} as {name}" for name, n in others]
    also += [f"the rest in {len(formats) - 4} more formats"] if len(formats) > 4 else []
    told = say.listing([f"{say.count(many)} of its matrices are stored as {first}", *also])
    by = f", chosen by {say.listing(methods)}" if methods else ""
    read = [m.activation for m in e.modules if m.activation not in {"", "None", "none"}]
    whose = (
        "their inputs" if len(read) == len(e.modules) else f"the inputs of {say.count(len(read))}"
    )
    kinds = say.listing(sorted(set(read)))
    rounded = f"; {whose} are rounded to {kinds} when the model runs" if read else ""
    return f"{told}{by}{rounded}."


def _calibrated(e: Evidence) -> str:
    """Return on what the methods were calibrated."""
    record = e.last("calibration")
    tokens = value(record, "tokens")
    if not tokens:
        return "" if record or not e.modules else "No calibration text was used."
    source = note(record, "source", "text").replace("builtin", "the built-in text", 1)
    if note(record, "use", "statistics") != "statistics":
        return f"The method needs no calibration; the error through depth was seen on {source}."
    return f"Calibration: {say.count(tokens)} tokens of {source}."


def _checked(e: Evidence) -> str:
    """Return how the folder was checked before it was published."""
    record = e.last("verify")
    if record is None:
        return ""
    error = value(record, "max_relative_error")
    same = "; its logits were the same" if error == 0 else ""
    within = f"; its logits agreed within {say.significant(error, 2)}" if error else same
    return f"A fresh process reloaded the folder before it was published{within}."


def _exceptions(e: Evidence) -> str:
    """Return how many modules were treated in another way than asked."""
    if not e.modules:
        return ""
    skips, falls = len(e.every("skip")), len({r.site for r in e.fallbacks})
    fell = (
        f"{say.plural(falls, 'module')} fell back to another way" if falls else "Nothing fell back"
    )
    kept = "was left as it was" if skips == 1 else "were left as they were"
    told = f"{fell}; {say.plural(skips, 'module')} {kept}." if skips else f"{fell}."
    left = note(e.last("source"), "not_copied")
    return f"{told} Not copied, since no loader reads them: {left}." if left else told


def measure_command(e: Evidence) -> str:
    """Return the command that measures this folder against its source."""
    source = note(e.last("source"), "path", "SOURCE")
    return f"whet measure FOLDER --against {shlex.quote(source)}"
