"""The row: how a sample becomes columns of a Hugging Face dataset, and back.

One schema for every dataset we write, whatever its tasks: a column added later would break loading
shards of both kinds together. What a dataset lacks is null.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Features, Image, Value
from numpy.typing import NDArray
from PIL import Image as PillowImage

from ..diff2in1.families import CONFIDENCE, encode_png
from ..errors import InputError
from ..tasks import TASKS, Task
from .sample import Provenance, Quality, Sample

METADATA = "diff2in1.json"  # beside the shards: the tasks' classes, the library versions

_PROVENANCE = {
    **{field.name: Value("string") for field in fields(Provenance)},
    **{name: Value("float64") for name in ("strength", "guidance")},
    **{name: Value("int32") for name in ("steps", "variant")},
    **{name: Value("int64") for name in ("seed", "noise_seed")},
}
_QUALITY = {field.name: Value("float32") for field in fields(Quality)}

FEATURES = Features(
    {
        "id": Value("string"),
        "image": Image(),
        **{name: Image() for name in TASKS},
        "caption": Value("string"),
        "quality": {name: dict(_QUALITY) for name in TASKS},
        "confidence": {name: Image() for name in TASKS},
        "provenance": _PROVENANCE,
    }
)


def to_row(sample: Sample, tasks: Mapping[str, Task]) -> dict[str, Any]:
    """A sample as a row of `FEATURES`, every picture encoded by us."""
    row: dict[str, Any] = {"id": sample.id, "image": _stored(encode_png(sample.image))}
    for name in TASKS:
        target = sample.targets.get(name)
        row[name] = None if target is None else _stored(tasks[name].family.to_png(target))
    row["caption"] = sample.caption
    row["quality"] = {name: asdict(sample.quality.get(name, Quality())) for name in TASKS}
    maps = {n: _stored(CONFIDENCE.to_png(one)) for n, one in sample.confidence.items()}
    row["confidence"] = {name: maps.get(name) for name in TASKS}
    row["provenance"] = asdict(sample.provenance)
    return row


def from_row(row: Mapping[str, Any], tasks: Mapping[str, Task]) -> Sample:
    """The sample of a row whose pictures are undecoded (`Image(decode=False)`)."""
    targets = {
        name: task.family.from_png(stored_bytes(row[name]))
        for name, task in tasks.items()
        if row[name] is not None
    }
    return Sample(
        id=row["id"],
        image=decode_rgb(stored_bytes(row["image"])),
        targets=targets,
        caption=row["caption"],
        provenance=Provenance(**row["provenance"]),
        quality={name: Quality(**row["quality"][name]) for name in targets},
        confidence={
            name: CONFIDENCE.from_png(stored_bytes(row["confidence"][name]))
            for name in targets
            if row["confidence"][name] is not None
        },
    )


def _stored(png: bytes) -> dict[str, Any]:
    return {"bytes": png, "path": None}


def stored_bytes(stored: Mapping[str, Any]) -> bytes:
    """The file behind an undecoded image, which a dataset may also keep as a path."""
    return stored["bytes"] or Path(stored["path"]).read_bytes()


def decode_rgb(data: bytes) -> NDArray[np.uint8]:
    """An image file as [H, W, 3] uint8."""
    return np.asarray(PillowImage.open(io.BytesIO(data)).convert("RGB"))


def describe_tasks(tasks: Mapping[str, Task]) -> dict[str, Any]:
    """The configs of the families of these tasks, for checkpoints and for the metadata file."""
    return {name: task.family.config() for name, task in tasks.items()}


def read_tasks(configs: Mapping[str, Any], where: str) -> dict[str, Task]:
    """Tasks with the classes that a checkpoint or a metadata file gives them."""
    for name in configs:
        if name not in TASKS:
            raise InputError(f"{where}: unknown task {name!r}, known are {', '.join(TASKS)}")
    tasks = {name: task for name, task in TASKS.items() if name in configs}
    try:
        return {name: task.with_config(configs[name]) for name, task in tasks.items()}
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def read_metadata(text: str, where: str) -> dict[str, Task]:
    """Tasks of a dataset's metadata file."""
    try:
        return read_tasks(json.loads(text)["tasks"], where)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{where}: not a metadata file of ours ({error!r})") from error
