"""Source: a sequence of samples with known tasks."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..checks import MAX_PIXELS
from ..dataset.files import write_json
from ..dataset.sample import Sample
from ..errors import InputError
from .camera import Camera

if TYPE_CHECKING:
    from ..dataset.schema import Schema
    from ..tasks import Task  # it imports torch, which the help of the command line must not


NOTING = Lock()  # samples may be read by several threads


class Source(ABC):
    """Base class of all sources. A source implements `__len__`, `identity` and `read`.

    name: its name in provenance and cards. tasks: the tasks for which its samples have labels, by
    name; empty for a source without labels. fingerprint: hash of the settings that choose its
    samples (see `fingerprint`); a plan recognises the source by it. Images are not part of it.
    has_images: False for a source of captions; its images are one blank pixel until a resolution
    is given. max_pixels: larger images are refused. notes: how often each change was made to the
    data, such as resizing maps. strays: id -> why, for labels without an image. camera: took the
    images; None if unknown. axes: how normals are stored, see `axes.py`; empty for our way. `read`
    has turned them. is_ours: whether the labels are in our schema, so their axes are certain.
    """

    name: str
    tasks: "Mapping[str, Task]"
    fingerprint: str
    has_images: bool = True
    max_pixels: int = MAX_PIXELS
    camera: Camera | None = None
    axes: str = ""
    is_ours: bool = False

    def __init__(self) -> None:
        self.notes: dict[str, int] = {}
        self.strays: dict[str, str] = {}
        self._noted: set[tuple[str, str]] = set()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def identity(self, index: int) -> str:
        """The id of a sample, without reading it. No two samples have the same id."""

    def origin(self, index: int) -> str:
        """The id of the image that a sample was made from. A real sample gives its own id.

        Splits are drawn by it, so that no two of them have samples of one image.
        """
        return self.identity(index)

    @abstractmethod
    def read(self, index: int, tasks: Iterable[str]) -> Sample:
        """Read a sample.

        Args:
            index: 0 to `len(self) - 1`.
            tasks: names of the tasks whose targets are needed; others may be left out.

        Raises:
            InputError: if the sample cannot be used; the message names the file or row.
        """

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"source {self.name}: no sample {index} among {len(self)}")
        return self.read(index, self.tasks)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def labelled(self, index: int) -> Sample:
        """A sample with its labels. One that has none, though its source has tasks, is refused."""
        sample = self[index]
        if self.tasks and not sample.targets:
            expected = " or ".join(self.tasks)
            raise InputError(f"source {self.name}: {sample.id!r} has no label, expected {expected}")
        return sample

    def picture(self, index: int) -> Sample:
        """A sample without targets. Targets are not read if this can be avoided."""
        return replace(self.read(index, ()), targets={})

    def image_size(self, index: int) -> tuple[int, int]:
        """Height and width of an image. A source overrides this if it need not decode the image.

        Raises:
            InputError: if the image cannot be read.
        """
        return self.picture(index).size

    @property
    def schema(self) -> "Schema":
        """The columns that its samples fill. An imported dataset has these columns only.

        The default are the columns of real samples. A source overrides this if its samples fill
        other columns, or if no sample has a caption or a licence.
        """
        from ..dataset.schema import Schema

        return Schema.real(self.tasks)

    @property
    def original(self) -> "Source":
        """The source at its own resolution."""
        return self

    def note(self, text: str, identity: str, count: int = 1) -> None:
        """Count a change to a sample. Reading the sample again does not count it again.

        Args:
            text: names the change, such as `depth resized`.
            identity: id of the sample.
            count: how often the change was made, such as a number of pixels.
        """
        with NOTING:
            if (text, identity) not in self._noted:
                self._noted.add((text, identity))
                self.notes[text] = self.notes.get(text, 0) + count

    def check_pairs(self) -> None:
        """Raise InputError if labels lack their image, or as far as known, images their labels."""
        for why in self.strays.values():
            raise InputError(f"source {self.name}: {why}; there are {len(self.strays)} of these")

    def usable_rows(
        self, limit: int | None = None, on_bad_row: str = "stop", subset_seed: int | None = 0
    ) -> "Rows":
        """Choose the rows that a command uses.

        Args:
            limit: number of rows to choose at random, see `random_subset`; None takes all.
            on_bad_row: `skip` reads each chosen row once and leaves unusable rows out. No other row
                replaces them. `stop` reads no row here, it calls `check_pairs`; the command then
                stops at the first unusable row.
            subset_seed: decides which rows are chosen; None takes the first ones.

        Raises:
            InputError: if no row is usable.
        """
        rows = Rows(self, random_subset(len(self), limit, subset_seed), {})
        if on_bad_row == "stop":
            self.check_pairs()
        else:
            rows.skipped.update(self.strays)
            for index in list(rows.usable):
                try:
                    self.labelled(index)
                except InputError as error:
                    rows.skipped[self.identity(index)] = str(error)
                    rows.usable.remove(index)
        if not rows.usable:
            raise InputError(f"source {self.name}: no usable sample among {len(self)}")
        return rows


class Rows(NamedTuple):
    """The rows of a source that a command uses.

    usable: indices of these rows. skipped: id of each row that is left out -> why it is unusable.
    """

    source: Source
    usable: list[int]
    skipped: dict[str, str]

    def samples(self) -> Iterator[Sample]:
        """The usable samples in order."""
        return (self.source.labelled(row) for row in self.usable)


def fingerprint(*parts: object) -> str:
    """The sha256 of the settings that choose the samples of a source."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def random_subset(count: int, limit: int | None, seed: int | None = 0) -> list[int]:
    """Choose some of the numbers from 0 to `count - 1` at random.

    With one count and seed, a smaller subset is part of every larger one.

    Args:
        count: how many numbers there are.
        limit: how many to choose. None, or at least `count`, takes all.
        seed: decides the choice; None takes the first numbers, as earlier versions did.

    Returns:
        The chosen numbers, sorted.
    """
    if limit is None or limit >= count or seed is None:
        return list(range(count))[:limit]
    digest = hashlib.blake2b(repr(("subset", seed)).encode(), digest_size=8).digest()
    order = np.random.default_rng(int.from_bytes(digest, "big")).permutation(count)
    return sorted(order[:limit].tolist())


def evenly_spaced(count: int, limit: int) -> list[int]:
    """At most `limit` of the numbers from 0 to `count - 1`, at equal distances."""
    return np.linspace(0, count - 1, min(count, limit)).round().astype(int).tolist()


def agreeing_tasks(tasks: "Mapping[str, Task]", owner: str, source: Source) -> "dict[str, Task]":
    """The tasks that a pipeline or dataset and a source have in common.

    Args:
        tasks: tasks of the pipeline or dataset.
        owner: what has these tasks, for errors, such as `the pipeline`.
        source: the source. Its tasks must have the same classes.

    Raises:
        InputError: if there is no common task, or the classes of a common task differ.
    """
    common = {name: task for name, task in tasks.items() if name in source.tasks}
    if not common:
        raise InputError(
            f"source {source.name} has labels of {', '.join(source.tasks) or 'nothing'},"
            f" {owner} has {', '.join(tasks)}"
        )
    for name, task in common.items():
        if task.family.config() != source.tasks[name].family.config():
            raise InputError(f"{name}: the source {source.name} has other classes than {owner}")
    return common


def write_report(file: Path, *parts: Rows) -> None:
    """Write the skipped rows of some sources as JSON, id -> why. Without such rows, no file."""
    skipped = {key: why for rows in parts for key, why in rows.skipped.items()}
    file.unlink(missing_ok=True)
    if skipped:
        write_json(file, skipped)
