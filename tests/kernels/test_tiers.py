"""Tiers: those of this kind of processor, which of them run here, and which one is taken."""

import pytest

from whet.kernels.native import missing, native

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
X86, ARM = ["avx2", "avx512", "avx512bf16"], ["neon", "dotprod"]


def test_tiers_are_those_of_one_kind_of_processor() -> None:
    written = native().written_tiers()
    assert written in (["generic"], ["generic", *X86], ["generic", *ARM])
    for name in ("generic", *X86, *ARM):
        told = native().tier_refusal(name)
        assert (told == "") == (name in native().tiers())
        assert (told == "this is another kind of processor") == (name not in written)


def test_the_fastest_is_taken_or_the_one_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WHET_ISA", raising=False)
    assert native().chosen_tier() == native().tiers()[-1]
    for name in native().tiers():
        monkeypatch.setenv("WHET_ISA", name)
        assert native().chosen_tier() == name
    other = next(name for name in (*ARM, *X86) if name not in native().tiers())
    for name, reason in ((other, native().tier_refusal(other)), ("sse", "neon or dotprod")):
        monkeypatch.setenv("WHET_ISA", name)
        with pytest.raises(RuntimeError, match=f"WHET_ISA={name}: .*{reason}"):
            native().chosen_tier()
