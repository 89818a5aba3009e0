"""Task: one modality and what it means. Behaviour is its family's and its meter's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..diff2in1.families import Family, LabelMap
from .meters import IntersectionOverUnion, Meter


@dataclass(frozen=True)
class Task:
    """Everything the project knows about one modality.

    metric: the meter's headline figure. weight: of its loss among those of other tasks. sentence:
    how cards state its convention. tags: on the Hub, beside `categories`, the Hub's own task ids.
    """

    name: str
    family: Family
    meter: Meter
    sentence: str
    tags: tuple[str, ...]
    categories: tuple[str, ...] = ("other",)
    weight: float = 1.0

    def with_classes(
        self, names: Sequence[str], palette: Sequence[Sequence[int]] | None = None
    ) -> "Task":
        """The same task over other class names."""
        family = LabelMap(names, palette)
        return replace(self, family=family, meter=IntersectionOverUnion(len(names)))
