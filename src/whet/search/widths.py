"""Which widths the feed-forward layers of a model should have: as many channels in all, each where it counts.

What a block's layer loses when only so many of its channels stay, the rest refitted, is felt by the
predictions as any other change of its weights is. From the losses at several widths of every block
follow the widths of least loss, exactly, by dynamic programming over blocks (ZipLM,
arXiv:2302.04089, §3.3, has times where this has channels).
"""

from collections.abc import Sequence

from whet.base.errors import UnsupportedError
from whet.methods.solve.removal import removal
from whet.model.family import find
from whet.model.source import Source
from whet.search.gradients import Gradients, costs

LEAST = 0.25  # of its channels that every block keeps
NARROWEST = 64  # channels of a step between widths, at least
STEPS = 8  # from none of a block's channels to all of them, about
PLENTY = 4  # tokens a channel, from which refitting is judged on the tokens that it was made with
Curve = Sequence[tuple[int, float]]  # (channels that stay, KL divergence [nat per token])


def widths(source: Source, felt: Gradients, share: float) -> tuple[int, ...]:
    """Return how many channels each block keeps if a share of all goes.

    Law: no more in all than a share of each block leaves, and less than a step below it.
    """
    family = find(source.config)
    arch = family.architecture(source.config, source.names())
    step = max(NARROWEST, arch.ffn // STEPS // NARROWEST * NARROWEST)
    curves = [_curve(source, felt, layer, step) for layer in range(arch.layers)]
    return allotted(curves, int(sum(curve[0][0] for curve in curves) * (1 - share)))


def _curve(source: Source, felt: Gradients, layer: int, step: int) -> Curve:
    """Return what a block costs at each width, the widest first."""
    family = find(source.config)
    arch = family.architecture(source.config, source.names())
    site = next(s for s in family.block_sites(arch, layer) if s.role == "mlp.down")
    weight, seen, whole = source.weight(site).dense(), felt.block(layer)[site.role], site.shape[1]
    gram, refit = seen.x.T @ seen.x / len(seen.x), len(seen.x) >= PLENTY * whole
    found = [(whole, 0.0)]
    for keep in range((whole - 1) // step * step, max(step, int(LEAST * whole)) - 1, -step):
        delta = removal(weight, gram, keep, "activation", refit=refit).weight - weight
        found.append((keep, costs({site.role: seen}, {site.role: delta})[0] / felt.ids.numel()))
    return found


def allotted(curves: Sequence[Curve], kept: int) -> tuple[int, ...]:
    """Return the width of each block whose losses sum to the least with at most `kept` in all.

    Law: no other widths on the curves that fit lose less.
    """
    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
    for curve in curves:
        onward: dict[int, tuple[float, tuple[int, ...]]] = {}
        for used, (lost, before) in best.items():
            for width, cost in curve:
                total, spent = used + width, lost + cost
                if total <= kept and (total not in onward or spent < onward[total][0]):
                    onward[total] = (spent, (*before, width))
        best = onward
    if not best:
        raise UnsupportedError(f"no widths of {len(curves)} blocks have {kept} channels in all")
    return min(best.values())[1]
