"""The config groups of compressed-tensors: which modules are stored by which scheme. Torch-free."""

from collections.abc import Iterable
from typing import Any

from whet.formats.element import Integer
from whet.formats.spec import Coded
from whet.store.dialects.ct_words import INT8, Words, words
from whet.store.scheme import Place, Scheme

EXPERTS = ".experts."


def group(scheme: Scheme, targets: list[str]) -> dict[str, Any]:
    """Return a config group of linears."""
    described = words(scheme.format, scheme.activation, (0, 0))
    assert isinstance(described, Words)
    return {
        "targets": targets,
        "weights": dict(described.weights),
        "input_activations": dict(described.inputs) if described.inputs else None,
        "output_activations": None,
        "format": described.format,
    }


def is_table(scheme: Scheme) -> bool:
    """Return whether readers decode an embedding of this scheme."""
    format_ = scheme.format
    if not isinstance(format_, Coded) or format_.affine or scheme.activation is not None:
        return False
    return format_.element == Integer(8)


def table_group(place: Place, scheme: Scheme) -> dict[str, Any]:
    """Return the group of an embedding, and of the head that shares its matrix."""
    targets = [place.module, *([place.head] if place.head else [])]
    return group(scheme, targets) | {"format": INT8}


def targets(modules: Iterable[str]) -> list[str]:
    """Return the targets of a group; experts by a pattern, as transformers looks for them."""
    names = aliased(modules)
    inside = any(EXPERTS in name for name in names)
    return [*(["re:.*[.]experts[.].*"] if inside else []), *names]


def aliased(modules: Iterable[str]) -> list[str]:
    """Return names, and `lm_head` for a head: readers know it so, whatever checkpoints call it."""
    names = dict.fromkeys(modules)
    head = ["lm_head"] if any("." not in name for name in names) else []
    return [*dict.fromkeys([*names, *head])]
