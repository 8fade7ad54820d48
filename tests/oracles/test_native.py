"""The native executor equals the torch engine: every family, many formats, any cut into steps."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit.model.tiny import CASES, tokens

from whet.formats.keeping import KEEPINGS, Keeping
from whet.kernels.native import missing
from whet.model.decoder import load as load_model
from whet.runtime.executor import Logits
from whet.store.checkpoint import Checkpoint
from whet.store.folder import Folder

if missing() is not None:
    pytest.skip(str(missing()), allow_module_level=True)

from tests.native_folders import native, rounding, saved, tiny

from whet.kernels.native import native as extension
from whet.model.rope import frequencies as by_torch
from whet.runtime.native import Native, Piece
from whet.store.resolve import demo

LENGTH = 21
GROWING = {"llama-dynamic": 12}  # the most it takes
TURNED = {"phi3-longrope": 16}  # beyond this length all positions are turned anew
SOME = ["llama", "mistral", "gemma2", "gpt_neox", "opt", "mixtral", "qwen3_moe-some", "phi3"]
EXACT = 2e-4  # of the largest logit: sums of inputs that are rounded to 16 bits
FLIPS = 0.01  # of the largest logit: inputs that float32 sums in another order round elsewhere
BF16 = 0.03  # keys, values and weights of attention rounded to 8 bits
FORMATS = [
    "bf16", "f16", "int4-g32", "int4-g16-affine", "int3-g32-affine", "int2-g16", "int5-channel",
    "int6-tensor", "int8-channel", "int8-tensor-affine", "nf4-g32", "log4-g32-tuned", "apot4-g32",
    "fp8-e4m3-channel", "fp6-e3m2-g32", "mxfp4", "nvfp4", "codebook4-channel", "codebook3-g32-shared",
    "codebook4-g32-shared-int8-f16", "codebook3-g16-shared-int8",
    "int4-g32-min-f16", "int2-g16-min-f32", "int2-g16 + int2-g16", "2:4(int4-g32)",
    "sparse50(nf4-g32)", "sparse50-tensor(bf16)",
    "sparse50(int8-g32)", "sparse60-tensor(int8-g32)", "sparse70-tensor(int4-g32)",
]  # fmt: skip
ACTIVATIONS = {
    "int16-g32": 0.01,
    "int8-token": 0.02, "int8-token-affine": 0.02, "int8-tensor-static": 0.02, "int8-g16": 0.02,
    "int4-token": 0.2, "fp8-e4m3-token": 0.05,
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHET_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return request.param


def far(found: Logits, expected: Logits) -> float:
    """Return the largest difference, in parts of the largest logit."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def whole(executor: Native, ids: np.ndarray) -> Logits:
    return executor.step(ids, executor.new_cache(), len(ids))


def cut(executor: Native, ids: np.ndarray, bounds: list[int]) -> Logits:
    held = executor.new_cache()
    pairs = itertools.pairwise(bounds)
    return np.concatenate([executor.step(ids[a:b], held, b - a) for a, b in pairs])


def ids_of(case: str, seed: int = 0) -> np.ndarray:
    return tokens(GROWING.get(case, LENGTH), batch=1, seed=seed)[0].numpy()


@torch.no_grad()
def expected(folder: Folder, ids: np.ndarray) -> Logits:
    return rounding(folder)(torch.from_numpy(ids)[None])[0].numpy()


def test_logits_equal_the_reference(case: str, tmp_path: Path):
    folder, ids = tiny(tmp_path / "model", case), ids_of(case)
    executor = native(folder, precision="bf16", cache="f32")
    assert far(whole(executor, ids), expected(folder, ids)) <= FLIPS


