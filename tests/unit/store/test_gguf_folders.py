"""GGUF as it lies on disks: parts of a model, folders that hold one, other layouts of tensors."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as t
from numpy.typing import NDArray
from tests.gguf_files import Numbers, converted
from tests.unit.store.test_gguf_models import TINY, saved

from whet import api
from whet.base.errors import FolderError, UnsupportedError, WhetError
from whet.runtime.engine import load
from whet.store.folder import Folder
from whet.store.resolve import demo
from whet.store.tokenizer import Tokenizer

IDS = np.arange(30) % 96
Tensors = dict[str, Numbers]


def logits(source: Path) -> NDArray[np.float32]:
    return load(source, "reference").logits(IDS)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("mixtral", tmp_path_factory.mktemp("mixtral"))


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first part of the demo in several."""
    folder = tmp_path_factory.mktemp("split")
    converted(demo(), folder / "m.gguf", "Q8_0", parts=30)
    return folder / "m-00001-of-00003.gguf"


def test_a_model_in_parts_is_the_same_model(split: Path, tmp_path: Path) -> None:
    whole = converted(demo(), tmp_path / "m.gguf", "Q8_0")
    assert len(list(split.parent.iterdir())) == 3
    expected = logits(whole)
    for source in (split, split.with_name("m-00003-of-00003.gguf"), split.parent):
        assert np.array_equal(logits(source), expected)
        assert Tokenizer(source).encode("Once") == Tokenizer(whole).encode("Once")
    assert api.inspect(split).shards == 3
    assert api.inspect(split).schemes == api.inspect(whole).schemes


def test_parts_that_are_missing_or_mixed_up_are_named(split: Path, tmp_path: Path) -> None:
    def copied(*numbers: int) -> Path:
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        for place, number in enumerate(numbers, 1):
            name = f"m-{number:05}-of-00003.gguf"
            shutil.copy(split.with_name(name), tmp_path / f"m-{place:05}-of-00003.gguf")
        return tmp_path / "m-00001-of-00003.gguf"

    with pytest.raises(FolderError, match=r"m-00003-of-00003\.gguf is missing"):
        Folder(copied(1, 2))
    with pytest.raises(FolderError, match=r"00002-of-00003\.gguf says that it is part 2"):
        Folder(copied(1, 3, 2))
    alone = shutil.copy(split, tmp_path / "alone.gguf")
    with pytest.raises(FolderError, match=r"alone\.gguf is one of 3 parts"):
        Folder(Path(alone))


def test_folders_that_hold_one_model_are_that_model(llama: Path, tmp_path: Path) -> None:
    file = converted(llama, tmp_path / "model-Q4_0.gguf", "Q4_0")
    expected = logits(file)
    shutil.copy(file, tmp_path / "mmproj-model-f16.gguf")
    shutil.copy(llama / "config.json", tmp_path)
    assert np.array_equal(logits(tmp_path), expected)
    shutil.copy(file, tmp_path / "model-Q8_0.gguf")
    with pytest.raises(
        UnsupportedError, match=r"holds 2 models: model-Q4_0\.gguf, model-Q8_0"
    ) as e:
        Folder(tmp_path)
    assert str(tmp_path / "model-Q4_0.gguf") in str(e.value.hint)


def test_files_are_known_by_how_they_begin(llama: Path, tmp_path: Path) -> None:
    file = converted(llama, tmp_path / "model.gguf")
    blob = file.rename(tmp_path / "sha256-0123")
    assert len(Folder(blob).tensors) == len(Folder(llama).tensors)


def test_checkpoints_with_a_gguf_file_beside_stay_checkpoints(llama: Path, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path / "m")
    converted(llama, tmp_path / "m" / "x.gguf")
    assert list(Folder(tmp_path / "m").shards) == ["model.safetensors"]


def test_a_vision_tower_alone_is_no_model(llama: Path, tmp_path: Path) -> None:
    converted(llama, tmp_path / "mmproj.gguf")
    with pytest.raises(WhetError, match=r"mmproj\.gguf"):
        Folder(tmp_path)


def joined(names: dict[str, tuple[str, ...]], axis: int) -> Callable[[Tensors], Tensors]:
    """Lay some tensors of each block end to end in one."""

    def change(found: Tensors) -> Tensors:
        for whole, some in names.items():
            for name in [n for n in found if f".{some[0]}." in n]:
                each = [found.pop(name.replace(some[0], one)) for one in some]
                found[name.replace(some[0], whole)] = np.concatenate(each, axis)
        return found

    return change


