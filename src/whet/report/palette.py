"""The colours of the heat maps, as style rules for light and dark pages."""

from whet.report.svg import STEPS

Colour = tuple[int, int, int]
LIGHT = ((245, 240, 229), (240, 205, 146), (221, 128, 66), (158, 47, 32), (84, 16, 26))
DARK = ((38, 41, 46), (84, 52, 42), (158, 70, 42), (228, 136, 66), (255, 226, 163))
COOL_LIGHT = ((236, 241, 238), (190, 213, 217), (118, 164, 182), (45, 101, 134), (18, 48, 78))
COOL_DARK = ((33, 38, 44), (35, 62, 82), (45, 98, 128), (102, 164, 194), (204, 232, 242))


def colour(stops: tuple[Colour, ...], share: float) -> str:
    """Return the colour at a share of the way along the stops, as `#rrggbb`."""
    place = share * (len(stops) - 1)
    left = min(int(place), len(stops) - 2)
    mixed = (
        round(a + (b - a) * (place - left))
        for a, b in zip(stops[left], stops[left + 1], strict=True)
    )
    return "#" + "".join(f"{part:02x}" for part in mixed)


def rules(stops: tuple[Colour, ...], letter: str) -> str:
    """Return the rules that fill each step of a ramp."""
    return "".join(f".{letter}{i}{{fill:{colour(stops, i / (STEPS - 1))}}}" for i in range(STEPS))


def style(page: str) -> str:
    """Return a page's style with the ramps in it (warm `h`, cool `b`): dark where that is asked."""
    light = rules(LIGHT, "h") + rules(COOL_LIGHT, "b")
    dark = rules(DARK, "h") + rules(COOL_DARK, "b")
    return f"{page}\n{light}\n@media screen and (prefers-color-scheme:dark){{{dark}}}\n"
