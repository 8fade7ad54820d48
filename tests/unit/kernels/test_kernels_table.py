import pytest

from whet.formats.spec import EXAMPLES, Coded, Float, parse
from whet.kernels.described import described
from whet.kernels.native import missing, native
from whet.kernels.table import KERNELS, MODES, Machine, decision, machine

built = pytest.mark.skipif(missing() is not None, reason=str(missing()))
SHAPE = (48, 256)


def taken(format_, tier, mode):
    try:
        return native().kernel_name(described(format_), *SHAPE, tier, mode)
    except native().LayoutError:
        return "reference"


@built
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_table_says_what_the_extension_does(name):
    format_, here = parse(name), machine()
    for mode in MODES:
        found = decision(format_, SHAPE, here, mode)
        assert [kernel.name for kernel in KERNELS][: len(found.refusals)] == [
            kernel for kernel, _ in found.refusals
        ]
        assert all(reason for _, reason in found.refusals)
        if isinstance(format_, Coded | Float):
            assert found.kernel == taken(format_, here.tier, mode)


@built
def test_every_integer_takes_int8_activations():
    for name in EXAMPLES:
        format_ = parse(name)
        if isinstance(format_, Coded) and str(format_.element).startswith("int"):
            assert decision(format_, SHAPE, machine()).kernel == "integer", name


@built
def test_a_term_that_is_refused_is_named():
    found = decision(parse("int4-channel + nf2-g32"), SHAPE, machine())
    assert found.refusals[0][0] == "integer"
    assert found.refusals[0][1].startswith("nf2-g32: ")


def test_without_the_extension_everything_is_the_reference():
    found = decision(parse("int4-g32"), SHAPE, Machine(missing="not built"))
    assert found.kernel == "reference"
    assert found.refusals == (("integer", "not built"), ("table", "not built"))
