"""Weights of units at levels, on disk: any choice can be put together without compressing anew."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from whet.base.quantity import Quantity
from whet.base.record import Record
from whet.formats.weight import Weight
from whet.recipe.parts import Parts
from whet.recipe.progress import commit, finished
from whet.search.unit import Level, Unit
from whet.store.array import stored
from whet.store.dtypes import tensor_of
from whet.store.shard import Shard

KL = "half the mean square of gᵀΔWx: what it adds to the KL divergence, to second order"
ERROR = "‖ΔW X‖² ÷ ‖W X‖² over the calibration tokens"


@dataclass(frozen=True, slots=True, eq=False)
class Database:
    """What a sweep has left so far, in parts: each unit that lies `outside` of blocks, then each block."""

    folder: Path
    offers: Mapping[str, tuple[Level, ...]]  # of each unit; the first leaves it as it is
    outside: tuple[str, ...]  # by name

    def part(self, unit: Unit) -> int:
        """Return the number of the part that a unit is in."""
        if unit.layer is None:
            return self.outside.index(unit.name)
        return len(self.outside) + unit.layer

    @property
    def done(self) -> int:
        """Return how many parts are there."""
        return finished(self.folder)

    def keep(self, part: int, made: Mapping[str, Tensor], records: list[Record]) -> None:
        """Make a part last."""
        self._parts.save(part, made, records)
        commit(self.folder, part + 1)

    def weights(self, unit: Unit, level: Level) -> dict[str, Weight]:
        """Return the weights of a unit at a level, by role; none where it stays as it is."""
        if level.format is None:
            return {}
        path, use = self.folder / "parts" / f"{self.part(unit):04d}.safetensors", level.use()
        shard = Shard(path)
        found: dict[str, Weight] = {}
        for site in unit.sites:
            format_ = use.fitted(site).format
            planes = {
                plane: tensor_of(stored(shard, _name(level, site.role, plane)))
                for plane in format_.planes(site.shape)
            }
            found[site.role] = Weight(format_, planes, site.shape)
        return found

    def records(self) -> Iterator[Record]:
        """Yield what every option costs (step "option")."""
        yield from self._parts.records(self.done)

    @property
    def _parts(self) -> Parts:
        return Parts(self.folder / "parts")


def named(level: Level, made: Mapping[str, Weight]) -> dict[str, Tensor]:
    """Return the planes of a unit at a level, as a database names them."""
    return {
        _name(level, role, plane): tensor
        for role, weight in made.items()
        for plane, tensor in weight.planes.items()
    }


def _name(level: Level, role: str, plane: str) -> str:
    return f"{role}|{level.written}|{plane}"


def told(unit: Unit, level: Level, kl: float, error: float, fallback: str | None) -> Record:
    """Return the record of an option."""
    facts = {"kl": Quantity(kl, "nat", KL), "error": Quantity(error, "1", ERROR)}
    notes = {"level": str(level), "method": level.method}
    return Record("option", unit.name, facts, fallback, notes)
