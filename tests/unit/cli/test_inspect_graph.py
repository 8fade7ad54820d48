"""`whet inspect --graph`: the operators as people and as programs read them."""

import json
import subprocess
import sys

import pytest
from tests.small import small_model

from whet import api
from whet.cli.main import code
from whet.graph.lower import lowered
from whet.graph.rewrites import PIPELINE
from whet.store.checkpoint import Checkpoint
from whet.store.contents import Contents
from whet.store.folder import Folder

PROGRAM = """
import sys
from whet.cli.main import code
assert code(["inspect", "demo", "--graph"]) == 0
print(sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("graphs") / "three", layers=3)


def test_every_stage_is_shown_with_its_memory(three, capsys):
    assert code(["inspect", str(three), "--graph"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(
        "as it is lowered\n  embedding\n    hidden = embed(tokens) 256 embed bf16\n"
    )
    assert "  blocks 0–2 (3 alike)\n    .attn.in = norm(↑hidden) 256 rms ε 1e-05\n" in shown
    assert "    − .attn.q = linear(.attn.in) 256 attn.q bf16\n" in shown
    assert "    + .attn.q+k+v = linear(.attn.in) 512 attn.q, attn.k, attn.v bf16\n" in shown
    assert "  7 not: bf16 numbers would be rounded a second time\n  nothing to do\n" in shown
    assert "\nat the end\n  embedding\n" in shown
    table = shown.rpartition("\n\n")[2].splitlines()
    assert table[0].split() == ["rewrite", "operators", "planned", "apart", "what", "it", "does"]
    assert [line.split()[0] for line in table[2:]] == [rewrite.name for rewrite in PIPELINE]


def test_a_graph_as_json(three, capsys):
    assert code(["inspect", str(three), "--graph", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["family"] == "llama"
    assert [stage["rewrite"] for stage in told["stages"]] == ["", *(r.name for r in PIPELINE)]
    first, last = told["stages"][0], told["stages"][-1]
    assert first["operators"] == 3 * 16 + 4
    assert sum(last["kinds"].values()) == last["operators"] < first["operators"]
    assert last["planned"] < first["planned"] < first["apart"]
    assert first["sections"][1]["layers"] == [0, 1, 2]
    assert len(first["sections"][1]["lines"]) == 16


def test_more_tokens_need_more_memory(three):
    few, many = (api.graph(three, rows=rows).stages[-1].planned for rows in (1, 512))
    assert few < many / 100


def test_a_folder_is_lowered_alike_with_and_without_torch(three):
    folder = Folder(three)
    assert lowered(Contents(folder, mapped=True)) == lowered(Checkpoint(folder))


def test_a_graph_needs_no_torch():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert "'torch'" not in done.stderr
    assert "'transformers'" not in done.stderr


def test_a_model_without_a_family_is_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "strange"}))
    (tmp_path / "model.safetensors").write_bytes((6).to_bytes(8, "little") + b"{}    ")
    assert code(["inspect", str(tmp_path), "--graph"]) == 69
    assert "strange" in capsys.readouterr().err


def test_a_missing_weight_is_named(three, tmp_path, capsys):
    for file in three.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((three / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
    assert code(["inspect", str(tmp_path), "--graph"]) == 65
    assert "model.layers.3.self_attn.q_proj" in capsys.readouterr().err
