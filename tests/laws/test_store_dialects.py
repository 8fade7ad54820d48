"""The laws of dialects, for every format that there is."""

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from whet.base.errors import FolderError, UnsupportedError
from whet.formats import activation, spec
from whet.formats.activation import Activation, parse_activation
from whet.formats.element import Minifloat
from whet.formats.pack import pack
from whet.formats.spec import Coded, Format, Plane, parse
from whet.formats.terms import terms
from whet.formats.weight import Weight, written
from whet.model.site import Site
from whet.store.checkpoint import Checkpoint
from whet.store.dialects import choose
from whet.store.dialects.compressed_tensors import COMPRESSED_TENSORS
from whet.store.dialects.dialect import Dialect
from whet.store.dialects.plain import PLAIN
from whet.store.dialects.whet import WHET
from whet.store.dtypes import DTYPES, NAMES
from whet.store.folder import Folder
from whet.store.scheme import Scheme
from whet.store.writer import write_shard

SHAPES = [(6, 128), (5, 64), (40, 192)]
RAGGED = (7, 100)
INPUTS = [None, *activation.EXAMPLES]


def site(shape: tuple[int, int], role: str = "attn.q", **changes: Any) -> Site:
    return replace(
        Site(role, "model.layers.0.q", shape, "out", "hidden", "attn.in", layer=0), **changes
    )


def scale_of(form: Activation | None) -> torch.Tensor | None:
    if form is None or not form.static:
        return None
    return torch.tensor([0.25, -3.0]) if form.affine else torch.tensor([0.25])


def folder(
    path: Path, tensors: Mapping[str, torch.Tensor], config: dict[str, Any] | None
) -> Checkpoint:
    (path / "config.json").write_text(json.dumps({"quantization_config": config}))
    write_shard(path / "model.safetensors", tensors)
    return Checkpoint(Folder(path))


def weight_of(name: str, shape: tuple[int, int]) -> Weight:
    """A weight with planes at random: dialects move bits, whatever they mean."""
    format_ = parse(name)
    planes = {n: plane_of(format_, n, p, shape) for n, p in format_.planes(shape).items()}
    return Weight(format_, planes, shape)


def plane_of(format_: Format, name: str, plane: Plane, shape: tuple[int, int]) -> torch.Tensor:
    chance = torch.Generator().manual_seed(len(name) + sum(shape))
    prefix, _, local = name.rpartition(".")
    (term,) = (t for t in terms(format_, shape) if t.prefix == prefix + "." * bool(prefix))
    format_, shape = term.format, term.shape
    if local in ("codes", "zero") and isinstance(format_, Coded):
        bits, along_out = format_.element.bits, local == "zero" and format_.grouping != "tensor"
        count = shape[0] if along_out else (shape[1] if local == "codes" else 1)
        rows = plane.shape[1] if along_out else plane.shape[0]
        top = 112 if isinstance(format_.element, Minifloat) and bits == 8 else 2**bits  # no NaN
        codes = torch.randint(top, (rows, count), generator=chance).to(torch.uint8)
        packed = pack(codes, bits)
        return packed.T.contiguous() if along_out else packed
    if local in ("global", "base"):
        return torch.full(plane.shape, 2.0)
    if plane.dtype == "U8":
        return torch.randint(120, 130, plane.shape, generator=chance).to(torch.uint8)
    values = torch.rand(plane.shape, generator=chance) + 0.5
    return values.to(DTYPES[plane.dtype])


def matrix(shape: tuple[int, int]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))) * 0.1


def kept(dialect: Dialect, place: Site, scheme: Scheme, path: Path) -> bool:
    """Whether what is written is read back; the layout and the size are those promised."""
    weight, scale = weight_of(str(scheme.format), place.shape), scale_of(scheme.activation)
    tensors = dialect.tensors(place, weight, scheme, scale)
    layout = dialect.layout(place, scheme)
    assert {n: (NAMES[t.dtype], tuple(t.shape)) for n, t in tensors.items()} == layout
    assert dialect.nbytes(place, scheme) == sum(t.nbytes for t in tensors.values())
    source = folder(path, tensors, dialect.config({place.module: scheme}, ["lm_head"]))
    same(source.weight(place), weight)
    assert source.contents.format(place) == weight.format
    found = source.activation(place)
    if found is None or scheme.activation is None:
        return found is None and scheme.activation is None
    if found[1] is None or scale is None:
        return found[0] == scheme.activation and found[1] is None and scale is None
    return found[0] == scheme.activation and found[1].equal(scale)


