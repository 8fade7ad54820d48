"""Which sites a pattern names."""

import pytest

from whet.model.site import Site
from whet.recipe.recipe import matches

DOWN = Site(
    "mlp.down", "model.layers.3.mlp.down_proj", (8, 16), "hidden", "ffn", "mlp.mid", layer=3
)
HEAD = Site("head", "lm_head", (32, 8), "vocab", "hidden", "head.in")


@pytest.mark.parametrize(
    ("pattern", "down", "head"),
    [
        ("blocks", True, False),
        ("mlp.down", True, False),
        ("layers.3.*", True, False),
        ("layers.4.*", False, False),
        ("*.down_proj", True, False),
        ("head", False, True),
        ("lm_head", False, True),
        ("*", True, True),
        ("attn.*", False, False),
    ],
)
def test_patterns_match_roles_places_and_modules(pattern: str, down: bool, head: bool) -> None:
    assert matches(pattern, DOWN) is down
    assert matches(pattern, HEAD) is head
