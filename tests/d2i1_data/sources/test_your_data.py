"""The table of keys in docs/your_data.md: complete, and every example can be opened."""

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from d2i1_data.sources import open_source
from d2i1_data.sources.camera import Camera
from d2i1_data.sources.hub import HubLayout, shipped_mappings
from d2i1_data.sources.layout import (
    Caption,
    Classes,
    Column,
    FolderLayout,
    Layout,
    Manifest,
    read_layout,
)
from tests.documents.reading import ROOT, read_names, read_table

PAGE = ROOT / "docs" / "your_data.md"
INNER: Mapping[str, type] = {
    "columns.TASK": Column,
    "classes.TASK": Classes,
    "manifest": Manifest,
    "caption": Caption,
    "camera": Camera,
}
ROWS = [[cell.strip("`") for cell in row] for row in read_table(PAGE, "key")]
NAMES = {"names": ["wall", "floor", "chair"]}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rooms with all that the examples name; `train` is a link to the same folder."""
    home = tmp_path_factory.mktemp("photos") / "home"
    pixels = np.arange(12 * 16).reshape(12, 16)
    parts = {
        "image": np.repeat(pixels[..., None], 3, -1).astype(np.uint8),
        "label": (pixels % 3).astype(np.uint8),
        "depth": (pixels + 500).astype(np.uint16),
        "normal": np.full((12, 16, 3), (128, 128, 255), np.uint8),
    }
    rows = []
    for number in ("00", "01"):
        for part, values in parts.items():
            (home / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(home / part / f"{number}.png")
        (home / "texts").mkdir(exist_ok=True)
        (home / "texts" / f"{number}.txt").write_text("a room")
        row = {"file": f"image/{number}.png", "key": number, "part": "train", "text": "a room"}
        rows.append(row)
    (home / "train").symlink_to(home)
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    (home / "rows.csv").write_text("\n".join(lines))
    return home


def completed(example: dict[str, Any]) -> dict[str, Any]:
    """A whole YAML file with an example in it."""
    content = {"columns": {"image": "image"}} | example
    content["columns"] = {"image": "image"} | content["columns"]
    classes = "{classes}" in str(content) or "classes" in content
    if classes or "semseg" in content["columns"]:
        content["columns"].setdefault("semseg", "label")
        content.setdefault("classes", {"semseg": NAMES})
    return content


def test_the_table_names_every_key() -> None:
    keys = [field.name for field in fields(FolderLayout)]
    for above, kind in INNER.items():
        keys += [f"{above}.{field.name}" for field in fields(kind)]
    assert sorted(key for key, _, _ in ROWS) == sorted(keys)


@pytest.mark.parametrize(("key", "example"), [(key, text) for key, _, text in ROWS])
def test_every_example_can_be_opened(
    key: str, example: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOTOS", str(home.parent))
    last = key.rpartition(".")[2]
    assert re.search(rf"\b{last}:", example)
    file = home / "home.yaml"
    file.write_text(yaml.safe_dump(completed(yaml.safe_load(example))))
    sample = open_source(f"folder:{file}:train")[0]
    assert sample.targets.keys() == completed(yaml.safe_load(example))["columns"].keys() - {"image"}


def test_the_table_of_the_hub_names_every_key(tmp_path: Path) -> None:
    table = [[cell.strip("`") for cell in row] for row in read_table(PAGE, "key of a data set")]
    keys = {field.name for field in fields(HubLayout)} - {field.name for field in fields(Layout)}
    assert sorted(key for key, _, _ in table) == sorted(keys)
    for key, _, text in table:
        example = {"dataset": "x", "columns": {"image": "a"}} | yaml.safe_load(text)
        (tmp_path / "x.yaml").write_text(yaml.safe_dump(example))
        layout = read_layout(HubLayout, str(tmp_path / "x.yaml"), None)
        assert getattr(layout, key) == example[key]
    assert read_names(PAGE, "id") == shipped_mappings()
