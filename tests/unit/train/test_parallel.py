"""Two processes that share the parts of a step train as one does."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.unit.model.tiny import source
from tests.unit.train.models import noised, text

from whet.base.errors import RecipeError
from whet.train.parallel import Team

WORKER = """
import json, sys
from pathlib import Path
import torch
from whet.methods.distill.distill import Distill
from whet.model.source import InMemory
from whet.passes.model_pass import Task
from whet.train.course import Descent
torch.set_num_threads(1)
kept = torch.load(sys.argv[1], weights_only=True)
student, teacher = (InMemory(kept["config"], kept[name]) for name in ("student", "teacher"))
seen = []
run = Descent.run
def watched(self, loss):
    seen.extend(run(self, loss))
    return seen
Descent.run = watched
use = Distill(tokens=8 * 4 * 16, length=16, batch=4, parts=2, lr=1e-2, prompt=4)
task = Task(student, teacher, lambda samples, time: kept["ids"][:samples, :time],
            Path(sys.argv[2]), 5, lambda share, what: None, lambda: False)
sums = [float(x.double().sum()) for _, x in use.run(task).tensors]
print(json.dumps([seen, sums]))
"""


def started(tmp_path: Path, kept: Path, rank: int, size: int, port: int) -> subprocess.Popen[str]:
    team = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    extra = {name: str(value) for name, value in team.items()} | {"TORCHELASTIC_RUN_ID": "x"}
    environment = dict(os.environ) | (extra if size > 1 else {})
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(kept), str(tmp_path / f"work-{size}")],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_give_the_losses_of_one(tmp_path: Path):
    teacher = source("llama")
    student = noised(teacher, 0.05)
    kept = tmp_path / "kept.pt"
    torch.save(
        {
            "config": dict(teacher.config),
            "teacher": dict(teacher.tensors),
            "student": dict(student.tensors),
            "ids": text(64, 16),
        },
        kept,
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found = []
    for size in (1, 2):
        workers = [started(tmp_path, kept, rank, size, port) for rank in range(size)]
        outputs = [worker.communicate(timeout=100)[0] for worker in workers]
        assert [worker.returncode for worker in workers] == [0] * size
        found += [json.loads(output.splitlines()[-1]) for output in outputs]
    one, *both = found
    for losses, sums in both:
        assert losses == pytest.approx(one[0], rel=1e-4)
        assert sums == pytest.approx(one[1], rel=1e-3, abs=1e-2)
    assert both[0] == both[1]


def test_a_step_that_cannot_be_shared_is_refused():
    assert list(Team(1, 2).share(4)) == [2, 3]
    with pytest.raises(RecipeError, match="3 parts cannot be shared by 2"):
        Team(0, 2).share(3)
