"""Quality: how far a checkpoint trusts its own labels."""

import math
from typing import Any

import numpy as np

from .diff2in1 import Diff2in1Output, Diff2in1Pipeline, Family
from .sample import Quality


def score_labels(pipe: Diff2in1Pipeline, output: Diff2in1Output) -> list[dict[str, Quality]]:
    """Quality per image and task of what the pipeline made.

    confidence: mean over the pixels of one minus the family's uncertainty. flip: agreement with the
    labels of the mirrored image. reencode: agreement with the labels of the stored 8-bit image,
    which are what anybody who runs `predict` on it gets.
    """
    images = [np.asarray(image) for image in output.images]
    again = pipe.predict(images).predictions
    mirrored = pipe.predict([image[:, ::-1] for image in images]).predictions
    scores: list[dict[str, Quality]] = [{} for _ in images]
    for name, family in pipe.perception.families.items():
        for n, sample in enumerate(scores):
            own = output.predictions[name][n]
            sample[name] = Quality(
                confidence=float(1 - output.uncertainty[name][n].mean()),
                flip=_agreement(family, own, mirrored[name][n], mirrored=True),
                reencode=_agreement(family, own, again[name][n]),
            )
    return scores


def _agreement(family: Family, one: Any, other: Any, mirrored: bool = False) -> float | None:
    a, b = family.to_tensor(one)[None], family.to_tensor(other)[None]
    share = family.agreement(a, family.flip(b) if mirrored else b).item()
    return None if math.isnan(share) else share