def same(found: Weight, expected: Weight) -> None:
    assert found.format == expected.format
    assert found.shape == expected.shape
    assert found.planes.keys() == expected.planes.keys()
    for name, plane in expected.planes.items():
        assert found.planes[name].dtype == plane.dtype, name
        assert found.planes[name].shape == plane.shape, name
        assert found.planes[name].view(torch.uint8).equal(plane.view(torch.uint8)), name
    assert found.dense().equal(expected.dense())


@pytest.mark.parametrize("name", spec.EXAMPLES)
def test_whet_keeps_every_format(name: str, tmp_path: Path):
    for shape in [*SHAPES, RAGGED]:
        if parse(name).refuses(shape):
            continue
        place, scheme = site(shape), Scheme(parse(name))
        assert WHET.refuses(place, scheme) is None
        if not scheme.is_plain:
            assert WHET.nbytes(place, scheme) * 8 == scheme.format.bits(shape)
        assert kept(WHET, place, scheme, tmp_path)


@pytest.mark.parametrize("name", [n for n in INPUTS if n])
def test_whet_keeps_every_activation(name: str, tmp_path: Path):
    for format_ in ("int4-g64", "bf16"):
        assert kept(WHET, site(SHAPES[0]), Scheme(parse(format_), parse_activation(name)), tmp_path)


@pytest.mark.parametrize("name", spec.EXAMPLES)
def test_compressed_tensors_keeps_what_it_does_not_refuse(name: str, tmp_path: Path):
    for shape in [*SHAPES, RAGGED]:
        if COMPRESSED_TENSORS.refuses(site(shape), Scheme(parse(name))) is None:
            assert kept(COMPRESSED_TENSORS, site(shape), Scheme(parse(name)), tmp_path)


@pytest.mark.parametrize("inputs", activation.EXAMPLES)
def test_compressed_tensors_keeps_activations(inputs: str, tmp_path: Path):
    for name in ("int8-channel", "int8-channel-affine", "int4-g64-affine", "fp8-e4m3-tensor"):
        scheme = Scheme(parse(name), parse_activation(inputs))
        if COMPRESSED_TENSORS.refuses(site(SHAPES[0]), scheme) is None:
            assert kept(COMPRESSED_TENSORS, site(SHAPES[0]), scheme, tmp_path)


def test_other_readers_see_inputs_of_16_bits_as_they_are():
    scheme = Scheme(parse("int8-channel"), parse_activation("int16-g32"))
    config = COMPRESSED_TENSORS.config({"m": scheme, "n": Scheme(parse("int8-channel"))}, [])
    assert config is not None
    assert all(group["input_activations"] is None for group in config["config_groups"].values())
    assert config["whet_inputs"] == {"int16-g32": ["m"]}


@pytest.mark.parametrize("held", [["m"], {"int16-g32": "m"}, {"int17": ["m"]}])
def test_a_damaged_list_of_inputs_is_named(held: object, tmp_path: Path):
    place, scheme = site((6, 128)), Scheme(parse("int8-channel"), parse_activation("int16-g32"))
    tensors = COMPRESSED_TENSORS.tensors(place, written(matrix((6, 128)), scheme.format), scheme)
    config = COMPRESSED_TENSORS.config({place.module: scheme}, []) or {}
    with pytest.raises(FolderError, match="whet_inputs"):
        folder(tmp_path, tensors, config | {"whet_inputs": held}).activation(place)


