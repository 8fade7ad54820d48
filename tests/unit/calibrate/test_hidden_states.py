import errno
from pathlib import Path
from typing import Literal

import pytest
import torch

from whet.base.errors import FolderError, StorageError
from whet.calibrate import hidden_states as module
from whet.calibrate.hidden_states import (
    HiddenStates,
    MemoryBudget,
    StatesInFile,
    StatesInMemory,
    create_states,
    open_states,
)

PLACES = {"memory": 1 << 20, "file": 0}  # the budget that leads there [byte]


@pytest.fixture(params=PLACES)
def budget(request: pytest.FixtureRequest) -> MemoryBudget:
    return MemoryBudget(PLACES[request.param])


def in_file(path: Path) -> HiddenStates:
    return create_states(path, (2, 3, 4), budget=MemoryBudget(0))


def test_what_was_written_is_read_back_in_any_order(tmp_path: Path, budget: MemoryBudget) -> None:
    x = torch.randn(5, 3, 4)
    states = create_states(tmp_path / "x", (5, 3, 4), budget=budget)
    states.write(3, x[3:])
    states.write(0, x[:3])
    assert states.in_memory == (budget.limit > 0)
    assert torch.equal(states.read(0, 5), x)
    assert torch.equal(torch.cat([part for _, part in states.chunks(2)]), x)
    assert [start for start, _ in states.chunks(2)] == [0, 2, 4]
    assert states.read(5, 9).shape == (0, 3, 4)


def test_what_is_read_is_a_copy(tmp_path: Path, budget: MemoryBudget) -> None:
    states = create_states(tmp_path / "x", (1, 2, 3), budget=budget)
    states.write(0, torch.ones(1, 2, 3))
    states.read(0, 1).zero_()
    assert torch.equal(states.read(0, 1), torch.ones(1, 2, 3))


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_a_view_is_what_would_be_read(
    tmp_path: Path, budget: MemoryBudget, dtype: Literal["F32", "BF16"]
) -> None:
    states = create_states(tmp_path / "x", (4, 2, 3), dtype, budget)
    states.write(0, torch.randn(4, 2, 3))
    assert torch.equal(states.view(1, 3), states.read(1, 3))


def test_bf16_rounds_once_and_halves_the_size(tmp_path: Path, budget: MemoryBudget) -> None:
    x = torch.randn(2, 3, 4)
    states = create_states(tmp_path / "x", (2, 3, 4), "BF16", budget)
    states.write(0, x)
    assert torch.equal(states.read(0, 2), x.bfloat16().float())
    assert states.nbytes == 2 * 3 * 4 * 2


@pytest.mark.parametrize("again", PLACES)
def test_what_was_saved_a_later_run_opens(tmp_path: Path, budget: MemoryBudget, again: str) -> None:
    x = torch.randn(2, 3, 4)
    states = create_states(tmp_path / "x", (2, 3, 4), "BF16", budget)
    states.write(0, x)
    states.save()
    opened = open_states(tmp_path / "x", MemoryBudget(PLACES[again]))
    assert isinstance(opened, StatesInMemory if again == "memory" else StatesInFile)
    assert (opened.shape, opened.dtype) == ((2, 3, 4), "BF16")
    assert torch.equal(opened.read(0, 2), x.bfloat16().float())
    states.release()
    assert (tmp_path / "x").exists()
    opened.delete()
    opened.delete()
    assert not list(tmp_path.iterdir())


def test_states_beyond_the_budget_go_to_files(tmp_path: Path) -> None:
    budget = MemoryBudget(2 * 2 * 3 * 4 * 4)
    made = [create_states(tmp_path / str(n), (2, 3, 4), budget=budget) for n in range(3)]
    assert [one.in_memory for one in made] == [True, True, False]
    made[0].release()
    made[0].release()
    assert made[2].like(tmp_path / "again").in_memory
    assert not made[2].like(tmp_path / "last", hidden=8).in_memory
    assert budget.taken == budget.limit


@pytest.mark.parametrize("damage", ["short", "long", "garbage", "kind", "empty"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x"
    in_file(path)
    data = path.read_bytes()
    damaged = {
        "short": data[:-1],
        "long": data + b"x",
        "garbage": b"\xff" * len(data),
        "kind": data.replace(b"whet hidden", b"whet hiddem"),
        "empty": b"",
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(FolderError, match=str(path)):
        open_states(path)


def test_a_file_cut_short_while_it_is_used_is_an_error(tmp_path: Path) -> None:
    states = in_file(tmp_path / "x")
    with states.path.open("r+b") as file:
        file.truncate(module.HEADER + states.sample_bytes)
    with pytest.raises(FolderError, match="cut short"):
        states.read(0, 2)


def test_a_full_disk_says_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_reserve", full)
    with pytest.raises(StorageError, match=r"\d+ bytes needed, \d+ free"):
        in_file(tmp_path / "x")
    with pytest.raises(StorageError, match="cannot write"):
        in_file(tmp_path / "none" / "x")
