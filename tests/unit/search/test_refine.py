"""Evolution: limits kept by every mutant, never worse, and the best where losses add up."""

import random
from dataclasses import replace

from tests.unit.search.menus import menus

from whet.search.allocate import Cap, allocate, within
from whet.search.option import Menu, total
from whet.search.refine import Evolution, unbeaten


def evolution(of, caps, fitness, seed=0):
    return Evolution(of, caps, fitness, seed)


def start_of(of, caps):
    return dict(allocate(of, "nbytes", caps).choice)


def test_every_mutant_keeps_every_cap() -> None:
    of = menus(5, count=12)
    middle = {menu.unit.name: 2 for menu in of}
    caps = [Cap("nbytes", total(of, middle, "nbytes")), Cap("decode", total(of, middle, "decode"))]
    run = evolution(of, caps, lambda choice, scope: 0.0)
    start = dict(allocate(of, "kl", caps).choice)
    mutants = [run.mutant(start) for _ in range(300)]
    made = [mutant for mutant in mutants if mutant is not None]
    assert len(made) > 100
    assert all(within(of, mutant, caps) for mutant in made)
    assert any(mutant != start for mutant in made)


def test_options_that_are_only_quicker_may_be_taken_and_left() -> None:
    of = [
        Menu(menu.unit, (*menu.options, replace(menu.options[0], kl=0.5, decode=0.0)))
        for menu in menus(4, count=6)
    ]  # the last is as large as the first, loses more, and takes no time
    start = {menu.unit.name: len(menu.options) - 1 for menu in of}
    assert all(unbeaten(menu, ("kl", "decode"))[-1] == start[menu.unit.name] for menu in of)
    assert all(start[menu.unit.name] not in unbeaten(menu, ("kl", "nbytes")) for menu in of)
    for caps in ([Cap("decode", 1.0)], [Cap("nbytes", 1e9)]):  # taken, though it may be beaten
        run = evolution(of, caps, lambda choice, scope: 0.0)
        made = [run.mutant(start) for _ in range(50)]
        assert all(within(of, mutant, caps) for mutant in made if mutant is not None)
        assert any(mutant not in (None, start) for mutant in made)


def test_never_worse_and_repeatable() -> None:
    of = menus(2, count=10)
    caps = [Cap("nbytes", 0.6 * total(of, {menu.unit.name: 0 for menu in of}, "nbytes"))]
    chance = random.Random(1)
    twist = {menu.unit.name: chance.random() for menu in of}

    def fitness(choice, scope):
        return sum(twist[menu.unit.name] * menu.options[choice[menu.unit.name]].kl for menu in of)

    runs = []
    for _ in range(2):
        left = iter(range(30))
        run = evolution(of, caps, fitness)
        runs.append(
            list(run.run(start_of(of, caps), lambda left=left: next(left, None) is not None))
        )
    kls = [generation.kl for generation in runs[0]]
    assert kls == sorted(kls, reverse=True)
    assert kls[-1] < kls[0]
    assert [g.choice for g in runs[0]] == [g.choice for g in runs[1]]


def test_reaches_the_best_sum() -> None:
    of = menus(4, count=6)
    caps = [Cap("nbytes", 0.7 * total(of, {menu.unit.name: 0 for menu in of}, "nbytes"))]
    best = allocate(of, "kl", caps)
    run = evolution(of, caps, lambda choice, scope: total(of, choice, "kl"))
    left = iter(range(60))
    last = list(run.run(start_of(of, caps), lambda: next(left, None) is not None))[-1]
    assert last.kl >= best.value - 1e-9
    assert last.kl <= 1.5 * best.value + 1e-9
