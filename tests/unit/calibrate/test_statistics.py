import pytest
import torch

from whet.calibrate.range import Range
from whet.calibrate.statistics import Cross, Energy, Gram, Residual, Seen, Statistic, Stats
from whet.kernels import gram

KINDS = [Gram, Cross, Residual, Energy, Range]


def seen(n: int = 64, seed: int = 0) -> Seen:
    g = torch.Generator().manual_seed(seed)
    x, ideal = torch.randn(n, 6, generator=g) * 3, torch.randn(n, 6, generator=g)
    return Seen(x, ideal, torch.randn(n, 4, generator=g))


def parts(whole: Seen, *cuts: int) -> list[Seen]:
    lists = [torch.tensor_split(t, cuts) for t in (whole.x, whole.reference, whole.drift)]
    return [Seen(*one) for one in zip(*lists, strict=True)]


def numbers(statistic: Statistic) -> list[torch.Tensor]:
    values = dict(vars(statistic))
    if isinstance(statistic, Gram):
        values["total"] = statistic.symmetric()
    return [torch.as_tensor(values[name], dtype=torch.float64) for name in sorted(values)]


def assert_same(a: Statistic, b: Statistic) -> None:
    for one, other in zip(numbers(a), numbers(b), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_split_sees_what_the_whole_sees(kind: type[Statistic]) -> None:
    whole, halves = kind(6), kind(6)
    whole.add(seen())
    for part in parts(seen(), 1, 10, 10, 50):
        halves.add(part)
    assert_same(whole, halves)


@pytest.mark.parametrize("kind", KINDS)
def test_merging_is_associative_and_commutative(kind: type[Statistic]) -> None:
    def made(*samples: Seen) -> Statistic:
        one = kind(6)
        for sample in samples:
            one.add(sample)
        return one

    a, b, c = parts(seen(), 20, 21)
    left, right = made(a), made(c)
    left.merge(made(b))
    left.merge(made(c))
    right.merge(made(b))
    right.merge(kind(6))
    right.merge(made(a))
    assert_same(left, right)
    assert_same(left, made(a, b, c))


def test_means_are_the_textbook_ones() -> None:
    s = seen()
    made = {kind: kind(6) for kind in KINDS}
    for one in made.values():
        one.add(s)
    x, ideal, drift = (t.double() for t in (s.x, s.reference, s.drift))
    means = {Gram: x.T @ x, Cross: (ideal - x).T @ x, Residual: drift.T @ x}
    for kind, total in means.items():
        mean = made[kind].mean().double()
        torch.testing.assert_close(mean, total / 64, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(made[Energy].mean_square(), s.x.square().mean(0))
    torch.testing.assert_close(made[Energy].mean_magnitude(), s.x.abs().mean(0))
    torch.testing.assert_close(made[Gram].diagonal(), made[Energy].mean_square())
    assert torch.equal(made[Energy].peak, s.x.abs().amax(0))
    assert (made[Range].low, made[Range].high) == (float(s.x.min()), float(s.x.max()))
    assert float(made[Range].counts.sum()) == s.x.numel()


def test_a_wide_gram_is_summed_by_triangle(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Gram(6)
    plain.add(seen())
    monkeypatch.setattr(gram, "WIDE", 4)
    monkeypatch.setattr(gram, "STRIP", 4)
    wide = Gram(6)
    for part in parts(seen(), 30):
        wide.add(part)
        wide.symmetric()
    torch.testing.assert_close(wide.mean(), plain.mean())
    assert torch.equal(wide.mean(), wide.mean().T)


def test_without_pairs_nothing_is_seen() -> None:
    for kind in (Cross, Residual):
        one = kind(6)
        one.add(Seen(torch.randn(5, 6)))
        assert one.tokens == 0
        assert not one.mean().any()


def test_the_order_of_merging_ranges_changes_nothing_at_all() -> None:
    samples = [torch.full((3, 2), value) for value in (0.001, 7.5, -300.0, 0.0)]
    orders = ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2])
    made = []
    for order in orders:
        whole = Range(2)
        for i in order:
            one = Range(2)
            one.add(Seen(samples[i]))
            whole.merge(one)
        made.append(whole)
    for other in made[1:]:
        assert torch.equal(made[0].counts, other.counts)
        assert (made[0].low, made[0].high, made[0].reach) == (other.low, other.high, other.reach)


def test_a_histogram_finds_the_values() -> None:
    one = Range(1)
    one.add(Seen(torch.linspace(-3, 5, 10_000)[:, None]))
    centres, counts = one.values()
    assert float(counts.sum()) == 10_000
    assert float((centres * counts).sum()) / 10_000 == pytest.approx(1.0, abs=0.01)
    assert float(centres.min()) < -2.99
    assert float(centres.max()) > 4.99


def test_stats_hold_what_was_asked_for_and_merge() -> None:
    a, b = Stats((Gram, Energy), 6), Stats((Gram, Energy), 6)
    a.add(seen().x)
    b.add(seen(seed=1).x)
    b.dropped.add(3)
    a.merge(b)
    assert a.tokens == a[Gram].tokens == a[Energy].tokens == 128
    assert a.dropped == {3}
    assert Gram in a
    assert Range not in a
    with pytest.raises(KeyError):
        a[Range]
