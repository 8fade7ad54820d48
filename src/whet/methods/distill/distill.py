"""Distillation: the model learns to say what the original says.

Hinton, Vinyals, Dean (arXiv:1503.02531) with the divergences of MiniLLM (arXiv:2306.08543), GKD
(arXiv:2306.13649, §3) and DistiLLM (arXiv:2402.03898, §3); hidden states as TinyBERT has them
(arXiv:1909.10351, §3). For recovery after compression, the logits of the original alone are enough
(Minitron, arXiv:2407.14679).
"""

from dataclasses import dataclass
from typing import ClassVar

from whet.train.taught import Taught


@dataclass(frozen=True, slots=True, kw_only=True)
class Distill(Taught):
    """Train the model on what the original makes of the text."""

    name: ClassVar[str] = "distill"
