"""The YAML files that describe data, read and checked."""

from dataclasses import asdict, dataclass, field, fields
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
    """Where the files of a column are, and how they are stored.

    folder: their folder. column: or, their column in the manifest or the data set. scale: the
    stored value of one unit; of images with 16 or 32 bits, of white. unknown: stored values, or
    colours, that mean unknown. values: stored value -> what it means. upright: whether labels of
    turned photographs lie as people see the photograph, or as its file stores it. axes: the
    channels of normals, see `axes.py`.
    """

    folder: str | None = None
    column: str | None = None
    scale: float | None = None
    unknown: Any = None
    values: dict[str, float] = field(default_factory=dict)
    upright: bool | None = None
    axes: str | None = None

    @property
    def place(self) -> str:
        """The folder or column."""
        return str(self.folder if self.folder is not None else self.column)


@dataclass(frozen=True)
class Classes:
    """The classes of a label map.

    names: the classes of the source. palette: their colours; with `stored`, those of the stored
    classes. ignore: stored ids that mean unknown. stored: names of the stored ids, if they differ.
    remap: stored name or id -> name or id in `names`; None is unknown. See `remap.py`.
    """

    names: list[str] | None = None
    palette: list[list[int]] | None = None
    ignore: list[int] = field(default_factory=list)
    stored: list[str] | None = None
    remap: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Caption:
    """Captions: text files in a folder, a column of texts, or a template that names classes.

    of: the column of the classes. at_least: the template names a class that covers at least this
    share of the known pixels.
    """

    folder: str | None = None
    column: str | None = None
    template: str | None = None
    of: str = "semseg"
    at_least: float = 0.01

    @property
    def names_classes(self) -> bool:
        """Whether captions depend on the label map `of`."""
        return self.template is not None and "{classes}" in self.template


@dataclass(frozen=True)
class Manifest:
    """A table with a row for each sample.

    file: its file. id: the column of the ids; the default is the path of the image without its
    ending. split: the column that names the split of a row.
    """

    file: str
    id: str | None = None
    split: str | None = None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What all YAML files have; `docs/your_data.md` describes it."""

    columns: dict[str, Any]
    name: str = "folder"
    licence: str | None = None
    classes: dict[str, Any] = field(default_factory=dict)
    caption: dict[str, Any] | None = None
    camera: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class FolderLayout(Layout):
    """The YAML file of the source `folder:`."""

    root: str = "."
    split: Any = "*"
    manifest: Any = None


L = TypeVar("L", bound=Layout)


def read_folder_layout(file: str, split: str | None) -> FolderLayout:
    """Read the YAML file of the source `folder:`.

    Args:
        file: the YAML file, or a folder of images without labels.
        split: replaces `{split}` in the file.

    Raises:
        InputError: if there is no such file, or its content is wrong.
    """
    if Path(file).is_dir():
        return FolderLayout(columns={"image": "."}, name=Path(file).resolve().name)
    layout = read_layout(FolderLayout, file, split)
    if not isinstance(layout.split, str | list):
        raise InputError(f"{file}: split: got {layout.split!r}, expected a text or a list of ids")
    return layout


def read_layout(kind: type[L], file: str, split: str | None) -> L:
    """Read a YAML file that describes data.

    Args:
        kind: what it describes.
        file: the YAML file.
        split: replaces `{split}` in the file.

    Raises:
        InputError: if there is no such file, or its content is wrong.
    """
    if not Path(file).is_file():
        raise InputError(f"no such file: {file}")
    layout = build(kind, _fill(_load(Path(file)), split, file), file)
    if "image" not in layout.columns:
        raise InputError(f"{file}: columns: no `image` among {', '.join(layout.columns)}")
    if layout.caption is not None:
        _check_caption(layout, build(Caption, layout.caption, f"{file}: caption"), file)
    return layout


def content_of(layout: Layout) -> dict[str, Any]:
    """The content of a YAML file, for fingerprints."""
    content = asdict(layout)
    for classes in content["classes"].values():
        if isinstance(classes, dict) and isinstance(classes.get("remap"), dict):
            # its keys are numbers and texts, which have no order
            classes["remap"] = {str(key): goal for key, goal in classes["remap"].items()}
    return content


def read_manifest_keys(layout: FolderLayout, file: str) -> Manifest | None:
    """The manifest that a YAML file names; None without.

    Raises:
        InputError: if a key is wrong, or a column of a manifest is named and there is none.
    """
    if layout.manifest is None:
        if layout.caption and "column" in layout.caption:
            raise InputError(f"{file}: caption: `column` needs a `manifest`")
        return None
    content = {"file": layout.manifest} if isinstance(layout.manifest, str) else layout.manifest
    return build(Manifest, content, f"{file}: manifest")


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
    if [caption.template, caption.folder, caption.column].count(None) != 2:
        raise InputError(f"{file}: caption: give either `template` or `folder` or `column`")
    if not 0 < caption.at_least <= 1:
        given = caption.at_least
        raise InputError(f"{file}: caption: at_least: got {given}, expected above 0, up to 1")
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


def read_column(name: str, value: Any, file: str, place: str) -> Column:
    """Read one of the `columns`, a text or a mapping.

    Args:
        name: its name.
        value: its value.
        file: the YAML file, for errors.
        place: the key that a text stands for, `folder` or `column`.

    Raises:
        InputError: if it is wrong.
    """
    where = f"{file}: columns: {name}"
    column = build(Column, {place: value} if isinstance(value, str) else value, where)
    if getattr(column, place) is None:
        raise InputError(f"{where}: {place!r} is missing")
    if column.folder is not None and column.column is not None:
        raise InputError(f"{where}: give {place!r} only")
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
