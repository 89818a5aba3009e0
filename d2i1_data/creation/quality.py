"""Quality: scores that say how far a checkpoint trusts its own labels."""

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
        families: of the tasks.
        raw: raw predictions of the labels.
        mirrored: raw predictions on the mirrored latents (images, if labels come from images).
        stored: raw predictions on the stored 8-bit images, which anyone gets who runs `predict` on
            them; None if they are not measured.

    Returns:
        For each image the scores by task. `confidence` is the mean over the pixels of one minus
        the uncertainty of the family, `flip` the agreement with `mirrored`, `reencode` the
        agreement with `stored`.
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
