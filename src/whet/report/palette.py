"""The colours of the heat map, as style rules for light and dark pages."""

from whet.report.svg import STEPS

Colour = tuple[int, int, int]
LIGHT = ((245, 240, 229), (240, 205, 146), (221, 128, 66), (158, 47, 32), (84, 16, 26))
DARK = ((38, 41, 46), (84, 52, 42), (158, 70, 42), (228, 136, 66), (255, 226, 163))


def colour(stops: tuple[Colour, ...], share: float) -> str:
    """Return the colour at a share of the way along the stops, as `#rrggbb`."""
    place = share * (len(stops) - 1)
    left = min(int(place), len(stops) - 2)
    mixed = (
        round(a + (b - a) * (place - left))
        for a, b in zip(stops[left], stops[left + 1], strict=True)
    )
    return "#" + "".join(f"{part:02x}" for part in mixed)


def rules(stops: tuple[Colour, ...]) -> str:
    """Return the rules that fill each step of the ramp."""
    return "".join(f".h{i}{{fill:{colour(stops, i / (STEPS - 1))}}}" for i in range(STEPS))


def style(page: str) -> str:
    """Return a page's style with the ramps in it: dark on screens that ask for it."""
    dark = f"@media screen and (prefers-color-scheme:dark){{{rules(DARK)}}}"
    return f"{page}\n{rules(LIGHT)}\n{dark}\n"
