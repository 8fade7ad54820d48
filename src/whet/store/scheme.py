"""How one module is written: the format of its weight and of its input. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from whet.formats.activation import Activation, parse_activation
from whet.formats.spec import Float, Format, Shape, parse


@runtime_checkable
class Place(Protocol):
    """What the store needs to know of a linear weight; `whet.model.site.Site` knows it."""

    @property
    def role(self) -> str:
        """Its place in whet's words: "attn.q", "embed", "mlp.experts.3.up"."""
        ...

    @property
    def module(self) -> str:
        """Its module's name in the checkpoint."""
        ...

    @property
    def shape(self) -> Shape:
        """(out, in)."""
        ...

    @property
    def head(self) -> str | None:
        """The module of the head that shares this matrix: of a tied embedding."""
        ...

    @property
    def transposed(self) -> bool:
        """Whether a checkpoint of plain numbers stores (in, out)."""
        ...

    @property
    def tensor(self) -> str:
        """The tensor that holds it in a checkpoint of plain numbers."""
        ...

    def oriented(self, stored: Any) -> Any:  # noqa: ANN401 (numpy's array or torch's)
        """Return this weight, (out, in), as a view of that tensor."""
        ...


@dataclass(frozen=True, slots=True)
class Scheme:
    """A weight format, and the activation format if the input is quantized too.

    Law: `Scheme.of(scheme.plain()) == scheme`.
    """

    format: Format
    activation: Activation | None = None

    def plain(self) -> dict[str, str]:
        """Return the scheme as plain words, for JSON."""
        words = {"format": str(self.format)}
        return words | ({"activation": str(self.activation)} if self.activation else {})

    @staticmethod
    def of(words: Mapping[str, str]) -> "Scheme":
        """Read what `plain` wrote."""
        activation = words.get("activation")
        return Scheme(parse(words["format"]), parse_activation(activation) if activation else None)

    @property
    def is_plain(self) -> bool:
        """Whether any reader of plain numbers can use it: a float weight, the input as it is."""
        return self.activation is None and isinstance(self.format, Float)

    def __str__(self) -> str:
        """Return e.g. `int8-channel` or `int8-channel, input int8-token`."""
        return f"{self.format}, input {self.activation}" if self.activation else str(self.format)
