"""The source `folder:`: your own images and labels in folders, described by a YAML file.

    name: camvid
    licence: cc-by-nc-4.0
    root: $PHOTOS/camvid              # default: the folder of the YAML file
    columns:
      image: "{split}/image"          # {split} is the last part of folder:camvid.yaml:val
      semseg: "{split}/label"         # or {folder: ..., scale: ...}
    classes:
      semseg: {names: [sky, road], palette: [[128, 128, 128], [128, 64, 128]], ignore: [11]}
    split: "*"                        # a glob over ids, a list of ids, or a text file of ids
    caption: {template: "a street with {classes}", of: semseg, at_least: 0.01}
                                    # or {folder: texts}, one .txt per image

An id is the path of a file in its folder, without the ending. `ignore` lists class ids that mean
unknown. `scale` is the stored value of one unit: 1000 for depth in millimetres, 254 for
probabilities, 255 for masks of 0 and 255. One-bit masks need no scale.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

from ..checks import check_template
from ..dataset.sample import Provenance, Sample, image_sha256
from ..dataset.schema import Schema, decode_rgb
from ..errors import InputError
from ..tasks import TASKS, Task
from .resize import nearest
from .source import Source, fingerprint

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Column:
    """The folder of a column's files, and the stored value of one unit."""

    folder: str
    scale: float | None = None


@dataclass(frozen=True)
class Classes:
    """The classes of a label map."""

    names: list[str]
    palette: list[list[int]] | None = None
    ignore: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Caption:
    """Captions: text files in a folder, or a template that names the classes of a column.

    of: the column. at_least: the template names a class that covers at least this share of the
    known pixels.
    """

    folder: str | None = None
    template: str | None = None
    of: str = "semseg"
    at_least: float = 0.01

    @property
    def names_classes(self) -> bool:
        """Whether captions depend on the label map `of`."""
        return self.template is not None and "{classes}" in self.template


@dataclass(frozen=True)
class Layout:
    """The content of the YAML file; the docstring of this module describes it."""

    columns: dict[str, Any]
    name: str = "folder"
    licence: str | None = None
    root: str = "."
    classes: dict[str, Any] = field(default_factory=dict)
    split: str | list[str] = "*"
    caption: dict[str, Any] | None = None


class Folder(Source):
    """Samples from folders. Files with the same id belong together; a missing file is an error.

    Args:
        file: the YAML file, or a folder of images without labels.
        split: replaces `{split}` in the file.

    Raises:
        InputError: if the file is wrong, or an image has no label file.
    """

    def __init__(self, file: str, split: str | None = None) -> None:
        super().__init__()
        self.file = file
        layout = read_layout(file, split)
        self.name, self.licence = layout.name, layout.licence
        self.fingerprint = fingerprint(asdict(layout))
        place = Path(file) if Path(file).is_dir() else Path(file).parent
        self.root = place / os.path.expandvars(layout.root)
        columns = {name: _column(value, file) for name, value in layout.columns.items()}
        self.classes = {
            n: _build(Classes, c, f"{file}: classes: {n}") for n, c in layout.classes.items()
        }
        self.columns = columns
        self.tasks = {name: self._task(name) for name in columns if name != "image"}
        self.caption = (
            _build(Caption, layout.caption, f"{file}: caption") if layout.caption else None
        )
        self.files = {name: self._list(column.folder) for name, column in columns.items()}
        self.ids = self._choose(layout.split)
        for name, files in self.files.items():
            missing = [i for i in self.ids if i not in files]
            if missing:
                raise InputError(
                    f"{file}: {len(missing)} of {len(self.ids)} images have no {name},"
                    f" the first is {missing[0]!r} in {self.root / columns[name].folder}"
                )

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
        if self.columns[name].scale is not None and not task.family.has_scale:
            raise InputError(f"{self.file}: columns: {name}: a {task.family.name} has no scale")
        if name not in self.classes and not task.family.names:
            return task
        if name not in self.classes:
            raise InputError(f"{self.file}: column {name!r} needs its class names under `classes`")
        for label in self.classes[name].names:
            if not isinstance(label, str):
                raise InputError(f"{self.file}: classes: {name}: names: {label!r} is not a text")
        try:
            return task.with_classes(self.classes[name].names, self.classes[name].palette)
        except ValueError as error:
            raise InputError(f"{self.file}: classes: {name}: {error}") from error

    def _list(self, folder: str) -> dict[str, Path]:
        path = self.root / folder
        if not path.is_dir():
            raise InputError(f"{self.file}: no such folder: {path}")
        files = sorted(f for f in path.rglob("*") if f.suffix.lower() in ENDINGS)
        return {f.relative_to(path).with_suffix("").as_posix(): f for f in files}

    def _choose(self, split: str | list[str]) -> list[str]:
        images = self.files["image"]
        if isinstance(split, list):
            chosen = [str(i) for i in split]
        elif split.endswith(".txt"):
            listing = self.root / split
            if not listing.is_file():
                raise InputError(f"{self.file}: no such list of ids: {listing}")
            chosen = listing.read_text().split()
        else:
            chosen = [i for i in images if fnmatch(i, split)]
        if not chosen:
            raise InputError(f"{self.file}: split {split!r} selects none of {len(images)} images")
        return chosen

    def __len__(self) -> int:
        return len(self.ids)

    def identity(self, index: int) -> str:
        return self.ids[index]

    def read(self, index: int, tasks: Iterable[str]) -> Sample:
        identity, names = self.ids[index], list(tasks)
        if self.caption and self.caption.names_classes and self.caption.of not in names:
            names.append(self.caption.of)  # the caption names its classes
        image = _read(self.files["image"][identity], decode_rgb)
        targets = {name: self._target(name, identity, image.shape[:2]) for name in names}
        provenance = Provenance("real", self.name, identity, image_sha256(image), self.licence)
        return Sample(identity, image, targets, self._caption(identity, targets), provenance)

    def _target(self, name: str, identity: str, size: tuple[int, ...]) -> NDArray[np.generic]:
        path, family = self.files[name][identity], self.tasks[name].family
        ignore = self.classes[name].ignore if name in self.classes else ()
        target = _read(
            path, partial(family.from_file, scale=self.columns[name].scale, ignore=ignore)
        )
        problem = family.find_problem(target)
        if problem:
            raise InputError(f"{path}: {name} {problem}")
        if lost := family.count_too_large(target):
            self.note(f"{name} pixels too far to store, unknown", identity, lost)
        if target.shape[:2] == size:
            return target
        height, width = target.shape[:2]
        if abs(height * size[1] - width * size[0]) > max(*size, height, width):
            raise InputError(
                f"{path}: {name} is {width}x{height}; its image has another aspect ratio,"
                f" {size[1]}x{size[0]}"
            )
        self.note(f"{name} resized", identity)
        return nearest(target, (size[0], size[1]))

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


