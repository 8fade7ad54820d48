"""A search from the question to a published folder, on the demo's first blocks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.small import small_model

import whet
from whet.base.errors import QualityError, RecipeError, StoppedError
from whet.base.record import Record, read_records
from whet.cli.main import code
from whet.kernels.native import missing
from whet.search import build, effort, guide, recover, refine, run, structure, trials, widths
from whet.search.predict import Guide
from whet.store.manifest import verify

LEVELS = ("int3-g64-affine", "int4-g64", "int8-channel")
SIZE = 3_000_000  # the model is 5.3 MB, with all linears at 3 bits and the table at 8 it is 1.6 MB

FORMATS = ("int2-g64-affine", "int3-g64-affine", "int4-g64", "int5-g64", "int6-g64", "int8-channel")
SHORT = 1_850_000  # less than the blocks at 8 bits and the table at 3


def less(patch: pytest.MonkeyPatch) -> None:
    """Search on few tokens, and end where a generation finds nothing better."""
    patch.setattr(effort, "HELD_TOKENS", 1024)
    patch.setattr(effort, "GRADIENT_TOKENS", 512)
    patch.setattr(build, "TIMED", 0.0)
    patch.setattr(refine, "PATIENCE", 1)


@pytest.fixture(autouse=True)
def few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    less(monkeypatch)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("search") / "model")


def searched(model: Path, out: Path, **asked):
    settings = {"max_size": str(SIZE), "levels": LEVELS, "samples": 4, "structures": False}
    settings |= {"recovery": False, "time": "2m"}  # it ends sooner, where no generation is better
    return whet.search(model, out=out, **(settings | asked))


@pytest.fixture(scope="module")
def found(model: Path, tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        less(patch)
        return searched(model, tmp_path_factory.mktemp("found") / "out")


def records_of(folder: Path) -> list[Record]:
    with (folder / "records.jsonl").open(encoding="utf-8") as lines:
        return list(read_records(lines))


def one(records: list[Record], step: str) -> Record:
    return next(record for record in records if record.step == step)


def test_it_keeps_the_limit_and_says_what_it_has(found) -> None:
    records = records_of(found.path)
    search, limit = one(records, "search"), one(records, "limit")
    size = (found.path / "model.safetensors").stat().st_size
    assert size <= SIZE
    assert search.facts["size_predicted"].value == size
    assert search.facts["size_measured"].value == size
    assert limit.facts["slack"].value == pytest.approx(1 - size / SIZE)
    assert search.facts["gap"].value <= 0.01
    assert verify(found.path) == []
    units = [record for record in records if record.step == "unit"]
    assert len(units) == 2 * 4 + 1
    options = [record for record in records if record.step == "option"]
    chosen = {r.site: r.notes["level"] for r in options if r.notes["chosen"] == "yes"}
    assert chosen == {record.site: record.notes["level"] for record in units}
    assert len(chosen) == len(units)
    assert any(record.step == "point" for record in records)
    assert one(records, "trial").notes["state"] == "complete"


def test_it_beats_every_level_that_is_no_larger(found) -> None:
    records = records_of(found.path)
    size = one(records, "search").facts["size_measured"].value
    assembled = one(records, "search").facts["kl_assembled"].value
    uniform = [r for r in records if r.step == "uniform" and r.facts["size"].value <= size]
    assert uniform
    assert all(assembled < record.facts["kl"].value for record in uniform)


def test_its_recipe_makes_the_same_bytes(found, model: Path, tmp_path: Path) -> None:
    again = whet.compress(model, found.path / "recipe.yaml", out=tmp_path / "again")
    for name in ("model.safetensors", "config.json"):
        assert (again.path / name).read_bytes() == (found.path / name).read_bytes()


def test_a_search_that_was_stopped_goes_on(found, model: Path, tmp_path: Path) -> None:
    asked = iter(range(10_000))
    with pytest.raises(StoppedError):
        searched(model, tmp_path / "out", stopped=lambda: next(asked) > 8)
    assert not (tmp_path / "out").exists()
    done = searched(model, tmp_path / "out", resume="required")
    levels = [
        {r.site: r.notes["level"] for r in records_of(path) if r.step == "unit"}
        for path in (done.path, found.path)
    ]
    assert levels[0] == levels[1]


def test_what_cannot_be_kept_names_the_nearest(model: Path, tmp_path: Path, capsys) -> None:
    words = ["search", str(model), "--max-size", "100kB", "--max-kl", "0.001", "--time", "10s"]
    words += ["--samples", "4", "--levels", ",".join(LEVELS), "--no-structures"]
    status = code([*words, "-o", str(tmp_path / "out"), "--format", "json"])
    assert status == QualityError.code == 3
    told = json.loads(capsys.readouterr().err.strip().splitlines()[-1])
    assert "--max-size 100kB" in json.dumps(told)
    assert "MB" in json.dumps(told)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "asked",
    [{"max_size": None}, {"objective": "size"}, {"levels": ("int9-g64",)}, {"skip": ("mlp.side",)}],
)
def test_questions_without_an_answer(model: Path, tmp_path: Path, asked) -> None:
    with pytest.raises(RecipeError):
        searched(model, tmp_path / "out", **asked)
    assert list(tmp_path.iterdir()) == []


def test_smallest_within_a_distance(model: Path, tmp_path: Path) -> None:
    done = searched(model, tmp_path / "out", max_size=None, max_kl=0.05, objective="size")
    search = one(records_of(done.path), "search")
    assert search.facts["kl_measured"].value <= 0.05
    assert search.facts["size_measured"].value < SIZE


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_keys_and_values_in_fewer_bits(model: Path, tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    asked = {"max_size": None, "max_kl": 0.05, "max_memory": "10GB@100", "objective": "size"}
    done = searched(model, tmp_path / "out", cache=("bf16", "int8", "kv2"), time="10m", **asked)
    records = records_of(done.path)
    tried = [r for r in records if r.step == "trial" and r.notes["state"] == "complete"]
    kept = {r.notes["structure"].rpartition(" in ")[2]: r.facts for r in tried}
    assert list(kept) == ["as it is", "int8", "kv2"]
    # the smallest levels are good enough for each, so that only keys and values tell them apart
    assert kept["as it is"]["kl"].value < kept["int8"]["kl"].value < kept["kv2"]["kl"].value


def test_room_for_the_original_gives_the_original(model: Path, tmp_path: Path) -> None:
    done = searched(model, tmp_path / "out", max_size="10GB", time="5s")
    assert one(records_of(done.path), "search").facts["kl_measured"].value == 0
    assert "kv_cache" in (done.path / "recipe.yaml").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_way_to_keep_keys_and_values_alone(model: Path, tmp_path: Path) -> None:
    done = searched(model, tmp_path / "out", cache=("kv4",))
    assert json.loads((done.path / "config.json").read_text())["whet_kv_cache"] == "kv4"
    assert "kv_cache" in (done.path / "recipe.yaml").read_text()
    assert one(records_of(done.path), "search").notes["structure"].endswith("kv4")
    again = whet.compress(model, done.path / "recipe.yaml", out=tmp_path / "again")
    for name in ("model.safetensors", "config.json"):
        assert (again.path / name).read_bytes() == (done.path / name).read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_result_is_trained_in_the_time_that_is_left(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "REFINED", 0.01)
    monkeypatch.setattr(recover, "LEAST", 10_000)
    monkeypatch.setattr(recover, "MOST", 10_000)
    done = searched(model, tmp_path / "out", time="5m", recovery=True)
    search = one(records_of(done.path), "search")
    before, after = (search.facts[f"kl_{name}"].value for name in ("untrained", "trained"))
    assert search.facts["recovery_tokens"].value == 10_000
    assert search.facts["kl_measured"].value == min(before, after)
    kept = search.notes["recovery"] == "kept"
    assert kept == (after < before)
    assert ("qat" in (done.path / "recipe.yaml").read_text()) == kept
    assert "it was trained on" in " ".join(whet.explain(done.path).account)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_smaller_shape_where_no_level_is_small_enough(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(structure, "FFN", (0.0, 0.25))
    monkeypatch.setattr(trials, "TRAINED", (0,))
    monkeypatch.setattr(widths, "NARROWEST", 32)
    asked = {"levels": ("int8-channel",), "structures": True, "time": "2m"}
    done = searched(model, tmp_path / "out", max_size=str(SHORT), recovery=False, **asked)
    assert (done.path / "model.safetensors").stat().st_size <= SHORT
    tried = [r for r in records_of(done.path) if r.step == "trial"]
    assert {r.notes["state"] for r in tried if r.notes["structure"] == "as it is"} == {"failed"}
    assert "where it counts least" in one(records_of(done.path), "search").notes["structure"]
    left = json.loads((done.path / "config.json").read_text())["whet_ffn"]
    assert len(left) == 2
    again = whet.compress(model, done.path / "recipe.yaml", out=tmp_path / "again")
    for name in ("model.safetensors", "config.json"):
        assert (again.path / name).read_bytes() == (done.path / name).read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_draft_where_tokens_are_to_come_faster(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := missing():
        pytest.skip(reason)
    monkeypatch.setattr(run, "drafts_of", lambda ask: True)
    monkeypatch.setattr(run, "space_of", lambda *_, drafts: structure.Space(drafts=(0, 1)))
    # a draft that costs nothing and is always right: the trial with it must win, and be built
    free = Guide(tokens=5.0, guesses=4.0, seconds=0.0, first=0.0, memory=0)
    monkeypatch.setattr(guide, "worth", lambda *_: free)
    asked = {"max_size": None, "max_kl": 0.05, "objective": "speed", "structures": True}
    done = searched(model, tmp_path / "out", recovery=False, time="10m", **asked)
    search = one(records_of(done.path), "search")
    assert search.notes["structure"] == "as it is, a draft of 1 layer guesses"
    assert search.facts["kl_measured"].value <= 0.05
    sizes = [path.stat().st_size for path in done.path.rglob("*.safetensors")]
    assert len(sizes) == 2
    assert search.facts["size_measured"].value == search.facts["size_predicted"].value == sum(sizes)
    assert whet.load(done.path).draft is not None
    again = whet.compress(model, done.path / "recipe.yaml", out=tmp_path / "again").path
    for name in ("model.safetensors", "draft/model.safetensors", "draft/recipe.yaml"):
        assert (again / name).read_bytes() == (done.path / name).read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_processes_with_one_sweep_divide_the_trials(model: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "whet", "search", str(model), "--max-kl", "0.01"]
    words += ["--max-memory", "10GB", "--objective", "size", "--levels", "int4-g64,int8-channel"]
    words += ["--samples", "4", "--time", "90s", "--sweep", str(tmp_path / "sweep"), "--offline"]
    outs = [tmp_path / name for name in "ab"]
    every = [subprocess.Popen([*words, "-o", str(out)]) for out in outs]
    assert [one.wait() for one in every] == [0, 0]
    assert [verify(out) for out in outs] == [[], []]
    tried = [r for out in outs for r in records_of(out) if r.step == "trial"]
    numbers = {r.site for r in tried if r.notes["state"] == "complete"}
    shapes = {r.notes["structure"] for r in tried}
    assert len(shapes) >= 3
    assert len(numbers) <= len(shapes) + 3  # at most those that both began with


def test_in_no_time_it_does_the_least(model: Path, tmp_path: Path) -> None:
    done = searched(model, tmp_path / "out", time="1s", samples=32, levels=FORMATS)
    records = records_of(done.path)
    found = one(records, "search")
    assert found.facts["size_measured"].value <= SIZE
    assert found.facts["kl_measured"].value < 0.1
    assert "recovery_tokens" not in found.facts
    recipe = (done.path / "recipe.yaml").read_text()
    assert "samples: 2" in recipe  # of 32, a quarter of a quarter
    assert "sweeps: 0" in recipe
    phases = {r.site: r for r in records if r.step == "phase"}
    assert list(phases) == ["gradients", "estimate", "folder", "measure"]  # no level is tried
    assert phases["folder"].notes["effort"].startswith("0 rounds of descent")
