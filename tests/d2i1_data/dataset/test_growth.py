"""A dataset has its own columns, and stays usable when tasks and columns are added to the code."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import pyarrow.parquet as pq
import pytest
from torch.utils.data import DataLoader

from d2i1_data.creation.plan import read_plan
from d2i1_data.creation.producers import Creator
from d2i1_data.dataset.schema import METADATA, REAL, SCORES, Schema
from d2i1_data.export.registry import EXPORTERS
from d2i1_data.sources import open_source
from d2i1_data.sources.dataset import Dataset
from d2i1_data.sources.rooms import Rooms
from d2i1_data.tasks import TASKS
from tests.hub import Hub
from tests.made import SEVEN, contents, run, samples, save_dataset, shards

D2i1 = Callable[..., str]
THREE = ("normals", "depth", "semseg")
CREATED = ("id", "image", *THREE, "caption", "quality", "provenance")
SEVENTH = "wetness"


@pytest.fixture(scope="module")
def whole(create: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven samples of three tasks in three shards; must not be changed."""
    return create(tmp_path_factory.mktemp("growth") / "created", "--seed", 5)


@pytest.fixture
def stopped(whole: Path, tmp_path: Path) -> Path:
    """The same dataset as a run leaves it that is killed at its last shard."""
    folder = shutil.copytree(whole, tmp_path / "created")
    last = folder / "data/train-00002.parquet"
    last.rename(folder / "data/.train-00002.parquet.1.2.tmp")
    for name in ("README.md", "preview.png"):
        (folder / name).unlink()
    return folder


@pytest.fixture
def seventh() -> Iterator[None]:
    """The code of a later version, which has one more task, between those of today."""
    later = {}
    for name, task in TASKS.items():
        if name == "depth":
            later[SEVENTH] = replace(TASKS["saliency"], name=SEVENTH)
        later[name] = task
    before = dict(TASKS)
    TASKS.clear()
    TASKS.update(later)
    yield
    TASKS.clear()
    TASKS.update(before)


def feature_sets(folder: Path) -> list[datasets.Features]:
    """The features of each shard, read alone."""
    files = sorted((folder / "data").glob("*.parquet"))
    return [
        datasets.load_dataset("parquet", data_files=str(one), split="train").features
        for one in files
    ]


# --- columns ---


def test_a_dataset_has_the_columns_of_its_own_tasks(whole: Path) -> None:
    rows = datasets.load_dataset(str(whole), split="train")
    assert tuple(rows.column_names) == CREATED
    assert list(rows.features["quality"]) == list(THREE)
    assert all(list(one) == ["confidence", "flip"] for one in rows.features["quality"].values())
    features, *others = feature_sets(whole)
    assert features == rows.features == Dataset(str(whole)).schema.features
    assert others == [features, features]


def test_confidence_and_scores_are_there_if_they_were_asked_for(
    create: Callable[..., Path], tmp_path: Path
) -> None:
    folder = create(tmp_path / "more", "--confidence_maps", "true", "--quality", "full")
    columns = Dataset(str(folder)).schema.columns
    assert list(columns["confidence"]) == list(THREE)
    assert {*columns["quality"]["depth"]} == {"confidence", "flip", "reencode"}
    folder = create(tmp_path / "less", "--quality", "none")
    assert "quality" not in Dataset(str(folder)).schema.columns
    assert all(one.quality["depth"].flip is None for one in samples(folder))


@pytest.mark.parametrize("command", ["create", "label", "import"])
@pytest.mark.parametrize("source", ["rooms", "photos", "captionless"])
def test_a_data_loader_of_torch_takes_it_at_once(
    pipeline: Path, photos: Path, tmp_path: Path, command: str, source: str
) -> None:
    if source == "captionless":
        kept = [n for n in photos.read_text().splitlines() if n[:7] not in ("caption", "licence")]
        photos.write_text("\n".join(kept))
    place = "rooms:train" if source == "rooms" else f"folder:{photos}"
    flags = ["--source", place, "--max_source_samples", 4, "--resolution", "16x24"]
    flags += ["--pipeline", pipeline] if command != "import" else []
    flags += ["--num_inference_steps", 2] if command == "create" else []
    run(command, *flags, "--output_dir", tmp_path / "made")
    rows = datasets.load_dataset(str(tmp_path / "made"), split="train").with_format("torch")
    (batch,) = DataLoader(rows, batch_size=4)
    assert batch["image"].shape == (4, 3, 16, 24)
    for name in Dataset(str(tmp_path / "made")).tasks:
        assert batch[name].shape[0] == 4 and batch[name].shape[2:] == (16, 24)


def test_what_no_row_can_fill_has_no_column(photos: Path, tmp_path: Path) -> None:
    run("import", "--source", f"folder:{photos}", "--output_dir", tmp_path / "made")
    assert list(Dataset(str(tmp_path / "made")).schema.columns) == [
        *("id", "image", "semseg", "caption", "provenance")
    ]
    assert tuple(Dataset(str(tmp_path / "made")).schema.inner("provenance")) == REAL