@torch.no_grad()
def test_positions_turned_anew_equal_the_reference_cut_alike(tmp_path: Path):
    for name, bound in TURNED.items():
        folder, ids = tiny(tmp_path / name, name), tokens(LENGTH, batch=1)[0].numpy()
        assert bound < LENGTH
        executor, model = native(folder, precision="bf16", cache="f32"), rounding(folder)
        ours, theirs = executor.new_cache(), model.new_cache()
        for start, stop in itertools.pairwise([0, 9, 14, 15, 17, 18, 21]):
            piece = torch.from_numpy(ids[start:stop])[None]
            found = executor.step(ids[start:stop], ours, stop - start)
            assert far(found, model(piece, theirs)[0].numpy()) <= FLIPS


@pytest.mark.parametrize("kind", ["bf16", "int8"])
def test_any_cut_gives_the_same_bits(case: str, kind: str, tmp_path: Path):
    if case in TURNED:
        pytest.skip("crossing the bound turns earlier positions anew")
    executor, ids = native(tiny(tmp_path / "model", case), cache=kind), ids_of(case)
    at_once = whole(executor, ids)
    for bounds in ([0, 5, 6, len(ids)], [*range(len(ids) + 1)]):
        assert np.array_equal(cut(executor, ids, bounds), at_once)


