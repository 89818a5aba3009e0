"""Quality: scores that show how far a checkpoint trusts its own labels."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..dataset.sample import Quality
from ..diff2in1 import Family

Raw = Mapping[str, Tensor]  # raw maps [B, R, H, W] by task


def score(
    families: Mapping[str, Family], raw: Raw, mirrored: Raw, stored: Raw | None
) -> list[dict[str, Quality]]:
    """Score the labels of a batch.

    Args:
        families: task -> family.
        raw: raw predictions of the labels.
        mirrored: raw predictions for the mirrored latents; if labels come from images, for mirrored
            images.
        stored: raw predictions for the stored 8-bit images, equal to those of `predict`. None: do
            not compare with them.

    Returns:
        For each image its scores by task. `confidence` is one minus the uncertainty of the family,
        averaged over the pixels. `flip` is the agreement with `mirrored`, `reencode` the agreement
        with `stored`.
    """
    scores: list[dict[str, Quality]] = [{} for _ in next(iter(raw.values()))]
    for name, family in families.items():
        own = family.finish(raw[name])
        columns = {
            "confidence": 1 - family.uncertainty(raw[name]).mean((1, 2, 3)),
            "flip": family.agreement(own, family.flip(family.finish(mirrored[name]))),
        }
        if stored is not None:
            columns["reencode"] = family.agreement(own, family.finish(stored[name]))
        table = torch.stack(list(columns.values()), 1).tolist()
        for sample, row in zip(scores, table, strict=True):
            values = (None if math.isnan(value) else value for value in row)
            sample[name] = Quality(**dict(zip(columns, values, strict=True)))
    return scores
