"""The YAML file of the source `folder:`, read and checked."""

from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ..checks import check_template
from ..dataset.typed_json import from_json
from ..diff2in1.families import Encoding
from ..errors import InputError

T = TypeVar("T")
MOST = 1_000_000  # bytes of a YAML file


@dataclass(frozen=True)
class Column:
    """The folder of a column's files, and how they are stored.

    scale: the stored value of one unit; of images with 16 or 32 bits, of white. unknown: stored
    values, or colours, that mean unknown. values: stored value -> what it means. upright: whether
    labels of turned photographs lie as people see the photograph, or as its file stores it.
    """

    folder: str
    scale: float | None = None
    unknown: Any = None
    values: dict[str, float] = field(default_factory=dict)
    upright: bool | None = None


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
    """The content of the YAML file; `folder.py` describes it."""

    columns: dict[str, Any]
    name: str = "folder"
    licence: str | None = None
    root: str = "."
    classes: dict[str, Any] = field(default_factory=dict)
    split: Any = "*"
    caption: dict[str, Any] | None = None


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
    layout = build(Layout, _fill(_load(Path(file)), split, file), file)
    if not isinstance(layout.split, str | list):
        raise InputError(f"{file}: split: got {layout.split!r}, expected a text or a list of ids")
    if "image" not in layout.columns:
        raise InputError(f"{file}: columns: no `image` among {', '.join(layout.columns)}")
    if layout.caption is not None:
        _check_caption(layout, build(Caption, layout.caption, f"{file}: caption"), file)
    return layout


def _load(file: Path) -> Any:
    """Content of a YAML file. Aliases are refused: a few of them can stand for gigabytes."""
    try:
        if file.stat().st_size > MOST:
            raise InputError(f"{file}: {file.stat().st_size} bytes, allowed are {MOST}")
        text = file.read_text("utf-8")
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise InputError(f"{file}: has an alias (*name), which is not allowed here")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        if isinstance(error, InputError):
            raise
        why = " ".join(str(error).split())
        raise InputError(f"{file}: not readable as YAML: {why}") from error


def _check_caption(layout: Layout, caption: Caption, file: str) -> None:
    if (caption.template is None) == (caption.folder is None):
        raise InputError(f"{file}: caption: give either `template` or `folder`")
    if caption.template is not None:
        check_template(caption.template, ("classes",), f"{file}: caption")
    of = caption.of
    if caption.names_classes and not (of in layout.classes and of in layout.columns):
        raise InputError(
            f"{file}: caption: the template uses {of!r}, which is not a column with `classes`"
        )


def _fill(value: Any, split: str | None, file: str) -> Any:
    """Replace `{split}` in every string."""
    if isinstance(value, dict):
        return {key: _fill(inner, split, file) for key, inner in value.items()}
    if isinstance(value, str) and "{split}" in value:
        if split is None:
            raise InputError(f"{file}: uses {{split}}: name a split, as in folder:{file}:train")
        return value.replace("{split}", split)
    return value


def build(kind: type[T], content: Any, where: str) -> T:
    """Build a dataclass from a mapping of a YAML file, and check its types.

    Args:
        kind: the dataclass.
        content: the mapping.
        where: begins the message.

    Raises:
        InputError: for an unknown key, whose message suggests the nearest one, or a wrong value.
    """
    allowed = {f.name: f.type for f in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(content, dict):
        raise InputError(f"{where}: expected the keys {', '.join(allowed)}, got {content!r:.60}")
    for key in content:
        if key not in allowed:
            near = get_close_matches(str(key), allowed, 1, 0)
            raise InputError(f"{where}: unknown key {key!r}, did you mean {near[0]!r}?")
    try:
        return from_json(kind, content)
    except KeyError as error:
        raise InputError(f"{where}: {error} is missing") from error
    except TypeError as error:
        form = allowed[str(error).partition(":")[0]]
        expected = form.__name__ if isinstance(form, type) else form
        # YAML takes the words no, yes, on and off for truth values
        is_word = str(error).endswith(("got False", "got True"))
        quoted = '; put words such as "no" and "yes" in quotes' if is_word else ""
        raise InputError(f"{where}: {error}, expected {expected}{quoted}") from error


def read_column(name: str, value: Any, file: str) -> Column:
    """Read one of the `columns`, a folder or a mapping.

    Raises:
        InputError: if it is wrong.
    """
    where = f"{file}: columns: {name}"
    column = Column(value) if isinstance(value, str) else build(Column, value, where)
    if column.scale is not None and not 0 < column.scale < float("inf"):
        raise InputError(f"{where}: scale: got {column.scale}, expected a number above 0")
    return column


def read_encoding(column: Column, classes: Classes | None, where: str) -> Encoding:
    """How the files of a column are stored.

    Raises:
        InputError: if a value is wrong.
    """
    unknown = column.unknown if isinstance(column.unknown, list) else [column.unknown]
    stored = [one for one in unknown if one is not None] + (classes.ignore if classes else [])
    for one in stored:
        colour = isinstance(one, list) and [type(part) for part in one] == [int, int, int]
        if not (colour or isinstance(one, int | float)):
            raise InputError(
                f"{where}: unknown: got {one!r}, expected numbers or [red, green, blue]"
            )
    try:
        values = {int(key): meaning for key, meaning in column.values.items()}
    except ValueError as error:
        given = ", ".join(column.values)
        raise InputError(f"{where}: values: got {given}, expected stored numbers") from error
    palette = classes.palette or () if classes else ()
    return Encoding(column.scale, stored, values, [(r, g, b) for r, g, b in palette])
