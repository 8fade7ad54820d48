"""The figures of a comparison: what each is, how it follows from sums, and its interval."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from whet.base.machine import peak_rss
from whet.base.quantity import Quantity
from whet.measure.intervals import CONFIDENCE, RESAMPLES, Interval, Numbers, bootstrap
from whet.measure.tally import Tally

PERCENTILES = {"kl_median": 50.0, "kl_p90": 90.0, "kl_p99": 99.0, "kl_p999": 99.9}
Sums = Mapping[str, Numbers]
Statistic = Callable[[Sums], Numbers]


@dataclass(frozen=True, slots=True)
class Figure:
    """A number over tokens, as a function of sums over documents."""

    unit: str
    how: str
    statistic: Statistic


def _perplexity(name: str) -> Statistic:
    return lambda sums: np.exp(sums[name] / sums["scored"])


def _mean(name: str, over: str) -> Statistic:
    return lambda sums: sums[name] / sums[over]


def _delta(sums: Sums) -> Numbers:
    return _perplexity("loss")(sums) - _perplexity("loss_original")(sums)


def _ratio(sums: Sums) -> Numbers:
    return np.exp((sums["loss"] - sums["loss_original"]) / sums["scored"])


def _root_mean_square(sums: Sums) -> Numbers:
    return np.sqrt(sums["gain_squared"] / sums["scored"])


SURPRISE = "exp of the mean surprise by the next token"
CHANGE = "change of the probability of the token that really follows"
ALONE = {"ppl": Figure("1", SURPRISE, _perplexity("loss"))}
BESIDE = ALONE | {
    "ppl_original": Figure("1", f"{SURPRISE}, original", _perplexity("loss_original")),
    "ppl_delta": Figure("1", "perplexity minus the original's, paired", _delta),
    "ppl_ratio": Figure("1", "perplexity over the original's, paired", _ratio),
    "kl_mean": Figure("nat", "mean of KL(original || compressed)", _mean("kl", "tokens")),
    "top1": Figure("1", "share of tokens with the same first choice", _mean("same", "tokens")),
    "delta_p_mean": Figure("1", f"mean {CHANGE}", _mean("gain", "scored")),
    "delta_p_rms": Figure("1", f"root mean square {CHANGE}", _root_mean_square),
}


def figures(tally: Tally, windows: int, *, beside: bool, seed: int) -> dict[str, Quantity]:
    """Return all numbers, those over documents with their intervals."""
    table = BESIDE if beside else ALONE
    statistics = {name: figure.statistic for name, figure in table.items()}
    with np.errstate(over="ignore", invalid="ignore"):  # a broken model may have no finite figures
        spans = bootstrap(tally.sums, statistics, seed)
    facts: dict[str, Quantity] = {}
    for name, figure in table.items():
        facts |= _interval(name, spans[name], figure)
    if beside:
        facts |= _percentiles(tally.kls)
    counts = {"tokens": tally.seen, "windows": windows, "documents": tally.documents}
    facts |= {name: Quantity(float(n), "1", "counted") for name, n in counts.items()}
    models = "both models" if beside else "one model"
    facts["peak_rss"] = Quantity(float(peak_rss()), "byte", f"largest resident size, {models}")
    return facts


def _interval(name: str, found: Interval, figure: Figure) -> dict[str, Quantity]:
    """Return a number and, where they are known, the ends of its interval."""
    facts = {name: Quantity(found.value, figure.unit, figure.how)}
    ends = {"low": found.low, "high": found.high}
    drawn = f"{100 * CONFIDENCE:.0f} % interval, bootstrap over documents, {RESAMPLES} resamples"
    return facts | {
        f"{name}_{end}": Quantity(value, figure.unit, drawn)
        for end, value in ends.items()
        if value is not None
    }


def _percentiles(kls: Numbers) -> dict[str, Quantity]:
    found = {
        name: Quantity(float(np.percentile(kls, share)), "nat", f"{share:g} % of tokens have less")
        for name, share in PERCENTILES.items()
    }
    return found | {"kl_max": Quantity(float(kls.max()), "nat", "largest of a token")}
