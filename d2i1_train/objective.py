"""The objective: the weighted sum of the losses of all tasks, on true labels and pseudo-labels."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from .theta import Noised, ThetaOutput

Targets = dict[str, Tensor]
DENOISE = "denoise"  # name of the denoising loss, beside the names of tasks


def objective(
    weights: Mapping[str, float],
    output: ThetaOutput,
    noised: Noised | None = None,
    sample_weights: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum over tasks of weight times mean loss over the micro-batch.

    The host computes the loss of each sample. The sum is divided by the size of the micro-batch,
    even if samples have no labels. So the objective is linear in samples, and gradient accumulation
    or more processes change only rounding. Exceptions are `protocol: host`, whose losses pool the
    pixels of a micro-batch, and CutMix, whose rectangles come from the same micro-batch. A task
    without labels contributes zero, but with gradients, because several processes need them.

    Args:
        weights: weight of each task and of the denoising loss, by name.
        output: output of theta_E, with losses.
        noised: noisy images that theta_E denoised; None without a denoising loss.
        sample_weights: weight of each sample, `[B]`; None weighs all the same.

    Returns:
        The objective, and the mean loss of each task without gradients.

    Source: denoising loss: Ho et al. 2020, eq. 14; for v-prediction its own target.
    """
    each = output.losses
    if sample_weights is not None:
        each = {name: one * sample_weights for name, one in each.items()}
    losses = {name: one.mean() for name, one in each.items()}
    if output.denoising is not None and noised is not None:
        losses[DENOISE] = F.mse_loss(output.denoising, noised.target)
    total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
    return total, {name: loss.detach() for name, loss in losses.items()}
