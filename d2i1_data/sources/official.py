"""Official: the base class of sources that read a published data set as its authors pack it."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..dataset.sample import Provenance, Sample, image_sha256
from ..dataset.schema import Schema
from ..diff2in1.pictures import Picture, open_picture, to_rgb, to_values, turn
from ..errors import InputError
from .resize import nearest
from .source import Source

Choices = Mapping[str, tuple[str, ...]]
BACK = {6: 8, 8: 6}  # EXIF orientation -> what undoes its turn; the others undo themselves


class Official(Source):
    """A published data set in a folder, in the layout of its authors.

    A subclass fills `ids`, `tasks` and `fingerprint`, and implements `file`, `image` and `target`.

    splits: its splits, the default first. options: option -> its values, the default first; an
    option without values takes any text. root: the folder.

    Args:
        place: the folder.
        choice: what follows the folder in a spec: `SPLIT`, `OPTION=VALUE` or several, with commas.

    Raises:
        InputError: if there is no such folder, split, option or value.
    """

    splits: ClassVar[tuple[str, ...]]
    options: ClassVar[Choices] = {}
    ids: list[str]

    def __init__(self, place: str, choice: str | None = None) -> None:
        super().__init__()
        self.root = Path(place).expanduser()
        if not self.root.is_dir():
            raise InputError(f"{self.name}: no such folder: {place}")
        self.split, self.chosen = read_choice(choice, self.splits, self.options, self.name)

    def enter(self, *names: str) -> None:
        """Make the first of these folders the root, if the root holds one."""
        inner = (self.root / name for name in names)
        self.root = next((folder for folder in inner if folder.is_dir()), self.root)

    @abstractmethod
    def file(self, column: str, index: int) -> Path:
        """The file that holds the image, or the label of a task."""

    @abstractmethod
    def image(self, index: int) -> NDArray[np.uint8]:
        """The image, [H, W, 3]."""

    @abstractmethod
    def target(self, task: str, index: int, size: tuple[int, int]) -> NDArray[np.generic]:
        """The label of a task in the form of its family. It may have another size.

        Args:
            task: name of the task.
            index: of the sample.
            size: height and width of the image.
        """

    def __len__(self) -> int:
        return len(self.ids)

    def identity(self, index: int) -> str:
        return self.ids[index]

    @property
    def schema(self) -> Schema:
        """Labels without captions. The terms of these data sets are no licence of the Hub."""
        return Schema.real(self.tasks, captions=False, licence=False)

    def check_pairs(self) -> None:
        for index in range(len(self)):
            for task in self.tasks:
                self._require(self.file(task, index))
        super().check_pairs()

    def read(self, index: int, tasks: Iterable[str]) -> Sample:
        identity, image = self.ids[index], self.image(index)
        size = image.shape[0], image.shape[1]
        targets = {name: self._checked(name, index, size) for name in tasks}
        provenance = Provenance("real", self.name, identity, image_sha256(image))
        return Sample(identity, image, targets, None, provenance)

    def _require(self, file: Path) -> None:
        if not file.is_file():
            raise InputError(f"{self.name}: no such file: {file}")

    def _checked(self, name: str, index: int, size: tuple[int, int]) -> NDArray[np.generic]:
        """A label at the size of its image."""
        identity, family = self.ids[index], self.tasks[name].family
        target = self.target(name, index, size)
        where = f"{self.file(name, index)}: {name} of {identity!r}"
        if problem := family.find_problem(target):
            raise InputError(f"{where} {problem}")
        if lost := family.count_too_large(target):
            self.note(f"{name} pixels too far to store, unknown", identity, lost)
        height, width = target.shape[:2]
        if (height, width) == size:
            return target
        if abs(height * size[1] - width * size[0]) > max(height, width, *size):
            raise InputError(
                f"{where} is {width}x{height}; its image has another aspect ratio,"
                f" {size[1]}x{size[0]}"
            )
        self.note(f"{name} resized", identity)
        return nearest(target, size)

    def rgb(
        self, file: Path, identity: str, content: Path | bytes | None = None
    ) -> NDArray[np.uint8]:
        """The pixels of an image file as it stores them, [H, W, 3].

        The authors' programs do not turn photographs as camera data say, and their labels fit.

        Args:
            file: the file.
            identity: id of the sample.
            content: the image, if it is only a part of the file.
        """
        picture = self._picture(file, content)
        image = turn(picture.image, BACK.get(picture.orientation, picture.orientation))
        if picture.orientation != 1:
            self.note("images kept as their file stores them, not turned", identity)
        with naming(file):
            return to_rgb(image)

    def values(self, file: Path, content: bytes | None = None) -> NDArray[np.generic]:
        """The pixels of a label file as they are stored, [H, W] or [H, W, channels].

        Args:
            file: the file.
            content: the label, if it is only a part of the file.
        """
        return to_values(self._picture(file, content).image)

    def colours(self, file: Path) -> NDArray[np.generic]:
        """The pixels of a label file with three channels, [H, W, 3]."""
        pixels = self.values(file)
        if pixels.ndim != 3 or pixels.shape[2] != 3:
            raise InputError(f"{file}: has shape {pixels.shape}, expected height x width x 3")
        return pixels

    def class_numbers(
        self, file: Path, most: int, also: int | None = None, content: bytes | None = None
    ) -> NDArray[np.integer]:
        """The class numbers of a label file, [H, W].

        Args:
            file: a picture with numbers, or with a palette.
            most: the largest number.
            also: another number that may occur.
            content: the label, if it is only a part of the file.

        Raises:
            InputError: if the file is something else, or holds another number.
        """
        pixels = self.values(file, content)
        if pixels.ndim != 2 or pixels.dtype.kind not in "iub":
            raise InputError(
                f"{file}: has shape {pixels.shape} of {pixels.dtype}, expected class numbers,"
                " height x width"
            )
        found = np.unique(pixels)
        wrong = found[((found < 0) | (found > most)) & (found != also)]
        if len(wrong):
            allowed = f"0 to {most}" + ("" if also is None else f" and {also}")
            raise InputError(f"{file}: holds class number {wrong[0]}, allowed are {allowed}")
        return pixels.astype(np.uint8 if max(most, also or 0) < 256 else np.int64)

    def _picture(self, file: Path, content: Path | bytes | None = None) -> Picture:
        self._require(file)
        with naming(file):
            return open_picture(content or file, self.max_pixels)


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Turn a ValueError into an InputError that names the file."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{file}: {error}") from error


def read_choice(
    text: str | None, splits: tuple[str, ...], options: Choices, where: str
) -> tuple[str, dict[str, str]]:
    """Read what follows the folder in a spec, such as `test,depth=raw`.

    Args:
        text: a split, options, or both; None takes all defaults.
        splits: the allowed splits, the default first.
        options: option -> allowed values, the default first; without values any text is allowed.
        where: begins the message.

    Returns:
        The split and the value of each option; an empty text for one that takes any and is absent.

    Raises:
        InputError: if a split, option or value is unknown, or given twice.
    """
    given: dict[str, str] = {}
    for word in filter(None, (text or "").split(",")):
        key, assigned, value = word.partition("=")
        key, value = (key, value) if assigned else ("split", key)
        allowed = splits if key == "split" else options.get(key)
        if allowed is None or (allowed and value not in allowed) or not value:
            forms = [" | ".join(splits)]
            forms += [f"{name}={' | '.join(found) or '...'}" for name, found in options.items()]
            raise InputError(f"{where}: got {word!r}, allowed are {', '.join(forms)}")
        if key in given:
            raise InputError(f"{where}: got {key} twice, {given[key]!r} and {value!r}")
        given[key] = value
    split = given.pop("split", splits[0])
    return split, {name: given.get(name, (*values, "")[0]) for name, values in options.items()}


def read_ids(file: Path) -> list[str]:
    """The ids in a text file, one on each line.

    Raises:
        InputError: if there is no such file, it is no text, or it names none or one twice.
    """
    ids = read_lines(file)
    if len({*ids}) < len(ids):
        twice = next(one for n, one in enumerate(ids) if one in ids[:n])
        raise InputError(f"{file}: names {twice!r} twice")
    return ids


def read_lines(file: Path) -> list[str]:
    """The lines of a text file that hold more than blanks, without blanks at their ends.

    Raises:
        InputError: if there is no such file, it is no text, or it has no such line.
    """
    if not file.is_file():
        raise InputError(f"no such file: {file}")
    try:
        lines = [line.strip() for line in file.read_text("utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: not readable as UTF-8: {error}") from error
    if not any(lines):
        raise InputError(f"{file}: holds no line")
    return [line for line in lines if line]
