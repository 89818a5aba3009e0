"""Spec: the parts of a `--source`, and the record of a kind of source."""

from dataclasses import dataclass
from typing import NamedTuple


class Spec(NamedTuple):
    """A source as users spell it, `KIND[:PLACE][:SPLIT]`.

    kind: name of its `SourceKind`. place: a file, folder or Hub id; None for a kind that has none.
    split: None for the default of the kind.
    """

    kind: str
    place: str | None
    split: str | None

    def __str__(self) -> str:
        return ":".join(part for part in self if part is not None)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments of the kind's class: place and split, if they are given."""
        return tuple(part for part in self[1:] if part is not None)


@dataclass(frozen=True)
class SourceKind:
    """A kind of source.

    Args:
        name: the first word of its specs.
        target: `module:Class` of a `Source`, built from place and split, if a spec gives them.
        help: one line that says what it reads.
        place: how help spells the place; None if the kind has no place.
        split: whether a spec may name a split.
        is_file: whether the place is a file; cards show its last part only.
        quality: whether its samples have scores; the class then takes `min_quality` as well.
        images: False if it has captions only, so that a resolution must be given.
    """

    name: str
    target: str
    help: str
    place: str | None = None
    split: bool = True
    is_file: bool = False
    quality: bool = False
    images: bool = True

    @property
    def form(self) -> str:
        """How a spec is spelled, such as `folder:FILE.yaml[:SPLIT]`."""
        place = f":{self.place}" if self.place else ""
        return f"{self.name}{place}{'[:SPLIT]' if self.split else ''}"
