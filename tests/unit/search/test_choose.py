"""What folders teach about the KL divergence of choices."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whet.search.choose import Belief, compared, kl_within, learned
from whet.search.limits import limits

LOSS = st.floats(1e-7, 10.0)
BELIEFS = st.builds(Belief, sequential=st.floats(0.1, 2.0), floor=st.floats(0.0, 1e-4))


@given(BELIEFS, LOSS)
def test_what_a_choice_may_have_is_the_inverse_of_what_its_folder_has(belief, kl):
    assert belief.assembled(belief.built(kl)) == pytest.approx(kl, rel=1e-6, abs=1e-9)
    asked = limits(max_kl=belief.built(kl)).kl
    assert asked is not None
    assert kl_within(asked, belief) == pytest.approx(kl, rel=1e-3, abs=1e-9)


@given(LOSS, LOSS)
def test_a_folder_is_explained_by_what_it_has_taught(kl, real):
    found = compared(Belief(), kl, real)
    assert found.built(kl) == pytest.approx(real)
    assert found.sequential <= 1
    assert found.floor >= 0


def test_rounding_in_the_engine_is_not_a_share_of_the_loss():
    belief = compared(Belief(), 6e-6, 16e-6)
    assert belief.built(8e-5) == pytest.approx(9e-5)
    assert belief.built(0.0) == 0


@given(BELIEFS, LOSS, LOSS)
def test_a_folder_that_breaks_a_limit_makes_what_is_expected_more(belief, kl, more):
    expected = belief.built(kl)
    after = learned(belief, {"kl": expected}, {"kl": expected + more})
    assert after.built(kl) >= expected + more
