"""The best choice so far, on disk, for a search that goes on after a kill."""

from collections.abc import Sequence
from pathlib import Path

from whet.search.allocate import Cap, within
from whet.search.option import Choice, Menus
from whet.store.durable import write_json
from whet.store.json_file import read_json


def keep(path: Path, menus: Menus, choice: Choice) -> None:
    """Write a choice, by the names of units and levels."""
    named = {m.unit.name: str(m.options[choice[m.unit.name]].level) for m in menus}
    write_json(path, {"levels": named})


def kept(path: Path, menus: Menus, caps: Sequence[Cap]) -> Choice | None:
    """Return the choice that was kept, if it is one of these menus within these caps."""
    if not path.is_file():
        return None
    held = read_json(path).get("levels")
    if not isinstance(held, dict):
        return None
    choice: dict[str, int] = {}
    for menu in menus:
        names = [str(option.level) for option in menu]
        name = held.get(menu.unit.name)
        if name not in names:
            return None
        choice[menu.unit.name] = names.index(name)
    return choice if within(menus, choice, caps) else None
