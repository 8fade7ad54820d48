"""Records, sorted: the last word counts."""

import pytest
from tests.unit.report import examples

from whet.base.quantity import Quantity
from whet.base.record import Record
from whet.report import resources, summary, tables
from whet.report.evidence import evidence, part_of


def test_the_last_record_of_a_site_counts():
    again = Record(
        "gptq",
        "model.layers.0.self_attn.q_proj",
        {"output_error": examples.q(0.5)},
        notes={"role": "attn.q", "layer": "0"},
    )
    e = evidence([*examples.compressed(), again])
    assert e.modules[0].error == 0.5
    assert len(e.modules) == 56


def test_times_of_single_blocks_are_not_the_time_of_the_run():
    block = Record("time", "layers.7", {"seconds": examples.q(4.0, "s")})
    e = evidence([*examples.compressed(), block])
    assert dict(resources.phases(e))["calibrate"] == 13.1


def test_a_second_measurement_brings_its_own_tokens():
    other = [Record("token", "", {"kl": examples.q(9.0)}, notes={"context": "new"})]
    e = evidence(
        [
            *examples.measured(),
            Record("measure", "", {"kl_mean": examples.q(1.0)}, notes={"data": "x"}),
            *other,
        ]
    )
    assert [r.notes["context"] for r in e.changed_tokens] == ["new"]
    assert len(e.measures) == 2
    assert e.quality.facts["kl_mean"].value == 1.0


def test_measuring_the_same_text_again_replaces():
    e = evidence(examples.measured() + examples.measured())
    assert len(e.measures) == 1


@pytest.mark.parametrize(
    ("role", "part"),
    [
        ("embed", "embeddings"),
        ("head", "head"),
        ("attn.qkv", "attention"),
        ("mlp.experts.12.up", "experts"),
        ("mlp.shared.up", "MLP"),
    ],
)
def test_parts(role, part):
    assert part_of(role) == part


def test_sizes_add_up():
    e = evidence(examples.compressed())
    parts = resources.parts(e)
    output = e.last("output")
    assert sum(p.after for p in parts) == pytest.approx(output.facts["bytes"].value)
    assert sum(p.before for p in parts) == pytest.approx(output.facts["source_bytes"].value)
    assert [p.name for p in parts] == ["attention", "MLP", "everything else"]


def test_quality_has_the_columns_of_llama_perplexity():
    table = tables.quality(evidence(examples.measured()))
    assert [c.label for c in table.columns[1:]] == [label for _, label in tables.QUALITY]
    assert table.rows[0][2] == "42.27 ± 0.52"
    assert table.rows[0][-1] == "95.34 ± 0.41 %"


def test_experts_share_a_row():
    table = tables.modules(evidence(examples.compressed(2, experts=8)))
    assert [row[0] for row in table.rows][4] == "model.layers.0.mlp.experts.*.gate_proj (8)"
    assert len(table.rows) == 14


def test_every_table_is_none_without_records():
    e = evidence([])
    makers = (
        tables.quality,
        tables.worst,
        resources.sizes,
        resources.speed,
        tables.fallbacks,
        tables.skipped,
        tables.schemes,
        tables.environment,
        tables.modules,
        tables.provenance,
        tables.tokens,
        resources.times,
    )
    assert [make(e) for make in makers] == [None] * len(makers)


def test_percentiles_ascend():
    found = tables.percentiles(evidence(examples.measured()))
    assert [kl for _, kl in found] == sorted(kl for _, kl in found)
    assert ("99.9 % of tokens change less than", 0.127) in found


def test_rest_of_the_time_is_named():
    record = Record("time", "", {"total": Quantity(10.0, "s", ""), "solve": Quantity(4.0, "s", "")})
    assert resources.phases(evidence([record])) == (("solve", 4.0), ("everything else", 6.0))


def test_the_parts_of_a_run_add_up_to_its_time():
    def spent(site, seconds):
        facts = {"seconds": examples.q(seconds, "s"), "peak_rss": examples.q(1e9, "byte")}
        return Record("time", site, facts)

    sites = ("embedding", "block 1 of 2", "block 2 of 2", "head", "total")
    e = evidence(spent(*pair) for pair in zip(sites, (0.1, 6.0, 5.0, 0.2, 13.0), strict=True))
    found = dict(resources.phases(e))
    assert found == {
        "blocks": 11.0,
        "head": 0.2,
        "embedding": 0.1,
        "everything else": pytest.approx(1.7),
    }
    assert e.total_time == 13.0
    assert e.peak_memory == 1e9


def test_recipes_without_statistics_say_so():
    notes = {"source": "builtin, 4 windows", "use": "drift and reload check only"}
    calibration = Record("calibration", "", {"tokens": examples.q(256)}, notes=notes)
    told = " ".join(summary.sentences(evidence([*examples.compressed(), calibration])))
    assert "needs no calibration" in told


def test_equal_logits_are_called_the_same():
    check = Record("verify", "", {"max_relative_error": examples.q(0.0)})
    assert "logits were the same" in " ".join(summary.sentences(evidence([check])))