def test_an_imported_dataset_keeps_all_of_another(whole: Path, tmp_path: Path) -> None:
    run("import", "--source", f"dataset:{whole}", "--output_dir", tmp_path / "again")
    one, other = Dataset(str(whole)), Dataset(str(tmp_path / "again"))
    assert one.schema == other.schema
    assert [s.provenance for s in one] == [s.provenance for s in other]
    assert [s.quality for s in one] == [s.quality for s in other]


# --- a task is added to the code ---


@pytest.mark.usefixtures("seventh")
def test_it_resumes_with_its_own_schema(stopped: Path, whole: Path, pipeline: Path) -> None:
    assert list(TASKS)[1] == SEVENTH
    command = ("create", "--pipeline", pipeline, *SEVEN, "--seed", 5)
    run(*command, "--output_dir", stopped)
    assert contents(stopped) == contents(whole)
    assert len({str(one) for one in feature_sets(stopped)}) == 1
    assert not list(stopped.rglob("*.tmp"))


@pytest.mark.usefixtures("seventh")
def test_it_opens_and_is_verified(whole: Path, d2i1: D2i1) -> None:
    source = open_source(f"dataset:{whole}")
    assert list(source.tasks) == list(THREE) and len(list(source)) == 7
    message = d2i1("create", "--verify", whole, "--rows", 7)
    assert "7 rows made again, equal byte for byte" in message


@pytest.mark.usefixtures("seventh")
@pytest.mark.parametrize("form", EXPORTERS)
def test_it_is_exported(whole: Path, tmp_path: Path, form: str) -> None:
    one = ("--tasks", "semseg") if form == "yolo" else ()
    run("export", whole, "--format", form, *one, "--output_dir", tmp_path / "out")
    lines = (tmp_path / "out/samples.jsonl").read_text().splitlines()
    assert len(lines) == 7 and all(SEVENTH not in line for line in lines)


@pytest.mark.skipif(
    huggingface_hub.__version__ < "2", reason="this client asks huggingface.co about cards"
)
@pytest.mark.usefixtures("seventh")
def test_it_is_published_and_appended_to(
    hub: Hub, whole: Path, create: Callable[..., Path], tmp_path: Path, d2i1: D2i1
) -> None:
    run("publish", whole, "--repo_id", "rooms")
    run("publish", create(tmp_path / "more", "--seed", 6), "--repo_id", "rooms", "--append")
    rows = datasets.load_dataset("alice/rooms", split="train")
    assert len(rows) == 14 and tuple(rows.column_names) == CREATED
    folder = tmp_path / "loaded"
    for name, data in hub.files("alice/rooms", "dataset").items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    assert len(feature_sets(folder)) == 6 and len({str(one) for one in feature_sets(folder)}) == 1
    other = create(tmp_path / "other", "--quality", "none")
    message = d2i1("publish", other, "--repo_id", "rooms", "--append", code=2)
    assert "columns differ (no quality.normals.confidence, " in message
    assert "under another --repo_id" in message and message.count("\n") == 1


@pytest.mark.usefixtures("seventh")
def test_it_is_mixed_with_a_dataset_of_other_tasks(
    whole: Path, pipeline: Path, tmp_path: Path
) -> None:
    tasks = {SEVENTH: TASKS[SEVENTH], "normals": TASKS["normals"]}
    real = [Rooms("train", (32, 32))[n] for n in range(3)]
    maps = [{SEVENTH: one.targets["saliency"], "normals": one.targets["normals"]} for one in real]
    made = [replace(one, targets=own) for one, own in zip(real, maps, strict=True)]
    folder = save_dataset(tmp_path / "real", made, tasks)
    assert SEVENTH in Dataset(str(folder)).tasks and SEVENTH not in Dataset(str(whole)).tasks
    size = ("--max_train_steps", 2, "--real_batch_size", 2, "--report_to", "none")
    inputs = ("--pipeline", pipeline, "--source", f"dataset:{folder}", "--created", whole)
    run("self-improve", *inputs, *size, "--output_dir", tmp_path / "improved")
    assert (tmp_path / "improved/pipeline/model_index.json").is_file()


