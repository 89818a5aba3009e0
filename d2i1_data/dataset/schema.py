"""The schema of a dataset: the columns of its rows, and the conversion of samples to rows and back.

A dataset has only the columns that its rows can fill. The schema is written once, beside the
shards, and all further shards of the folder follow it. A reader takes a missing column as null, and
ignores unknown columns.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Features, Image, Value
from numpy.typing import NDArray

from ..checks import MAX_PIXELS, check_format, parse_json
from ..diff2in1.families import CONFIDENCE, encode_png
from ..diff2in1.pictures import open_picture, to_rgb
from ..errors import InputError
from ..tasks import TASKS, Task
from .sample import Provenance, Quality, Sample

METADATA = "diff2in1.json"  # the file beside the shards that holds the schema
FORMAT_VERSION = 1
IMAGE = "image"  # the type of a column of pictures; other types have the names of `datasets`
SCORES = tuple(field.name for field in fields(Quality))
PROVENANCE = tuple(field.name for field in fields(Provenance))
REAL = ("kind", "source_dataset", "source_id", "source_sha256", "licence")  # fields of real rows

_PROVENANCE_TYPES = {
    **dict.fromkeys(PROVENANCE, "string"),
    **dict.fromkeys(("strength", "guidance"), "float64"),
    **dict.fromkeys(("steps", "variant"), "int32"),
    **dict.fromkeys(("seed", "noise_seed"), "int64"),
}

Columns = Mapping[str, Any]  # name -> type, or the columns inside it


@dataclass(frozen=True, eq=False)
class Schema:
    """The columns of one dataset.

    Attributes:
        tasks: the tasks that this version of the package knows, by name, with their classes.
        columns: name -> type for every column, known or unknown to this version. A type is `image`,
            a type of `datasets`, or inner columns.
        palettes: whether pictures of class ids hold the colours of the classes. The first version
            of the package wrote none, and its datasets continue without.
    """

    tasks: Mapping[str, Task]
    columns: Columns
    palettes: bool = True

    @classmethod
    def of(
        cls,
        tasks: Mapping[str, Task],
        *,
        captions: bool = True,
        scores: Collection[str] = SCORES,
        confidence: bool = False,
        provenance: Collection[str] = PROVENANCE,
    ) -> "Schema":
        """The schema of rows that fill these columns.

        Args:
            tasks: the tasks of the dataset, by name.
            captions: whether rows have captions.
            scores: the scores of `Quality` that are measured.
            confidence: whether rows have maps of confidence.
            provenance: the fields of `Provenance` that rows fill.
        """
        names = [name for name in TASKS if name in tasks]
        columns: dict[str, Any] = {"id": "string", "image": IMAGE}
        columns |= dict.fromkeys(names, IMAGE)
        if captions:
            columns["caption"] = "string"
        if names and scores:
            kinds = {name: "float32" for name in SCORES if name in scores}
            columns["quality"] = {name: dict(kinds) for name in names}
        if names and confidence:
            columns["confidence"] = dict.fromkeys(names, IMAGE)
        columns["provenance"] = {n: _PROVENANCE_TYPES[n] for n in PROVENANCE if n in provenance}
        return cls({name: tasks[name] for name in names}, columns)

    @classmethod
    def real(
        cls, tasks: Mapping[str, Task], *, captions: bool = True, licence: bool = True
    ) -> "Schema":
        """The schema of real rows.

        Args:
            tasks: the tasks of the dataset, by name.
            captions: whether rows have captions.
            licence: whether rows have a licence.
        """
        filled = [name for name in REAL if licence or name != "licence"]
        return cls.of(tasks, captions=captions, scores=(), provenance=filled)

    @cached_property
    def features(self) -> Features:
        """The columns as `datasets` describes them."""
        return Features({name: _feature(kind) for name, kind in self.columns.items()})

    @property
    def arrow(self) -> pa.Schema:
        """The columns as Arrow describes them."""
        return self.features.arrow_schema

    def inner(self, name: str) -> Columns:
        """The columns inside a column, empty if there is no such column."""
        columns: Columns = self.columns.get(name, {})
        return columns

    def with_columns(self, captions: bool, provenance: Collection[str]) -> "Schema":
        """The same schema with or without captions, and with more fields of the provenance."""
        return Schema.of(
            self.tasks,
            captions=captions,
            scores={name for own in self.inner("quality").values() for name in own},
            confidence="confidence" in self.columns,
            provenance={*self.inner("provenance"), *provenance},
        )

    def config(self) -> dict[str, Any]:
        """The config from which `Schema.from_config` builds this schema again."""
        config = {"tasks": describe_tasks(self.tasks), "columns": self.columns}
        return {**config, "palettes": True} if self.palettes else config

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and _plain(self) == _plain(other)

    def __hash__(self) -> int:
        return hash(_plain(self))

    @classmethod
    def from_config(cls, config: Mapping[str, Any], where: str) -> "Schema":
        """Build a schema. Tasks that this version does not know are left out.

        Args:
            config: a value of `Schema.config`.
            where: begins the message.

        Raises:
            InputError: if it is not the config of a schema.
        """
        try:
            known = {name: own for name, own in config["tasks"].items() if name in TASKS}
            columns = _check_columns(config["columns"])
            if columns["image"] != IMAGE or columns["id"] != "string":
                raise KeyError("id, image")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InputError(f"{where}: no schema of ours ({error!r})") from error
        return cls(read_tasks(known, where), columns, bool(config.get("palettes")))

    def to_row(self, sample: Sample) -> dict[str, Any]:
        """Convert a sample to a row. This encodes all its pictures."""
        scores = {name: asdict(one) for name, one in sample.quality.items()}
        maps = sample.confidence.items()
        row: dict[str, Any] = {
            "id": sample.id,
            "image": _stored(encode_png(sample.image)),
            "caption": sample.caption,
            "quality": scores,
            "confidence": {name: _stored(CONFIDENCE.to_png(one)) for name, one in maps},
            "provenance": asdict(sample.provenance),
        }
        for name, task in self.tasks.items():
            if name in sample.targets:
                encode = task.family.to_png if self.palettes else task.family.to_plain_png
                row[name] = _stored(encode(sample.targets[name]))
        return _fit(row, self.columns)

    def complete(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A stored row with all known columns. Missing columns are None."""
        return _fit(row, Schema.of(self.tasks, confidence=True).columns)

    def from_row(
        self,
        row: Mapping[str, Any],
        tasks: Iterable[str] | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Sample:
        """Convert a stored row with undecoded pictures (`Image(decode=False)`) to a sample.

        Args:
            row: the row; columns may be missing.
            tasks: names of the tasks whose labels are decoded; None decodes all.
            max_pixels: larger images are refused.
        """
        row = self.complete(row)
        wanted = self.tasks if tasks is None else {name: self.tasks[name] for name in tasks}
        known = {name: task for name, task in wanted.items() if row[name] is not None}
        return Sample(
            id=row["id"],
            image=decode_rgb(stored_bytes(row["image"]), max_pixels),
            targets={n: task.family.from_png(stored_bytes(row[n])) for n, task in known.items()},
            caption=row["caption"],
            provenance=Provenance(
                **{key: one for key, one in row["provenance"].items() if one is not None}
            ),
            quality={name: Quality(**row["quality"][name]) for name in known},
            confidence={
                name: CONFIDENCE.from_png(stored_bytes(row["confidence"][name]))
                for name in known
                if row["confidence"][name] is not None
            },
        )


def _plain(schema: Schema) -> str:
    return json.dumps(schema.config())


def _feature(kind: Any) -> Any:
    if isinstance(kind, Mapping):
        return {name: _feature(inner) for name, inner in kind.items()}
    return Image() if kind == IMAGE else Value(kind)


def _check_columns(columns: Any) -> dict[str, Any]:
    """Check that `datasets` can build these columns, and return them."""
    if not isinstance(columns, Mapping) or not columns:
        raise TypeError(f"columns: {columns!r}")
    for kind in columns.values():
        if isinstance(kind, Mapping):
            _check_columns(kind)
        elif kind != IMAGE:
            Value(kind)
    return dict(columns)


def _fit(row: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """The columns of a row in the order of the schema. Missing values are None."""
    return {
        name: _fit(row.get(name) or {}, kind) if isinstance(kind, Mapping) else row.get(name)
        for name, kind in columns.items()
    }


def _stored(png: bytes) -> dict[str, Any]:
    return {"bytes": png, "path": None}


def stored_bytes(stored: Mapping[str, Any] | None) -> bytes:
    """The bytes of an undecoded image.

    Raises:
        ValueError: if there are none. Files are not read, because a row of a stranger could name
            any file of this machine.
    """
    data = stored and stored.get("bytes")
    if not isinstance(data, bytes) or not data:
        path = stored and stored.get("path")
        why = f"names the file {path!r}, only bytes are read" if path else "holds no bytes"
        raise ValueError(f"a picture {why}")
    return data


def decode_rgb(data: bytes, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """An image file as [H, W, 3] uint8. A larger image raises ValueError."""
    return to_rgb(open_picture(data, max_pixels).image)


def describe_tasks(tasks: Mapping[str, Task]) -> dict[str, Any]:
    """The configs of the families of these tasks, for checkpoints and for the metadata file."""
    return {name: task.family.config() for name, task in tasks.items()}


def read_tasks(configs: Mapping[str, Any], where: str) -> dict[str, Task]:
    """Tasks with the classes that a checkpoint or a dataset gives them.

    Args:
        configs: configs of their families, by task.
        where: begins the message.

    Raises:
        InputError: for an unknown task, or a config that its family does not take.
    """
    for name in configs:
        if name not in TASKS:
            raise InputError(f"{where}: unknown task {name!r}, known are {', '.join(TASKS)}")
    tasks = {name: task for name, task in TASKS.items() if name in configs}
    try:
        return {name: task.with_config(configs[name]) for name, task in tasks.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{where}: {error}") from error


def differing_columns(one: Columns, other: Columns, added: bool = True) -> str:
    """Describe the differences between two sets of columns in one line; empty if they are equal.

    Args:
        one: the columns of a dataset.
        other: the present columns.
        added: whether a column that only `other` has counts as a difference.
    """
    flat, now = dict(_flat(one)), dict(_flat(other))
    parts = [f"no {name}" for name in flat if name not in now]
    parts += [f"{name} is new" for name in now if name not in flat and added]
    both = flat.keys() & now.keys()
    parts += [f"{n} is {flat[n]}, now {now[n]}" for n in sorted(both) if flat[n] != now[n]]
    return ", ".join(parts)


def _flat(columns: Columns, before: str = "") -> Iterator[tuple[str, str]]:
    for name, kind in columns.items():
        if isinstance(kind, Mapping):
            yield from _flat(kind, f"{before}{name}.")
        else:
            yield f"{before}{name}", str(kind)


def read_schema(text: str | bytes, where: str) -> Schema:
    """Read the schema in the text of a metadata file.

    Args:
        text: content of the file.
        where: begins the message.

    Raises:
        InputError: if it is not a metadata file of ours, or has a newer format.
    """
    try:
        content = parse_json(text)
        version = int(content["format_version"])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise InputError(f"{where}: not a metadata file of ours ({error!r})") from error
    check_format(version, FORMAT_VERSION, where)
    return Schema.from_config(content, where)
