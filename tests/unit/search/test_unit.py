"""What a unit may become, and the passes that write it."""

import pytest
from tests.unit.search.menus import site

from whet.search.unit import BRIEF, LEVELS, PLAIN, Solver, level


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("solver", [PLAIN, BRIEF])
def test_a_quick_solver_writes_the_format_of_the_thorough_one(name: str, solver: Solver) -> None:
    one, where = level(name), site("mlp.down", 0)
    quick, whole = one.use(solver=solver), one.use()
    assert quick.fitted(where).format == whole.fitted(where).format
    assert (quick != whole) == (one.method == "gptq")
