"""Folders as people have them are read as transformers reads them: all families."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.unit.model.tiny import reference, source, tokens
from torch import Tensor
from transformers import AutoModelForCausalLM

from whet.base.errors import FolderError, UnsafeError, UnsupportedError
from whet.model.account import ADAPTER, BUFFER, TIED, UNREAD, account, alone, grouped
from whet.model.decoder import load
from whet.model.family import families, find
from whet.model.opened import opened
from whet.recipe.anatomy import anatomy
from whet.store.checkpoint import Checkpoint
from whet.store.folder import Folder
from whet.store.resolve import demo
from whet.store.side_files import copy_side_files

Tensors = dict[str, Tensor]
Change = Callable[[Tensors], Tensors]
FAMILIES = sorted(families())


def written(path: Path, family: str, change: Change, **fields: object) -> Path:
    """Write the tiny model of a family as a folder whose tensors somebody has changed."""
    held = source(family)
    path.mkdir(parents=True, exist_ok=True)
    tensors = change({name: tensor.clone() for name, tensor in held.tensors.items()})
    save_file(
        {k: v.clone().contiguous() for k, v in tensors.items()},
        path / "model.safetensors",
        {"format": "pt"},
    )
    config = {k: v for k, v in (dict(held.config) | fields).items() if v is not ...}
    (path / "config.json").write_text(json.dumps(config))
    return path


@torch.no_grad()
def distance(path: Path) -> float:
    """Return how far whet's logits are from those of transformers."""
    x = tokens(9)
    expected = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()(x).logits
    return float((load(Checkpoint(opened(path)))(x) - expected).abs().max())


def base_of(family: str) -> str:
    return reference(family).base_model_prefix + "."


def ends_of(family: str) -> tuple[str, str]:
    known = families()[family]
    arch = known.architecture(source(family).config)
    return f"{known.module(arch, 'embed')}.weight", f"{known.module(arch, 'head')}.weight"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_model_and_one_with_a_prefix_too_many_are_read(family: str, tmp_path: Path):
    base = base_of(family)
    bare = written(
        tmp_path / "bare", family, lambda t: {k.removeprefix(base): v for k, v in t.items()}
    )
    assert not any(name.startswith(base) for name in Folder(bare).tensors)
    assert distance(bare) < 1e-4
    twice = written(
        tmp_path / "twice",
        family,
        lambda t: {base + k.replace("embed_out", "lm_head"): v for k, v in t.items()},
    )
    assert set(opened(twice).tensors) == set(opened(bare).tensors) == set(source(family).tensors)
    assert distance(twice) < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_of_the_file_is_used(family: str, tmp_path: Path):
    embed, head = ends_of(family)

    def with_head(t: Tensors) -> Tensors:
        return t | {head: torch.randn(t[embed].shape, generator=torch.Generator().manual_seed(4))}

    differs = written(tmp_path / "differs", family, with_head, tie_word_embeddings=True)
    assert opened(differs).config["tie_word_embeddings"] is False
    assert distance(differs) < 1e-4
    assert head in anatomy(opened(differs)).account.used
    copy = written(
        tmp_path / "copy", family, lambda t: t | {head: t[embed].clone()}, tie_word_embeddings=True
    )
    assert opened(copy).config["tie_word_embeddings"] is True
    assert distance(copy) < 1e-4
    assert anatomy(opened(copy)).account.left_out == {head: TIED}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_stands_for_the_embedding_and_none_is_invented(family: str, tmp_path: Path):
    embed, head = ends_of(family)

    def only_head(t: Tensors) -> Tensors:
        return {k: v for k, v in t.items() if k != embed} | {head: t[embed]}

    assert distance(written(tmp_path / "a", family, only_head, tie_word_embeddings=True)) < 1e-4
    none = written(
        tmp_path / "b",
        family,
        lambda t: {k: v for k, v in t.items() if k != head},
        tie_word_embeddings=False,
    )
    with pytest.raises(FolderError, match="tie_word_embeddings is false"):
        anatomy(opened(none))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_is_used_copied_or_left_out(family: str, tmp_path: Path):
    known, held = families()[family], source(family)
    arch = known.architecture(held.config, held.names())
    block = known.blocks(arch)
    extra = {
        f"{block}0.attn.rotary_emb.inv_freq": BUFFER,
        f"base_model.model.{block}0.q.lora_A.weight": ADAPTER,
        f"{block}0.unheard.bias": UNREAD,
    }
    copied = {f"{block}{arch.layers}.eh_proj.weight", "mtp.fc.weight", "vision_tower.proj.weight"}
    names = dict.fromkeys([*extra, *copied], torch.ones(4))
    path = written(tmp_path, family, lambda t: t | names, num_nextn_predict_layers=1)
    folder = opened(path)
    found = anatomy(folder).account
    assert found.left_out == extra
    assert set(found.copied) == copied
    assert found.used | found.copied.keys() | found.left_out.keys() == folder.tensors.keys()
    assert not found.alone.copied
    assert found.alone.left_out.keys() == {*extra, *copied}
    assert "num_nextn_predict_layers" not in alone(folder.config)
    assert distance(path) < 1e-4


