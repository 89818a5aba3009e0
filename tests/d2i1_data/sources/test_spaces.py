"""Ids, folders and files whose names hold spaces: every act takes them."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from d2i1_data.sources import open_source
from d2i1_data.sources.rooms import Rooms
from tests.hub import Hub
from tests.made import contents, rows, run

IDS = ["a street/my photo 1", "a street/straße 2"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two rooms under names with spaces; their YAML file."""
    rooms = Rooms("train")
    for name, sample in zip(IDS, rooms, strict=False):
        family = {task: rooms.tasks[task].family for task in ("depth", "semseg")}
        for part, data in {t: f.to_png(sample.targets[t]) for t, f in family.items()}.items():
            file = tmp_path / "my home" / part / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        file = tmp_path / "my home" / "image" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(sample.image)).save(file)
    family = rooms.tasks["semseg"].family
    names, palette = json.dumps(family.names), json.dumps(family.palette)
    yaml = tmp_path / "my home.yaml"
    yaml.write_text(
        "root: my home\ncolumns: {image: image, depth: depth, semseg: semseg}\n"
        f'classes: {{semseg: {{names: {names}, palette: {palette}}}}}\nsplit: "ids of mine.txt"\n'
        'caption: {template: "a room"}\n'
    )
    (tmp_path / "my home" / "ids of mine.txt").write_text("\n".join(IDS) + "\n")
    return yaml


def test_a_list_of_ids_has_one_in_a_line_or_several(home: Path) -> None:
    source = open_source(f"folder:{home}")
    assert [source.identity(row) for row in range(len(source))] == IDS
    (home.parent / "my home" / "ids of mine.txt").write_text(f"{IDS[1]}\r\n\r\n")
    assert [sample.id for sample in open_source(f"folder:{home}")] == IDS[1:]


def test_every_act_takes_ids_with_spaces(
    home: Path, pipeline: Path, d2i1: Callable[..., str], hub: Hub
) -> None:
    source = ("--source", f"folder:{home}", "--resolution", 32)
    of = ("--pipeline", pipeline)
    out = home.parent / "my runs"
    run("import", *source, "--output_dir", out / "real data")
    assert [row["id"] for row in rows(out / "real data")] == IDS
    steps = ("--num_inference_steps", 1, "--quality", "none")
    run("create", *of, *source, *steps, "--output_dir", out / "made here")
    assert [row["id"] for row in rows(out / "made here")] == [f"{name}-000" for name in IDS]
    run("create", "--verify", out / "made here", "--rows", 1)
    run("label", *of, *source, "--output_dir", out / "labelled here")
    run("judge", out / "labelled here", *source[:2], "--output_file", out / "my judged.json")
    run("report", out / "made here")
    run("evaluate", *of, *source[:2], "--output_file", out / "my metrics.json")
    run(
        "predict", home.parent / "my home" / "image" / "a street", *of, "--output_dir", out / "maps"
    )
    names = [Path(name).name for name in IDS]
    assert all(list((out / "maps").rglob(f"{name}*")) for name in names)
    run("publish", "--dataset", out / "made here", "--repo_id", "alice/spaces")
    assert len(open_source("dataset:alice/spaces")) == 2


@pytest.mark.parametrize("form", ["coco", "yolo", "webdataset", "folders"])
def test_every_layout_takes_ids_with_spaces(home: Path, form: str, tmp_path: Path) -> None:
    run("import", "--source", f"folder:{home}", "--output_dir", tmp_path / "real data")
    out = tmp_path / "my export"
    run("export", tmp_path / "real data", "--format", form, "--output_dir", out)
    found = contents(out)
    if form == "webdataset":
        with tarfile.open(next(out.rglob("*.tar"))) as tar:
            found = {member.name: b"" for member in tar}
    names = [quote(name, safe="") for name in IDS]  # a file for each id, in one folder
    assert all(any(name in path for path in found) for name in names)
    if form == "folders":
        again = open_source(f"folder:{out / 'folder.yaml'}")
        assert [sample.id for sample in again] == names
