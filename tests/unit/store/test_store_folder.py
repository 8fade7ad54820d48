"""Opening a folder: damaged, incomplete and hostile ones are named and refused before any work."""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whet.base.errors import FolderError, MissingError, UnsafeError, WhetError
from whet.store.folder import INDEX, SINGLE, Folder
from whet.store.refusals import code_requests
from whet.store.resolve import demo
from whet.store.writer import Shards, write_shard

SHARD = "model-00002-of-00003.safetensors"


def edit(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A small folder of three shards and an index."""
    folder = tmp_path / "model"
    folder.mkdir()
    shards = Shards(folder, max_bytes=400)
    for i in range(3):
        shards.put(f"t{i}", torch.full((100,), i, dtype=torch.float32))
    assert len(shards.finish()) == 4
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


@pytest.fixture
def single(tmp_path: Path) -> Path:
    folder = tmp_path / "single"
    shutil.copytree(demo(), folder)
    return folder


def test_opens_the_demo_without_reading_weights():
    began = time.process_time()
    folder = Folder(demo())
    assert time.process_time() - began < 0.5
    assert len(folder.tensors) == 74
    assert folder.config["model_type"] == "llama"
    assert folder.nbytes == (demo() / SINGLE).stat().st_size


def test_opens_shards(sharded: Path):
    folder = Folder(sharded)
    assert {name: stored.file for name, stored in folder.tensors.items()} == {
        f"t{i}": f"model-0000{i + 1}-of-00003.safetensors" for i in range(3)
    }
    assert folder.read("t2") == torch.full((100,), 2.0).numpy().tobytes()


def test_digest_covers_weights_and_side_files(single: Path):
    before = Folder(single).digest()
    assert {SINGLE, "config.json", "tokenizer.json"} <= before.keys()
    edit(single / "tokenizer_config.json", lambda c: c.update(model_max_length=7))
    changed = Folder(single).digest()
    assert {n for n in before if before[n] != changed[n]} == {"tokenizer_config.json"}


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "shard missing": (lambda f: (f / SHARD).unlink(), SHARD),
    "shard truncated": (lambda f: os.truncate(f / SHARD, 300), SHARD),
    "shard empty": (lambda f: os.truncate(f / SHARD, 0), SHARD),
    "extra shard": (
        lambda f: shutil.copy(f / SHARD, f / "model-00004-of-00003.safetensors"),
        "00004",
    ),
    "single file beside the index": (lambda f: shutil.copy(f / SHARD, f / SINGLE), SINGLE),
    "tensor missing in its shard": (
        lambda f: write_shard(f / SHARD, {"other": torch.zeros(2)}),
        "t1",
    ),
    "tensor extra in a shard": (
        lambda f: write_shard(f / SHARD, {"t1": torch.zeros(2), "extra": torch.zeros(2)}),
        "extra",
    ),
    "tensor twice": (
        lambda f: write_shard(f / SHARD, {"t1": torch.zeros(2), "t0": torch.zeros(2)}),
        "t0",
    ),
    "index names another shard": (
        lambda f: edit(
            f / INDEX, lambda i: i["weight_map"].update(t1="model-00001-of-00003.safetensors")
        ),  # type: ignore[attr-defined]
        "t1",
    ),
    "index without map": (lambda f: (f / INDEX).write_text("{}"), "weight_map"),
    "index with numbers": (
        lambda f: (f / INDEX).write_text('{"weight_map": {"t0": 1}}'),
        "weight_map",
    ),
    "index is no JSON": (lambda f: (f / INDEX).write_text("{"), "JSON"),
    "index with a key twice": (
        lambda f: (f / INDEX).write_text('{"weight_map": {"t0": "a", "t0": "b"}}'),
        "twice",
    ),
    "config missing": (lambda f: (f / "config.json").unlink(), "config.json"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "list"),
    "config is binary": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\0"), "JSON"),
    "config with a key twice": (
        lambda f: (f / "config.json").write_text('{"model_type": "a", "model_type": "b"}'),
        "twice",
    ),
    "config nested deeply": (
        lambda f: (f / "config.json").write_text('{"a":' * 90_000 + "1" + "}" * 90_000),
        "nested",
    ),
    "config is huge": (lambda f: (f / "config.json").write_text(" " * (9 << 20)), "bytes"),
    "shards without index": (lambda f: (f / INDEX).unlink(), INDEX),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(damage: str, sharded: Path):
    harm, named = DAMAGES[damage]
    harm(sharded)
    with pytest.raises(FolderError) as caught:
        Folder(sharded)
    assert named in caught.value.message
    assert caught.value.hint
    assert len(str(caught.value).splitlines()) <= 3


ESCAPES: dict[str, Callable[[Path], object]] = {
    name: lambda f, target=target: edit(f / INDEX, lambda i: i["weight_map"].update(t1=target))  # type: ignore[attr-defined, misc]
    for name, target in {
        "upwards": "../secret.safetensors",
        "absolute": "/etc/passwd",
        "subfolder": "sub/model.safetensors",
        "backslash": "..\\secret.safetensors",
        "drive": "C:secret.safetensors",
        "NUL": "a\0b",
        "dots": "..",
        "empty": "",
    }.items()
}


def linked(folder: Path, target: Path) -> None:
    (folder / SHARD).unlink(missing_ok=True)
    (folder / SHARD).symlink_to(target)


def piped(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)


ESCAPES |= {
    "link out": lambda f: (shutil.move(f / SHARD, f.parent / "x"), linked(f, f.parent / "x")),
    "link to a device": lambda f: linked(f, Path("/dev/zero")),
    "pipe as shard": lambda f: piped(f, SHARD),
    "pipe as config": lambda f: piped(f, "config.json"),
    "config linked out": lambda f: (
        shutil.move(f / "config.json", f.parent / "c"),
        (f / "config.json").symlink_to(f.parent / "c"),
    ),
}


@pytest.mark.parametrize("escape", ESCAPES)
def test_folders_stay_inside_themselves(escape: str, sharded: Path):
    (sharded.parent / "secret.safetensors").write_bytes((sharded / SHARD).read_bytes())
    ESCAPES[escape](sharded)
    with pytest.raises(UnsafeError):
        Folder(sharded)


def test_link_inside_the_folder_is_followed(sharded: Path):
    shutil.move(sharded / SHARD, sharded / "blob")
    (sharded / SHARD).symlink_to("blob")
    assert "t1" in Folder(sharded).tensors


def test_hub_cache_is_read(sharded: Path, tmp_path: Path):
    repository = tmp_path / "models--org--name"
    snapshot, blobs = repository / "snapshots" / "abc", repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sharded.iterdir()):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(Path("..") / ".." / "blobs" / str(number))
    assert len(Folder(snapshot).tensors) == 3


def test_paths_that_are_no_folder(tmp_path: Path):
    with pytest.raises(MissingError):
        Folder(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(FolderError, match="expected a model folder"):
        Folder(tmp_path / "file")


def test_a_gguf_file_may_be_meant_by_its_folder(tmp_path: Path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    for source in (tmp_path, tmp_path / "model.gguf"):
        with pytest.raises(FolderError, match="fewer than a header"):
            Folder(source)


def test_no_weights(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FolderError, match="no weights"):
        Folder(tmp_path)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "weights.pth", "model.ckpt", "w.npy", "m.pkl"]
)
def test_pickles_are_refused_with_what_to_do(name: str, tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(b"\x80\x04N.")
    with pytest.raises(UnsafeError) as caught:
        Folder(tmp_path)
    assert caught.value.code == 77
    assert name in caught.value.message
    assert "save_pretrained" in caught.value.hint


def test_pickles_beside_safetensors_are_ignored(single: Path):
    (single / "training_args.bin").write_bytes(b"\x80\x04N.")
    (single / "modeling_x.py").write_text("raise SystemExit")
    assert Folder(single).tensors


CODE: dict[str, tuple[str, dict[str, object]]] = {
    "auto_map in config": ("config.json", {"auto_map": {"AutoModel": "modeling_x.X"}}),
    "auto_map nested": ("config.json", {"text_config": {"auto_map": {"AutoConfig": "c.C"}}}),
    "auto_map in a list": ("config.json", {"parts": [{"auto_map": {"AutoConfig": "c.C"}}]}),
    "auto_map in tokenizer": (
        "tokenizer_config.json",
        {"auto_map": {"AutoTokenizer": ["t.T", None]}},
    ),
    "auto_map in processor": ("processor_config.json", {"auto_map": {"AutoProcessor": "p.P"}}),
    "auto_map in preprocessor": ("preprocessor_config.json", {"auto_map": {"A": "p.P"}}),
    "auto_map in generation": ("generation_config.json", {"auto_map": {"A": "p.P"}}),
    "auto_map in adapter": ("adapter_config.json", {"auto_map": {"A": "p.P"}}),
    "python file": ("config.json", {"loader": "evil.py"}),
    "model_file of mlx": ("config.json", {"model_file": "model"}),
    "hub kernel (CVE-2026-4372)": (
        "config.json",
        {"_attn_implementation_internal": "evil/kernel"},
    ),
    "attention kernel": ("config.json", {"_attn_implementation": "evil/kernel"}),
    "attention kernel, public": ("config.json", {"attn_implementation": "evil/kernel:f"}),
    "experts kernel": ("config.json", {"_experts_implementation_internal": "evil/k"}),
    "kernel config": ("config.json", {"kernel_config": {"RMSNorm": "evil/k"}}),
    "attention kernel of a part": (
        "config.json",
        {"text_config": {"_attn_implementation_internal": "evil/kernel"}},
    ),
    "attention kernel by part": ("config.json", {"_attn_implementation": {"text": "evil/kernel"}}),
}


@pytest.mark.parametrize("case", CODE)
def test_code_is_refused(case: str, single: Path):
    name, keys = CODE[case]
    path = single / name
    config = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(config | keys))
    with pytest.raises(UnsafeError) as caught:
        Folder(single)
    assert caught.value.code == 77
    assert name in caught.value.message


def test_harmless_private_settings_are_allowed(single: Path):
    harmless = {
        "_name_or_path": "org/name",
        "_model_name_or_path": "org/name",
        "_trainer": {"name": "sft"},
        "time_step_limit": [0.0, {"__float__": "Infinity"}],
        "__float__": "NaN",
        "_attn_implementation_autoset": True,
        "_attn_implementation": "sdpa",
        "_sliding_window_pattern": 6,
        "_commit_hash": None,
        "auto_map": {},
    }
    edit(single / "config.json", lambda c: c.update(harmless))
    assert Folder(single).tensors


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(value=json_values)
def test_auto_map_is_found_wherever_it_lies(value: object):
    hidden = {"outer": [value, {"deep": {"auto_map": {"AutoModel": "m.M"}}}]}
    assert list(code_requests(hidden))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_mutated_configurations_never_crash(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    folder = tmp_path_factory.getbasetemp() / "mutated-folder"
    folder.mkdir(exist_ok=True)
    write_shard(folder / SINGLE, {"a": torch.zeros(2)})
    text = bytearray(b'{"model_type": "llama", "hidden_size": 8, "rope": {"theta": 1.5}}')
    position = data.draw(st.integers(0, len(text) - 1))
    text[position : position + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    (folder / "config.json").write_bytes(bytes(text))
    with contextlib.suppress(WhetError):
        assert list(Folder(folder).tensors) == ["a"]


STRAYS = {
    "trainer_state.json": '{"log_history": [{"loss": NaN}]}',
    "sample_prompts.json": '["hello", "world"]',
    "all_results.json": '{"eval_loss": 1, "eval_loss": 1}',
    "recipe_state.json": '{"_target_": "trl.SFTTrainer", "script": "train.py"}',
    "broken.json": "{",
}


@pytest.mark.parametrize("name", STRAYS)
def test_files_that_no_loader_reads_do_not_matter(name: str, single: Path):
    (single / name).write_text(STRAYS[name])
    folder = Folder(single)
    assert folder.left_out == (name,)
    assert name not in folder.digest()


def test_a_stale_index_beside_one_whole_file_is_not_read(single: Path):
    (single / INDEX).write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    assert Folder(single).tensors == Folder(demo()).tensors


def test_an_index_may_name_a_head_that_is_the_embedding(sharded: Path):
    edit(
        sharded / INDEX,
        lambda i: i["weight_map"].update({"lm_head.weight": SHARD}),  # type: ignore[attr-defined]
    )
    with pytest.raises(FolderError, match="does not") as caught:
        Folder(sharded)
    assert "different uploads" in caught.value.hint
    edit(sharded / "config.json", lambda c: c.update(tie_word_embeddings=True))
    assert len(Folder(sharded).tensors) == 3
