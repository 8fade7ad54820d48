"""Mistakes that people make: each gets its exit code, at most three lines, and leaves nothing."""

import json
import shutil
from pathlib import Path

import pytest

from whet.cli.main import code
from whet.store.publish import lock
from whet.store.resolve import demo

ROWS = '{"text": "one"}\n{"text": 5}\n'
STEP = "steps:\n- use: rtn\n"


def edit(name, **changes):
    """Change fields of a JSON file of the model."""

    def change(model):
        fields = json.loads((model / name).read_text()) | changes
        (model / name).write_text(json.dumps({k: v for k, v in fields.items() if v is not None}))

    return change


def write(name, content):
    """Put a file into the model's folder."""

    def change(model):
        (model / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def remove(*names):
    """Take files out of the model's folder."""

    def change(model):
        for name in names:
            (model / name).unlink()

    return change


def cut(name, size):
    """Keep only the beginning of a file."""

    def change(model):
        (model / name).write_bytes((model / name).read_bytes()[:size])

    return change


def both(*changes):
    """Several changes."""

    def change(model):
        for one in changes:
            one(model)

    return change


def poison(model):
    """Write a number that is none into a weight."""
    path = model / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-2:] = b"\xc0\x7f"
    path.write_bytes(content)


def index(**places):
    """An index in place of the single file of weights."""

    def change(model):
        (model / "model.safetensors").rename(model / "model-00001-of-00001.safetensors")
        (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))

    return change


def empty(model):
    """Take everything out."""
    for path in model.iterdir():
        path.unlink()


