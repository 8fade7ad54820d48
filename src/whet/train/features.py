"""Hidden states and attention of a student beside its teacher's.

Hidden states as in FitNets (arXiv:1412.6550) and TinyBERT (arXiv:1909.10351); the attention of the last
layer as in MiniLM (arXiv:2002.10957, §3.1).
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Measure = Literal["cosine", "mse"]
TINY = 1e-12  # below every share of attention that counts


def matched(student: int, teacher: int) -> tuple[int, ...]:
    """Return, for each layer of a student, the teacher's layer at the same share of its depth.

    Law: the last meets the last; equal depths meet one to one.
    """
    return tuple(-(-(layer + 1) * teacher // student) - 1 for layer in range(student))


def projectors(layers: int, student: int, teacher: int, seed: int) -> nn.ModuleList:
    """Return a linear map for each layer where widths differ; none where they are equal."""
    if student == teacher:
        return nn.ModuleList()
    generator = torch.Generator().manual_seed(seed)
    made = [nn.Linear(student, teacher, bias=False) for _ in range(layers)]
    for layer in made:
        values = torch.randn(teacher, student, generator=generator) * student**-0.5
        layer.weight.data.copy_(values)
    return nn.ModuleList(made)


def distance(
    student: Float[Tensor, "*tokens hidden"],
    teacher: Float[Tensor, "*tokens hidden"],
    measure: Measure,
) -> Float[Tensor, "*tokens"]:
    """Return 1 - cosine, or the mean squared difference of vectors brought to unit mean square.

    Law: zero for equal states; a positive factor on either side changes nothing.
    """
    if measure == "cosine":
        return 1 - functional.cosine_similarity(student.float(), teacher.float(), dim=-1)
    return (_unit(student) - _unit(teacher)).square().mean(-1)


def attention_distance(
    student: Float[Tensor, "batch heads time past"],
    teacher: Float[Tensor, "batch others time past"],
) -> Float[Tensor, ""]:
    """Return the mean KL(teacher‖student) of what each token attends to.

    Head by head; where there are not as many, of the mean over heads.
    Law: zero for equal attention, never negative.
    """
    if student.shape[1] != teacher.shape[1]:
        student, teacher = student.mean(1, keepdim=True), teacher.mean(1, keepdim=True)
    p, q = teacher.float(), student.float().clamp(min=TINY)
    return (torch.xlogy(p, p) - p * q.log()).sum(-1).mean()


def _unit(x: Float[Tensor, "*tokens hidden"]) -> Float[Tensor, "*tokens hidden"]:
    return x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-12)
