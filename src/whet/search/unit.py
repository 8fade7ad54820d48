"""What is chosen together, and what it may become: units of linears and the levels they are offered.

A runtime joins linears that read the same activation (queries, keys and values; gate and up), so
these are one unit and share a level. An embedding and a head that share their storage are one too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast, runtime_checkable

from whet.base.errors import RecipeError
from whet.formats.activation import Activation, parse_activation
from whet.formats.spec import Coded, Corrected, Format, LowRank, Sparse, parse
from whet.formats.spec import Float as Plain
from whet.methods import catalogue
from whet.model.site import Site
from whet.passes.linear_pass import LinearPass
from whet.store.scheme import Scheme

COARSE = 3  # bits up to which drift of earlier layers is made good in full
KEPT = "as it is"
ON = " on "  # between the format of a weight and that of what it multiplies
LEVELS = (
    "int2-g128-affine",
    "int2-g64-affine",
    "int2-g32-affine",
    "int3-g128-affine",
    "int3-g64-affine",
    "int3-g32-affine",
    "int4-g128",
    "int4-g64",
    "int4-g32",
    "int4-g32-affine",
    "int4-g32-min-f16",
    "int5-g64",
    "int6-g64",
    "int8-channel",
    "int8-g64",
    "int3-g64-affine + lowrank-16",
    "2:4(int4-g64)",
)  # that a search tries unless it is told others
TABLES = (
    "int3-g64-affine",
    "int4-g64-affine",
    "int4-g32-affine",
    "int5-g64",
    "int6-g64",
    "int8-channel",
    "int8-g64",
)  # that an embedding is tried at


@dataclass(frozen=True, slots=True)
class Solver:
    """How many rounds of coordinate descent follow GPTQ, and how many ranges a group is tried at [1]."""

    sweeps: int
    range_steps: int


THOROUGH, BRIEF, PLAIN = Solver(4, 20), Solver(1, 10), Solver(0, 10)


@dataclass(frozen=True, slots=True)
class Level:
    """A number format and the method that writes it best; no format means left as it is.

    `input` is the number format of what it multiplies, where the engine is not to choose it.
    """

    format: Format | None = None
    method: str = ""
    input: Activation | None = None

    def __str__(self) -> str:
        """Return the format's name, e.g. `int4-g64` or `int8-channel on int16-g32`."""
        if self.format is None:
            return KEPT
        return str(self.format) if self.input is None else f"{self.format}{ON}{self.input}"

    @property
    def written(self) -> "Level":
        """The level whose weights are the same, whatever they multiply."""
        return self if self.input is None else replace(self, input=None)

    def use(self, *, alone: bool = False, solver: Solver = THOROUGH) -> LinearPass:
        """Return the pass that writes it.

        `alone` asks for the best for inputs that no earlier layer has changed, which is how levels
        are compared; else the pass makes good what earlier layers have lost. The `solver` matters to
        GPTQ alone: descent improves all levels by about as much, and its first round gains most.
        """
        assert self.format is not None, "what stays as it is needs no pass"
        settings: dict[str, Any] = {"format": self.format}
        corrects = () if self.method == "rtn" else _corrections(self.method)
        if alone:
            settings |= dict.fromkeys(corrects, 0.0)
        elif _bits(self.format) <= COARSE:
            settings |= dict.fromkeys(corrects, 1.0)
        if solver != THOROUGH and self.method == "gptq":
            settings |= {"sweeps": solver.sweeps, "range_steps": solver.range_steps}
        if self.method == "rtn":
            settings["range"] = "mse"
        return cast("LinearPass", cast("Any", catalogue()[self.method])(**settings))


def _corrections(method: str) -> tuple[str, ...]:
    """Return the settings of a method that say how far drift is made good."""
    known = getattr(catalogue()[method], "__dataclass_fields__", {})
    return tuple(name for name in ("alpha", "alpha_down", "rho") if name in known)


