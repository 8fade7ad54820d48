"""Folders in compressed-tensors: transformers with that package computes what whet computes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.interop.folders import blocks, round_to_nearest, shortened, tokens_of, whet_logits
from tests.unit.model.tiny import reference, tokens

from whet.formats.activation import parse_activation
from whet.formats.spec import parse
from whet.model.family import find
from whet.store.checkpoint import Checkpoint
from whet.store.folder import Folder
from whet.store.resolve import demo
from whet.store.scheme import Scheme

pytest.importorskip("compressed_tensors")
transformers = pytest.importorskip("transformers")
TOLERANCE = 1e-3  # of the logits' spread
UNTIED = ("llama", "mixtral")

WEIGHTS = ["int4-g64", "int3-g64", "int2-g32", "int5-channel", "int8-channel", "int8-tensor",
           "int4-g32-f16", "fp8-e4m3-channel", "fp8-e4m3-tensor"]  # fmt: skip
AFFINE = ["int4-g64-affine", "int3-g64-affine", "int8-channel-affine"]
FP4 = ["mxfp4", "nvfp4"]
INPUTS = [
    ("int8-channel", "int8-token"),
    ("int8-channel", "int8-token-affine"),
    ("int8-channel", "int8-tensor"),
    ("int8-channel", "int8-tensor-static"),
    ("int8-channel", "int8-tensor-affine-static"),
    ("int8-channel-affine", "int8-token"),
    ("int8-channel", "int16-g32"),  # which they keep in 16 bits as it is
    ("int4-g64", "int8-token"),
    ("fp8-e4m3-channel", "fp8-e4m3-token"),
    ("fp8-e4m3-tensor", "fp8-e4m3-tensor-static"),
]


@torch.inference_mode()
def theirs(folder: Path, ids: torch.Tensor, **options: Any) -> torch.Tensor:
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, **({"dtype": torch.float32} | options)
    )
    return model(ids).logits


def agree(folder: Path, ids: torch.Tensor, tolerance: float = TOLERANCE, **options: Any) -> bool:
    ours = whet_logits(folder, ids)
    found = theirs(folder, ids, **options)
    near = float((found - ours).abs().max()) <= tolerance * float(ours.std())
    return near and found.dtype == torch.float32


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shortened(tmp_path_factory.mktemp("short") / "demo")


def rounded(source: Path, folder: Path, format_: str, inputs: str | None = None) -> Path:
    """A model in a format; it must have been written in compressed-tensors."""
    act = parse_activation(inputs) if inputs else None
    scales = {s: torch.tensor([0.05, 3.0][: 1 + bool(act and act.affine)]) for s in modules(source)}
    choice = round_to_nearest(source, folder, blocks(format_, act), scales)
    assert choice.dialect.name == "compressed-tensors"
    return folder


def modules(folder: Path) -> list[str]:
    opened = Folder(folder)
    family = find(opened.config)
    return [s.module for s in family.sites(family.architecture(opened.config, opened.tensors))]


@pytest.mark.parametrize("format_", WEIGHTS)
def test_weights(format_: str, short: Path, tmp_path: Path):
    assert agree(rounded(short, tmp_path / "m", format_), tokens_of(demo()))


@pytest.mark.parametrize("format_", AFFINE)
def test_zero_points(format_: str, short: Path, tmp_path: Path):
    assert agree(rounded(short, tmp_path / "m", format_), tokens_of(demo()))


@pytest.mark.parametrize("format_", FP4)
def test_four_bit_floats(format_: str, short: Path, tmp_path: Path):
    """Decoded to bfloat16 there whatever dtype is asked for; `dequantize` then casts to it."""
    whole = transformers.CompressedTensorsConfig(dequantize=True)
    with pytest.warns(UserWarning, match="quantization_config"):
        assert agree(
            rounded(short, tmp_path / "m", format_), tokens_of(demo()), quantization_config=whole
        )


@pytest.mark.parametrize(("format_", "inputs"), INPUTS)
def test_inputs(format_: str, inputs: str, short: Path, tmp_path: Path):
    assert agree(rounded(short, tmp_path / "m", format_, inputs), tokens_of(demo()))


def test_default_loading_is_bfloat16(short: Path, tmp_path: Path):
    folder, ids = rounded(short, tmp_path / "m", "nvfp4"), tokens_of(demo())
    found = theirs(folder, ids, dtype="auto").float()
    ours = whet_logits(folder, ids)
    assert float((found - ours).abs().max()) < 0.06 * float(ours.std())


def test_mixed_schemes_and_shards(short: Path, tmp_path: Path):
    schemes = {
        "mlp.down": Scheme(parse("int8-channel"), parse_activation("int8-token")),
        "mlp.up": Scheme(parse("int3-g64")),
        "attn.q": Scheme(parse("fp8-e4m3-channel")),
    }
    choice = round_to_nearest(
        short, tmp_path / "m", lambda site: schemes.get(site.role), max_bytes=2_000_000
    )
    assert choice.dialect.name == "compressed-tensors"
    assert len(list((tmp_path / "m").glob("*.safetensors"))) > 2
    assert agree(tmp_path / "m", tokens_of(demo()))


@pytest.mark.parametrize("case", ["gemma3", "phi3", "gpt_neox", "opt"])
def test_families(case: str, tmp_path: Path):
    reference(case).save_pretrained(tmp_path / "source")
    choice = round_to_nearest(tmp_path / "source", tmp_path / "m", blocks("int4-g16"))
    assert choice.dialect.name == "compressed-tensors"
    assert agree(tmp_path / "m", tokens(9))


@pytest.mark.parametrize("case", ["mixtral", "qwen3_moe"])
def test_experts(case: str, tmp_path: Path):
    """Experts are decoded in the scales' type as they are joined: exact where that is float32."""
    reference(case).save_pretrained(tmp_path / "source")
    for format_, tolerance in (("int4-channel-f32", TOLERANCE), ("int4-channel", 0.06)):
        folder = tmp_path / format_
        choice = round_to_nearest(tmp_path / "source", folder, blocks(format_))
        assert choice.dialect.name == "compressed-tensors"
        assert agree(folder, tokens(9), tolerance)