def test_a_task_of_a_later_version_is_ignored(
    seventh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = {SEVENTH: TASKS[SEVENTH], "normals": TASKS["normals"]}
    room = Rooms("train", (8, 8))[0]
    own = {SEVENTH: room.targets["saliency"], "normals": room.targets["normals"]}
    folder = save_dataset(tmp_path / "later", [replace(room, targets=own)], tasks)
    monkeypatch.delitem(TASKS, SEVENTH)
    (sample,) = Dataset(str(folder))
    assert list(sample.targets) == ["normals"]
    assert SEVENTH in Dataset(str(folder)).stored_schema.columns


# --- a column is added to the code ---


@pytest.fixture
def before_a_column(
    create: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A dataset of a version that did not know `scheduler` yet, stopped before its last shard."""
    now = Creator.schema.fget  # type: ignore[attr-defined]

    def then(producer: Creator) -> Schema:
        schema = now(producer)
        kept = [name for name in schema.inner("provenance") if name != "scheduler"]
        return Schema.of(schema.tasks, scores=SCORES[:2], provenance=kept)

    with monkeypatch.context() as patch:
        patch.setattr(Creator, "schema", property(then))
        folder = create(tmp_path / "earlier", "--seed", 5)
    assert "scheduler" not in Dataset(str(folder)).schema.inner("provenance")
    (folder / "data/train-00002.parquet").unlink()
    return folder


def test_one_written_before_a_column_existed(
    before_a_column: Path, create: Callable[..., Path], d2i1: D2i1, tmp_path: Path
) -> None:
    folder, plan = before_a_column, (before_a_column / "plan.json").read_bytes()
    create(folder, "--seed", 5)  # resumes
    assert (folder / "plan.json").read_bytes() == plan
    assert len({str(one) for one in feature_sets(folder)}) == 1
    assert len(samples(folder)) == 7
    assert all(one.provenance.scheduler is None for one in samples(folder))
    assert "byte for byte" in d2i1("create", "--verify", folder, "--rows", 7)
    run("export", folder, "--format", "webdataset", "--output_dir", tmp_path / "out")
    assert "scheduler" not in (folder / "README.md").read_text()
    run("report", folder)


def test_what_cannot_be_written_any_more_is_refused(
    whole: Path, d2i1: D2i1, pipeline: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(whole, tmp_path / "later")
    content = json.loads((folder / "plan.json").read_text())
    content["schema"]["columns"]["provenance"]["weather"] = "string"
    (folder / "plan.json").write_text(json.dumps(content))
    before = shards(folder)
    command = ("create", "--pipeline", pipeline, *SEVEN, "--seed", 5, "--output_dir", folder)
    message = d2i1(*command, code=2)
    assert "another dataset (columns: no provenance.weather)" in message
    assert shards(folder) == before and message.count("\n") == 1


# --- versions ---


def test_two_package_versions_are_not_mixed(stopped: Path, d2i1: D2i1, pipeline: Path) -> None:
    content = json.loads((stopped / "plan.json").read_text())
    assert content["format_version"] == 1 and content["versions"]["diff2in1"]
    content["versions"]["diff2in1"] = "0.0.1"
    (stopped / "plan.json").write_text(json.dumps(content))
    command = ("create", "--pipeline", pipeline, *SEVEN, "--seed", 5, "--output_dir", stopped)
    message = d2i1(*command, code=2)
    assert "another dataset (versions: " in message and '"diff2in1": "0.0.1"' in message


@pytest.mark.parametrize("name", [METADATA, "plan.json"])
def test_a_newer_format_is_refused_in_one_line(
    whole: Path, tmp_path: Path, d2i1: D2i1, name: str
) -> None:
    folder = shutil.copytree(whole, tmp_path / "newer")
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(content | {"format_version": 2}))
    command = ("export", folder, "--format", "coco", "--output_dir", tmp_path / "out")
    if name == "plan.json":
        command = ("create", "--verify", folder)
    message = d2i1(*command, code=2)
    assert f"{name}: format version 2, this version of diff2in1 opens up to 1" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize("name", [METADATA, "run.json"])
def test_a_newer_format_is_not_written_over(
    stopped: Path, d2i1: D2i1, pipeline: Path, name: str
) -> None:
    content = json.loads((stopped / name).read_text())
    (stopped / name).write_text(json.dumps(content | {"format_version": 2}))
    before = (stopped / name).read_bytes()
    command = ("create", "--pipeline", pipeline, *SEVEN, "--seed", 5, "--output_dir", stopped)
    message = d2i1(*command, code=2)
    assert f"{name}: format version 2" in message and (stopped / name).read_bytes() == before


def test_the_plan_keeps_classes_and_columns(whole: Path) -> None:
    schema = read_plan(whole).schema
    assert schema == Dataset(str(whole)).stored_schema
    assert schema.tasks["semseg"].family.names == Rooms.tasks["semseg"].family.names
    assert pq.read_schema(whole / "data/train-00000.parquet").names == list(schema.columns)


def test_sources_say_what_their_samples_fill(photos: Path, whole: Path) -> None:
    for spec in ("rooms:train", f"folder:{photos}", f"dataset:{whole}"):
        source = open_source(spec)
        row = Schema.of(source.tasks, confidence=True).to_row(source[0])
        stored = source.schema.to_row(source[0])
        filled = {name for name, value in row["provenance"].items() if value is not None}
        assert filled <= {*stored["provenance"]}, spec
        assert (row["caption"] is None) == ("caption" not in stored)
        np.testing.assert_array_equal(source.schema.from_row(stored).image, source[0].image)
