"""How one module is written: the format of its weight and of its input. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass

from whet.formats.activation import Activation, parse_activation
from whet.formats.spec import Format, parse


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

    def __str__(self) -> str:
        """Return e.g. `int8-channel` or `int8-channel, input int8-token`."""
        return f"{self.format}, input {self.activation}" if self.activation else str(self.format)