MODELS = {  # what is done to the model's folder, exit code, a word of the message
    "nothing in it": (empty, 65, "config.json"),
    "no weights": (remove("model.safetensors"), 65, "no weights"),
    "no config": (remove("config.json"), 65, "config.json"),
    "no tokenizer": (remove("tokenizer.json"), 69, "tokenizer"),
    "broken config": (write("config.json", "{"), 65, "config.json"),
    "config is a list": (write("config.json", "[]"), 65, "config.json"),
    "broken tokenizer": (write("tokenizer.json", "{}"), 65, "tokenizer"),
    "cut weights": (cut("model.safetensors", 9_000_000), 65, "model.safetensors"),
    "cut header": (cut("model.safetensors", 100), 65, "model.safetensors"),
    "empty weights": (cut("model.safetensors", 0), 65, "model.safetensors"),
    "text for weights": (
        write("model.safetensors", "version https://git-lfs\n" * 9),
        65,
        "model.safetensors",
    ),
    "a number that is none": (poison, 65, "not a finite number"),
    "other sizes": (edit("config.json", hidden_size=128), 65, ""),
    "more layers": (edit("config.json", num_hidden_layers=9), 65, ""),
    "a size missing": (edit("config.json", hidden_size=None), 65, "hidden_size"),
    "a size of words": (edit("config.json", hidden_size="many"), 65, "hidden_size"),
    "unknown family": (
        edit("config.json", model_type="strange", architectures=["Strange"]),
        69,
        "strange",
    ),
    "another compressor": (
        edit("config.json", quantization_config={"quant_method": "gptq"}),
        65,
        "gptq",
    ),
    "code in config": (edit("config.json", auto_map={"AutoModel": "m.M"}), 77, "auto_map"),
    "pickles": (
        both(remove("model.safetensors"), write("pytorch_model.bin", "x")),
        77,
        "pytorch_model.bin",
    ),
    "gguf": (both(empty, write("model.gguf", "GGUF")), 69, "GGUF"),
    "index of nothing": (index(), 65, ""),
    "index escapes": (index(a="../model.safetensors"), 77, ".."),
    "missing shard": (index(a="model-00002-of-00002.safetensors"), 65, "model-00002"),
}
RECIPES = {  # YAML, exit code, a word of the message
    "no yaml": ("a: [", 2, "line"),
    "a list": ("- a", 2, "mapping"),
    "empty": ("", 2, "mapping"),
    "no steps": ("name: x\n", 2, "steps"),
    "empty steps": ("name: x\nsteps: []\n", 2, "steps"),
    "no name": (STEP, 2, "name"),
    "misspelt field": (f"name: x\ncalibratoin: {{}}\n{STEP}", 2, "calibration"),
    "misspelt setting": ("name: x\nsteps:\n- use: gptq\n  dampning: 1\n", 2, "damping"),
    "unknown method": ("name: x\nsteps:\n- use: gtpq\n", 2, "gptq"),
    "unknown format": ("name: x\nsteps:\n- use: rtn\n  format: itn4\n", 2, "itn4"),
    "impossible format": ("name: x\nsteps:\n- use: rtn\n  format: int9-g64\n", 2, "int9"),
    "a number in words": (f"name: x\n{STEP}calibration: {{samples: many}}\n", 2, "samples"),
    "no samples": (f"name: x\n{STEP}calibration: {{samples: 0}}\n", 2, "samples"),
    "no such place": ("name: x\nsteps:\n- use: rtn\n  where: attn.qq\n", 2, "attn.q"),
    "a tied head": ("name: x\nsteps:\n- use: rtn\n  where: head\n", 2, "embed"),
    "an alias": (f"name: &n x\ndescription: *n\n{STEP}", 2, "alias"),
    "a tag of Python": (f"name: !!python/name:os.system\n{STEP}", 2, "python"),
    "a key twice": (f"name: x\nname: y\n{STEP}", 2, "twice"),
    "deep": ("name: x\nsteps: " + "[" * 40 + "]" * 40 + "\n", 2, "deeper"),
    "huge": (f"name: x\n{STEP}#" + "x" * (1 << 20), 2, "bytes"),
    "a setting out of range": ("name: x\nsteps:\n- use: gptq\n  damping: -1\n", 2, "damping"),
}
TEXTS = {  # file, content, exit code, a word of the message
    "missing": ("none.txt", None, 66, "none.txt"),
    "empty": ("a.txt", b"", 65, "a.txt"),
    "too short": ("a.txt", b"A few words.", 65, "token"),
    "no text": ("a.txt", b"\xff\xfe\x00", 65, "UTF-8"),
    "broken row": ("a.jsonl", b'{"text": "one"}\n{broken\n', 65, "2"),
    "wrong column": ("a.jsonl", b'{"words": "one"}\n', 65, "text"),
    "wrong type": ("a.jsonl", ROWS.encode(), 65, "2"),
    "other kind": ("a.docx", b"x", 2, "docx"),
}
COMMANDS = {  # arguments, exit code, a word of the message; `model` is there
    "no such model": (["compress", "nowhere"], 66, "nowhere"),
    "a file for a model": (["compress", "model/config.json"], 65, "file"),
    "misspelt recipe": (["compress", "model", "--recipe", "itn4"], 2, "int4"),
    "no recipe file": (["compress", "model", "--recipe", "none.yaml"], 66, "none.yaml"),
    "misspelt flag": (["compress", "model", "--recepi", "int4"], 2, "--recipe"),
    "misspelt verb": (["compres", "model"], 2, "compress"),
    "set without value": (["compress", "model", "--set", "gptq.damping"], 2, "step.field=value"),
    "set unknown step": (["compress", "model", "--set", "gtpq.damping=1"], 2, "gptq"),
    "set unknown field": (["compress", "model", "--set", "gptq.dampning=1"], 2, "damping"),
    "set out of range": (["compress", "model", "--set", "gptq.damping=-1"], 2, "damping"),
    "set beyond the steps": (["compress", "model", "--set", "9.damping=1"], 2, "1"),
    "nothing to resume": (["compress", "model", "--resume", "required"], 66, "interrupted"),
    "output is there": (["compress", "model", "-o", "model"], 2, "--overwrite"),
    "output is a file": (["compress", "model", "-o", "model/config.json"], 2, ""),
    "output below a file": (["compress", "model", "-o", "model/config.json/x"], 74, ""),
    "data set without the extra": (
        ["compress", "model", "--calibration", "hf:none"],
        69,
        "whet[data]",
    ),
    "measure nothing": (["measure", "nowhere"], 66, "nowhere"),
    "measure on nothing": (["measure", "model", "--data", "none.txt"], 66, "none.txt"),
    "verify what is not ours": (["verify", "model"], 65, "manifest"),
    "inspect nothing": (["inspect", "nowhere"], 66, "nowhere"),
    "run without words": (["run", "model", "x", "--max-tokens", "0"], 2, "max-tokens"),
    "run too much": (["run", "model", "word " * 3000], 2, "1024"),
    "run with an impossible choice": (["run", "model", "x", "--top-p", "2"], 2, "top-p"),
}


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A copy of the demo model in an empty folder, where the command runs."""
    shutil.copytree(demo(), tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "model"


def files():
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def answered(words, capsys):
    """Run a wrong command; return its code and what it said. Nothing new may be left."""
    before = files()
    found = code(words)
    shown = capsys.readouterr().err
    assert files() == before
    said = [line for line in shown.splitlines() if "error" in line or line.startswith("  ")]
    assert 1 <= len(said) <= 3, shown
    return found, shown


@pytest.mark.parametrize("case", MODELS)
def test_models(case, model, capsys):
    change, expected, word = MODELS[case]
    change(model)
    found, shown = answered(["compress", "model", "--recipe", "int4-fast", "-o", "out"], capsys)
    assert (found, word in shown) == (expected, True), shown


@pytest.mark.parametrize("case", RECIPES)
def test_recipes(case, model, capsys):
    text, expected, word = RECIPES[case]
    Path("r.yaml").write_text(text)
    found, shown = answered(["compress", "model", "--recipe", "r.yaml", "-o", "out"], capsys)
    assert (found, word in shown) == (expected, True), shown


@pytest.mark.parametrize("case", TEXTS)
def test_texts(case, model, capsys):
    name, content, expected, word = TEXTS[case]
    if content is not None:
        Path(name).write_bytes(content)
    found, shown = answered(["compress", "model", "--calibration", name, "-o", "out"], capsys)
    assert (found, word in shown) == (expected, True), shown


@pytest.mark.parametrize("case", COMMANDS)
def test_commands(case, model, capsys):
    words, expected, word = COMMANDS[case]
    found, shown = answered(words, capsys)
    assert (found, word in shown) == (expected, True), shown


def test_a_full_disk_is_seen_before_work(model, capsys, monkeypatch):
    monkeypatch.setattr("whet.recipe.estimate.free_disk", lambda _: 1000)
    found, shown = answered(["compress", "model", "-o", "out"], capsys)
    assert found == 4
    assert "disk" in shown


def test_too_little_memory_is_seen_before_work(model, capsys, monkeypatch):
    monkeypatch.setattr("whet.recipe.estimate.free_memory", lambda: 0)
    monkeypatch.setattr("whet.recipe.estimate.resident", lambda: 0)
    monkeypatch.setattr("whet.recipe.estimate._memory", lambda _: 10**9)
    found, shown = answered(["compress", "model", "-o", "out"], capsys)
    assert found == 4
    assert "memory" in shown


def test_two_runs_at_once(model, capsys):
    with lock(Path("out")):
        found, shown = answered(["compress", "model", "-o", "out"], capsys)
    assert (found, "out" in shown) == (75, True)


def test_the_corpus_is_large_enough():
    assert len(MODELS) + len(RECIPES) + len(TEXTS) + len(COMMANDS) >= 40
