"""The objective: the weighted losses of all tasks on truth or belief."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from d2i1_data.diff2in1 import Family

from .theta import Answer, Noised, Raw

Targets = dict[str, Tensor]
DENOISE = "denoise"  # stands beside the tasks among losses and weights


def believe(
    families: Mapping[str, Family], raw: Raw, targets: Targets, created: Tensor, believed: Tensor
) -> Targets:
    """Targets whose rows `created` [M] are theta_C's finished prediction, the others the truth.

    raw: theta_C's, of the created ones alone. believed: [M, 1, H, W], where it is to be believed;
    elsewhere, such as in padding, the target stays.
    """
    mixed = {name: target.clone() for name, target in targets.items()}
    for name, family in families.items():
        belief = family.finish(raw[name]).detach()
        mixed[name][created] = torch.where(believed, belief, targets[name][created])
    return mixed


def objective(
    weights: Mapping[str, float], answer: Answer, noised: Noised | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum over tasks of weight times mean loss over the micro-batch; that, and each task's loss.

    A sample's loss is its host's, and the divisor is the size of the micro-batch whatever is known
    in it. So the objective is linear in samples, and accumulation or more ranks change nothing but
    rounding (but with `protocol: host`, whose losses pool the pixels of a micro-batch). A task
    without labels in the micro-batch contributes zero, with gradients, as several processes need
    it. noised: the real samples' denoising loss joins (Ho et al. 2020, eq. 14; for v-prediction its
    own target).
    """
    losses = {name: one.mean() for name, one in answer.losses.items()}
    if answer.noise is not None and noised is not None:
        losses[DENOISE] = F.mse_loss(answer.noise, noised.wanted)
    total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
    return total, {name: loss.detach() for name, loss in losses.items()}