def test_blocks_that_nothing_tells_of_are_refused(tmp_path: Path):
    more = {"model.layers.2.mlp.up_proj.weight": torch.ones(4)}
    with pytest.raises(FolderError, match="beyond the 2 blocks"):
        anatomy(opened(written(tmp_path, "llama", lambda t: t | more)))


def test_biases_that_the_config_does_not_call_for_are_named(tmp_path: Path):
    more = {f"model.layers.{i}.self_attn.q_proj.bias": torch.ones(32) for i in range(2)}
    path = written(tmp_path, "llama", lambda t: t | more)
    assert distance(path) < 1e-4
    lines = grouped(anatomy(opened(path)).account)
    assert lines == (("model.layers.*.self_attn.q_proj.bias (2)", "left out", UNREAD),)


def test_scales_of_a_dialect_count_as_used():
    held = source("llama")
    family = find(held.config)
    arch = family.architecture(held.config, held.names())
    scale = "model.layers.0.mlp.up_proj.weight_scale_inv"
    found = account(
        family, arch, {"quantization_config": {"quant_method": "fp8"}}, [*held.names(), scale]
    )
    assert scale in found.used


@pytest.mark.parametrize("family", FAMILIES)
def test_code_of_a_family_of_ours_is_not_needed(family: str, tmp_path: Path):
    own = {"AutoConfig": "configuration_x.Config", "AutoModelForCausalLM": "modeling_x.Model"}
    path = written(tmp_path, family, dict, auto_map=own)
    (path / "modeling_x.py").write_text("raise SystemExit")
    assert "auto_map" not in opened(path).config
    assert distance(path) < 1e-4
    with pytest.raises(UnsafeError):
        opened(written(tmp_path, family, dict, auto_map=own, model_type="other"))


@pytest.mark.parametrize("name", ["tok.XTokenizer", ["tok.XTokenizer", None], [None, "tok.X"]])
def test_code_of_a_tokenizer_is_not_needed_beside_its_file(name: object, tmp_path: Path):
    path = written(tmp_path, "llama", dict)
    settings = {
        "auto_map": {"AutoTokenizer": name},
        "tokenizer_class": "XTokenizer",
        "eos_token": "<e>",
    }
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    (path / "tok.py").write_text("raise SystemExit")
    with pytest.raises(UnsafeError) as refused:
        opened(path)
    assert "has no tokenizer.json" in refused.value.hint
    (path / "tokenizer.json").write_bytes((demo() / "tokenizer.json").read_bytes())
    copy_side_files(opened(path), into := tmp_path / "into")
    found = json.loads((into / "tokenizer_config.json").read_text())
    own = "XTokenizer" in str(name)
    assert found == {
        "tokenizer_class": "PreTrainedTokenizerFast" if own else "XTokenizer",
        "eos_token": "<e>",
    }
    assert not (into / "tok.py").exists()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_head_is_named(family: str, tmp_path: Path):
    held = source(family)
    known, untied = find(held.config), {**held.config, "tie_word_embeddings": False}
    head = known.modules["head"]
    names = [name for name in held.names() if not name.startswith(head)]
    with pytest.raises(FolderError, match=f"no tensor {head}.weight"):
        known.architecture(untied, names)
    for tied in (True, False):
        with pytest.raises(UnsupportedError, match=f"without a head .*{head}.weight"):
            find({**held.config, "architectures": ["XModel"], "tie_word_embeddings": tied})
    with pytest.raises(UnsupportedError, match="another task"):
        find({**held.config, "architectures": ["XForSequenceClassification"]})


def test_positions_by_layer_type_are_read_or_refused():
    held, kind = source("llama"), {"rope_type": "default", "rope_theta": 77.0}
    family = find(held.config)
    alike = {"full_attention": kind, "sliding_attention": kind}
    arch = family.architecture({**held.config, "rope_parameters": alike})
    assert arch.rope is not None
    assert arch.rope.theta == 77.0
    unlike = {"full_attention": kind, "sliding_attention": kind | {"rope_theta": 5.0}}
    with pytest.raises(UnsupportedError, match="the same for all layers"):
        family.architecture({**held.config, "rope_parameters": unlike})
