"""Shares of layers by outliers: those of the textbook, of exact size, and the same after a stop."""

import json
from pathlib import Path

import pytest
import torch
from tests.interop.pipeline import here, recipe, tensor_bytes
from tests.laws.test_resume import digests
from tests.small import FEW, small_model, stop_at

import whet
from whet.api import compression
from whet.base.errors import StoppedError
from whet.formats.pattern import share_of
from whet.formats.spec import Sparse, parse
from whet.methods.prune.magnitude import Magnitude
from whet.methods.prune.wanda import Wanda
from whet.model.site import Site
from whet.model.source import InMemory
from whet.recipe.exact import whole
from whet.recipe.outliers import moved, outliers
from whet.recipe.ranking import by_ranking


def textbook(ratios: list[float], spread: float, sparsity: float) -> list[float]:
    """The published code: what is pruned of each layer, from its outlier ratio."""
    low, high = min(ratios), max(ratios)
    scaled = [(one - low) * (1 / (high - low) * spread * 2) for one in ratios]
    mean = sum(scaled) / len(scaled)
    return [1 - (one - mean + (1 - sparsity)) for one in scaled]


def test_shares_are_those_of_the_textbook() -> None:
    ratios = [0.05, 0.01, 0.02, 0.04]
    more = moved(dict(enumerate(ratios)), 0.08)
    ours = [0.7 - more[layer] for layer in range(4)]
    assert ours == pytest.approx(textbook(ratios, 0.08, 0.7))
    assert sum(more.values()) == pytest.approx(0)
    assert moved({0: 0.3, 4: 0.3}, 0.1) == {0: 0.0, 4: 0.0}


def test_outliers_are_counted_over_the_whole_block() -> None:
    one, two = torch.ones(4, 5), torch.tensor([[100.0, 1.0, 30.0]])
    every = torch.cat([one.flatten(), two.flatten()]).tolist()
    mean = sum(every) / len(every)
    assert outliers([one, two], 5.0) == sum(x > 5 * mean for x in every) / len(every)


@pytest.mark.parametrize("wanted", [[2.4, -0.9, -1.5], [0.4, 0.4, 0.4, -1.2], [0.0], [90.0, -90.0]])
def test_whole_numbers_sum_to_zero_within_bounds(wanted: list[float]) -> None:
    found = whole(dict(enumerate(wanted)), dict.fromkeys(range(len(wanted)), (-20, 30)))
    assert sum(found.values()) == 0
    assert all(-20 <= one <= 30 for one in found.values())
    assert all(abs(found[i] - x) <= 1 for i, x in enumerate(wanted) if -20 <= x <= 20)


