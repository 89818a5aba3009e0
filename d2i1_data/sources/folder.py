"""The source `folder:`: your own images and labels in folders, described by a YAML file.

    name: camvid
    licence: cc-by-nc-4.0
    root: $PHOTOS/camvid              # default: the folder of the YAML file
    columns:
      image: "{split}/image"          # {split} is the last part of folder:camvid.yaml:val
      semseg: "{split}/label"         # or {folder: ..., scale: ..., unknown: ..., values: ...}
    classes:
      semseg: {names: [sky, road], palette: [[128, 128, 128], [128, 64, 128]], ignore: [11]}
    split: "*"                        # a glob over ids, a list of ids, or a text file of ids
    caption: {template: "a street with {classes}", of: semseg, at_least: 0.01}
                                    # or {folder: texts}, one .txt per image

An id is the path of a file in its folder, without the ending. `docs/creating.md` describes all
keys.
"""

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from ..dataset.sample import Provenance, Sample, image_sha256
from ..dataset.schema import Schema
from ..diff2in1.families import Encoding
from ..diff2in1.pictures import SUFFIXES, Picture, open_picture, to_rgb, to_values, turn
from ..errors import InputError
from ..tasks import TASKS, Task
from .layout import Caption, Classes, build, read_column, read_encoding, read_layout
from .resize import nearest
from .source import NOTING, Source, fingerprint

logger = logging.getLogger(__name__)