def read_layout(file: str, split: str | None) -> Layout:
    """Read the YAML file.

    Args:
        file: the YAML file, or a folder of images without labels.
        split: replaces `{split}` in the file.

    Raises:
        InputError: if there is no such file, or its content is wrong.
    """
    if Path(file).is_dir():
        return Layout(columns={"image": "."}, name=Path(file).resolve().name, root=".")
    if not Path(file).is_file():
        raise InputError(f"no such file: {file}")
    try:
        content = yaml.safe_load(Path(file).read_text())
    except yaml.YAMLError as error:
        raise InputError(f"{file}: not readable as YAML: {' '.join(str(error).split())}") from error
    layout = _build(Layout, _fill(content, split, file), file)
    for key in ("columns", "classes"):
        if not isinstance(getattr(layout, key), dict):
            raise InputError(f"{file}: {key}: expected a mapping, got {getattr(layout, key)!r}")
    if "image" not in layout.columns:
        raise InputError(f"{file}: columns: no `image` among {', '.join(layout.columns)}")
    caption = layout.caption
    if caption and ("template" in caption) == ("folder" in caption):
        raise InputError(f"{file}: caption: give either `template` or `folder`")
    if caption and "template" in caption:
        check_template(str(caption["template"]), ("classes",), f"{file}: caption")
        own: Caption = _build(Caption, caption, f"{file}: caption")
        of = own.of
        if own.names_classes and not (of in layout.classes and of in layout.columns):
            raise InputError(
                f"{file}: caption: the template uses {of!r}, which is not a column with `classes`"
            )
    return layout


def _fill(value: Any, split: str | None, file: str) -> Any:
    """Replace `{split}` in every string."""
    if isinstance(value, dict):
        return {key: _fill(inner, split, file) for key, inner in value.items()}
    if isinstance(value, str) and "{split}" in value:
        if split is None:
            raise InputError(f"{file}: uses {{split}}: name a split, as in folder:{file}:train")
        return value.replace("{split}", split)
    return value


def _build(kind: Any, content: Any, where: str) -> Any:
    """Build a dataclass from a mapping. The error for an unknown key suggests the nearest one."""
    allowed = [f.name for f in fields(kind)]
    if not isinstance(content, dict):
        raise InputError(f"{where}: expected the keys {', '.join(allowed)}, got {content!r}")
    for key in content:
        if key not in allowed:
            near = get_close_matches(str(key), allowed, 1, 0)
            raise InputError(f"{where}: unknown key {key!r}, did you mean {near[0]!r}?")
    try:
        return kind(**content)
    except TypeError as error:
        raise InputError(f"{where}: {error}") from error


def _column(value: Any, file: str) -> Column:
    if isinstance(value, str):
        return Column(value)
    column: Column = _build(Column, value, f"{file}: columns")
    return column


def _read(path: Path, decode: Any) -> Any:
    try:
        return decode(path.read_bytes())
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not a readable image (unknown format)") from error
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises these for broken files
        raise InputError(f"{path}: not a readable image ({error})") from error


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"no caption for this image: {path}")
    return path.read_text("utf-8").strip()
