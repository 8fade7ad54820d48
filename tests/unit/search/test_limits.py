"""Limits in the words of the command line."""

import pytest

import whet
from whet.base.errors import RecipeError
from whet.search.limits import duration, limits


@pytest.mark.parametrize(
    ("text", "value"),
    [("400MB", 4e8), ("1.5GiB", 1.5 * 2**30), ("120000", 120000), ("2 kB", 2000), ("7b", 7)],
)
def test_sizes(text: str, value: float) -> None:
    found = limits(max_size=text).size
    assert found is not None
    assert found.value == value
    assert found.text == f"--max-size {text}"


def test_rates_times_and_shares() -> None:
    found = limits(min_decode="40tok/s", max_ttft="500ms@128", max_ppl_increase="2%", max_bpw=4.2)
    assert found.decode is not None
    assert found.decode.value == 40
    assert found.ttft is not None
    assert (found.ttft.value, found.prompt) == (0.5, 128)
    assert found.ppl is not None
    assert found.ppl.value == pytest.approx(0.02)
    assert [limit.name for limit in found] == ["bpw", "decode", "ttft", "ppl"]
    assert found.text == (
        "--max-bpw 4.2 --min-decode 40tok/s --max-ttft 500ms@128 --max-ppl-increase 2%"
    )


@pytest.mark.parametrize(
    "asked",
    [
        {"max_size": "big"}, {"max_size": "4XB"}, {"max_size": "-1MB"}, {"max_kl": 0.0},
        {"min_decode": "fast"}, {"max_ttft": "0.5s@many"}, {"max_ttft": "soon"},
        {"max_ppl_increase": "x%"}, {"max_memory": "0"}, {"max_memory": "1GB@x"}, {"max_bpw": float("nan")},
    ],
)  # fmt: skip
def test_nonsense_is_refused_with_an_example(asked) -> None:
    with pytest.raises(RecipeError) as caught:
        limits(**asked)
    flag = "--" + next(iter(asked)).replace("_", "-")
    assert caught.value.message.startswith(flag)
    assert flag in caught.value.hint


def test_memory_may_be_meant_after_some_tokens() -> None:
    found = limits(max_memory="1GB@8192", max_ttft="1s@128")
    assert found.memory is not None
    assert (found.memory.value, found.context, found.prompt) == (1e9, 8192, 128)
    assert found.text == "--max-ttft 1s@128 --max-memory 1GB@8192"
    assert limits(max_memory="1GB").context == 64


def test_slack() -> None:
    found = limits(max_size="100", min_decode="10")
    assert found.size is not None
    assert found.decode is not None
    assert found.size.slack(90.0) == pytest.approx(0.1)
    assert found.size.slack(110.0) == pytest.approx(-0.1)
    assert found.decode.slack(12.0) == pytest.approx(0.2)
    assert found.decode.slack(8.0) == pytest.approx(-0.2)


@pytest.mark.parametrize(
    ("text", "value"), [("30m", 1800), ("1h", 3600), ("1h30m", 5400), ("90", 90), ("5s", 5)]
)
def test_durations(text: str, value: float) -> None:
    assert duration(text) == value


def test_a_limit_that_is_none_is_not_passed_over(tmp_path) -> None:
    with pytest.raises(RecipeError, match="max_sise is no limit"):
        limits(max_sise="4MB")
    with pytest.raises(RecipeError, match="max_sise is no limit"):
        whet.search("demo", max_sise="4MB", out=tmp_path / "out")
