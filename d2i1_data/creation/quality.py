"""Quality: how far a checkpoint trusts its own labels."""

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
    """Quality per image and task of labels, from their raw maps.

    confidence: mean over the pixels of one minus the family's uncertainty. flip: agreement with
    `mirrored`, the labels of the mirrored latent (image, where labels come from the image).
    reencode: agreement with `stored`, the labels of the stored 8-bit image, which are what anybody
    who runs `predict` on it gets; None where that was not looked at.
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
            known = (None if math.isnan(value) else value for value in row)
            sample[name] = Quality(**dict(zip(columns, known, strict=True)))
    return scores
