"""The Inception score (Salimans et al. 2016, Sec. 4): how sure a classifier is of each sample, and
how many classes it finds in all, as one number from 1 to the number of classes."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vidgen.metrics import samples


def inception_score(
    logits: Tensor, splits: int = 10, seed: int | None = None
) -> tuple[float, float]:
    """exp(mean KL(p(class | sample) ‖ p(class))) of logits `n classes`, taken in each of `splits`
    near equal parts by itself: mean and standard deviation (of the population) over the parts.

    Parts follow one another in the order given; `seed` shuffles first, by numpy's RandomState, as
    others do (StyleGAN-V's is 42, torch-fidelity's 2020): files in order of their class would
    score as parts of few classes. In float64, from logits, so that no probability is too small.
    ValueError of fewer samples than parts.
    """
    if splits < 1:
        raise ValueError(f"{splits} splits")
    logits = samples.features(logits, least=splits)
    if seed is not None:
        logits = logits[torch.from_numpy(np.random.RandomState(seed).permutation(len(logits)))]
    log_p = logits.log_softmax(dim=1)
    scores = []
    for i in range(splits):
        part = log_p[i * len(log_p) // splits : (i + 1) * len(log_p) // splits]
        log_mean = part.logsumexp(dim=0) - math.log(len(part))
        divergence = (part.exp() * (part - log_mean)).sum(dim=1)
        scores.append(float(divergence.mean().exp()))
    return float(np.mean(scores)), float(np.std(scores))