class Folder(Source):
    """Samples from folders. Files with the same id belong together; a missing file is an error.

    Args:
        file: the YAML file, or a folder of images without labels.
        split: replaces `{split}` in the file.

    Raises:
        InputError: if the file is wrong, or a folder has two files of one id.
    """

    def __init__(self, file: str, split: str | None = None) -> None:
        super().__init__()
        self.file = file
        layout = read_layout(file, split)
        self.name, self.licence = layout.name, layout.licence
        place = Path(file) if Path(file).is_dir() else Path(file).parent
        self.root = place / os.path.expandvars(layout.root)
        self.columns = {n: read_column(n, value, file) for n, value in layout.columns.items()}
        self.classes = {
            n: build(Classes, c, f"{file}: classes: {n}") for n, c in layout.classes.items()
        }
        self.tasks = {name: self._task(name) for name in self.columns if name != "image"}
        self.encodings = {name: self._encoding(name) for name in self.columns}
        self.caption = (
            build(Caption, layout.caption, f"{file}: caption") if layout.caption else None
        )
        self.fingerprint = fingerprint(asdict(layout))
        self.files = {name: self._list(column.folder) for name, column in self.columns.items()}
        self.ids = self._choose(layout.split)
        if isinstance(layout.split, str) and not layout.split.endswith(".txt"):
            self.strays = self._find_strays(layout.split)
        self._missing_classes = {
            name: set(range(len(task.family.names))) for name, task in self.tasks.items()
        }
        self._seen = {name: np.zeros(len(self.ids), bool) for name in self.tasks}

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
        try:
            return task.with_classes(self.classes[name].names, self.classes[name].palette)
        except ValueError as error:
            raise InputError(f"{self.file}: classes: {name}: {error}") from error

    def _encoding(self, name: str) -> Encoding:
        """How the files of a column are stored. Refuses keys that its kind of map cannot have."""
        column, where = self.columns[name], f"{self.file}: columns: {name}"
        kind: str = "image"
        takes: tuple[str, ...] = ("scale",)
        if name != "image":
            family = self.tasks[name].family
            kind, takes = family.name, (*family.encoding, "upright")
        for key in ("scale", "unknown", "values", "upright"):
            if getattr(column, key) not in (None, {}) and key not in takes:
                raise InputError(f"{where}: a {kind} has no {key}, allowed are {', '.join(takes)}")
        return read_encoding(column, self.classes.get(name), where)

    def _list(self, folder: str) -> dict[str, Path]:
        path = self.root / folder
        if not path.is_dir():
            raise InputError(f"{self.file}: no such folder: {path}")
        files: dict[str, Path] = {}
        hidden = []
        for file in sorted(f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES):
            place = file.relative_to(path)
            if any(part.startswith(".") for part in place.parts):
                hidden.append(place)
                continue
            other = files.setdefault(place.with_suffix("").as_posix(), file)
            if other != file:
                raise InputError(
                    f"{self.file}: {other} and {file.name} have the same id; expected one of them"
                )
        if hidden:
            logger.warning("%s: %s hidden files are left out: %s", path, len(hidden), hidden[0])
        return files

    def _choose(self, split: str | list[str]) -> list[str]:
        images = self.files["image"]
        if isinstance(split, list):
            chosen = [str(i) for i in split]
        elif split.endswith(".txt"):
            listing = self.root / split
            if not listing.is_file():
                raise InputError(f"{self.file}: no such list of ids: {listing}")
            chosen = _read_text(listing).split()
        else:
            chosen = [i for i in images if fnmatch(i, split)]
        if not chosen:
            raise InputError(f"{self.file}: split {split!r} selects none of {len(images)} images")
        if len({*chosen}) < len(chosen):
            twice = next(i for n, i in enumerate(chosen) if i in chosen[:n])
            raise InputError(f"{self.file}: split: names {twice!r} twice")
        self._require(chosen, "image")
        return chosen

    def _find_strays(self, split: str) -> dict[str, str]:
        """Label files whose image is missing: id -> why."""
        images = self.files["image"]
        return {
            i: f"{file}: a label without an image"
            for files in self.files.values()
            for i, file in files.items()
            if i not in images and fnmatch(i, split)
        }

    def _require(self, ids: list[str], name: str) -> None:
        missing = [i for i in ids if i not in self.files[name]]
        if missing:
            raise InputError(
                f"{self.file}: {len(missing)} of {len(ids)} images have no {name},"
                f" the first is {missing[0]!r} in {self.root / self.columns[name].folder}"
            )

    def check_pairs(self) -> None:
        for name in self.files:
            self._require(self.ids, name)
        super().check_pairs()

    def __len__(self) -> int:
        return len(self.ids)

    def identity(self, index: int) -> str:
        return self.ids[index]

    def read(self, index: int, tasks: Iterable[str]) -> Sample:
        identity, names = self.ids[index], list(tasks)
        if self.caption and self.caption.names_classes and self.caption.of not in names:
            names.append(self.caption.of)  # the caption names its classes
        file = self.files["image"][identity]
        picture = self._open(file)
        try:
            image = to_rgb(picture.image, self.columns["image"].scale)
        except ValueError as error:
            raise InputError(f"{file}: {error}; {self._line('image')}") from error
        targets = {name: self._target(name, index, picture) for name in names}
        provenance = Provenance("real", self.name, identity, image_sha256(image), self.licence)
        return Sample(identity, image, targets, self._caption(identity, targets), provenance)

    def _open(self, file: Path) -> Picture:
        try:
            return open_picture(file, self.max_pixels)
        except ValueError as error:
            raise InputError(f"{file}: {error}") from error

    def _line(self, name: str) -> str:
        """Where the YAML file says how a column is stored, for errors."""
        file = "a YAML file" if Path(self.file).is_dir() else self.file
        return f"the line is `{name}: {{folder: {self.columns[name].folder}, ...}}` in {file}"

    def _target(self, name: str, index: int, image: Picture) -> NDArray[np.generic]:
        identity, family = self.ids[index], self.tasks[name].family
        if identity not in self.files[name]:
            raise InputError(f"{self.root / self.columns[name].folder}: no {name} of {identity!r}")
        path = self.files[name][identity]
        picture = self._open(path)
        if family.names and picture.kind in ("JPEG", "MPO"):
            raise InputError(f"{path}: {name} is a JPEG, which changes class ids; expected PNG")
        pixels = to_values(self._turned(name, index, picture, image))
        try:
            target = family.from_file(pixels, self.encodings[name])
        except ValueError as error:
            raise InputError(f"{path}: {name} has {error}; {self._line(name)}") from error
        problem = family.find_problem(target)
        if problem:
            raise InputError(f"{path}: {name} {problem}")
        if lost := family.count_too_large(target):
            self.note(f"{name} pixels too far to store, unknown", identity, lost)
        self._look_for_classes(name, index, target)
        size = image.image.size[::-1]
        if target.shape[:2] == size:
            return target
        if not _alike(target.shape[:2], size):
            raise InputError(
                f"{path}: {name} is {target.shape[1]}x{target.shape[0]}; its image has another"
                f" aspect ratio, {size[1]}x{size[0]}"
            )
        self.note(f"{name} resized", identity)
        return nearest(target, size)

    def _turned(self, name: str, index: int, label: Picture, image: Picture) -> Image:
        """A label in the orientation in which people see its image.

        A label without orientation of its own lies as the file of the photograph stores it, or as
        people see it. The shape decides, if it can.
        """
        if image.orientation == 1 or label.orientation != 1:
            return label.image
        turned, size = turn(label.image, image.orientation), image.image.size
        upright = self.columns[name].upright
        if upright is None:
            upright, fits = _alike(label.image.size, size), _alike(turned.size, size)
            if upright and fits:
                raise InputError(
                    f"{self.files[name][self.ids[index]]}: its photograph is turned (EXIF"
                    f" orientation {image.orientation}), and both ways fit: give `upright: true` if"
                    " labels lie as people see the photograph, `upright: false` if they lie as its"
                    f" file stores it; {self._line(name)}"
                )
            upright = upright or not fits
        if upright:
            return label.image
        self.note(f"{name} turned with its image", self.ids[index])
        return turned

    def _look_for_classes(self, name: str, index: int, target: NDArray[np.generic]) -> None:
        """Warn, when all labels of a column were read, of classes that none of them has."""
        seen, missing = self._seen[name], self._missing_classes[name]
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

    def _caption(self, identity: str, targets: Mapping[str, NDArray[np.generic]]) -> str | None:
        if self.caption is None:
            return None
        if self.caption.template is None:
            return _read_text(self.root / str(self.caption.folder) / f"{identity}.txt")
        if not self.caption.names_classes:
            return self.caption.template.format()
        family = self.tasks[self.caption.of].family
        present = family.present(targets[self.caption.of], self.caption.at_least)
        names = ", ".join(family.names[label].lower() for label in present)
        return self.caption.template.format(classes=names)


def _alike(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two sizes have one aspect ratio, up to a pixel."""
    return abs(one[0] * other[1] - one[1] * other[0]) <= max(*one, *other)


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    try:
        return path.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as UTF-8: {error}") from error