@pytest.mark.parametrize("kind", ["bf16", "int8", "kv4", "kv2"])
@pytest.mark.parametrize("case", SOME)
def test_neighbours_do_not_matter(case: str, kind: str, tmp_path: Path):
    executor = native(tiny(tmp_path / "model", case), cache=kind)
    every = [tokens(n, batch=1, seed=n)[0].numpy() for n in (1, 7, 19, 2)]
    alone = [whole(executor, ids) for ids in every]
    caches = [executor.new_cache() for _ in every]
    found = executor.batch([Piece(i, c, len(i)) for i, c in zip(every, caches, strict=True)])
    for one, other in zip(found, alone, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("kind", ["bf16", "int8", "kv4", "kv2"])
def test_forks_share_what_is_full(kind: str, tmp_path: Path):
    executor = native(_long(tmp_path / "model"), cache=kind)
    ids = np.random.default_rng(0).integers(0, 61, 200)
    for start in (64, 100, 128):
        first = executor.new_cache()
        executor.step(ids[:start], first)
        free = executor.sequences.free
        second = executor.forked(first)
        assert free - executor.sequences.free == (start % 64 > 0)
        executor.step(ids[::-1][:70].copy(), first)  # goes another way
        found = executor.step(ids[start:], second, 200 - start)
        del first, second
        assert np.array_equal(found, whole(executor, ids)[start:])


def _long(path: Path) -> Folder:
    from tests.graphs import opened

    held = opened("llama")
    held.config["max_position_embeddings"] = 1024
    try:
        return saved(path, held, {"": "f32"})
    finally:
        held.config["max_position_embeddings"] = 64


@pytest.mark.parametrize(
    ("kind", "bound"), [("f16", 0.02), ("bf16", BF16), ("int8", 0.05), ("kv4", 0.4)]
)
def test_long_sequences_through_stretches_and_pages(kind: str, bound: float, tmp_path: Path):
    folder = _long(tmp_path / "model")
    executor = native(folder, precision="bf16", cache=kind, tokens=96)
    ids = np.random.default_rng(1).integers(0, 61, 700)
    found = whole(executor, ids)
    assert far(found, expected(folder, ids)) <= bound
    assert np.array_equal(cut(executor, ids, [0, 63, 64, 65, 300, 513, 514, 515, 700]), found)


@pytest.mark.parametrize("kind", KEEPINGS)
@torch.no_grad()
def test_keys_and_values_are_rounded_as_the_reference_rounds_them(kind: Keeping, tmp_path: Path):
    folder = _long(tmp_path / "model")
    ids = np.random.default_rng(1).integers(0, 61, 300)
    model = rounding(folder)
    found = whole(native(folder, precision="bf16", cache=kind, tokens=96), ids)
    reference = model(torch.from_numpy(ids)[None], model.new_cache(kind))[0].numpy()
    lost = far(reference, expected(folder, ids))
    apart = np.abs(found - reference).max(1) / np.abs(reference).max()
    assert apart[:64].max() <= BF16
    assert np.median(apart) <= BF16 / 2
    assert apart.max() <= BF16 + lost / 3  # codes that bf16 rounds to another neighbour
    assert {"kv2": 0.1, "kv4": 0.02}.get(kind, 0.0) <= lost <= {"kv2": 2.0}.get(kind, 0.4)


@pytest.mark.parametrize("form", FORMATS)
def test_formats_with_exact_activations(form: str, tmp_path: Path):
    folder = tiny(tmp_path / "model", "llama-tied", {"": form})
    executor = native(folder, precision="bf16", cache="f32")
    ids = ids_of("llama-tied")
    assert far(whole(executor, ids), expected(folder, ids)) <= 2 * FLIPS


@pytest.mark.parametrize("form", [f for f in FORMATS if f.startswith("int")])
def test_integers_with_int8_activations(form: str, tmp_path: Path):
    folder = tiny(tmp_path / "model", "llama", {"": form})
    ids = ids_of("llama")
    assert far(whole(native(folder, precision="int8"), ids), expected(folder, ids)) <= 0.05


@pytest.mark.parametrize("form", [f for f in FORMATS if f.startswith("int")])
@torch.no_grad()
def test_integers_with_inputs_of_16_bits_add_nothing(form: str, tmp_path: Path):
    folder = tiny(tmp_path / "model", "llama", {"": form})
    ids = ids_of("llama")
    exact = load_model(Checkpoint(folder))(torch.from_numpy(ids)[None])[0].numpy()
    assert far(whole(native(folder, cache="f32"), ids), exact) <= EXACT


@pytest.mark.parametrize("activation", ACTIVATIONS)
@torch.no_grad()
def test_quantized_activations(activation: str, tmp_path: Path):
    for role in ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down"):
        scheme = {"": "f32", role: f"int8-channel, {activation}"}
        folder = tiny(tmp_path / role, "llama", scheme)
        ids = ids_of("llama")
        found = whole(native(folder, cache="f32"), ids)
        assert far(found, expected(folder, ids)) <= ACTIVATIONS[activation]


@pytest.mark.parametrize("tier", extension().tiers())
def test_tiers_agree(tier: str, tmp_path: Path):
    folder, ids = tiny(tmp_path / "model", "gemma2", {"": "int4-g16"}), ids_of("gemma2")
    found = whole(native(folder, tier=tier), ids)
    assert far(found, expected(folder, ids)) <= 0.05


def test_logits_are_computed_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, ids = tiny(tmp_path / "model", "llama"), ids_of("llama")
    every = whole(native(folder), ids)
    monkeypatch.setattr("whet.runtime.native.WANTED", 3 * 4 * 61)
    assert np.array_equal(whole(native(folder), ids), every)
    few = native(folder)
    assert np.array_equal(few.step(ids, few.new_cache(), 5), every[-5:])


@torch.no_grad()
def test_text_of_the_demo_is_the_reference_s():
    folder = Folder(demo())
    executor, model = native(folder, precision="bf16", tokens=64), load_model(Checkpoint(folder))
    prompt = np.random.default_rng(2).integers(5, model.arch.vocab, 12)
    ours, theirs = executor.new_cache(), model.new_cache()
    mine, other = prompt, torch.from_numpy(prompt)
    for _ in range(48):
        first = int(executor.step(mine, ours)[0].argmax())
        second = int(model(other[None], theirs)[0, -1].argmax())
        assert first == second
        mine, other = np.array([first]), torch.tensor([second])


def test_angles_equal_torch_s(case: str, tmp_path: Path):
    from tests.graphs import opened

    from whet.graph.executors.angles import frequencies
    from whet.model.family import find

    held = opened(case)
    arch = find(held.config).architecture(held.config, held.names())
    for rope in {arch.rope_of(layer) for layer in range(arch.layers)} - {None}:
        for length in (1, 13, 40):
            mine = frequencies(rope, arch.head_dim, length)
            theirs = by_torch(rope, arch.head_dim, length).numpy()
            assert np.abs(mine.view(np.int32) - theirs.view(np.int32)).max() <= 2
