"""The inception score (Salimans et al. 2016)."""

from __future__ import annotations

from torch import Tensor

from fewstep.errors import FewstepError


def inception_score(logits: Tensor, splits: int = 10) -> tuple[float, float]:
    """``exp(E KL(p(y|x) || p(y)))``: mean and standard deviation over ``splits`` parts.

    Args:
        logits: class scores [N, K].
        splits: parts of the images, in order; 1 gives a deviation of 0.

    Raises:
        FewstepError: fewer images than splits.
    """
    if not 1 <= splits <= len(logits):
        raise FewstepError(f"{len(logits)} images cannot be split into {splits} parts.")
    log_p = logits.double().log_softmax(1)
    scores = []
    for part in log_p.tensor_split(splits):
        marginal = part.exp().mean(0).log()
        scores.append((part.exp() * (part - marginal)).sum(1).mean().exp())
    mean = sum(scores) / splits
    deviation = (sum((score - mean) ** 2 for score in scores) / splits) ** 0.5
    return float(mean), float(deviation)