EXPRESSED = {
    "int4-g64": "pack-quantized", "int4-g64-affine": "pack-quantized",
    "int3-g64-affine": "pack-quantized", "int3-channel": "pack-quantized",
    "int5-g32": "pack-quantized", "int8-channel": "pack-quantized",
    "int6-channel-affine": "pack-quantized", "int4-g64-f16": "pack-quantized",
    "fp8-e4m3-channel": "float-quantized", "fp8-e4m3-tensor": "float-quantized",
    "mxfp4": "mxfp4-pack-quantized", "nvfp4": "nvfp4-pack-quantized",
}  # fmt: skip
REFUSED = ["nf4-g64", "log4-g64", "codebook4-channel", "apot4-g64", "fp8-e5m2-channel", "fp4-g64",
           "mxfp8", "int4-g32-e8m0", "int8-tensor-affine", "int2-g64 + int2-g64"]  # fmt: skip


def test_what_compressed_tensors_expresses():
    for name, layout in EXPRESSED.items():
        choice = choose({site((6, 128)): Scheme(parse(name))})
        assert choice.dialect is COMPRESSED_TENSORS, name
        config = choice.config({"m": Scheme(parse(name))}, [])
        assert config is not None
        assert config["format"] == layout
    for name in REFUSED:
        choice = choose({site((6, 128)): Scheme(parse(name))})
        assert choice.dialect is WHET, name
        assert "model.layers.0.q" in choice.reason


def test_ragged_groups_are_whets():
    choice = choose({site(RAGGED): Scheme(parse("int4-g64"))})
    assert choice.dialect is WHET
    assert "100 inputs" in choice.reason


@pytest.mark.parametrize(
    ("change", "format_"),
    [
        ({"role": "embed", "layer": None}, "int4-g64"),
        ({"transposed": True}, "int4-g64"),
        ({"role": "mlp.experts.3.up"}, "int4-g64-affine"),
    ],
)
def test_places_that_compressed_tensors_does_not_reach(change: dict[str, Any], format_: str):
    assert choose({site((6, 128), **change): Scheme(parse(format_))}).dialect is WHET
    assert choose({site((6, 128)): Scheme(parse(format_))}).dialect is COMPRESSED_TENSORS


def test_groups_of_channels_in_the_input_are_whets():
    for name in ("int8-g128", "int8-g64-affine", "fp8-e4m3-g128"):
        assert (
            choose({site((6, 128)): Scheme(parse("int8-channel"), parse_activation(name))}).dialect
            is WHET
        )


def test_experts_in_several_schemes_are_whets():
    expert = site((6, 128), role="mlp.experts.0.up", module="e.0.up")
    other = site((6, 128), role="mlp.experts.1.up", module="e.1.up")
    four, eight = Scheme(parse("int4-g64")), Scheme(parse("int8-channel"))
    assert choose({expert: four, other: eight}).dialect is WHET
    assert choose({expert: four, site((6, 128)): eight}).dialect is COMPRESSED_TENSORS


def test_an_embedding_shares_its_codes_with_a_tied_head(tmp_path: Path):
    table = site((6, 128), role="embed", module="model.embed", layer=None, head="lm_head")
    eight = Scheme(parse("int8-g64"))
    assert choose({table: eight}).dialect is COMPRESSED_TENSORS
    weight = written(matrix((6, 128)), eight.format)
    tensors = COMPRESSED_TENSORS.tensors(table, weight, eight)
    assert {name: (str(t.dtype), tuple(t.shape)) for name, t in tensors.items()} == {
        "model.embed.weight": ("torch.int8", (6, 128)),
        "model.embed.weight_scale": ("torch.bfloat16", (6, 2)),
        "lm_head.weight_scale": ("torch.bfloat16", (6, 2)),
    }
    assert set(COMPRESSED_TENSORS.layout(table, eight)) == set(tensors)
    config = COMPRESSED_TENSORS.config({table.module: eight}, ["lm_head"], table) or {}
    assert config["ignore"] == []
    assert config["config_groups"]["group_0"]["targets"] == ["model.embed", "lm_head"]
    found = folder(tmp_path, tensors, config).weight(table)
    assert all(found.planes[name].equal(plane) for name, plane in weight.planes.items())


def test_models_whose_experts_stay_plain_are_whets():
    expert = site((6, 128), role="mlp.experts.0.up", module="e.0.up")
    other = site((6, 128), role="mlp.experts.1.up", module="e.1.up")
    four = Scheme(parse("int4-g64"))
    assert choose({site((6, 128)): four}, [expert]).dialect is WHET
    assert choose({expert: four}, [other]).dialect is WHET
    assert choose({expert: four, other: Scheme(parse("bf16"))}).dialect is WHET
    assert choose({expert: four, other: four}, [site((6, 128))]).dialect is COMPRESSED_TENSORS


