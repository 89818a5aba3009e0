"""Pseudo-labels: the labels that theta_C predicts for created images, averaged over several views.

A plain prediction of the model that theta_E started from teaches theta_E little. An average over
views is better than each single one, so there is something to learn.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from d2i1_data.diff2in1 import Conditioning, Family

from .objective import Targets
from .theta import Raw, Theta

SCALE = 1.5  # of the view `larger`


class ViewInput(NamedTuple):
    """One view of created images as input of theta_C.

    Args:
        latents: scaled latents `[M, C, h, w]`.
        pyramid: their pyramid, if a frozen U-Net has already computed it.
    """

    latents: Tensor
    pyramid: tuple[Tensor, ...] | None = None


Views = Mapping[str, ViewInput]


class BeliefView(NamedTuple):
    """A change of an image before theta_C predicts its labels. `restore` undoes it in the labels.

    Args:
        mirrored: mirror the image left to right.
        scale: factor of both sides of the image.
    """

    mirrored: bool = False
    scale: float = 1.0

    def restore(self, family: Family, linear: Tensor, side: tuple[int, int]) -> Tensor:
        """Bring a predicted map back to the geometry of the image.

        Args:
            family: family of the map.
            linear: the prediction as `Family.to_linear` gives it, `[M, R, H', W']`.
            side: (H, W) of the padded image.
        """
        if self.scale != 1:
            height, width = (round(length * self.scale) for length in side)
            linear = F.interpolate(
                linear[..., :height, :width], side, mode="bilinear", antialias=True
            )
            values, rest = linear[:, : family.channels], linear[:, family.channels :]
            linear = torch.cat([family.scaled(values, 1 / self.scale), rest], 1)
        return family.flip(linear) if self.mirrored else linear


BELIEF_VIEWS = {
    "image": BeliefView(),
    "mirror": BeliefView(mirrored=True),
    "larger": BeliefView(scale=SCALE),
}


def predict_labels(
    theta: Theta,
    views: Views,
    conditioning: Conditioning,
    inside: Tensor,
    pixels_per_latent: int,
) -> Raw:
    """Predict raw maps of created images, averaged over views.

    Args:
        theta: theta_C.
        views: name of a belief view -> its input.
        conditioning: the empty prompt, a batch of one.
        inside: pixels of the images that are no padding, `[M, 1, H, W]` bool.
        pixels_per_latent: factor between the sides in pixels and those of the latents.

    Returns:
        Task -> raw maps `[M, R, H, W]`.
    """
    families, size = theta.perception.families, (inside.shape[2], inside.shape[3])
    total: Raw = {}
    for name, view in views.items():
        height, width = (side * pixels_per_latent for side in view.latents.shape[2:])
        raw = theta(view.latents, conditioning, (height, width), view.pyramid).raw
        if len(views) == 1 and name == "image":
            return raw  # without rounding
        for task, family in families.items():
            maps = BELIEF_VIEWS[name].restore(family, family.to_linear(raw[task]), size)
            if BELIEF_VIEWS[name].mirrored:
                maps = _padded_right(maps, inside)
            total[task] = total[task] + maps if task in total else maps
    return {task: f.from_linear(total[task] / len(views)) for task, f in families.items()}


def _padded_right(maps: Tensor, inside: Tensor) -> Tensor:
    """Move the padding of maps, which mirroring put on the left, back to the right."""
    padding = (~inside[:, 0, 0]).sum(-1).tolist()
    if not any(padding):
        return maps
    return torch.stack([one.roll(-n, -1) for one, n in zip(maps, padding, strict=True)])


def with_pseudo_labels(
    families: Mapping[str, Family], raw: Raw, targets: Targets, created: Tensor, inside: Tensor
) -> Targets:
    """Targets in which created samples have theta_C's predictions.

    Args:
        families: task -> family.
        raw: task -> theta_C's raw maps of the created samples, `[M, R, H, W]`.
        targets: task -> targets of all samples, `[B, C, H, W]`.
        created: indices of the created samples, `[M]`.
        inside: pixels that get the prediction, `[M, 1, H, W]` bool. Other pixels, such as padding,
            keep their target.
    """
    mixed = {name: target.clone() for name, target in targets.items()}
    for name, family in families.items():
        predicted = family.finish(raw[name]).detach()
        mixed[name][created] = torch.where(inside, predicted, targets[name][created])
    return mixed
