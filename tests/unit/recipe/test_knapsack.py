"""The exact choice at a size, beside counting all choices."""

from itertools import product
from random import Random

import pytest

from whet.recipe import knapsack
from whet.recipe.knapsack import Item, choose


def some_items(seed: int) -> list[Item]:
    random = Random(seed)
    return [
        Item(
            tuple(random.choice((3, 6, 7, 12, 20)) for _ in range(3)),
            tuple(random.random() for _ in range(3)),
        )
        for _ in range(5)
    ]


def by_counting(items: list[Item], budget: int) -> tuple[int, float]:
    """The greatest size within the budget, and the least loss at it."""
    found: list[tuple[int, float]] = []
    for picks in product(range(3), repeat=len(items)):
        size = sum(item.sizes[i] for item, i in zip(items, picks, strict=True))
        loss = sum(item.losses[i] for item, i in zip(items, picks, strict=True))
        if size <= budget:
            found.append((-size, loss))
    size, loss = min(found)
    return -size, loss


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("budget", [45, 52, 61, 200])
def test_equals_counting(seed: int, budget: int) -> None:
    items = some_items(seed)
    found = choose(items, budget)
    if found is None:
        assert sum(min(item.sizes) for item in items) > budget
        return
    size = sum(item.sizes[i] for item, i in zip(items, found, strict=True))
    loss = sum(item.losses[i] for item, i in zip(items, found, strict=True))
    assert (size, pytest.approx(loss)) == by_counting(items, budget)


def test_the_size_does_not_depend_on_the_losses() -> None:
    items = some_items(0)
    others = [Item(item.sizes, item.losses[::-1]) for item in items]
    sizes = {
        sum(item.sizes[i] for item, i in zip(some, choose(some, 50) or (), strict=True))
        for some in (items, others)
    }
    assert len(sizes) == 1


def test_a_coarser_unit_keeps_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knapsack, "LONGEST", 7)
    items = some_items(1)
    found = choose(items, 60)
    assert found is not None
    assert sum(item.sizes[i] for item, i in zip(items, found, strict=True)) <= 60


def test_too_small_a_budget() -> None:
    assert choose(some_items(2), 5) is None