def test_plain_numbers_need_no_config(tmp_path: Path):
    schemes = {
        site((6, 128)): Scheme(parse("f16")),
        site((6, 128), module="b"): Scheme(parse("f32")),
    }
    choice = choose(schemes)
    assert choice.dialect is PLAIN
    assert choice.config({"m": Scheme(parse("f16"))}, []) is None
    for name in ("f16", "bf16", "f32"):
        assert kept(PLAIN, site((6, 128)), Scheme(parse(name)), tmp_path)
        assert kept(PLAIN, site((6, 128), transposed=True), Scheme(parse(name)), tmp_path)


def test_mixed_schemes_are_listed_by_module(tmp_path: Path):
    modules = {
        "a": Scheme(parse("int4-g64")),
        "b": Scheme(parse("int8-channel"), parse_activation("int8-token")),
        "c": Scheme(parse("int4-g64")),
        "d": Scheme(parse("bf16")),
    }
    sites = {name: site((6, 128), module=name) for name in modules}
    choice = choose({sites[name]: scheme for name, scheme in modules.items()})
    assert choice.dialect is COMPRESSED_TENSORS
    config = choice.config(modules, ["x.gate"])
    assert config is not None
    assert config["format"] == "mixed-precision"
    assert {g["format"] for g in config["config_groups"].values()} == {
        "pack-quantized",
        "int-quantized",
    }
    assert {"d", "x.gate"} <= set(config["ignore"])
    weights = {
        name: written(matrix((6, 128)) + i, modules[name].format) for i, name in enumerate(modules)
    }
    tensors: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        tensors |= choice.dialect.tensors(sites[name], weight, modules[name], None)
    source = folder(tmp_path, tensors, config)
    for name, weight in weights.items():
        same(source.weight(sites[name]), weight)
        found = source.activation(sites[name])
        assert (found[0] if found else None) == modules[name].activation


def test_scheme_is_kept_by_its_words():
    for name, inputs in product(spec.EXAMPLES, INPUTS):
        scheme = Scheme(parse(name), parse_activation(inputs) if inputs else None)
        assert Scheme.of(json.loads(json.dumps(scheme.plain()))) == scheme


def test_unwritten_modules_stay_plain():
    place, weight = site((6, 128), transposed=True), written(matrix((6, 128)), parse("f32"))
    for dialect in (PLAIN, WHET, COMPRESSED_TENSORS):
        tensors = dialect.tensors(place, weight, None)
        assert tensors.keys() == {"model.layers.0.q.weight"}
        assert tensors["model.layers.0.q.weight"].equal(matrix((6, 128)).T)


@pytest.mark.parametrize("dialect", [WHET, COMPRESSED_TENSORS], ids=["whet", "compressed-tensors"])
@pytest.mark.parametrize("name", ["int4-g64-affine", "nvfp4", "int8-channel"])
def test_planes_that_do_not_fit_are_named(dialect: Dialect, name: str, tmp_path: Path):
    place, scheme = (
        site((6, 128)),
        Scheme(parse(name), None if name == "nvfp4" else parse_activation("int8-tensor-static")),
    )
    tensors = dialect.tensors(
        place, written(matrix((6, 128)), scheme.format), scheme, torch.tensor([1.0])
    )
    config = dialect.config({place.module: scheme}, [])
    for broken in tensors:
        if broken.endswith("weight_shape"):
            continue
        for wrong in (None, torch.zeros(3, 3), torch.zeros(2, 3, 4, dtype=torch.uint8)):
            changed = {n: wrong if n == broken else t for n, t in tensors.items()}
            kept = {n: t for n, t in changed.items() if t is not None}
            source = folder(tmp_path, kept, config)
            with pytest.raises((FolderError, UnsupportedError)) as caught:  # noqa: PT012
                source.weight(place)
                source.activation(place)
            assert len(str(caught.value).splitlines()) <= 3
