"""Writing datasets: created, labelled and imported ones; made again, interrupted, refused."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from datasets import load_dataset
from PIL import Image

from d2i1_data.checkpoints.files import fingerprint
from d2i1_data.checkpoints.pipelines import open_pipeline
from d2i1_data.creation.plan import noise_seed
from d2i1_data.dataset.sample import Sample, image_sha256
from d2i1_data.diff2in1.saving import HASHES
from d2i1_data.sources import open_rows, open_source, random_subset
from d2i1_data.sources.rooms.render import CLASSES
from tests.made import SEVEN, contents, run, samples, shards

TASKS = ("normals", "depth", "semseg")


@pytest.fixture(scope="module")
def created(create: Callable[..., Path], pipeline: Path) -> Path:
    """The dataset that others are compared with."""
    return create(pipeline.parent.parent / "created", "--seed", 3)


def test_shards_load_without_this_package(created: Path) -> None:
    rows = load_dataset("parquet", data_files=f"{created}/data/*.parquet", split="train")
    assert list(shards(created)) == [f"data/train-{n:05d}.parquet" for n in range(3)]
    assert len(set(rows["id"])) == len(rows) == 7
    for name in ("image", *TASKS):
        assert rows[0][name].size == (32, 32)
    assert "saliency" not in rows.features and "confidence" not in rows.features
    assert rows[0]["caption"].startswith("a room with")
    assert load_dataset(str(created), split="train").features == rows.features


def test_created_images_differ_from_their_sources(
    created: Path, create: Callable[..., Path], tmp_path: Path
) -> None:
    rooms = list(open_rows("rooms:train", "32", 3).samples())
    weak = samples(create(tmp_path / "weak", "--strength", 0.05))

    def distance(one: Sample, other: Sample) -> float:
        return float(np.abs(one.image.astype(float) - other.image).mean())

    for n, sample in enumerate(samples(created)):
        assert distance(sample, rooms[n % 3]) > 3
        assert distance(sample, weak[n]) > 1  # strength does something


def test_variants_of_an_image_differ_in_noise(created: Path) -> None:
    found = samples(created)
    assert [s.provenance.variant for s in found] == [0] * 3 + [1] * 3 + [2]
    same = [found[n] for n in (0, 3, 6)]
    assert len({s.provenance.source_id for s in same}) == 1
    assert len({s.provenance.noise_seed for s in found}) == 7
    assert len({image_sha256(s.image) for s in same}) == 3


def test_provenance_says_how_a_sample_was_made(created: Path, pipeline: Path) -> None:
    rooms = open_source("rooms:train")  # as they are, before --resolution
    chosen = random_subset(len(rooms), 3)
    for n, sample in enumerate(samples(created)):
        origin, room = sample.provenance, rooms[chosen[n % 3]]
        assert (origin.kind, origin.source_dataset) == ("created", "rooms")
        assert origin.source_id == room.id and sample.id.startswith(room.id)
        assert origin.source_sha256 == image_sha256(room.image)
        assert origin.licence == "cc0-1.0" and sample.caption == room.caption
        assert origin.noise_seed == noise_seed(room.id, n // 3, 3) and origin.seed == 3
        assert origin.strength == 0.6 and origin.steps == 2
        assert origin.fingerprint == fingerprint(pipeline)
        assert (origin.host, origin.labels_from, origin.precision) == ("light", "latent", "float32")
        assert (origin.base, origin.guidance) == ("base", 1.0)


def test_strength_is_the_checkpoints_unless_given(pipeline: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(pipeline, tmp_path / "pipeline", ignore=shutil.ignore_patterns(HASHES))
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | {"default_strength": 0.3}))
    for flags, strength in (((), 0.3), (("--strength", 0.7), 0.7)):
        folder = tmp_path / str(strength)
        run(
            "create", "--pipeline", copy, *SEVEN, "--num_samples", 1, "--output_dir", folder, *flags
        )
        (sample,) = samples(folder)
        assert sample.provenance.strength == strength


def test_quality_is_measured_for_what_is_there(created: Path) -> None:
    for row in pq.read_table(created / "data").to_pylist():
        for name, scores in row["quality"].items():
            assert name in TASKS and set(scores) == {"confidence", "flip"}
            assert all(0 <= value <= 1 for value in scores.values())


def test_made_again_it_is_byte_identical(
    created: Path, create: Callable[..., Path], tmp_path: Path
) -> None:
    again = contents(create(tmp_path / created.name, "--seed", 3))
    assert again == contents(created)
    assert shards(create(tmp_path / "other", "--seed", 4)) != shards(created)


def test_an_interrupted_run_makes_only_what_is_missing(
    created: Path, create: Callable[..., Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(created, tmp_path / created.name)
    whole, last = shards(folder), folder / "data/train-00002.parquet"
    last.unlink()
    (folder / "README.md").unlink()
    (last.parent / f".{last.name}.1.2.tmp").write_bytes(b"half a shard")
    others = {f: f.stat().st_mtime_ns for f in (folder / "data").glob("*.parquet")}
    assert len(others) == 2
    create(folder, "--seed", 3)
    assert {f: f.stat().st_mtime_ns for f in others} == others
    assert shards(folder) == whole and (folder / "README.md").is_file()
    assert not list(folder.rglob("*.tmp"))


def test_batch_size_hardly_changes_images(
    created: Path, create: Callable[..., Path], tmp_path: Path
) -> None:
    one, other = (
        samples(created),
        samples(create(tmp_path / "single", "--seed", 3, "--batch_size", 1)),
    )
    images = np.stack([s.image for s in one]).astype(int) - np.stack([s.image for s in other])
    assert (np.abs(images) > 1).mean() < 1e-3
    classes = [np.stack([s.targets["semseg"] for s in found]) for found in (one, other)]
    assert (classes[0] == classes[1]).mean() > 0.999


@pytest.fixture
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize(
    ("flags", "more_threads", "named"),
    [
        (("--seed", 4), 0, "seed: 3, now 4"),
        (("--seed", 3, "--num_samples", 6), 0, "samples: 7, now 6"),
        (("--seed", 3, "--batch_size", 2), 0, "batch_size: 16, now 2"),
        (("--seed", 3, "--prompt", "a cube"), 0, 'prompt: none, now "a cube"'),
        (("--seed", 3, "--strength", "[0.2, 0.3]"), 0, "strength: 0.6, now [0.2, 0.3]"),
        (("--seed", 3), 1, "threads: "),
    ],
)
def test_a_folder_with_another_plan_is_left_alone(
    created: Path,
    pipeline: Path,
    d2i1: Callable[..., str],
    flags: tuple[object, ...],
    more_threads: int,
    named: str,
) -> None:
    before = contents(created)
    torch.set_num_threads(torch.get_num_threads() + more_threads)
    command = ("create", "--pipeline", pipeline, *SEVEN, "--output_dir", created, *flags)
    message = d2i1(*command, code=2)
    assert f"another dataset ({named}" in message and "--overwrite" in message
    assert contents(created) == before


@pytest.mark.parametrize("flags", [(), ("--overwrite",)])
def test_a_foreign_folder_is_left_alone(
    d2i1: Callable[..., str], tmp_path: Path, flags: tuple[object, ...]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    command = ("import", "--source", "rooms:train", "--max_source_samples", 1)
    message = d2i1(*command, "--output_dir", tmp_path / "mine", *flags, code=2)
    assert "is not empty and holds no plan.json" in message
    assert contents(tmp_path / "mine") == {"thesis.txt": b"years of work"}


def test_overwrite_replaces(created: Path, create: Callable[..., Path], tmp_path: Path) -> None:
    folder, before = shutil.copytree(created, tmp_path / "used"), contents(created)
    create(folder, "--seed", 5, "--num_samples", 2, "--overwrite")
    assert list(shards(folder)) == ["data/train-00000.parquet"]
    assert [s.provenance.seed for s in samples(folder)] == [5] * 2
    after = contents(folder)
    for name in ("README.md", "preview.png", "plan.json"):
        assert after[name] != before[name]


def test_labelling_keeps_images(pipeline: Path, tmp_path: Path) -> None:
    source = ("--source", "rooms:test", "--max_source_samples", 2, "--batch_size", 1)
    folder = tmp_path / "labelled"
    run("label", "--pipeline", pipeline, *source, "--output_dir", folder)
    rooms, pipe, found = open_source("rooms:test"), open_pipeline(str(pipeline)), samples(folder)
    assert len(found) == 2
    for row, sample in zip(random_subset(len(rooms), 2), found, strict=True):
        room = rooms[row]
        assert np.array_equal(sample.image, room.image) and sample.caption == room.caption
        origin = sample.provenance
        assert (origin.kind, origin.labels_from, origin.noise_seed) == ("created", "image", None)
        expected = pipe.predict(sample.image).predictions
        assert np.array_equal(sample.targets["semseg"], expected["semseg"][0])
        for name, tolerance in (("depth", 0.001), ("normals", 0.01)):
            assert np.allclose(sample.targets[name], expected[name][0], atol=tolerance)


def test_importing_keeps_images_and_truth(photos: Path, tmp_path: Path) -> None:
    run("import", "--source", f"folder:{photos}", "--output_dir", tmp_path / "imported")
    source, found = open_source(f"folder:{photos}"), samples(tmp_path / "imported")
    assert len(found) == len(source) == 6
    for own, real in zip(found, source, strict=True):
        assert np.array_equal(own.image, real.image)
        assert np.array_equal(own.targets["semseg"], real.targets["semseg"])
        assert (own.id, own.caption, own.provenance) == (real.id, real.caption, real.provenance)
    tasks = open_source(f"dataset:{tmp_path / 'imported'}").tasks
    assert tasks["semseg"].family.config() == source.tasks["semseg"].family.config()


def test_the_card_of_imported_truth_calls_it_no_models_work(photos: Path, tmp_path: Path) -> None:
    run("import", "--source", f"folder:{photos}", "--output_dir", tmp_path / "imported")
    _, front, body = (tmp_path / "imported/README.md").read_text().split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert "synthetic" not in metadata["tags"] and "diff2in1" in metadata["tags"]
    assert "annotations_creators" not in metadata  # it is not known who made them
    assert metadata["license"] == "cc0-1.0"
    assert "6 real images with their labels" in body and "tree" in body
    for words in (
        "No label was made by hand",
        "by one latent diffusion",
        "predictions of a model",
        "## Quality",
    ):
        assert words not in body


def test_card_and_preview(created: Path) -> None:
    _, front, body = (created / "README.md").read_text().split("---\n", 2)
    metadata = yaml.safe_load(front)
    (split,) = metadata["dataset_info"]["splits"]
    assert (split["name"], split["num_examples"]) == ("train", 7)
    assert metadata["license"] == "other"  # that of the rooms is known, not that of the base
    assert "synthetic" in metadata["tags"]
    assert metadata["annotations_creators"] == ["machine-generated"]
    assert "7 images created and labelled by one latent diffusion model" in body
    assert "No label was made by hand" in body and "## Quality" in body
    assert all(name in body for name in CLASSES)
    with Image.open(created / "preview.png") as picture:
        assert picture.mode == "RGB" and len(picture.getcolors(1 << 20) or []) > 100
