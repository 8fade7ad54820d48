"""Where the indices of axes lie, and what configs call sizes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.structures import FAMILIES, model_of

from whet.base.errors import UnsupportedError
from whet.model.axes import positions
from whet.model.family import find
from whet.model.fields import as_mistral, field, resized

EXTENTS = {"kv": 3, "group": 2, "dim": 4, "3": 3, "hidden": 5, "ffn": 6}


@given(st.sets(st.integers(0, 2), min_size=1).map(sorted))
def test_heads_go_with_their_queries(heads: list[int]) -> None:
    kept = {"kv": torch.tensor(heads)}
    found = positions("(kv group dim)", EXTENTS, kept)
    assert found is not None
    assert found.tolist() == [h * 8 + i for h in heads for i in range(8)]
    joined = positions("(kv group dim)+(kv dim)+(kv dim)", EXTENTS, kept)
    assert joined is not None
    keys = [24 + h * 4 + i for h in heads for i in range(4)]
    assert joined.tolist() == [*found.tolist(), *keys, *(k + 12 for k in keys)]


def test_interleaved_heads_keep_query_key_and_value_together() -> None:
    found = positions("(kv 3 dim)", EXTENTS, {"kv": torch.tensor([1])})
    assert found is not None
    assert found.tolist() == list(range(12, 24))


def test_what_lies_end_to_end_is_cut_alike() -> None:
    found = positions("ffn+ffn", EXTENTS, {"ffn": torch.tensor([0, 4])})
    assert found is not None
    assert found.tolist() == [0, 4, 6, 10]
    assert positions("hidden", EXTENTS, {"ffn": torch.tensor([0])}) is None


def test_a_whole_term_can_be_told_what_stays() -> None:
    found = positions("(kv group dim)+(kv dim)", EXTENTS, {"(kv dim)": torch.tensor([3])})
    assert found is not None
    assert found.tolist() == [*range(24), 27]


@pytest.mark.parametrize("case", FAMILIES)
@pytest.mark.parametrize("size", ["layers", "hidden", "heads", "ffn"])
def test_configs_call_sizes_what_families_read(case: str, size: str) -> None:
    config = model_of(case).config
    family = find(config)
    has = getattr(family.architecture(config), size)
    name = field(family.name, size)
    assert name is not None
    assert config.get(name, has) == has
    if size == "ffn":
        changed = family.architecture(resized(config, family.name, ffn=has * 2))
        assert changed.ffn == has * 2


def test_a_size_that_a_config_does_not_tell_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="does not tell kv_heads"):
        resized({}, "gpt2", kv_heads=1)


def test_a_llama_as_a_mistral_is_the_same_model() -> None:
    config = model_of("llama-tied").config
    turned = as_mistral(config, None)
    assert find(turned).name == "mistral"
    one, other = (find(c).architecture(c) for c in (config, turned))
    assert one == other
