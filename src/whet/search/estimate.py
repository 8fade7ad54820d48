"""What levels are expected to lose, by the backward pass alone: nothing is compressed.

A sweep tries every level; where there is no time for one, a choice rests on these estimates, as a
recipe's mixed precision does (`whet.calibrate.sensitivity`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from whet.base.quantity import Quantity
from whet.base.record import Record
from whet.calibrate.sensitivity import gptq_factor, rounding_loss
from whet.calibrate.sensitivity_outside import outside_sensitivities
from whet.formats.spec import Coded
from whet.model.source import Source
from whet.search.assembly import Assembly
from whet.search.database import KL
from whet.search.gradients import Felt, Gradients
from whet.search.option import Choice, total
from whet.search.unit import Level, Unit

HOW = f"{KL}; expected from the Fisher information's diagonal"


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """Choices of a shape judged by the sum of what their levels are expected to lose.

    `shape` is put together as it is alone, unless it is the `whole` model, which has lost nothing.
    """

    shape: Assembly
    whole: bool

    @property
    def ids(self) -> Int64[Tensor, "samples time"]:
        """The text on which the shape is judged."""
        return self.shape.ids

    def kl(self, choice: Choice, samples: int | None = None) -> float:
        """Return the KL divergence that is expected of a choice [nat per token]."""
        menus = self.shape.menus
        lost = 0.0 if self.whole else self.shape.kl({m.unit.name: 0 for m in menus}, samples)
        return lost + total(menus, choice, "kl")

    def forget(self) -> None:
        """Give back the memory of blocks."""
        self.shape.forget()


@torch.no_grad()
def estimates(
    source: Source,
    units: Sequence[Unit],
    offers: Mapping[str, Sequence[Level]],
    gradients: Gradients,
) -> Iterator[Record]:
    """Yield what each level of codes is expected to cost each unit (step "option")."""
    for layer in sorted({unit.layer for unit in units if unit.layer is not None}):
        felt = gradients.block(layer)
        for unit in (unit for unit in units if unit.layer == layer):
            yield from _of_unit(source, unit, _of_codes(offers[unit.name]), felt, gradients)
    yield from _outside(source, [u for u in units if u.layer is None], offers, gradients)


def _of_unit(
    source: Source,
    unit: Unit,
    levels: Sequence[Level],
    felt: Mapping[str, Felt],
    gradients: Gradients,
) -> Iterator[Record]:
    kl = dict.fromkeys(levels, 0.0)
    for site in (site for site in unit.sites if site.role in felt):
        x, g = felt[site.role].x, felt[site.role].g
        factor, weight = gptq_factor(x), source.weight(site).dense()
        fisher = g.square().T @ x.square() / gradients.ids.numel()
        for level in levels:
            assert level.format is not None, "levels of codes have a format"
            kl[level] += factor * rounding_loss(weight, fisher, level.format)
    for level, lost in kl.items():
        yield _told(unit, level, lost)


def _outside(
    source: Source,
    units: Sequence[Unit],
    offers: Mapping[str, Sequence[Level]],
    gradients: Gradients,
) -> Iterator[Record]:
    levels = {unit.sites[0].role: _of_codes(offers[unit.name]) for unit in units}
    formats = dict.fromkeys(one.format for some in levels.values() for one in some if one.format)
    if not formats:
        return
    found = outside_sensitivities(
        source, gradients.ids, gradients.entered(), gradients.leaving(), tuple(formats)
    )
    known = {one.role: one.kl for one in found}
    for unit in units:
        for level in levels[unit.sites[0].role]:
            assert level.format is not None, "levels of codes have a format"
            yield _told(unit, level, known[unit.sites[0].role][level.format])


def _of_codes(levels: Iterable[Level]) -> list[Level]:
    """Return the levels that rounding alone writes, whatever they multiply."""
    return [one for one in levels if isinstance(one.format, Coded)]


def _told(unit: Unit, level: Level, kl: float) -> Record:
    facts = {"kl": Quantity(kl, "nat", HOW)}
    notes = {"level": str(level), "method": level.method}
    return Record("option", unit.name, facts, notes=notes)
