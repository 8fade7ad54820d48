"""What a search reads from a model: gradients, what levels cost, choices put together."""

from pathlib import Path

import pytest
import torch
from tests.small import small_model

from whet.base.seed import stream_seed
from whet.calibrate.backward import ROWS
from whet.calibrate.tokens import calibration, spare
from whet.model import decoder
from whet.recipe.anatomy import anatomy
from whet.search.assembly import Assembly
from whet.search.clock import Clock
from whet.search.database import Database
from whet.search.estimate import Expected, estimates
from whet.search.gradients import Gradients, gradients
from whet.search.option import Menu, Option, total
from whet.search.rounding import rounding_of
from whet.search.schedule import Schedule
from whet.search.sweep import Sweep
from whet.search.unit import THOROUGH, levels_of, offered, units
from whet.store.checkpoint import Checkpoint
from whet.store.folder import Folder
from whet.store.tokenizer import Tokenizer

LEVELS, TABLES = ("int4-g64", "int8-channel"), ("int4-g64-affine",)
SEED = 3


def heed(share: float, what: str) -> None:
    """Nobody is told."""


class Prepared:
    """A small model, swept."""

    def __init__(self, place: Path) -> None:
        self.folder = Folder(small_model(place / "model"), dense=True)
        self.source = Checkpoint(self.folder)
        reader = Tokenizer(self.folder.path)
        self.ids = calibration("builtin", reader, 16, 128, 0).ids
        apart = spare("builtin", reader, 16, 128, 0, 16)
        self.held, self.seen = apart[::2], apart[1::2]
        self.felt = gradients(self.source, self.seen, place / "felt", SEED, heed)
        self.units = units(anatomy(self.folder).sites)
        offers = {u.name: self.offer(u) for u in self.units}
        (place / "levels").mkdir()
        outside = tuple(unit.name for unit in self.units if unit.layer is None)
        self.database = Database(place / "levels", offers, outside)
        # time stands still, so that every level is tried by the thorough solver
        clock = Clock(1000.0, lambda: 0.0)
        schedule = Schedule(clock, LEVELS, 2, 1000, 1000.0, solver=THOROUGH)
        self.sweep = Sweep(self.source, self.units, self.database, self.felt, SEED, heed, schedule)
        self.sweep.run(self.ids)
        self.assembly = self.assembled()

    def assembled(self) -> Assembly:
        return Assembly(self.source, self.menus(), self.database, self.held, self.source)

    def offer(self, unit):
        return offered(unit, levels_of(TABLES if unit.table else LEVELS, table=unit.table))[0]

    def choice(self, name: str) -> dict[str, int]:
        """One level wherever it is offered, the first otherwise."""
        offers = self.database.offers
        names = {unit.name: [str(level) for level in offers[unit.name]] for unit in self.units}
        return {unit: of.index(name) if name in of else 0 for unit, of in names.items()}

    def level(self, unit, choice):
        return self.database.offers[unit.name][choice[unit.name]]

    def menus(self) -> list[Menu]:
        known = {(r.site, r.notes["level"]): r.facts["kl"].value for r in self.database.records()}
        return [
            Menu(u, tuple(Option(o, known.get((u.name, str(o)), 0.0), 0) for o in self.offer(u)))
            for u in self.units
        ]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("prepared"))


def likelihood(prepared: Prepared, change: dict[str, torch.Tensor], layer: int) -> float:
    """The log-likelihood of the labels that the backward pass has drawn, with a block changed."""
    model = decoder.load(prepared.source)
    with torch.no_grad():
        hidden = model.hidden(prepared.seen)
        chance = torch.Generator().manual_seed(stream_seed(SEED, "labels"))
        labels = [
            torch.multinomial(model.head(part).log_softmax(-1).exp(), 1, generator=chance)
            for window in hidden
            for part in window.split(ROWS)
        ]
        for role, delta in change.items():
            linear = model.blocks[layer].linears[role]
            value = linear.weight.dense() + delta
            from whet.formats.spec import Float
            from whet.formats.weight import Weight

            linear.replace(Weight(Float("F32"), {"value": value}, linear.weight.shape))
        log = model(prepared.seen).double().log_softmax(-1)
        return float(log.flatten(0, 1).gather(-1, torch.cat(labels)).sum())


