"""Folders: one folder for each column. A YAML file describes them for the source `folder:`."""

import shutil
from pathlib import Path
from typing import Any

import yaml

from ..diff2in1.families import Family
from .entries import Selection, write_new

LAYOUT = "folder.yaml"


def write_folders(folder: Path, selection: Selection) -> None:
    """Write image/, TASK/ for each task, confidence/TASK/ if stored, captions/ and folder.yaml.

    If there are several splits, splits/SPLIT.txt lists the images of each.

    Args:
        folder: an empty folder.
        selection: the samples.
    """
    licences, captioned = set(), False
    names = {split: list[str]() for split in selection.splits}
    for entry in selection.entries:
        confidence = {f"confidence/{name}": data for name, data in entry.confidence.items()}
        for column, data in {"image": entry.image, **entry.maps, **confidence}.items():
            write_new(folder / column / f"{entry.name}.png", data)
        caption = entry.facts["caption"]
        write_new(folder / "captions" / f"{entry.name}.txt", (caption or "").encode())
        captioned |= caption is not None
        names[entry.split].append(entry.name)
        licences.add(entry.facts["provenance"]["licence"])
    layout: dict[str, Any] = {"name": selection.name}
    if len(licences) == 1 and None not in licences:
        layout["licence"] = licences.pop()
    layout["columns"] = {"image": "image"} | {
        name: {"folder": name, **task.family.own_encoding} if task.family.own_encoding else name
        for name, task in selection.tasks.items()
    }
    if len(names) > 1:
        layout["split"] = "splits/{split}.txt"
        for split, own in names.items():
            write_new(folder / "splits" / f"{split}.txt", "\n".join(own).encode())
    classes = {name: t.family for name, t in selection.tasks.items() if t.family.names}
    if classes:
        layout["classes"] = {name: _classes(family) for name, family in classes.items()}
    if captioned:
        layout["caption"] = {"folder": "captions"}
    else:
        shutil.rmtree(folder / "captions")
    write_new(
        folder / LAYOUT, yaml.safe_dump(layout, sort_keys=False, default_flow_style=None).encode()
    )


def _classes(family: Family) -> dict[str, Any]:
    return {"names": list(family.names), "palette": [list(colour) for colour in family.palette]}
