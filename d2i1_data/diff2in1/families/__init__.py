"""The four kinds of dense map: how each is predicted, scored, stored and shown.

A map has two forms. As an array it is [H, W] or [H, W, 3] in physical units; as a tensor it is
[B, C, H, W]. In both forms unknown pixels have the unknown value of the family. There is no mask.
B batch, C channels of the map, R channels of the raw prediction, H W pixels.
"""

from typing import Any

from .distribution import (
    ClassShares,
    DirectionDensity,
    Distribution,
    Histogram,
    TableLine,
)
from .family import Encoding, Family, Legend, decode_png, encode_png, precise
from .label_map import LabelMap
from .metric_map import MetricMap
from .probability_map import ProbabilityMap
from .unit_vector import UnitVector

__all__ = [
    "CONFIDENCE",
    "FAMILIES",
    "ClassShares",
    "DirectionDensity",
    "Distribution",
    "Encoding",
    "Family",
    "Histogram",
    "LabelMap",
    "Legend",
    "MetricMap",
    "ProbabilityMap",
    "TableLine",
    "UnitVector",
    "decode_png",
    "encode_png",
    "make_family",
    "precise",
]

FAMILIES: dict[str, Any] = {
    family.name: family
    for family in (
        UnitVector,
        MetricMap,
        LabelMap,
        ProbabilityMap,
    )
}

CONFIDENCE: Family = ProbabilityMap()  # stores and draws maps of confidence


def make_family(config: dict[str, Any]) -> Family:
    """Build a family.

    Args:
        config: a value of `Family.config`, such as `{"family": "label_map", "names": [...]}`.

    Raises:
        ValueError: if there is no such family.
    """
    options = {key: value for key, value in config.items() if key != "family"}
    if config.get("family") not in FAMILIES:
        raise ValueError(f"unknown family {config.get('family')!r}: choose from {sorted(FAMILIES)}")
    return FAMILIES[config["family"]](**options)
