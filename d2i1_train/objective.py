"""The objective: the weighted losses of all tasks on true and pseudo-labels."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from d2i1_data.diff2in1 import Family

from .theta import Noised, Raw, ThetaOutput

Targets = dict[str, Tensor]
DENOISE = "denoise"  # stands beside the tasks among losses and weights


def with_pseudo_labels(
    families: Mapping[str, Family], raw: Raw, targets: Targets, created: Tensor, inside: Tensor
) -> Targets:
    """Targets with theta_C's predictions in the rows of created samples.

    Args:
        families: of each task.
        raw: theta_C's raw maps of the created samples, `[M, R, H, W]` by task.
        targets: of all samples, `[B, C, H, W]` by task.
        created: indices of the created samples, `[M]`.
        inside: where to use the prediction, `[M, 1, H, W]` bool. Elsewhere, such as in padding, the
            target stays.
    """
    mixed = {name: target.clone() for name, target in targets.items()}
    for name, family in families.items():
        predicted = family.finish(raw[name]).detach()
        mixed[name][created] = torch.where(inside, predicted, targets[name][created])
    return mixed


def objective(
    weights: Mapping[str, float], output: ThetaOutput, noised: Noised | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum over tasks of weight times mean loss over the micro-batch.

    A sample's loss is its host's, and the divisor is the size of the micro-batch whatever is known
    in it. So the objective is linear in samples, and accumulation or more ranks change nothing but
    rounding (except with `protocol: host`, whose losses pool the pixels of a micro-batch). A task
    without labels in the micro-batch contributes zero, with gradients, as several processes need
    it.

    Args:
        weights: by task, and of the denoising loss.
        output: of theta_E, with losses.
        noised: what theta_E was given to denoise; its loss joins the others.

    Returns:
        The objective, and each task's mean loss without gradients.

    Source: denoising loss: Ho et al. 2020, eq. 14; for v-prediction its own target.
    """
    losses = {name: one.mean() for name, one in output.losses.items()}
    if output.denoising is not None and noised is not None:
        losses[DENOISE] = F.mse_loss(output.denoising, noised.target)
    total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
    return total, {name: loss.detach() for name, loss in losses.items()}
