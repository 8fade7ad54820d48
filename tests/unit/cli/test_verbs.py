"""What each verb asks of the API and what it writes; the API itself is replaced."""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from tests.unit.report import examples

from whet import api
from whet.base.record import append_records
from whet.cli import run
from whet.cli.main import code
from whet.formats.spec import parse
from whet.model.account import Account
from whet.runtime.sample import Sampling
from whet.store.manifest import write_manifest
from whet.store.scheme import Scheme


class Heard:
    """Stands for a function of the API: remembers how it was called."""

    def __init__(self, answer):
        self.answer, self.calls = answer, []

    def __call__(self, *words, **named):
        self.calls.append((words, named))
        return self.answer


@pytest.fixture
def compress(monkeypatch):
    done = SimpleNamespace(path=Path("demo-int4"), records=tuple(examples.compressed()), ours=True)
    heard = Heard(done)
    monkeypatch.setattr(api, "compress", heard)
    return heard


def test_compress_passes_its_flags_on(compress, capsys):
    words = (
        "compress demo --recipe int8 --set gptq.sweeps=2 --set seed=3 --calibration a.txt -o out"
    )
    assert (
        code([*words.split(), "--resume", "required", "--overwrite", "--seed", "7", "--offline"])
        == 0
    )
    ((_, asked),) = compress.calls
    del asked["progress"], asked["stopped"]
    assert asked == {
        "source": "demo",
        "recipe": "int8",
        "set": ("gptq.sweeps=2", "seed=3"),
        "calibration": "a.txt",
        "out": "out",
        "resume": "required",
        "overwrite": True,
        "seed": 7,
        "memory": None,
        "keep_embeddings": False,
        "offline": True,
    }
    shown = capsys.readouterr()
    assert "14.7 MB → 5.44 MB" in shown.out
    assert "report: demo-int4/report.html" in shown.out
    assert "whet measure demo-int4 --against demo" in shown.err