def _bits(format_: Format) -> int:
    """Return the width of a format's codes [bit]; 16 where it has none."""
    match format_:
        case Coded():
            return format_.element.bits
        case Corrected():
            return _bits(format_.codes)
        case Sparse():
            return _bits(format_.inner)
        case _:
            return 16


def level(text: str, *, table: bool = False) -> Level:
    """Return the level of a format's name; `table` is for an embedding, which is looked up."""
    weights, _, read = text.partition(ON)
    format_, input_ = parse(weights), parse_activation(read) if read else None
    if isinstance(format_, Plain):
        return Level()
    return Level(format_, "rtn" if table else _method(format_), input_)


def _method(format_: Format) -> str:
    match format_:
        case Corrected():
            return "residual"
        case LowRank():
            return "svd"
        case Sparse():
            return "alps"
        case _:
            return "gptq"


@dataclass(frozen=True, slots=True)
class Unit:
    """Sites that get the same level: `layers.3.mlp.in`, `embed`, `head`."""

    name: str
    sites: tuple[Site, ...]

    @property
    def layer(self) -> int | None:
        """The block, or None outside the blocks."""
        return self.sites[0].layer

    @property
    def role(self) -> str:
        """The roles that it joins: "mlp.gate+mlp.up"."""
        return "+".join(dict.fromkeys(_general(site.role) for site in self.sites))

    @property
    def weights(self) -> int:
        """How many numbers it has."""
        return sum(site.shape[0] * site.shape[1] for site in self.sites)

    @property
    def table(self) -> bool:
        """Whether it is looked up by tokens."""
        return self.sites[0].tap == "tokens"


def _general(role: str) -> str:
    """Return a role without the number of its expert."""
    parts = role.split(".")
    return ".".join(part for part in parts if not part.isdigit())


def units(sites: Iterable[Site]) -> tuple[Unit, ...]:
    """Return the units of a model, in the order in which they run. Law: each site is in one."""
    found: dict[str, list[Site]] = {}
    for site in sites:
        if site.tied is None:
            found.setdefault(_name(site), []).append(site)
    return tuple(Unit(name, tuple(members)) for name, members in found.items())


def _name(site: Site) -> str:
    if site.layer is None:
        return site.role
    return f"layers.{site.layer}.{_general(site.tap)}"


@runtime_checkable
class Machine(Protocol):
    """What says that a machine cannot multiply by a format."""

    def refuses(self, sites: Sequence[Site], scheme: Scheme) -> str | None:
        """Return why not, or None."""
        ...


@dataclass(frozen=True, slots=True)
class Rejected:
    """A level that a unit is not offered, and why."""

    unit: str
    level: str
    reason: str


def offered(
    unit: Unit, levels: Sequence[Level], machine: Machine | None = None
) -> tuple[tuple[Level, ...], tuple[Rejected, ...]]:
    """Return what a unit may become, the first being what it is, and what it may not.

    Law: an offered level can be written for every site of the unit, and multiplied by.
    """
    fit: list[Level] = [Level()]
    rejected: list[Rejected] = []
    for one in levels:
        reasons = (_refusal(site, one) for site in unit.sites)
        reason = next(filter(None, reasons), None)
        if reason is None and machine is not None and one.format is not None:
            reason = machine.refuses(unit.sites, Scheme(one.format, one.input))
        if reason is None:
            fit.append(one)
        else:
            rejected.append(Rejected(unit.name, str(one), reason))
    return tuple(fit), tuple(rejected)


def _refusal(site: Site, one: Level) -> str | None:
    """Return why a site cannot be written at a level, or None."""
    use = one.use()
    if use.fitted(site).format != use.format:
        return f"{site.shape[1]} inputs do not divide by its group"
    return use.refuses(site) or use.format.refuses(site.shape)


def levels_of(names: Sequence[str], *, table: bool = False) -> tuple[Level, ...]:
    """Return levels by name, each once. Raises RecipeError for a name that is no format."""
    found = tuple(dict.fromkeys(level(name, table=table) for name in names))
    if not found:
        raise RecipeError("no levels to choose from", "Name formats, e.g. int3-g64,int4-g64.")
    return found
