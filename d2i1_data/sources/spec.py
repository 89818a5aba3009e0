"""Spec: the parts of a `--source`. SourceKind: the record of a kind of source."""

from dataclasses import dataclass
from typing import NamedTuple


class Spec(NamedTuple):
    """A source as users write it, `KIND[:PLACE][:SPLIT]`.

    kind: name of its `SourceKind`. place: a file, folder or Hub id; None for a kind without places.
    split: name of the split; None is the default of the kind.
    """

    kind: str
    place: str | None
    split: str | None

    def __str__(self) -> str:
        return ":".join(part for part in self if part is not None)

    @property
    def arguments(self) -> tuple[str, ...]:
        """Arguments for the class of the kind: place and split, if they are given."""
        return tuple(part for part in self[1:] if part is not None)


@dataclass(frozen=True)
class SourceKind:
    """A kind of source.

    Args:
        name: the first word of its specs.
        target: `module:Class` of a `Source`. Its arguments are place and split, if a spec has them.
        help: one line that says what it reads.
        place: placeholder of the place in help texts; None if the kind has no place.
        split: whether a spec may name a split.
        is_file: whether the place is a file, or an id. Of a path cards show only the last part.
        quality: whether its samples have scores. The class then also takes `min_quality`.
        images: False if it has only captions. A resolution must then be given.
        origin: for a published data set, where users get it and under which terms.
    """

    name: str
    target: str
    help: str
    place: str | None = None
    split: bool = True
    is_file: bool = False
    quality: bool = False
    images: bool = True
    origin: str = ""

    @property
    def form(self) -> str:
        """The form of its specs, such as `folder:FILE.yaml[:SPLIT]`."""
        place = f":{self.place}" if self.place else ""
        return f"{self.name}{place}{'[:SPLIT]' if self.split else ''}"
