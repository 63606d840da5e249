"""The inception score (Salimans et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fewstep.errors import FewstepError

CHUNK = 4096  # images whose probabilities are held in float64 at a time


def inception_score(logits: Tensor, splits: int = 10) -> tuple[float, float]:
    """``exp(E KL(p(y|x) || p(y)))``: mean and standard deviation over ``splits`` parts.

    Args:
        logits: class scores [N, K]; ``-inf`` is a probability of zero.
        splits: parts of the images, in order; 1 gives a deviation of 0.

    Raises:
        FewstepError: fewer images than splits.
    """
    if not 1 <= splits <= len(logits):
        raise FewstepError(f"{len(logits)} images cannot be split into {splits} parts.")
    scores = []
    for part in logits.tensor_split(splits):
        entropy, marginal = torch.zeros(()).double(), torch.zeros(logits.shape[1]).double()
        for some in part.split(CHUNK):
            log_p = some.double().log_softmax(1)
            entropy -= _times_log(log_p.exp(), log_p).sum()
            marginal += log_p.exp().sum(0)
        scores.append((-entropy / len(part) - _negative_entropy(marginal / len(part))).exp())
    mean = sum(scores) / splits
    deviation = (sum((score - mean) ** 2 for score in scores) / splits) ** 0.5
    return float(mean), float(deviation)


def resampled_inception_score(logits: Tensor) -> Callable[[Tensor], float]:
    """The inception score of the images at given indices [n], in one part, many times over."""
    log_p = logits.log_softmax(1)
    p = log_p.exp()
    negative_entropy = _times_log(p, log_p).sum(1).double()

    def score(some: Tensor) -> float:
        counts = some.bincount(minlength=len(p)).to(p.dtype)
        marginal = (counts @ p).double() / len(some)
        return float((negative_entropy[some].mean() - _negative_entropy(marginal)).exp())

    return score


def _times_log(p: Tensor, log_p: Tensor) -> Tensor:
    """``p log p``, which is 0 where ``p`` is."""
    return torch.where(p > 0, p * log_p, 0.0)


def _negative_entropy(p: Tensor) -> Tensor:
    return torch.special.xlogy(p, p).sum()
