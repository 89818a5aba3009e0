"""The base class of sources whose data a YAML file describes."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from ..dataset.schema import Schema
from ..diff2in1.families import Encoding
from ..diff2in1.pictures import Picture, open_picture, to_rgb, to_values, turn
from ..errors import InputError
from ..tasks import TASKS, Task
from .axes import read_axes, to_ours
from .camera import Camera
from .layout import Caption, Classes, Column, Layout, build, read_column, read_encoding
from .remap import Remap, read_remap
from .resize import nearest
from .source import NOTING, Source

logger = logging.getLogger(__name__)
KEYS = ("scale", "unknown", "values", "upright", "axes")  # of a column, besides its place


class Described(Source):
    """Reads labels as a YAML file describes them.

    place: the key of a column that says where its files are, `folder` or `column`.

    Args:
        file: the YAML file, for errors.
        layout: its content.

    Raises:
        InputError: if the content is wrong.
    """

    place: str = "column"

    def __init__(self, file: str, layout: Layout) -> None:
        super().__init__()
        self.file, self.name, self.licence = file, layout.name, layout.licence
        self.columns: dict[str, Column] = {
            name: read_column(name, value, file, self.place)
            for name, value in layout.columns.items()
        }
        self.classes: dict[str, Classes] = {}
        self.remaps: dict[str, Remap] = {}
        for name, value in layout.classes.items():
            self.classes[name] = build(Classes, value, f"{file}: classes: {name}")
        self.tasks = {name: self._task(name) for name in self.columns if name != "image"}
        self.encodings = {name: self._encoding(name) for name in self.columns}
        where = f"{file}: caption"
        self.caption = build(Caption, layout.caption, where) if layout.caption else None
        if layout.camera is not None:
            self.camera = build(Camera, layout.camera, f"{file}: camera").checked(file)
        self._missing_classes = {
            name: set(range(len(task.family.names))) for name, task in self.tasks.items()
        }
        self._seen: dict[str, NDArray[np.bool_]] = {}

    @property
    def schema(self) -> Schema:
        """The columns of real samples; captions and licence only if the YAML file names them."""
        captions, licence = self.caption is not None, self.licence is not None
        return Schema.real(self.tasks, captions=captions, licence=licence)

    def _task(self, name: str) -> Task:
        if name not in TASKS:
            allowed = ", ".join(["image", *TASKS])
            raise InputError(f"{self.file}: unknown column {name!r}, allowed are {allowed}")
        task = TASKS[name]
        if name not in self.classes and not task.family.names:
            return task
        if name not in self.classes:
            raise InputError(f"{self.file}: column {name!r} needs its class names under `classes`")
        where, classes = f"{self.file}: classes: {name}", self.classes[name]
        names, remap = read_remap(classes, where)
        try:
            if remap is not None:
                self.remaps[name] = remap
            if classes.stored is None:
                return task.with_classes(names, classes.palette)
            if not classes.palette or remap is None:
                return task.with_classes(names)
            task.with_classes(classes.stored, classes.palette)  # it checks the colours
            return task.with_classes(names, remap.colours(len(names), classes.palette))
        except ValueError as error:
            raise InputError(f"{where}: {error}") from error

    def _encoding(self, name: str) -> Encoding:
        """How the files of a column are stored. Refuses keys that its kind of map cannot have."""
        column, where = self.columns[name], f"{self.file}: columns: {name}"
        kind: str = "image"
        takes: tuple[str, ...] = ("scale",)
        if name != "image":
            family = self.tasks[name].family
            kind, takes = family.name, (*family.encoding, "upright")
            takes += ("axes",) if family.axes else ()
        for key in KEYS:
            if getattr(column, key) not in (None, {}) and key not in takes:
                raise InputError(f"{where}: a {kind} has no {key}, allowed are {', '.join(takes)}")
        if column.axes is not None:
            read_axes(column.axes, where)
            self.axes = column.axes
        return read_encoding(column, self.classes.get(name), where)

    def open(self, file: Path | bytes, where: object) -> Picture:
        """Decode a picture.

        Args:
            file: a file or its content.
            where: begins the message.

        Raises:
            InputError: if it is no picture.
        """
        if isinstance(file, Path) and not file.is_file():
            raise InputError(f"{where}: no such file")
        try:
            return open_picture(file, self.max_pixels)
        except ValueError as error:
            raise InputError(f"{where}: {error}") from error

    def pixels_of(self, image: Image, where: object) -> NDArray[np.uint8]:
        """The 8-bit RGB pixels of an image, [H, W, 3].

        Raises:
            InputError: if its values can mean several things.
        """
        try:
            return to_rgb(image, self.columns["image"].scale)
        except ValueError as error:
            raise InputError(f"{where}: {error}; {self.line('image')}") from error

    def line(self, name: str) -> str:
        """Where the YAML file says how a column is stored, for errors."""
        file = "a YAML file" if Path(self.file).is_dir() else self.file
        place = f"{self.place}: {self.columns[name].place}"
        return f"the line is `{name}: {{{place}, ...}}` in {file}"

    def target(
        self, name: str, index: int, stored: NDArray[np.generic], size: tuple[int, int], where: str
    ) -> NDArray[np.generic]:
        """A label at the size of its image.

        Args:
            name: its task.
            index: of the sample.
            stored: its pixels as stored.
            size: height and width of the image.
            where: the file or row, for errors.

        Raises:
            InputError: if the label cannot be used.
        """
        family, identity = self.tasks[name].family, self.identity(index)
        try:
            target = self._decode(name, stored)
        except ValueError as error:
            raise InputError(f"{where}: {name} has {error}; {self.line(name)}") from error
        problem = family.find_problem(target)
        if problem:
            raise InputError(f"{where}: {name} {problem}")
        if lost := family.count_too_large(target):
            self.note(f"{name} pixels too far to store, unknown", identity, lost)
        self._look_for_classes(name, index, target)
        if target.shape[:2] == size:
            return target
        if not alike(target.shape[:2], size):
            raise InputError(
                f"{where}: {name} is {target.shape[1]}x{target.shape[0]}; its image has another"
                f" aspect ratio, {size[1]}x{size[0]}"
            )
        self.note(f"{name} resized", identity)
        return nearest(target, size)

    def _decode(self, name: str, stored: NDArray[np.generic]) -> NDArray[np.generic]:
        family, encoding = self.tasks[name].family, self.encodings[name]
        if name in self.remaps:
            return self.remaps[name].decode(stored, family, encoding)
        target = family.from_file(stored, encoding)
        axes = self.columns[name].axes
        if not axes or target.ndim != 3:
            return target
        return to_ours(target.astype(np.float32), axes)

    def upright(self, name: str, index: int, label: Picture, image: Picture, where: str) -> Image:
        """A label in the orientation in which people see its image.

        A label without orientation of its own lies as the file of the photograph stores it, or as
        people see it. The shape decides, if it can.

        Raises:
            InputError: if it cannot.
        """
        if image.orientation == 1 or label.orientation != 1:
            return label.image
        turned, size = turn(label.image, image.orientation), image.image.size
        upright = self.columns[name].upright
        if upright is None:
            upright, fits = alike(label.image.size, size), alike(turned.size, size)
            if upright and fits:
                raise InputError(
                    f"{where}: its photograph is turned (EXIF"
                    f" orientation {image.orientation}), and both ways fit: give `upright: true` if"
                    " labels lie as people see the photograph, `upright: false` if they lie as its"
                    f" file stores it; {self.line(name)}"
                )
            upright = upright or not fits
        if upright:
            return label.image
        self.note(f"{name} turned with its image", self.identity(index))
        return turned

    def picture_target(
        self, name: str, index: int, label: Picture, image: Picture, where: str
    ) -> NDArray[np.generic]:
        """A label that is stored as a picture, at the size of its image. See `target`."""
        if self.tasks[name].family.names and label.kind in ("JPEG", "MPO"):
            raise InputError(f"{where}: {name} is a JPEG, which changes class ids; expected PNG")
        pixels = to_values(self.upright(name, index, label, image, where))
        return self.target(name, index, pixels, image.image.size[::-1], where)

    def _look_for_classes(self, name: str, index: int, target: NDArray[np.generic]) -> None:
        """Warn, when all labels of a column were read, of classes that none of them has."""
        missing = self._missing_classes[name]
        if name not in self._seen:
            self._seen[name] = np.zeros(len(self), bool)
        seen = self._seen[name]
        if seen[index] or not missing:
            return
        found, family = self.tasks[name].family.present(target, 1e-12), self.tasks[name].family
        with NOTING:
            missing.difference_update(found)
            seen[index] = True
            if not seen.all() or not missing:
                return
            names = ", ".join(family.names[label] for label in sorted(missing))
            missing.clear()
        logger.warning("%s: %s: no label has these classes: %s", self.file, name, names)

    def needed(self, tasks: list[str]) -> list[str]:
        """The tasks whose labels must be read: those asked for, and that of the caption."""
        if self.caption and self.caption.names_classes and self.caption.of not in tasks:
            return [*tasks, self.caption.of]
        return tasks

    def caption_of(self, index: int, targets: Mapping[str, NDArray[np.generic]]) -> str | None:
        """The caption of a sample.

        Args:
            index: of the sample.
            targets: its labels, with that of the caption.
        """
        if self.caption is None:
            return None
        if self.caption.template is None:
            return self.stored_caption(index)
        if not self.caption.names_classes:
            return self.caption.template.format()
        family = self.tasks[self.caption.of].family
        present = family.present(targets[self.caption.of], self.caption.at_least)
        names = ", ".join(family.names[label].lower() for label in present)
        return self.caption.template.format(classes=names)

    def stored_caption(self, index: int) -> str | None:
        """The caption that is stored beside the image of a sample."""
        raise NotImplementedError


def alike(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two sizes have one aspect ratio, up to a pixel."""
    return abs(one[0] * other[1] - one[1] * other[0]) <= max(*one, *other)
