"""Random subsets: which rows a limit chooses, and that every command takes the same ones."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from d2i1_data.sources import open_source, random_subset
from d2i1_data.sources.rooms import Rooms
from d2i1_train.loop.run import open_training_rows
from d2i1_train.loop.validation import Validation
from d2i1_train.scratch.base import gather
from d2i1_train.scratch.settings import BaseSettings
from d2i1_train.settings import SelfImproveSettings
from tests.made import run, samples

Command = Callable[..., str]
SMALL = ("--source", "rooms:val", "--resolution", 32, "--max_source_samples", 3)


def test_a_smaller_subset_is_part_of_every_larger_one() -> None:
    sizes = (1, 5, 50, 200, 499, 500)
    subsets = [random_subset(500, size, 7) for size in sizes]
    assert [len({*subset}) for subset in subsets] == [*sizes]
    for small, large in pairwise(subsets):
        assert small == sorted(small) and {*small} < {*large} <= {*range(500)}


@pytest.mark.parametrize("limit", [None, 6, 7])
@pytest.mark.parametrize("seed", [0, 1, None])
def test_without_a_smaller_limit_all_are_chosen(limit: int | None, seed: int | None) -> None:
    assert random_subset(6, limit, seed) == [0, 1, 2, 3, 4, 5]


def test_the_seed_decides() -> None:
    found = [random_subset(500, 24, seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert random_subset(500, 24, None) == [*range(24)]
    assert random_subset(10, 4) == [2, 4, 6, 8]  # on every machine, in every version


def test_every_row_is_as_likely_as_another() -> None:
    counts = [0] * 10
    for seed in range(2000):
        for row in random_subset(10, 3, seed):
            counts[row] += 1
    assert max(abs(count - 600) for count in counts) < 5 * 600**0.5


def test_both_stages_take_the_same_rows_whatever_their_seed_is(tmp_path: Path) -> None:
    given = {"source": "rooms:train", "output_dir": str(tmp_path), "pipeline": ""}
    chosen = random_subset(20_000, 3)
    for seed in (0, 5):
        own = SelfImproveSettings(**given, max_train_samples=3, seed=seed)
        assert open_training_rows(own).usable == chosen
    other = SelfImproveSettings(**given, max_train_samples=3, subset_seed=1)
    assert open_training_rows(other).usable == random_subset(20_000, 3, 1) != chosen


def test_a_dataset_of_some_rows(d2i1: Command, tmp_path: Path) -> None:
    rooms = Rooms("val")
    for seed in (0, 1):
        run("import", *SMALL, "--output_dir", tmp_path / f"{seed}", "--subset_seed", seed)
        chosen = [rooms.identity(row) for row in random_subset(500, 3, seed)]
        assert [sample.id for sample in samples(tmp_path / f"{seed}")] == chosen
        assert json.loads((tmp_path / f"{seed}/plan.json").read_text())["subset_seed"] == seed
    message = d2i1("import", *SMALL, "--output_dir", tmp_path / "1", code=2)
    assert "holds another dataset (subset_seed: 1, now 0)" in message
    run("import", "--source", f"dataset:{tmp_path / '1'}", "--output_dir", tmp_path / "all")
    assert "subset_seed" not in json.loads((tmp_path / "all/plan.json").read_text())


def test_fewer_samples_than_images(pipeline: Path, tmp_path: Path) -> None:
    few = ("--num_samples", 2, "--num_inference_steps", 2, "--subset_seed", 4, "--resolution", 32)
    for name, limit in (("all", ()), ("two", ("--max_source_samples", 2))):
        place = ("--source", "rooms:val", "--output_dir", tmp_path / name)
        run("create", "--pipeline", pipeline, *place, *few, *limit)
        chosen = [Rooms("val").identity(row) for row in random_subset(500, 2, 4)]
        assert [one.provenance.source_id for one in samples(tmp_path / name)] == chosen
    run("create", "--verify", tmp_path / "all", "--rows", 2)


def test_metrics_of_some_rows(d2i1: Command, pipeline: Path, tmp_path: Path) -> None:
    def metrics(name: str, source: str, *flags: object) -> dict[str, float]:
        file = tmp_path / f"{name}.json"
        d2i1("evaluate", "--pipeline", pipeline, "--source", source, *flags, "--output_file", file)
        return json.loads(file.read_text())["tasks"]["depth"]

    chosen = ("--subset_seed", 3, "--max_samples", 2)
    imported = ("--source", "rooms:val", "--max_source_samples", 2, "--subset_seed", 3)
    run("import", *imported, "--output_dir", tmp_path / "two")
    found = metrics("some", "rooms:val", *chosen)
    assert found == pytest.approx(metrics("imported", f"dataset:{tmp_path / 'two'}"), abs=1e-3)
    assert found != metrics("others", "rooms:val", *chosen[2:])


def test_validation_takes_some_rows(tiny_pipe: object) -> None:
    own = SelfImproveSettings(source="rooms:train", output_dir="", pipeline="")
    own.validation_source, own.num_validation_samples, own.subset_seed = "rooms:val", 3, 2
    assert Validation(own, tiny_pipe).rows.usable == random_subset(500, 3, 2)


def test_a_base_learns_from_some_rows(tmp_path: Path) -> None:
    given = {"output_dir": str(tmp_path), "source": "rooms:val", "dataloader_num_workers": 0}
    _, captions = gather(BaseSettings(**given, max_train_samples=3, subset_seed=2))
    source = open_source("rooms:val")
    assert captions == [source[row].caption for row in random_subset(500, 3, 2)]
