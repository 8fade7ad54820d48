"""Predictions are sums over what the engine multiplies by at once: checked by hand and in engines."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.graphs import EVERY, opened
from tests.native_folders import native, tiny

from whet.formats.keeping import page_bytes
from whet.formats.spec import Format, Shape, parse
from whet.measure import rest as timed
from whet.measure.product import Product, Stopwatch
from whet.measure.rest import Rest, kept
from whet.model.family import find
from whet.runtime.engine import Engine
from whet.search.latency import Latency
from whet.search.predict import Guide, Predictor, calibrated, formats_of, modelled, product, units
from whet.search.profile import Profile, Rates
from whet.store.contents import Contents
from whet.store.scheme import Scheme

BF16, INT4, INT8 = parse("bf16"), parse("int4-g16"), parse("int8-channel")
REST = Rest(0.5, 0.001, ((10, 1.0), (20, 3.0), (40, 5.0)), 1000)
HIDDEN, FFN, KV, VOCAB, LAYERS = 32, 48, 16, 61, 2
PROFILE = Profile("none", 1e9, 1e9, 2, 1e-6, 1e6, Rates(1e9, 1e10), Rates(1e9, 1e10))


@dataclass
class Counted:
    """A cost of a second for a call, and for bits and rows a millionth; keeps what it was asked."""

    asked: list[tuple[str, tuple[Shape, ...], int]] = field(default_factory=list)

    def seconds(self, product: Product, rows: int) -> float:
        self.asked.append((str(product.format), product.shapes, rows))
        return 1.0 + 1e-6 * rows * sum(map(product.format.bits, product.shapes))

    def refuses(self, product: Product) -> str | None:
        if str(product.format) == "int3-g16":
            return "no kernel"
        return next(filter(None, map(product.format.refuses, product.shapes)), None)

    def nbytes(self, product: Product) -> int:
        return sum(map(product.format.bits, product.shapes)) // 8


def predictor(case: str) -> Predictor:
    held = opened(case)
    family = find(held.config)
    arch = family.architecture(held.config, held.names())
    return Predictor(family, arch, Counted(), REST)


def uniform(found: Predictor, format_: Format) -> dict[str, Format]:
    return {site.module: format_ for site in found.family.sites(found.arch)}


def test_units_are_what_one_input_is_multiplied_by():
    found = predictor("llama")
    roles = [tuple(site.role for site in unit) for unit in units(found.family, found.arch)]
    block = [
        ("attn.q", "attn.k", "attn.v"),
        ("attn.o",),
        ("mlp.gate", "mlp.up"),
        ("mlp.down",),
    ]
    assert roles == [("embed",), *block, *block, ("head",)]


@pytest.mark.parametrize("case", EVERY)
def test_every_site_is_in_one_unit(case: str):
    found = predictor(case)
    sites = [site.module for unit in units(found.family, found.arch) for site in unit]
    expected = [s.module for s in found.family.sites(found.arch) if s.tied is None]
    assert sorted(sites) == sorted(expected)


def test_decoding_is_the_sum_by_hand():
    found = predictor("llama")
    block = (HIDDEN + 2 * KV) * HIDDEN + HIDDEN**2 + 3 * FFN * HIDDEN
    linears = 4 * LAYERS + 1 + 1e-6 * 16 * (LAYERS * block + VOCAB * HIDDEN)
    chosen = uniform(found, BF16)
    assert found.decode(chosen, 7) == pytest.approx(linears + 0.5 + 0.007)
    assert found.step(chosen, 1) + found.head(chosen) == pytest.approx(linears)


def test_a_first_token_reads_the_prompt_in_steps_and_the_head_once():
    found = predictor("llama")
    chosen = uniform(found, BF16)
    steps = 2 * found.step(chosen, 512) + found.step(chosen, 6)
    assert found.first(chosen, 1030) == pytest.approx(
        steps + found.head(chosen) + REST.until_first(1030)
    )
    rows = {rows for _, shapes, rows in found.cost.asked if shapes == ((VOCAB, HIDDEN),)}
    assert rows == {1}


@pytest.mark.parametrize(("prompt", "seconds"), [(10, 1), (15, 2), (40, 5), (50, 6), (5, 0)])
def test_the_rest_of_a_prompt_is_on_a_line_between_what_was_timed(prompt: int, seconds: float):
    assert REST.until_first(prompt) == pytest.approx(seconds)


@pytest.mark.parametrize("case", ["llama", "llama-tied", "gpt_neox", "phi3", "mixtral"])
def test_predictions_add_up_over_units(case: str):
    found = predictor(case)
    chosen = uniform(found, INT8)
    every = units(found.family, found.arch)
    spent = sum(found.unit_seconds(unit, Scheme(INT8), 1) for unit in every)
    assert found.decode(chosen) == pytest.approx(spent + REST.token)
    weights = sum(found.unit_bytes(unit, Scheme(INT8)) for unit in every)
    context = kept(found.arch, 9)
    assert found.memory(chosen, 9) == weights + REST.memory + context
    for unit in every:
        other = chosen | dict.fromkeys((site.module for site in unit), BF16)
        change = found.unit_seconds(unit, Scheme(BF16), 1) - found.unit_seconds(
            unit, Scheme(INT8), 1
        )
        assert found.decode(other) - found.decode(chosen) == pytest.approx(change)


def test_sites_of_a_unit_in_several_formats_are_several_products():
    found = predictor("llama")
    chosen = uniform(found, BF16)
    q = next(name for name in chosen if name.endswith("layers.0.self_attn.k_proj"))
    found.decode(chosen | {q: INT8})
    assert ("bf16", ((HIDDEN, HIDDEN), (KV, HIDDEN)), 1) in found.cost.asked
    assert ("int8-channel", ((KV, HIDDEN),), 1) in found.cost.asked


def test_of_experts_the_active_ones_are_counted():
    found = predictor("mixtral")
    unit = next(u for u in units(found.family, found.arch) if ".experts." in u[0].role)
    experts = found.arch.experts
    assert experts is not None
    share = experts.active / experts.count
    whole = found.cost.seconds(product(unit, Scheme(INT8)), 1)
    assert found.unit_seconds(unit, Scheme(INT8), 1) == pytest.approx(share * whole)
    many = found.cost.seconds(product(unit, Scheme(INT8)), round(100 * share))
    assert found.unit_seconds(unit, Scheme(INT8), 100) == pytest.approx(many)


def test_tables_take_no_time_unless_they_are_the_head_too():
    apart, tied = predictor("llama"), predictor("llama-tied")
    (embed, *_), (*_, head) = units(apart.family, apart.arch), units(tied.family, tied.arch)
    assert embed[0].role == head[0].role == "embed"
    assert apart.unit_seconds(embed, Scheme(BF16), 5) == apart.unit_bytes(embed, Scheme(BF16)) == 0
    assert tied.unit_seconds(head, Scheme(BF16), 5) == tied.cost.seconds(
        Product(BF16, ((VOCAB, HIDDEN),)), 1
    )


def test_refusals_have_reasons():
    found, mixture = predictor("llama"), predictor("mixtral")
    every = {unit[0].role: unit for unit in units(found.family, found.arch)}
    assert found.refuses(every["attn.q"], Scheme(parse("int3-g16"))) == "no kernel"
    assert found.refuses(every["attn.q"], Scheme(INT4)) is None
    assert found.refuses(every["embed"], Scheme(parse("int3-g16"))) is None
    assert "no rows" in str(found.refuses(every["embed"], Scheme(parse("lowrank-4"))))
    assert "rank 40" in str(found.refuses(every["mlp.down"], Scheme(parse("lowrank-40"))))
    expert = next(u for u in units(mixture.family, mixture.arch) if ".experts." in u[0].role)
    assert "one matrix" in str(mixture.refuses(expert, Scheme(parse("int4-g16 + int4-g16"))))


def test_memory_of_weights_is_that_of_the_engines_layouts(tmp_path: Path):
    folder = tiny(
        tmp_path / "model", "llama", {"": "int4-g16", "v": "int8-channel", "down": "bf16"}
    )
    executor = native(folder)
    found = replace(
        predictor("llama"), cost=Latency(Stopwatch(1, 1 << 16), tmp_path / "t.json", {})
    )
    weights = found.memory(formats_of(Contents(folder))) - REST.memory
    assert weights == sum(layout.nbytes for layout in executor.program.weights.layouts.values())


def test_the_rest_is_timed_in_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(timed, "LEAST", 1)
    monkeypatch.setattr(timed, "RUNS", 1)
    folder = tiny(tmp_path / "model", "mixtral", {"": "int8-channel"})
    table = Latency(Stopwatch(1, 1 << 16), tmp_path / "t.json", {})
    found = calibrated(Engine(folder.path, native(folder, threads=1)), table, memory=False)
    chosen = formats_of(Contents(folder))
    assert found.rest.memory == 0
    assert found.arch.experts is not None
    assert [length for length, _ in found.rest.first] == [8]
    assert 0 < found.decode(chosen) < 1
    assert 0 < found.first(chosen, 8) < 1


def test_a_draft_divides_steps_among_tokens():
    bare = predictor("llama")
    guide = Guide(tokens=3.0, guesses=4.0, seconds=0.1, first=0.2, memory=500)
    found = replace(bare, guide=guide)
    unit = next(one for one in units(found.family, found.arch) if one[0].layer is not None)
    assert found.unit_decode(unit, Scheme(INT8)) == bare.unit_seconds(unit, Scheme(INT8), 5) / 3
    assert found.rest_decode(10) == pytest.approx((bare.rest_decode(10) + 4 * 0.1) / 3)
    assert found.rest_first(10) == bare.rest_first(10) + 0.2
    assert found.rest_memory(10) == bare.rest_memory(10) + 500
    useless = replace(bare, guide=Guide(1.0, 0.0, 0.1, 0.0, 0))
    assert useless.unit_decode(unit, Scheme(INT8)) == bare.unit_decode(unit, Scheme(INT8))
    assert useless.rest_decode(10) == bare.rest_decode(10)


def test_described_machines_have_a_rest_of_their_own():
    held = opened("llama")
    family = find(held.config)
    arch = family.architecture(held.config)
    found = modelled(family, arch, PROFILE)
    slower = modelled(family, arch, replace(PROFILE, overhead=1e-3, bandwidth=1e6))
    chosen = uniform(found, INT8)
    assert found.decode(chosen) < found.decode(chosen, 1000) < slower.decode(chosen, 1000)
    assert found.first(chosen, 10) < found.first(chosen, 60) < slower.first(chosen, 60)
    assert found.memory(chosen, 10) > PROFILE.process
    coded = modelled(family, arch, PROFILE, "kv4")
    saved = found.memory(chosen, 640) - coded.memory(chosen, 640)
    pages = 10 * arch.layers * arch.kv_heads
    assert saved == pages * (page_bytes("bf16", arch.head_dim) - page_bytes("kv4", arch.head_dim))
    assert coded.decode(chosen, 1000) < found.decode(chosen, 1000)
    # with a unit of work a second apart from overhead: every operator is counted
    assert slower.rest_decode(0) - found.rest_decode(0) > 1e-3 * 10