@pytest.mark.parametrize(("layer", "role"), [(0, "attn.q"), (0, "mlp.down"), (1, "attn.o")])
def test_gradients_are_those_of_finite_differences(
    prepared: Prepared, layer: int, role: str
) -> None:
    felt = prepared.felt.block(layer)[role]
    weight = decoder.load(prepared.source).blocks[layer].linears[role].weight
    delta = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    more, less = (likelihood(prepared, {role: sign * delta}, layer) for sign in (1, -1))
    assert float(felt.change(delta)[0].sum()) == pytest.approx(
        (more - less) / 2, rel=0.03, abs=0.02
    )


def test_costs_are_what_the_model_loses(prepared: Prepared) -> None:
    menus = prepared.menus()
    for name, tolerance in (("int4-g64", 0.3), ("int8-channel", 0.3)):
        choice = prepared.choice(name)
        lost = prepared.assembly.kl(choice)
        assert total(menus, choice, "kl") == pytest.approx(lost, rel=tolerance)
    for menu in menus:
        losses = [option.kl for option in menu.options[1:]]
        assert losses == sorted(losses, reverse=True)


def test_a_choice_put_together_is_the_model_with_those_weights(prepared: Prepared) -> None:
    choice = prepared.choice("int4-g64")
    choice["embed"] = 1
    model, original = decoder.load(prepared.source), decoder.load(prepared.source)
    for unit in prepared.units:
        level = prepared.level(unit, choice)
        for role, weight in prepared.database.weights(unit, level).items():
            if unit.layer is None:
                model.embedding.linear.replace(weight)
                linear = model.head.linear
            else:
                linear = model.blocks[unit.layer].linears[role]
            linear.replace(weight)
            linear.activation = rounding_of(level)
    with torch.no_grad():
        log, ideal = (one(prepared.held).log_softmax(-1) for one in (model, original))
    expected = float((ideal.exp() * (ideal - log)).sum(-1).mean())
    assert prepared.assembly.kl(choice) == pytest.approx(expected, rel=1e-4)
    changed = choice | {"layers.1.mlp.mid": 0}  # with blocks that are kept
    assert prepared.assembly.kl(changed) == pytest.approx(
        prepared.assembled().kl(changed), rel=1e-4
    )
    assert prepared.assembly.kl(choice) == pytest.approx(expected, rel=1e-4)


def test_nothing_chosen_costs_nothing(prepared: Prepared) -> None:
    assert prepared.assembly.kl({unit.name: 0 for unit in prepared.units}) == 0.0


def test_a_finished_sweep_is_not_done_again(prepared: Prepared, monkeypatch) -> None:
    monkeypatch.setattr(Sweep, "_written", lambda *given: pytest.fail("written again"))
    before = list(prepared.database.records())
    prepared.sweep.run(prepared.ids)
    assert list(prepared.database.records()) == before


def test_gradients_are_read_again(prepared: Prepared, tmp_path: Path) -> None:
    again = gradients(prepared.source, prepared.seen, tmp_path / "felt", SEED, heed)
    assert isinstance(again, Gradients)
    for role, felt in prepared.felt.block(1).items():
        assert torch.equal(felt.g, again.block(1)[role].g)


def test_held_out_windows_are_apart() -> None:
    reader = Tokenizer(small_folder())
    taken = {tuple(row) for row in calibration("builtin", reader, 64, 128, 0).ids.tolist()}
    held = spare("builtin", reader, 64, 128, 0, 16).tolist()
    assert len(held) == 16
    assert not taken & {tuple(row) for row in held}


def small_folder() -> Path:
    from whet.store.resolve import demo

    return demo()


def test_what_the_gradients_expect_is_close_to_what_a_sweep_finds(prepared: Prepared) -> None:
    offers = prepared.database.offers
    expected = {
        (one.site, one.notes["level"]): one.facts["kl"].value
        for one in estimates(prepared.source, prepared.units, offers, prepared.felt)
    }
    found = {
        (one.site, one.notes["level"]): one.facts["kl"].value for one in prepared.database.records()
    }
    assert expected.keys() == found.keys()
    coarse = [key for key in found if key[1].startswith("int4")]
    ratio = sum(expected[key] for key in coarse) / sum(found[key] for key in coarse)
    assert 0.5 < ratio < 2
    for unit in prepared.units:
        if not unit.table:
            assert expected[unit.name, "int4-g64"] > 10 * expected[unit.name, "int8-channel"]


def test_expected_losses_add_up(prepared: Prepared) -> None:
    menus, choice = prepared.menus(), prepared.choice("int4-g64")
    whole, shape = (Expected(prepared.assembly, whole=known) for known in (True, False))
    assert whole.kl(choice) == total(menus, choice, "kl")
    assert shape.kl(choice) == pytest.approx(whole.kl(choice))  # the shape has lost nothing
