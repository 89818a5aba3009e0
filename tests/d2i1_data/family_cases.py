"""The table of families for tests: of each family how to draw, spoil and predict its maps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from d2i1_data.diff2in1.families import Family

Array = NDArray[Any]
Size = tuple[int, int]


class Case(NamedTuple):
    """A family in tests.

    config: one that builds it. draw: a plausible array, all of it known. spoil: a fair prediction,
    the truth with noise. predict: a raw prediction that is sure of a target. average: of the known
    values of one pixel, [M] or [M, C]. outside: a value that is not allowed. limit: by how much the
    stored form may differ.
    """

    config: dict[str, Any]
    draw: Callable[[Family, np.random.Generator, Size], Array]
    spoil: Callable[[np.random.Generator, Array, Array], Array]
    predict: Callable[[Family, Tensor], Tensor]
    average: Callable[[Array], Any]
    outside: float
    limit: float


def _unit(vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _predict_distance(family: Family, target: Tensor) -> Tensor:
    log = torch.where(target > 0, target, 1.0).log()
    return torch.cat([log, torch.full_like(log, -4.0)], 1)


def _predict_class(family: Family, target: Tensor) -> Tensor:
    known = torch.where(target == 255, 0, target)[:, 0]
    return 30 * F.one_hot(known, len(family.names)).movedim(-1, 1).float()


NAMES = ["sky", "road", "tree"]
CASES = {
    "unit_vector": Case(
        config={"family": "unit_vector"},
        draw=lambda family, rng, size: _unit(rng.normal(size=(*size, 3)).astype(np.float32)),
        spoil=lambda rng, array, other: _unit(
            array + 0.4 * rng.normal(size=array.shape).astype(np.float32)
        ),
        predict=lambda family, target: torch.cat(
            [3 * target, torch.full_like(target[:, :1], 5.0)], 1
        ),
        average=lambda values: values.mean(0) / np.linalg.norm(values.mean(0)),
        outside=1.5,
        limit=0.4,  # degrees
    ),
    "metric_map": Case(
        config={"family": "metric_map"},
        draw=lambda family, rng, size: rng.uniform(0.3, 60, size).astype(np.float32),
        spoil=lambda rng, array, other: (
            array * np.exp(0.3 * rng.normal(size=array.shape)).astype(np.float32)
        ),
        predict=_predict_distance,
        average=lambda values: np.exp(np.log(values.astype(np.float64)).mean()),
        outside=-0.5,
        limit=0.00051,
    ),
    "label_map": Case(
        config={"family": "label_map", "names": NAMES},
        draw=lambda family, rng, size: rng.integers(0, len(family.names), size).astype(np.uint8),
        spoil=lambda rng, array, other: np.where(rng.random(array.shape) < 0.6, array, other),
        predict=_predict_class,
        average=lambda values: np.bincount(values).argmax(),
        outside=254,
        limit=0.0,
    ),
    "probability_map": Case(
        config={"family": "probability_map"},
        draw=lambda family, rng, size: rng.random(size).astype(np.float32),
        spoil=lambda rng, array, other: np.clip(0.5 * array + 0.5 * other, 0, 1),
        predict=lambda family, target: torch.logit(target.clamp(1e-7, 1 - 1e-7)),
        average=lambda values: values.mean(),
        outside=1.5,
        limit=0.5 / 253,
    ),
}
