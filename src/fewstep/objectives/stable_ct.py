"""Stable consistency tuning: ECT with a target of less variance."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.condition import Condition
from fewstep.errors import FewstepError
from fewstep.needs import Cost, FixedPoint, Needs, TeacherUse
from fewstep.objectives.base import OBJECTIVES
from fewstep.objectives.ect import ECT
from fewstep.parameterization import Parameterization
from fewstep.solvers import ddim_step


@OBJECTIVES.register("stable_ct")
class StableConsistencyTuning(ECT):
    """ECT whose earlier point is on the PF-ODE of the batch, not on the line of one image.

    ``lambda_(t, r) d(f(x_t, t), sg f(x_r, r))`` where ``x_r`` is the DDIM step from ``x_t`` with
    the mean ``x_bar`` of the batch's images, each weighted by how likely it led to ``x_t``,

        x_bar = sum_i W_i x_i,    W_i ~ exp(-|x_t - alpha_t x_i|^2 / (2 sigma_t^2)),    sum W_i = 1

    in EDM's time ``x_r = x_t + (r - t) (x_t - x_bar) / t``. The images of a row are those of its
    class; of a row without a class they are all, and its own is always one of them. The mean is the
    denoiser of the batch: it has less variance than the one image that ECT takes in its place, and
    the bias of a finite batch, which are the stable target fields of Xu, Tong, Jaakkola 2023. The
    batch is the micro-batch of each process. The paper's abstract also names edge-skipping times of
    sampling, which no public text or code says; `Jumps` takes any times.

    Args:
        f: the map in training, started from a diffusion model's weights.
        K: total number of training steps.
        stages: how many times the gap shrinks; with 1 it is constant.
        q: factor by which it shrinks.
        cap: largest ``1 - q^-(stage+1)``, after which the gap stays; 1 for no such limit.
        P_mean: mean of ``ln(sigma/alpha)``, which for EDM is ``ln t``.
        P_std: its standard deviation.
        distance: ``d``, how two images are compared.
        weighting: ``lambda_``, how much a time counts.
    """

    paper = "Wang, Geng, Li 2024 (stable consistency tuning)"
    citation = "wang2024stable"
    fixed_point = FixedPoint.LIMIT
    cost = Cost(forward=2)
    needs = Needs(teacher=TeacherUse.START, eps_zero=True)

    def before(
        self, x: Tensor, z: Tensor, t: Tensor, r: Tensor, condition: Condition
    ) -> tuple[Tensor, Tensor]:
        if condition.embedding is not None:
            raise FewstepError(
                "stable_ct averages over the images of a class, and embeddings have no such "
                "others: leave out --encoder and --embeddings, or train by ect."
            )
        p = self.f.p
        x_t = p.diffuse(x, t, z)
        mean = posterior_mean(x_t, t, x, p, condition.label, self.f.num_classes)
        return mean, ddim_step(x_t, mean, t, r, p)


def posterior_mean(
    x_t: Tensor,
    t: Tensor,
    x: Tensor,
    p: Parameterization,
    label: Tensor | None = None,
    num_classes: int = 0,
) -> Tensor:
    """``E[x_0 | x_t]`` where the images ``x`` are all that there are: [B, *shape].

    Args:
        x_t: points [B, *shape], each made of the image in its row.
        t: their times [B].
        x: the images [B, *shape].
        p: the process.
        label: the class of each row [B], from which its images are; a number of classes is none.
        num_classes: the number of classes.
    """
    flat, noisy = x.flatten(1), x_t.flatten(1)
    alpha, sigma = p.alpha(t)[:, None], p.sigma(t)[:, None]
    # of |x_t - alpha x_i|^2 / (2 sigma^2), what does not depend on i is left out       [B, B]
    fit = alpha * (noisy @ flat.T) - alpha.square() / 2 * flat.square().sum(1)
    fit = fit / sigma.square()
    if label is not None:
        fit = fit.masked_fill(~_related(label, num_classes), -torch.inf)
    return (fit.softmax(1) @ flat).view_as(x)


def _related(label: Tensor, num_classes: int) -> Tensor:
    """Whether the image of a column may have led to the point of a row: [B, B]."""
    same = label[:, None] == label[None, :]
    return same | (label == num_classes)[:, None]