@pytest.mark.parametrize("count", [1, 8, 96, 768, 11008, 4096 * 11008])
def test_a_share_of_any_count_has_a_name(count: int) -> None:
    for stays in {1, count // 3 + 1, count // 2 + 1, count}:
        if stays <= count:
            pattern = share_of(count, stays)
            assert pattern.of_row(count) == stays
            named = parse(f"{pattern}(bf16)")
            assert isinstance(named, Sparse)
            assert named.pattern == pattern


def test_only_shares_can_be_allotted() -> None:
    with pytest.raises(ValueError, match="keeps the same of every layer"):
        Wanda(format=parse("2:4(bf16)"), allocation="owl")
    with pytest.raises(ValueError, match=r"spread is 0\.7"):
        Wanda(format=parse("sparse50(bf16)"), allocation="owl", spread=0.7)
    with pytest.raises(ValueError, match="global wants a share of matrices"):
        Magnitude(format=parse("sparse50(bf16)"), allocation="global")


def drawn(sizes: list[tuple[int, int]], dtype: torch.dtype) -> tuple[InMemory, list[Site]]:
    """Matrices, each of another spread."""
    generator = torch.Generator().manual_seed(7)
    tensors = {
        f"m{i}.weight": (torch.randn(size, generator=generator) * (1 + i)).to(dtype)
        for i, size in enumerate(sizes)
    }
    sites = [
        Site("mlp.up", f"m{i}", size, "out", "in", "mlp.in", layer=i)
        for i, size in enumerate(sizes)
    ]
    return InMemory({}, tensors), sites


@pytest.mark.parametrize("unit", [1, 8])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kept", [0.5, 0.03])
def test_one_ranking_keeps_what_sorting_everything_keeps(
    kept: float, dtype: torch.dtype, unit: int
) -> None:
    source, sites = drawn([(40, 64), (64, 96), (16, 16)], dtype)
    planned = {site: int(site.shape[0] * site.shape[1] * kept) for site in sites}
    found = by_ranking(planned, unit, source, lambda: False)
    assert sum(found.values()) == sum(planned.values())
    every = torch.cat([source.weight(site).dense().abs().flatten() for site in sites])
    least = every.sort(descending=True).values[sum(planned.values()) - 1]
    for site in sites:
        weight = source.weight(site).dense().abs()
        # a magnitude is counted with others of its bin, 1/128 wide; a share of them stays
        most, fewest = (int((weight >= least * by).sum()) for by in (1 - 1 / 128, 1 + 1 / 128))
        assert max(1, fewest) - unit <= found[site] <= most + unit
        assert (found[site] - planned[site]) % unit == 0


def test_equal_weights_stay_in_equal_shares() -> None:
    sites = drawn([(8, 32), (16, 32)], torch.float32)[1]
    source = InMemory({}, {f"{site.module}.weight": torch.ones(site.shape) for site in sites})
    found = by_ranking({sites[0]: 64, sites[1]: 128}, 1, source, lambda: False)
    assert list(found.values()) == [64, 128]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("models") / "small", layers=3)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "reload", here)


@pytest.mark.parametrize(
    "format_", ["sparse70(bf16)", "sparse50-tensor(bf16)", "sparse50(int4-g64)"]
)
def test_the_size_is_what_was_planned_whatever_the_shares(
    model: Path, tmp_path: Path, format_: str
) -> None:
    step = {"use": "wanda", "format": format_, "allocation": "owl", "spread": 0.2}
    steps = recipe(tmp_path / "r.yaml", [step])
    out = whet.compress(model, steps, set=FEW, out=tmp_path / "out").path
    assert compression.bound(str(model), str(steps), FEW).weights_bytes == tensor_bytes(out)
    told = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    up = {r["notes"]["format"] for r in told if r["site"].endswith("up_proj")}
    assert len(up) == 3, "each block has a share of its own"


@pytest.mark.parametrize("format_", ["sparse50-tensor(bf16)", "sparse60-tensor(int4-g64)"])
def test_one_ranking_has_the_planned_size_and_reads_no_text(
    model: Path, tmp_path: Path, format_: str
) -> None:
    step = {"use": "magnitude", "format": format_, "allocation": "global"}
    steps = recipe(tmp_path / "r.yaml", [step])
    bound = compression.bound(str(model), str(steps), FEW)
    assert not bound.needs_statistics
    out = whet.compress(model, steps, set=FEW, out=tmp_path / "out").path
    assert bound.weights_bytes == tensor_bytes(out)
    told = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    assert len({r["notes"]["format"] for r in told if r["site"].endswith("up_proj")}) > 1


@pytest.mark.parametrize(
    ("asked", "resume", "allocation"),
    [(1, "auto", "owl"), (4, "required", "owl"), (3, "auto", "global")],
)
def test_a_stopped_run_goes_on_to_the_same_shares(
    model: Path, tmp_path: Path, asked: int, resume: whet.api.Resume, allocation: str
) -> None:
    step = {"use": "magnitude", "format": "sparse60-tensor(bf16)", "allocation": allocation}
    steps = recipe(tmp_path / "r.yaml", [step])
    whet.compress(model, steps, set=FEW, out=tmp_path / "straight")
    with pytest.raises(StoppedError, match="Run the same command"):
        whet.compress(model, steps, set=FEW, out=tmp_path / "out", **stop_at(asked))
    whet.compress(model, steps, set=FEW, out=tmp_path / "out", resume=resume)
    assert digests(tmp_path / "out") == digests(tmp_path / "straight")
