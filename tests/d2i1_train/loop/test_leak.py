"""Leaks: created rows made from samples that may be held out are refused, or stated on the card."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from d2i1_data.errors import InputError
from d2i1_data.sources.rooms import Rooms
from d2i1_train.loop.leak import check_leaks
from d2i1_train.loop.run import open_training_rows
from d2i1_train.self_improve import open_created_rows
from d2i1_train.settings import SelfImproveSettings
from tests.made import run, save_dataset

Command = Callable[..., str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets whose rows name rooms as their source: of two splits, mixed, and without names."""
    folder = tmp_path_factory.mktemp("leaks")
    train, val = Rooms("train", (32, 32)), Rooms("val", (32, 32))
    rows = {
        "plain": [train[n] for n in range(4)],
        "foreign": [val[n] for n in range(4)],
        "mixed": [train[0], val[1], train[2], val[3]],
    }
    rows["unnamed"] = [
        replace(one, provenance=replace(one.provenance, source_dataset="text", source_sha256=None))
        for one in rows["foreign"]
    ]
    for name, samples in rows.items():
        save_dataset(folder / name, samples, Rooms.tasks)
    return folder


def count(made: Path, name: str, source: str = "rooms:train", **given: Any) -> int:
    given = {"resolution": "32", "max_train_samples": 2, **given}
    own = SelfImproveSettings(
        pipeline="", output_dir="", source=source, created=str(made / name), **given
    )
    return check_leaks(own, open_training_rows(own), open_created_rows(own))


def test_rows_of_the_training_split_pass(made: Path) -> None:
    """Also those of rooms that the run does not train on, and with a validation."""
    assert count(made, "plain") == 0
    every = {"validation_source": "rooms:val", "num_validation_samples": 30}
    assert count(made, "plain", **every) == 0
    assert count(made, "unnamed", **every) == 0
    own = SelfImproveSettings(pipeline="", output_dir="", source="rooms:train")
    assert check_leaks(own, open_training_rows(own), []) == 0


def test_rows_of_another_split_are_refused(made: Path) -> None:
    expected = (
        r"2 of 4 rows come from samples that may be held out, such as row 'rooms-val-00001' \(its"
        r" source rooms-val-00001 is not in --source rooms:train\); create from samples of"
        r" --source, or accept them with --allow_leak"
    )
    with pytest.raises(InputError, match=expected):
        count(made, "mixed")
    assert count(made, "mixed", allow_leak=True) == 2
    assert count(made, "foreign", allow_leak=True, max_created_samples=3) == 3


def test_rows_made_from_validation_images_are_refused(made: Path) -> None:
    """The real source has another name here, so only the images show it."""
    other = f"dataset:{made / 'plain'}"
    validated = {"validation_source": f"dataset:{made / 'mixed'}", "num_validation_samples": 4}
    assert count(made, "foreign", other) == 0
    with pytest.raises(InputError, match=r"2 of 4 rows .*'rooms-val-00001' \(its source image is"):
        count(made, "foreign", other, **validated)
    assert count(made, "foreign", other, **validated, allow_leak=True) == 2


def test_the_size_of_the_images_does_not_matter(made: Path) -> None:
    given = {
        "source": f"dataset:{made / 'plain'}",
        "validation_source": f"dataset:{made / 'mixed'}",
    }
    assert count(made, "foreign", **given, resolution="16", allow_leak=True) == 2


def test_the_run_and_the_card(d2i1: Command, pipeline: Path, made: Path, tmp_path: Path) -> None:
    where = ("--pipeline", pipeline, "--source", "rooms:train", "--max_train_samples", 2)
    size = ("--max_train_steps", 1, "--real_batch_size", 2, "--report_to", "none")
    command = ("self-improve", *where, *size, "--resolution", 32, "--output_dir", tmp_path / "run")
    said = "created samples come from samples that may be held out"
    message = d2i1(*command, "--created", made / "mixed", code=2)
    assert message.count("\n") == 1 and "--allow_leak" in message
    assert not (tmp_path / "run").exists()
    run(*command, "--created", made / "mixed", "--allow_leak")
    trained = tmp_path / "run/pipeline"
    last = json.loads((trained / "training.json").read_text())["stages"][-1]
    assert last["created"]["held_out"] == 2
    assert f"2 of 4 {said}" in (trained / "README.md").read_text()
    run(*command[:-1], tmp_path / "clean", "--created", made / "plain")
    assert "held_out" not in (tmp_path / "clean/pipeline/training.json").read_text()
    assert said not in (tmp_path / "clean/pipeline/README.md").read_text()
