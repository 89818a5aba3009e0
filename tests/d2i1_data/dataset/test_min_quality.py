"""Thresholds on quality: the same rows as a plain filter, in the same order, and clear errors."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from d2i1_data.dataset.sample import Quality, Sample
from d2i1_data.dataset.schema import Schema
from d2i1_data.dataset.shards import shard_path, write_metadata, write_shard
from d2i1_data.errors import InputError
from d2i1_data.sources import open_rows, open_source, random_subset
from d2i1_data.sources.dataset import Dataset
from d2i1_data.sources.rooms import Rooms
from d2i1_train.self_improve import open_created_rows
from d2i1_train.settings import SelfImproveSettings

# as float32, 0.9 and 0.95 lie below themselves, 0.6 above
SCHEMA = Schema.of(Rooms.tasks)
FLIP = (0.95, 0.9, None, 0.6, 0.2, 1.0)
CONFIDENCE = (0.5, 0.7, 0.9, 0.1, 0.99, 0.3)


def scored(index: int) -> Sample:
    quality = {"semseg": Quality(None, FLIP[index]), "normals": Quality(CONFIDENCE[index], 0.5)}
    return replace(Rooms("val", (8, 8))[index], id=f"row {index}", quality=quality)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six samples in two shards with scores of two tasks."""
    folder = tmp_path_factory.mktemp("scored") / "scored"
    for shard in range(2):
        samples = [scored(index) for index in range(3 * shard, 3 * shard + 3)]
        write_shard(shard_path(folder, shard), samples, SCHEMA)
    write_metadata(folder, SCHEMA)
    return folder


def kept(folder: Path, min_quality: dict[str, float]) -> list[str]:
    return [sample.id for sample in open_source(f"dataset:{folder}", None, min_quality)]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("least", [0.2, 0.5, 0.6, 0.9, 0.95, 1.0])
def test_the_one_line_filter_keeps_the_same_rows(
    written: Path, least: float, streaming: bool
) -> None:
    rows = datasets.load_dataset(str(written), split="train", streaming=streaming)
    # the line of the README
    good = rows.filter(lambda q: (q["semseg"]["flip"] or 0) >= least, input_columns="quality")
    found = [row["id"] for row in good]
    assert found == kept(written, {"semseg.flip": least})
    assert 0 < len(found) < 6 and "row 2" not in found


def test_all_thresholds_must_be_reached(written: Path) -> None:
    assert kept(written, {"semseg.flip": 0.5}) == ["row 0", "row 1", "row 3", "row 5"]
    assert kept(written, {"normals.confidence": 0.25}) == [f"row {n}" for n in (0, 1, 2, 4, 5)]
    both = {"semseg.flip": 0.5, "normals.confidence": 0.25}
    assert kept(written, both) == ["row 0", "row 1", "row 5"]
    assert kept(written, {"semseg.flip": 0}) == [f"row {n}" for n in (0, 1, 3, 4, 5)]  # null is not


def test_the_rows_that_are_left_are_whole(written: Path) -> None:
    least = {"semseg.flip": 0.5}
    rows = open_rows(f"dataset:{written}", "4", 2, min_quality=least)
    reaching = ["row 0", "row 1", "row 3", "row 5"]
    chosen = [reaching[n] for n in random_subset(4, 2)]
    assert [rows.source.identity(n) for n in rows.usable] == chosen
    sample = open_source(f"dataset:{written}", None, least)[2]
    assert sample.id == "row 3" and (sample.image == scored(3).image).all()
    assert (sample.targets["semseg"] == scored(3).targets["semseg"]).all()
    assert sample.quality["semseg"].flip == pytest.approx(0.6)


def test_no_picture_is_looked_at(written: Path, tmp_path: Path) -> None:
    rows = [scored(index) for index in range(3)]
    write_shard(shard_path(tmp_path / "torn", 0), rows, SCHEMA)
    torn = pq.read_table(shard_path(tmp_path / "torn", 0)).to_pylist()
    for row in torn:
        row["image"]["bytes"] = b"no picture"
    table = pa.Table.from_pylist(torn, SCHEMA.arrow)
    pq.write_table(table, shard_path(tmp_path / "torn", 0))
    write_metadata(tmp_path / "torn", SCHEMA)
    source = Dataset(str(tmp_path / "torn"), min_quality={"semseg.flip": 0.92})
    assert source.ids == ["row 0"]
    with pytest.raises(InputError, match="row 'row 0'"):
        source[0]


@pytest.mark.parametrize(
    ("least", "expected"),
    [
        (
            {"smell.flip": 0.5},
            "dataset scored has no task 'smell', choose from",
        ),
        ({"flip": 0.5}, "has no task 'flip', choose from normals, depth"),
        (
            {"semseg.beauty": 0.5},
            "no score 'beauty', expected TASK.SCORE with a score of",
        ),
        ({"semseg": 0.5}, "no score '', expected TASK.SCORE with a score of confidence, flip"),
        ({"semseg.flip": 1.5}, "semseg.flip 1.5: expected 0 to 1"),
        ({"semseg.flip": float("nan")}, "semseg.flip nan: expected 0 to 1"),
        ({"semseg.reencode": 0.5}, "has no semseg.reencode: its --quality did not measure it"),
        (
            {"semseg.flip": 0.9, "normals.confidence": 0.9},
            "none of 6 rows of dataset scored reaches semseg.flip 0.9, normals.confidence 0.9",
        ),
    ],
)
def test_wrong_thresholds_are_refused(
    written: Path, least: dict[str, float], expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        open_source(f"dataset:{written}", None, least)


def test_other_sources_have_no_scores(photos: Path) -> None:
    for spec in ("rooms:train", f"folder:{photos}"):
        with pytest.raises(InputError, match=f"source '{spec}' has no scores, only dataset:"):
            open_rows(spec, None, 1, min_quality={"semseg.flip": 0.5})
        assert len(open_rows(spec, None, 1, min_quality={}).usable) == 1


def test_self_improving_learns_from_the_samples_that_reach_it(written: Path) -> None:
    common = {"source": "rooms:train", "output_dir": "", "pipeline": ""}
    chosen = {"created": str(written), "min_quality": {"semseg.flip": 0.5}}
    (rows,) = open_created_rows(SelfImproveSettings(**common, **chosen, max_created_samples=3))
    reaching = ["row 0", "row 1", "row 3", "row 5"]
    chosen = [reaching[n] for n in random_subset(len(rows.source), 3)]
    assert [rows.source.identity(n) for n in rows.usable] == chosen


def test_the_flag_as_typed(d2i1: Callable[..., str], written: Path, tmp_path: Path) -> None:
    settings = tmp_path / "least.yaml"
    settings.write_text(f"source: dataset:{written}\nmin_quality: {{semseg.flip: 2}}\n")
    where = ("--pipeline", tmp_path, "--source", f"dataset:{written}")
    for flags in (("--min_quality", "{semseg.flip: 2}"), ("--config", settings)):
        output = d2i1("evaluate", *where, *flags, code=2)
        assert "--min_quality: semseg.flip 2.0: expected 0 to 1" in output