@pytest.mark.parametrize("case", ["llama-tied", "llama", "gemma3", "mixtral"])
def test_embedding_and_head_in_eight_bits(case: str, tmp_path: Path):
    """A tied head shares the codes; experts keep a scheme of their own."""
    reference(case).save_pretrained(tmp_path / "source")
    inner, outer = Scheme(parse("int4-g16-f32")), Scheme(parse("int8-g16-f32"))
    choice = round_to_nearest(
        tmp_path / "source", tmp_path / "m", lambda site: outer if site.layer is None else inner
    )
    assert choice.dialect.name == "compressed-tensors"
    assert ("lm_head.weight_packed" in Folder(tmp_path / "m").tensors) == (case in UNTIED)
    assert agree(tmp_path / "m", tokens(9))


def test_folder_written_by_compressed_tensors_is_read(short: Path, tmp_path: Path):
    """What transformers saves again is another's checkpoint, and reads the same."""
    folder = rounded(short, tmp_path / "m", "int4-g64")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "again")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "again" / name).write_bytes((folder / name).read_bytes())
    ids = tokens_of(demo())
    assert whet_logits(tmp_path / "again", ids).equal(whet_logits(folder, ids))


def test_the_whole_demo_and_its_size(tmp_path: Path):
    assert agree(rounded(demo(), tmp_path / "m", "int4-g64"), tokens_of(demo()))
    folder = Folder(tmp_path / "m")
    stored = sum(s.info.nbytes for n, s in folder.tensors.items() if ".layers." in n)
    plain = sum(s.info.nbytes for n, s in Folder(demo()).tensors.items() if ".layers." in n)
    assert stored < 0.27 * plain
    assert Checkpoint(folder).config["quantization_config"]["ignore"] == [
        "lm_head",
        "model.embed_tokens",
    ]
