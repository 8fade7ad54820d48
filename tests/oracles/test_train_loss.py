"""The losses of distillation against textbook loops in float64, and their gradients."""

import math

import pytest
import torch
from torch import Tensor

from whet.train.chunks import over_tokens
from whet.train.loss import Objective, Truncated, divergence, mean, outcomes, truncated

CASES = [
    ("forward", 0.5),
    ("reverse", 0.5),
    ("jsd", 0.5),
    ("jsd", 0.2),
    ("jsd", 0.0),
    ("jsd", 1.0),
    ("skew", 0.1),
    ("skew_reverse", 0.1),
    ("skew", 0.0),
    ("skew", 1.0),
]


def logits(seed: int, tokens: int = 5, vocab: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(tokens, vocab, generator=generator, dtype=torch.float64)


def softmax(row: list[float], temperature: float) -> list[float]:
    top = max(row)
    powers = [math.exp((x - top) / temperature) for x in row]
    return [x / sum(powers) for x in powers]


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def textbook(p: list[float], q: list[float], kind: str, mix: float) -> float:
    blend = [mix * a + (1 - mix) * b for a, b in zip(p, q, strict=True)]
    turned = [(1 - mix) * a + mix * b for a, b in zip(p, q, strict=True)]
    if kind == "jsd" and mix in (0, 1):
        kind = "reverse" if mix else "forward"
    return {
        "forward": lambda: kl(p, q),
        "reverse": lambda: kl(q, p),
        "jsd": lambda: mix * kl(p, blend) + (1 - mix) * kl(q, blend),
        "skew": lambda: kl(p, blend),
        "skew_reverse": lambda: kl(q, turned),
    }[kind]()


@pytest.mark.parametrize(("kind", "mix"), CASES)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_losses_are_those_of_the_papers(kind, mix, temperature):
    student, teacher, targets = logits(1), logits(2), torch.arange(5)
    objective = Objective(kind=kind, mix=mix, temperature=temperature, alpha=0.3)
    found = objective.of(student, teacher, targets)
    for i in range(5):
        p = softmax(teacher[i].tolist(), temperature)
        q = softmax(student[i].tolist(), temperature)
        hard = -math.log(softmax(student[i].tolist(), 1.0)[i])
        soft = temperature**2 * textbook(p, q, kind, mix)
        assert float(found[i]) == pytest.approx(0.3 * hard + 0.7 * soft, rel=1e-6, abs=1e-9)


def test_the_gradient_of_forward_is_the_difference_of_probabilities():
    student, teacher, temperature = logits(1).requires_grad_(), logits(2), 3.0
    objective = Objective(temperature=temperature)
    objective.of(student, teacher, torch.zeros(5).long()).sum().backward()
    p, q = (teacher / temperature).softmax(-1), (student / temperature).softmax(-1)
    assert torch.allclose(student.grad, temperature * (q - p))


def test_the_gradient_of_reverse_is_weighted_by_the_student():
    student, teacher = logits(1).requires_grad_(), logits(2)
    Objective(kind="reverse").of(student, teacher, torch.zeros(5).long()).sum().backward()
    p, q = teacher.softmax(-1), student.detach().softmax(-1)
    ratio = (q / p).log()
    divergence_ = (q * ratio).sum(-1, keepdim=True)
    assert torch.allclose(student.grad, q * (ratio - divergence_))


@pytest.mark.parametrize(("kind", "mix"), CASES)
def test_gradients_are_those_of_finite_differences(kind, mix):
    teacher, targets = logits(2), torch.arange(5)
    objective = Objective(kind=kind, mix=mix, temperature=1.5, alpha=0.2)

    def whole(student: Tensor) -> Tensor:
        return objective.of(student, teacher, targets).sum()

    def cut(student: Tensor) -> Tensor:
        return objective.of(student, truncated(teacher, 3, 1.5), targets).sum()

    # the hard loss is taken in float32
    soft = Objective(kind=kind, mix=mix, temperature=1.5)
    assert torch.autograd.gradcheck(
        lambda s: divergence(*outcomes(s, teacher, 1.5), kind, mix).sum(),
        logits(1).requires_grad_(),
    )
    assert torch.autograd.gradcheck(
        lambda s: divergence(*outcomes(s, truncated(teacher, 3, 1.5), 1.5), kind, mix).sum(),
        logits(1).requires_grad_(),
    )
    assert whole(logits(1)) > 0
    assert cut(logits(1)) > 0
    assert soft.alpha == 0


@pytest.mark.parametrize(("kind", "mix"), CASES)
def test_a_truncated_teacher_says_what_a_textbook_makes_of_merged_outcomes(kind, mix):
    student, teacher = logits(1), logits(2)
    known = truncated(teacher, 3)
    found = divergence(*outcomes(student, known, 1.0), kind, mix)
    for i in range(5):
        p, q = softmax(teacher[i].tolist(), 1.0), softmax(student[i].tolist(), 1.0)
        top = sorted(range(7), key=lambda j: -p[j])[:3]
        merged = [[x[j] for j in top] + [1 - sum(x[j] for j in top)] for x in (p, q)]
        assert float(found[i]) == pytest.approx(textbook(*merged, kind, mix), rel=1e-6, abs=1e-9)


def test_the_mass_of_what_is_kept_and_of_the_rest_is_one():
    known = truncated(logits(4), 3, 2.0)
    assert torch.allclose(known.logs.exp().sum(-1) + known.tail.exp(), torch.ones(5).double())


@pytest.mark.parametrize("bound", [1, 20, 100])
@pytest.mark.parametrize("counted", [None, torch.tensor([True, False, True, True, True])])
def test_pieces_give_the_loss_and_the_gradient_of_the_whole(bound, counted):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    objective, teacher, targets = Objective(alpha=0.5), logits(2), torch.arange(5)
    found = []
    for size in (bound, 10_000):
        hidden = torch.randn(
            5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64
        ).requires_grad_()
        loss = over_tokens(
            hidden,
            lambda x: x @ weight.T,
            lambda part: teacher[part],
            targets,
            objective,
            7,
            counted=counted,
            bound=size,
        )
        loss.backward()
        found.append((loss.detach(), hidden.grad))
    assert torch.allclose(found[0][0], found[1][0])
    assert torch.allclose(found[0][1], found[1][1])
    whole = mean(objective.of(hidden.detach() @ weight.T, teacher, targets).double(), counted)
    assert torch.allclose(whole, found[0][0])


def test_naming_all_tokens_is_exact():
    student, teacher = logits(1), logits(2)
    known = truncated(teacher, 7)
    assert isinstance(known, Truncated)
    found = divergence(*outcomes(student, known, 1.0))
    assert torch.allclose(found, divergence(*outcomes(student, teacher, 1.0)))
