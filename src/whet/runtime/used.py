"""Which kernel multiplies by each weight of a folder, and why the others refuse. Torch-free."""

from collections.abc import Iterator
from dataclasses import dataclass

from whet.formats.spec import Sparse
from whet.formats.terms import terms as terms_of
from whet.graph.executors.weights import Precision, run_as, run_dense, way_of
from whet.graph.lower import parts_of
from whet.graph.weights import Part
from whet.kernels.described import described
from whet.kernels.native import missing, native
from whet.model.family import find
from whet.store.contents import Contents
from whet.store.folder import Folder


@dataclass(frozen=True, slots=True)
class Used:
    """What multiplies by the weight of one module.

    `kernel`: of each term of its format, its name, the tier and how activations come in; empty where
    every kernel refuses. `refused`: the reasons of the others, and of faster tiers.
    """

    module: str
    format: str
    kernel: str
    refused: tuple[str, ...]


def used(folder: Folder, precision: Precision = "int16") -> tuple[Used, ...]:
    """Return the kernel of every linear weight, in the order of the model.

    Without the extension no kernel takes any weight, and the reason says so.
    """
    contents = Contents(folder, mapped=True)
    family = find(contents.config)
    arch = family.architecture(contents.config, contents.names())
    stored = parts_of(contents)
    multiplied = ("embed",) if arch.tied else ("head",)  # a table that is no head is looked up
    sites = (s for s in family.sites(arch) if s.layer is not None or s.role in multiplied)
    return tuple(_used(stored(site), precision) for site in sites)


def _used(part: Part, precision: Precision) -> Used:
    lacking = missing()
    if lacking is not None:
        return Used(part.site.module, str(part.scheme), "", (lacking,))
    format_ = part.scheme.format
    terms = tuple(terms_of(format_, (part.rows, part.cols)))
    tier = native().chosen_tier()
    names: list[str] = []
    reasons = dict.fromkeys(_slower(tier))
    forms = [run_as(term, part, tier, precision) for term in terms]
    for term, form in zip(terms, forms, strict=True):
        chosen = way_of(term, part, precision)
        given = (described(form), *term.shape, tier, chosen.mode, chosen.input_scale)
        heard: dict[str, str] = dict(native().kernel_refusals(*given))
        names += [name for name, reason in heard.items() if not reason][:1]
        reasons |= dict.fromkeys(f"{name}: {reason}" for name, reason in heard.items() if reason)
    every = len(names) == len(terms)
    modes = dict.fromkeys(way_of(term, part, precision).mode for term in terms)
    kernel = f"{' + '.join(names)}, {tier}, activations {' and '.join(modes)}" if every else ""
    if every and isinstance(format_, Sparse) and format_ not in forms:
        why = run_dense(terms[0], way_of(terms[0], part, precision), tier)
        kernel += f", stored sparse, run dense as {format_.inner}: {why}"
    return Used(part.site.module, str(part.scheme), kernel, tuple(reasons))


def _slower(tier: str) -> Iterator[str]:
    """Yield why faster tiers than the one in use are not."""
    for name in reversed(native().written_tiers()):
        if name == tier:
            return
        reason = native().tier_refusal(name)
        yield f"tier {name}: {reason or 'WHET_ISA asks for another'}"