def apart(found: Tensors) -> Tensors:
    """Experts as files of 2023 have them: a tensor for each."""
    changed: Tensors = {}
    for name, value in found.items():
        if "_exps." in name:
            for number, one in enumerate(value):
                changed[name.replace("_exps.", f".{number}.")] = one
        else:
            changed[name] = value
    return changed


QKV = joined({"attn_qkv": ("attn_q", "attn_k", "attn_v")}, 0)
GATE_UP = joined({"ffn_gate_up_exps": ("ffn_gate_exps", "ffn_up_exps")}, 1)


@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_tensors_that_lie_together_or_apart_are_the_same(
    kind: str, llama: Path, mixtral: Path, tmp_path: Path
) -> None:
    for source, change in ((llama, QKV), (mixtral, QKV), (mixtral, GATE_UP), (mixtral, apart)):
        usual = converted(source, tmp_path / "usual.gguf", kind)
        other = converted(source, tmp_path / "other.gguf", kind, change=change)
        assert np.array_equal(logits(other), logits(usual))


@pytest.mark.parametrize("name", ["llama", "mixtral", "gpt2", "pythia", "qwen3_moe", "phi3"])
def test_blocks_mean_what_their_plain_numbers_mean(name: str, tmp_path: Path) -> None:
    file = converted(saved(name, tmp_path), tmp_path / "x.gguf", "Q8_0", kinds={"ffn": "Q5_0"})
    planes, numbers = Folder(file), Folder(file, dense=True)
    assert "quantization_config" not in numbers.config
    formats = {s["format"] for s in planes.config["quantization_config"]["schemes"]}
    assert formats == {"int8-g32-f16", "int5-g32-f16"}
    from whet.model.decoder import load as model_of
    from whet.store.checkpoint import Checkpoint

    ids = torch.from_numpy(IDS)[None]
    with torch.inference_mode():
        found, expected = (model_of(Checkpoint(one))(ids) for one in (planes, numbers))
    assert found.equal(expected)


def test_a_matrix_of_nvfp4_has_a_scale_of_its_own(tmp_path: Path) -> None:
    config = t.LlamaConfig(**TINY | {"hidden_size": 64, "intermediate_size": 128})
    torch.manual_seed(0)
    t.AutoModelForCausalLM.from_config(config).float().save_pretrained(tmp_path)

    def scaled(found: Tensors) -> Tensors:
        scales = {
            name.replace(".weight", ".scale"): np.asarray([0.25], np.float32)
            for name in found
            if "ffn_up" in name
        }
        return found | scales | {"blk.0.ffn_up.input_scale": np.ones(1, np.float32)}

    usual = Folder(converted(tmp_path, tmp_path / "a.gguf", "NVFP4"), dense=True)
    file = converted(tmp_path, tmp_path / "b.gguf", "NVFP4", change=scaled)
    other, name = Folder(file, dense=True), "model.layers.1.mlp.up_proj.weight"
    whole, quarter = (np.frombuffer(f.read(name), np.float32) for f in (usual, other))
    assert np.array_equal(quarter, whole / 4)
    plane = Folder(file).read(name.replace(".weight", ".weight_global"))
    assert np.frombuffer(plane, np.float32).tolist() == [0.25]
    with pytest.raises(UnsupportedError, match=r"scales all of blk\.\d\.ffn_up"):
        Folder(converted(tmp_path, tmp_path / "c.gguf", "Q8_0", change=scaled))


def test_verify_reads_every_number(llama: Path, tmp_path: Path) -> None:
    good = converted(llama, tmp_path / "good.gguf", "Q4_0")
    assert api.verify(good) == []

    def broken(found: Tensors) -> Tensors:
        found["output_norm.weight"][3] = np.nan
        return found

    bad = converted(llama, tmp_path / "bad.gguf", "Q4_0", change=broken)
    (difference,) = api.verify(bad)
    assert "model.norm.weight is not finite at [3]" in difference


def test_tensors_that_are_nothing_are_named(llama: Path, tmp_path: Path) -> None:
    for name in ("blk.0.nextn.eh_proj.weight", "blk.0.ffn_gate_exps.weight", "adapter.weight"):
        strange = {name: np.ones((4, 64), np.float32)}
        file = converted(llama, tmp_path / "x.gguf", change=lambda found, s=strange: found | s)
        with pytest.raises(FolderError, match=name):
            Folder(file)
    for name in ("blk.0.attn_qkv.weight", "blk.0.attn_q.weight"):
        wrong = {name: np.ones((130, 64), np.float32)}
        file = converted(llama, tmp_path / "x.gguf", change=lambda found, w=wrong: found | w)
        with pytest.raises(WhetError):
            logits(file)