def test_compress_as_json(compress, capsys):
    assert code(["compress", "demo", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == "demo-int4"
    assert told["records"][0]["step"] == "command"


def preview():
    site = SimpleNamespace(module="model.layers.0.mlp.up_proj", role="mlp.up")
    scheme = Scheme(parse("int4-g64"))
    plan = SimpleNamespace(
        folder=SimpleNamespace(nbytes=14_700_000, left_out=("trainer_state.json",), stored_as=""),
        recipe=SimpleNamespace(allocation=None),
        choice=SimpleNamespace(dialect=SimpleNamespace(name="compressed-tensors"), reason="it can"),
        placed=(SimpleNamespace(site=site, scheme=scheme, note=""),),
        skipped={"lm_head": "shares its storage"},
        account=Account(frozenset()),
        rounds=True,
    )
    facts = {"peak_rss": examples.q(6e8, "byte"), "seconds": examples.q(40, "s")}
    need = SimpleNamespace(
        memory=6e8, disk=2e8, seconds=40.0, how="one block was tried", facts=lambda: facts
    )
    return SimpleNamespace(
        plan=plan,
        out=Path("out"),
        weights_bytes=5_441_000,
        draft_bytes=1_200_000,
        need=need,
        stages=(),
    )


def test_a_dry_run_only_looks(compress, monkeypatch, capsys):
    heard = Heard(preview())
    monkeypatch.setattr(api, "preview", heard)
    assert code(["compress", "demo", "--dry-run", "--seed", "3"]) == 0
    ((_, asked),) = heard.calls
    assert asked == {
        "source": "demo",
        "recipe": "int4",
        "set": (),
        "calibration": None,
        "out": None,
        "seed": 3,
        "memory": None,
        "keep_embeddings": False,
        "offline": False,
    }
    assert compress.calls == []
    shown = capsys.readouterr().out
    for words in (
        "5,441,000 bytes = 5.44 MB",
        "2.70 × smaller",
        "about 600 MB",
        "1.20 MB more: a smaller model that guesses",
        "about 40.0 s",
        "int4-g64",
        "lm_head",
        "trainer_state.json",
    ):
        assert words in shown


def test_a_dry_run_as_json(monkeypatch, capsys):
    monkeypatch.setattr(api, "preview", Heard(preview()))
    assert code(["compress", "demo", "--dry-run", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["output_bytes"] == 5_441_000
    assert told["predicted"] == {"peak_rss": 6e8, "seconds": 40.0}
    assert told["modules"][0]["format"] == "int4-g64"


@pytest.fixture
def measure(monkeypatch):
    heard = Heard(examples.measured() + examples.timed())
    monkeypatch.setattr(api, "measure", heard)
    return heard


def test_measure_shows_the_table(measure, capsys):
    assert code(["measure", "demo", "--against", "demo", "--data", "x.txt", "--speed"]) == 0
    ((words, asked),) = measure.calls
    del asked["progress"]
    assert (words, asked) == (
        ("demo",),
        {"against": "demo", "data": "x.txt", "speed": True, "tasks": [], "offline": False}
        | {"executor": "auto", "kernels": "auto", "cache": None, "inputs": "int16", "draft": None},
    )
    shown = capsys.readouterr().out
    for words in (
        "KL to the original: 0.00383 (0.00362 – 0.00404)",
        "42.27 ± 0.52",
        "8,120 ± 95 token/s",
    ):
        assert words in shown


def test_measure_as_json(measure, capsys):
    assert code(["measure", "demo", "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["records"]) == 33


def test_measurements_join_the_evidence(measure, tmp_path, capsys):
    append_records(tmp_path / "records.jsonl", examples.compressed())
    write_manifest(tmp_path, {"seed": 0})
    assert code(["measure", str(tmp_path)]) == 0
    assert "added to" in capsys.readouterr().err
    assert "0.00383" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert api.verify(tmp_path) == []


def test_a_changed_folder_is_not_sealed_again(measure, tmp_path, capsys):
    append_records(tmp_path / "records.jsonl", examples.compressed())
    (tmp_path / "model.bin").write_bytes(b"good")
    write_manifest(tmp_path, {})
    (tmp_path / "model.bin").write_bytes(b"evil")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert code(["measure", str(tmp_path)]) == 65
    assert "model.bin has other content" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


class FakeReply:
    finish = "length"
    ids = (5, 6)

    def __init__(self, *pieces):
        self.pieces, self.text = iter(pieces), ""

    def __iter__(self):
        return self

    def __next__(self):
        piece = next(self.pieces)
        if piece is KeyboardInterrupt:
            raise KeyboardInterrupt
        self.text += piece
        return piece

    def read(self):
        return "".join(self.pieces)


class FakeEngine:
    fallback: tuple[str, ...] = ()

    def __init__(self, template=None):
        self.folder, self.recommended, self.asked = Path("demo"), Sampling(), []
        self.tokenizer = SimpleNamespace(template=template)

    def stream(self, *asked):
        self.asked.append(asked)
        return FakeReply("Once\x1b[2J", " upon\n")


@pytest.fixture
def engine(monkeypatch):
    engine = FakeEngine()
    monkeypatch.setattr(api, "load", Heard(engine))
    return engine


def test_run_streams_without_control_characters(engine, capsys):
    words = [
        "--max-tokens",
        "9",
        "--temperature",
        "0.5",
        "--top-k",
        "3",
        "--seed",
        "1",
        "--stop",
        "END",
    ]
    assert code(["run", "demo", "Hello", *words]) == 0
    assert engine.asked == [("Hello", Sampling(temperature=0.5, top_k=3, seed=1), 9, ("END",))]
    assert capsys.readouterr().out == "Once upon\n\n"


def test_run_says_once_why_the_kernels_refuse(engine, capsys):
    engine.fallback = ("int9-g3 has no kernel", "and so on", "third", "fourth")
    assert code(["run", "demo", "hi", "--executor", "auto", "--kernels", "auto"]) == 0
    told = capsys.readouterr().err
    assert told.count("reference executor") == 1
    assert "int9-g3 has no kernel; and so on; third; and 1 more" in told


def test_run_reads_a_pipe(engine, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe\n"))
    assert code(["run", "demo"]) == 0
    assert engine.asked[0][0] == "from a pipe"


@pytest.mark.parametrize("piped", ["", " \n", "x" * (run.LONGEST + 1)])
def test_run_refuses_odd_pipes(engine, monkeypatch, piped):
    monkeypatch.setattr("sys.stdin", io.StringIO(piped))
    assert code(["run", "demo"]) == 2


def test_run_as_json(engine, capsys):
    assert code(["run", "demo", "Hello", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "prompt": "Hello",
        "text": "Once\x1b[2J upon\n",
        "tokens": [5, 6],
        "finish": "length",
    }


def test_a_system_message_needs_a_template(engine, capsys):
    assert code(["run", "demo", "Hello", "--system", "be brief"]) == 2
    assert "chat template" in capsys.readouterr().err


class FakeConversation:
    templated, forgotten, said = True, 0, []

    def __init__(self, *settings):
        self.settings = settings

    def say(self, text):
        self.said.append(text)
        FakeConversation.forgotten = len(self.said) - 1
        return FakeReply("well,", KeyboardInterrupt if text == "cut" else " hello")


def test_a_chat_goes_on_after_an_interrupt_and_ends_by_exit(engine, monkeypatch, capsys):
    typed = iter(["hi", "", "cut", "again", "/exit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("whet.runtime.conversation.Conversation", FakeConversation)
    FakeConversation.said = []
    assert code(["run", "demo"]) == 0
    assert FakeConversation.said == ["hi", "cut", "again"]
    shown = capsys.readouterr()
    assert shown.out == "well, hello\nwell,\nwell, hello\n"
    assert "oldest 2 messages are forgotten" in shown.err


def test_a_prompt_goes_through_the_template_unless_raw(engine, monkeypatch, capsys):
    monkeypatch.setattr("whet.runtime.conversation.Conversation", FakeConversation)
    engine.tokenizer.template = "{{ messages }}"
    FakeConversation.said = []
    assert code(["run", "demo", "hi"]) == 0
    assert code(["run", "demo", "raw", "--raw"]) == 0
    assert FakeConversation.said == ["hi"]
    assert engine.asked[0][0] == "raw"


def test_json_needs_a_prompt(engine, monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    assert code(["run", "demo", "--format", "json"]) == 2


def test_inspect(capsys):
    assert code(["inspect", "demo"]) == 0
    shown = capsys.readouterr().out
    for words in ("llama, family llama", "layers 8", "14.7 MB in 1 file, plain", "7,344,384"):
        assert words in shown
    assert code(["inspect", "demo", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["sizes"]["hidden"] == 256


def test_verify(tmp_path, capsys):
    (tmp_path / "a").write_text("a")
    write_manifest(tmp_path, {})
    assert code(["verify", str(tmp_path)]) == 0
    (tmp_path / "b").write_text("b")
    assert code(["verify", str(tmp_path), "--format", "json"]) == 65
    last = capsys.readouterr().out.partition("\n")[2]
    assert json.loads(last) == {"intact": False, "differences": ["b is not in the manifest"]}
    assert code(["verify", str(tmp_path / "nowhere")]) == 66


@pytest.mark.parametrize("kind", ["recipes", "methods", "formats", "families"])
def test_list(kind, capsys):
    assert code(["list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert code(["list", kind, "--format", "json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert len(lines) == len(entries) + 1
    assert all(entry["name"] and entry["summary"] for entry in entries)


def test_list_prints_a_recipe_to_edit(capsys):
    assert code(["list", "recipes", "int4"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["name"] == "int4"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("recipes it4", "Did you mean 'int4'?"),
        ("methods gtpq", "Did you mean 'gptq'?"),
        ("families lama", "Did you mean 'llama'?"),
        ("formats int9", "int"),
    ],
)
def test_list_offers_the_nearest(words, hint, capsys):
    assert code(["list", *words.split()]) == 2
    assert hint in capsys.readouterr().err


def test_list_shows_any_format(capsys):
    assert code(["list", "formats", "int5-g48-affine"]) == 0
    assert "5.4" in capsys.readouterr().out


def test_schema(capsys):
    assert code(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["steps"]


def test_doctor(capsys):
    assert code(["doctor"]) == 0
    assert "✓ python" in capsys.readouterr().out
    assert code(["doctor", "--format", "json"]) == 0
    checks = json.loads(capsys.readouterr().out)
    assert {"whet", "memory", "extra compress", "executor"} <= {check["name"] for check in checks}
