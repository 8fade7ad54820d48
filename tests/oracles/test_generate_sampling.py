"""The filtered distributions are those of transformers' logits processors."""

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from whet.runtime.sample import Sampling, distribution

HISTORY = [3, 3, 17, 250, 0]
SETTINGS = [
    Sampling(temperature=t, top_k=k, top_p=p, min_p=m, repetition_penalty=r)
    for t in (0.3, 1.0, 2.5)
    for k in (0, 1, 40, 5000)
    for p in (0.1, 0.9, 1.0)
    for m in (0.0, 0.05, 1.0)
    for r in (0.8, 1.0, 1.3)
]


def transformers_distribution(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    processors = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.temperature != 1:
        processors.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        processors.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        processors.append(TopPLogitsWarper(sampling.top_p))
    processors.append(MinPLogitsWarper(sampling.min_p))
    scores = processors(torch.tensor([HISTORY]), torch.tensor(logits)[None].clone())
    return scores.softmax(-1)[0].numpy()


@pytest.mark.parametrize("seed", range(3))
def test_filtered_distributions_equal_those_of_transformers(seed: int) -> None:
    logits = (np.random.default_rng(seed).normal(size=400) * 3).astype(np.float32)
    for sampling in SETTINGS:
        expected = transformers_distribution(logits, sampling)
        found = distribution(logits, HISTORY, sampling)
        assert ((found > 0) == (expected > 0)).all(), sampling
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-7, err_msg=str(sampling))
