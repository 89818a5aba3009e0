"""Task: one modality. Its behaviour is in its family and its meter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..diff2in1.families import Family, make_family
from .meters import Meter


@dataclass(frozen=True)
class Task:
    """One modality.

    Args:
        name: name of its column, flag and folder.
        family: the kind of its maps, with its classes.
        meter: scores its predictions.
        sentence: describes its maps in cards.
        tags: its tags on the Hub.
        categories: ids of the Hub's own tasks that it belongs to.
        weight: weight of its loss among the losses of all tasks.
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
        """The same task with other classes.

        Args:
            names: names of the classes, in the order of their ids.
            palette: red, green and blue of each class, 0 to 255; None chooses colours.

        Raises:
            ValueError: if the task has no classes, or these are not allowed.
        """
        family = self.family.with_classes(names, palette)
        return replace(self, family=family, meter=self.meter.with_classes(len(names)))

    def with_config(self, config: Mapping[str, Any]) -> "Task":
        """The same task with the family that a checkpoint or a dataset has.

        Args:
            config: a value of `Family.config`.

        Raises:
            ValueError: if the config is of another family.
        """
        if config["family"] != self.family.name:
            raise ValueError(f"{self.name} is a {self.family.name}, got {config['family']!r}")
        if config == self.family.config():
            return self
        family = make_family(dict(config))
        return replace(self, family=family, meter=self.meter.with_classes(len(family.names)))
