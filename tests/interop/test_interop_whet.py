"""Folders in whet's own dialect: transformers loads them after `import whet`."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.interop.folders import (
    Chosen,
    blocks,
    round_to_nearest,
    shortened,
    tokens_of,
    whet_logits,
)
from tests.unit.model.tiny import CASES, reference, tokens

from whet.formats.activation import parse_activation
from whet.formats.spec import parse
from whet.store.folder import Folder
from whet.store.resolve import demo
from whet.store.scheme import Scheme

transformers = pytest.importorskip("transformers")
FORMATS = ["nf4-g64", "log4-g64", "codebook4-channel", "apot4-g64", "fp8-e5m2-channel", "mxfp8",
           "int2-g64 + int2-g64", "int8-tensor-affine", "log4-g64-tuned"]  # fmt: skip
CHOSEN_CASES = ["gemma3", "phi3", "gpt2", "opt", "mixtral", "qwen3_moe"]


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shortened(tmp_path_factory.mktemp("short") / "demo")


def everywhere(format_: str, inputs: str | None = None) -> Chosen:
    """The blocks' linears in a format, embedding and head too, without inputs there."""
    inner = Scheme(parse(format_), parse_activation(inputs) if inputs else None)
    outer = Scheme(parse(format_))
    return lambda site: inner if site.layer is not None else outer


def loaded(folder: Path, **options: Any) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, **({"dtype": torch.float32} | options)
    )


@torch.inference_mode()
def agree(folder: Path, ids: torch.Tensor, model: Any = None) -> bool:
    ours = whet_logits(folder, ids)
    found = (model or loaded(folder))(ids).logits
    return float((found - ours).abs().max()) <= 1e-3 * float(ours.std())


@pytest.mark.parametrize("format_", FORMATS)
def test_formats(format_: str, short: Path, tmp_path: Path):
    choice = round_to_nearest(short, tmp_path / "m", blocks(format_))
    assert choice.dialect.name == "whet"
    assert agree(tmp_path / "m", tokens_of(demo()))


@pytest.mark.parametrize("format_", ["int4-g64", "nf4-g64"])
def test_tied_embedding_is_stored_once_and_stays_tied(format_: str, short: Path, tmp_path: Path):
    round_to_nearest(short, tmp_path / "m", everywhere(format_))
    folder = Folder(tmp_path / "m")
    assert folder.config["tie_word_embeddings"] is True
    assert not any(name.startswith("lm_head") for name in folder.tensors)
    assert "model.embed_tokens.weight" not in folder.tensors
    model = loaded(tmp_path / "m")
    assert agree(tmp_path / "m", tokens_of(demo()), model)
    assert model.lm_head.weight.equal(model.model.embed_tokens.weight)
    assert not any(name.startswith("lm_head") for name in model.state_dict())


@pytest.mark.parametrize("inputs", ["int8-g128", "int8-g64-affine", "int8-token", "fp8-e4m3-g128"])
def test_inputs(inputs: str, short: Path, tmp_path: Path):
    choice = round_to_nearest(short, tmp_path / "m", everywhere("nf4-g64", inputs))
    assert choice.dialect.name == "whet"
    assert agree(tmp_path / "m", tokens_of(demo()))


def test_only_inputs(short: Path, tmp_path: Path):
    choice = round_to_nearest(
        demo(), tmp_path / "m", blocks("bf16", parse_activation("int8-token"))
    )
    assert choice.dialect.name == "whet"
    assert agree(tmp_path / "m", tokens_of(demo()))


OTHER_CASES = [
    pytest.param(case, marks=pytest.mark.slow) for case in sorted(set(CASES) - set(CHOSEN_CASES))
]


@pytest.mark.parametrize("case", [*CHOSEN_CASES, *OTHER_CASES])
def test_families(case: str, tmp_path: Path):
    reference(case).save_pretrained(tmp_path / "source")
    choice = round_to_nearest(tmp_path / "source", tmp_path / "m", everywhere("nf4-g16"))
    assert choice.dialect.name == "whet"
    assert agree(tmp_path / "m", tokens(9))


def test_some_blocks_of_experts_may_stay_plain(tmp_path: Path):
    reference("mixtral").save_pretrained(tmp_path / "source")
    scheme = Scheme(parse("nf4-g16"))
    round_to_nearest(
        tmp_path / "source", tmp_path / "m", lambda site: scheme if site.layer == 1 else None
    )
    assert agree(tmp_path / "m", tokens(9))


@pytest.mark.parametrize("case", ["demo", "mixtral"])
def test_saving_and_loading_again(case: str, short: Path, tmp_path: Path):
    source, ids = short, tokens_of(demo())
    if case != "demo":
        reference(case).save_pretrained(tmp_path / "source")
        source, ids = tmp_path / "source", tokens(9)
    round_to_nearest(source, tmp_path / "m", everywhere("nf4-g16"))
    loaded(tmp_path / "m").save_pretrained(tmp_path / "again")
    assert agree(tmp_path / "m", ids, loaded(tmp_path / "again"))


def test_generation_and_dtype(short: Path, tmp_path: Path):
    round_to_nearest(short, tmp_path / "m", everywhere("nf4-g64"))
    model, prompt = loaded(tmp_path / "m"), tokens_of(demo(), batch=1, time=6)
    options: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None}
    out = model.generate(prompt, max_new_tokens=8, pad_token_id=0, **options)
    logits = whet_logits(tmp_path / "m", out[:, :-1])
    assert out[0, 6:].equal(logits[0, 5:].argmax(-1))
    half = loaded(tmp_path / "m", dtype="auto")
    assert half(prompt).logits.dtype == torch.bfloat16
    planes = {n: b.clone() for n, b in half.named_buffers() if "weight_" in n}
    half.to(torch.float32)
    assert all(half.get_buffer(name).equal(plane) for name, plane in planes.items())
    assert half(prompt).logits.dtype == torch.float32


def test_a_module_that_the_model_lacks(short: Path, tmp_path: Path):
    from whet.base.errors import FolderError
    from whet.store.durable import write_json

    round_to_nearest(short, tmp_path / "m", blocks("nf4-g64"))
    config = dict(Folder(tmp_path / "m").config)
    config["quantization_config"]["schemes"][0]["modules"].append("model.layers.99.mlp.up_proj")
    write_json(tmp_path / "m" / "config.json", config)
    with pytest.raises(FolderError, match=r"layers\.99"):
        loaded(tmp_path / "m")


ORDERS = {
    "whet first": "import whet, transformers",
    "transformers first": "import transformers; transformers.AutoModelForCausalLM; import whet",
    "all of transformers first": "import transformers.modeling_utils; import whet",
    "twice": "import whet; from whet.store.hook import install; install(); import transformers",
}


@pytest.mark.parametrize("order", ORDERS)
def test_order_of_imports_does_not_matter(order: str, short: Path, tmp_path: Path):
    round_to_nearest(short, tmp_path / "m", blocks("nf4-g64"))
    code = f"""
        {ORDERS[order]}
        import torch
        from transformers import AutoModelForCausalLM
        model = AutoModelForCausalLM.from_pretrained({str(tmp_path / "m")!r}, dtype=torch.float32)
        print(type(model.model.layers[0].mlp.up_proj).__name__)
    """
    done = subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", textwrap.dedent(code)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout.strip() == "CompressedLinearLinear", done.stderr[-500:]
