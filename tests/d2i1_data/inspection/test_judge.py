"""Judging: known errors are found, and scores that know them are told from others."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from d2i1_data.dataset.record import RunRecord, write_run
from d2i1_data.dataset.sample import Quality, Sample
from d2i1_data.inspection.judge import best_weights, ranks, spearman
from d2i1_data.sources import open_source
from d2i1_data.sources.rooms import Rooms
from tests.made import changed, save_dataset

COUNT = 20
TASKS = {name: Rooms.tasks[name] for name in ("depth", "semseg")}
ROUNDS = ("--rounds", 100)


def wrong(sample: Sample, n: int) -> Sample:
    """A sample whose depth is n percent off and whose first n rows of 32 are of another class.

    confidence knows that; of the classes flip does not, and depth has a flip that is always equal.
    """
    classes = sample.targets["semseg"].copy()
    classes[:n] = (classes[:n] + 1) % 11
    targets = {"depth": sample.targets["depth"] * (1 + n / 100), "semseg": classes}
    noise = np.random.default_rng(n).random()
    return replace(
        sample,
        id=f"{sample.id}-000",
        targets=targets,
        provenance=replace(sample.provenance, kind="created", strength=0.0),
        quality={"depth": Quality(1 - n / 100, 0.5), "semseg": Quality(1 - n / 32, noise)},
    )


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty rooms with labels that are wrong by known amounts, in no order."""
    rooms = open_source("rooms:val", "32")
    order = np.random.default_rng(0).permutation(COUNT)
    samples = [wrong(rooms[n], int(error)) for n, error in enumerate(order)]
    return save_dataset(tmp_path_factory.mktemp("judge") / "labelled", samples, TASKS)


@pytest.fixture
def judged(d2i1: Callable[..., str], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Judges a dataset; what its file says."""

    def run(dataset: Path, source: object, *flags: object) -> dict[str, Any]:
        file = tmp_path / "new" / "judged.json"
        d2i1("judge", dataset, "--source", source, "--output_file", file, *ROUNDS, *flags)

        def refuse(constant: str) -> None:
            raise AssertionError(constant)  # no NaN: readers other than Python's refuse it

        return json.loads(file.read_text(), parse_constant=refuse)

    return run


def test_known_errors_are_found(labelled: Path, judged: Callable[..., dict[str, Any]]) -> None:
    found = judged(labelled, "rooms:val", "--resolution", 32)
    assert (found["rows"], found["judged"]) == (COUNT, COUNT)
    depth = found["tasks"]["depth"]
    # 0 to 19 percent, and what rounding to millimetres does
    assert depth["metrics"]["abs_rel"] == pytest.approx(0.095, abs=2e-4)
    assert depth["oracle"] == pytest.approx(0.075, abs=2e-4)  # 0 to 15 percent
    assert depth["random"]["mean"] == pytest.approx(0.095, abs=2e-3)
    assert depth["random"]["spread"] > 1e-3
    accuracy = found["tasks"]["semseg"]["metrics"]["accuracy"]
    assert accuracy == pytest.approx(1 - np.mean(np.arange(COUNT) / 32), abs=1e-9)


def test_a_score_that_is_the_error_is_the_oracle(
    labelled: Path, judged: Callable[..., dict[str, Any]]
) -> None:
    tasks = judged(labelled, "rooms:val", "--resolution", 32)["tasks"]
    knows = tasks["depth"]["scores"]["confidence"]
    assert knows["spearman"] == pytest.approx(-1, abs=1e-12)
    assert knows["spearman_error"] == pytest.approx(0, abs=1e-9)
    assert knows["kept"] == tasks["depth"]["oracle"] < tasks["depth"]["metrics"]["abs_rel"]
    # fewer right pixels are a lower metric: the sign is still that of an error
    knows, guesses = (tasks["semseg"]["scores"][name] for name in ("confidence", "flip"))
    assert knows["spearman"] < -0.8 and abs(guesses["spearman"]) < 0.6
    assert 0.1 < guesses["spearman_error"] < 0.4
    assert knows["kept"] > tasks["semseg"]["metrics"]["miou"] + 0.03


def test_a_score_that_is_always_equal_knows_nothing(
    labelled: Path, judged: Callable[..., dict[str, Any]]
) -> None:
    depth = judged(labelled, "rooms:val", "--resolution", 32)["tasks"]["depth"]
    flip = depth["scores"]["flip"]
    assert flip["spearman"] is None and flip["spearman_error"] is None
    assert flip["kept"] == pytest.approx(depth["metrics"]["abs_rel"])  # not the first of the rows
    assert set(depth["scores"]) == {"confidence", "flip"}  # reencode was not measured


def test_rows_without_a_score_are_the_last_to_be_kept(
    labelled: Path, tmp_path: Path, judged: Callable[..., dict[str, Any]]
) -> None:
    samples = list(open_source(f"dataset:{labelled}"))
    good = [n for n, s in enumerate(samples) if s.quality["depth"].confidence == 1.0]
    without = {n: replace(samples[n], quality={}) for n in good}
    folder = changed(labelled, tmp_path / "without", without)
    score = judged(folder, "rooms:val", "--resolution", 32)["tasks"]["depth"]["scores"]
    assert score["confidence"]["samples"] == COUNT - 1
    assert score["confidence"]["kept"] == pytest.approx(np.mean(np.arange(1, 17)) / 100, abs=2e-4)


def test_equal_values_share_ranks_and_places() -> None:
    values = np.array([3.0, 1.0, 3.0, 2.0])
    assert ranks(values).tolist() == [3.5, 1, 3.5, 2]
    assert best_weights(values, 0.25).tolist() == [0.5, 0, 0.5, 0]
    assert best_weights(values, 0.75).tolist() == [1, 0, 1, 1]
    assert best_weights(np.ones(4), 0.5).tolist() == [0.5] * 4
    assert spearman(values, -(values**3)) == pytest.approx(-1)
    # ranks 1 2 3 4 and 2 1 4 3: 1 - 6 * 4 / (4 * 15)
    assert spearman(np.arange(4.0), np.array([5.0, 2, 9, 7])) == pytest.approx(0.6)
    assert np.isnan(spearman(np.ones(4), values))


def test_created_images_are_judged_by_a_reference(
    pipeline: Path, tmp_path: Path, d2i1: Callable[..., str], judged: Callable[..., dict[str, Any]]
) -> None:
    source = ("--source", "rooms:train", "--max_source_samples", 2, "--resolution", 32)
    made, reference = tmp_path / "made", tmp_path / "reference"
    flags = ("--num_samples", 3, "--num_inference_steps", 1, "--labels_from", "image")
    d2i1("create", "--pipeline", pipeline, *source, *flags, "--output_dir", made)
    flags = ("--pipeline", pipeline, "--source", f"dataset:{made}", "--output_dir", reference)
    d2i1("label", *flags)
    found = judged(made, f"dataset:{reference}")
    assert found["judged"] == 3 and set(found["tasks"]) == {"normals", "depth", "semseg"}
    assert found["tasks"]["depth"]["metrics"]["abs_rel"] < 1e-3  # it is its own reference
    assert found["tasks"]["semseg"]["metrics"]["miou"] > 0.99
    # rows without a truth are left out
    half = ("--pipeline", pipeline, "--source", f"dataset:{made}", "--max_source_samples", 2)
    d2i1("label", *half, "--output_dir", tmp_path / "half")
    assert judged(made, f"dataset:{tmp_path / 'half'}")["judged"] == 2
    # what they were made from is another image, though its id is known
    message = d2i1(
        *("judge", made, "--source", "rooms:train", "--output_file", tmp_path / "f.json"), code=2
    )
    assert "has no truth for" in message


def test_other_images_are_refused(labelled: Path, tmp_path: Path, d2i1: Callable[..., str]) -> None:
    flags = ("--output_file", tmp_path / "f.json")
    message = d2i1("judge", labelled, "--source", "rooms:val", *flags, code=2)
    assert "are different images (32x32 and 64x64)" in message and message.count("\n") == 1
    message = d2i1("judge", labelled, "--source", "rooms:test", *flags, code=2)
    assert "has no truth for" in message
    message = d2i1("judge", labelled, "--source", "rooms:val", "--keep", 80, *flags, code=2)
    assert "expected a share between 0 and 1" in message
    message = d2i1("judge", tmp_path / "none", "--source", "rooms:val", *flags, code=2)
    assert "none: no such folder, and not a Hub id" in message
    assert not (tmp_path / "f.json").exists()


def test_other_classes_are_refused(
    labelled: Path, photos: Path, tmp_path: Path, d2i1: Callable[..., str]
) -> None:
    flags = ("--source", f"folder:{photos}", "--output_file", tmp_path / "f.json")
    assert "has other classes" in d2i1("judge", labelled, *flags, code=2)


def test_the_resolution_is_the_runs(
    labelled: Path, tmp_path: Path, judged: Callable[..., dict[str, Any]]
) -> None:
    folder = changed(labelled, tmp_path / "with", {})
    write_run(folder, RunRecord("label", [], {"resolution": "32"}))
    found = judged(folder, "rooms:val", "--max_samples", 5)
    assert (found["rows"], found["judged"], found["tasks"]["depth"]["samples"]) == (COUNT, 5, 5)


def test_table_and_plot(labelled: Path, tmp_path: Path, d2i1: Callable[..., str]) -> None:
    files = ("--output_file", tmp_path / "f.json", "--plot", tmp_path / "new" / "f.png")
    said = d2i1("judge", labelled, "--source", "rooms:val", "--resolution", 32, *files, *ROUNDS)
    table = [line for line in said.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1 and len(table) == 2 + 2 * 2
    assert "best 80%" in table[0] and "-1.000 ± 0.000" in table[2] and "constant" in table[3]
    with Image.open(tmp_path / "new" / "f.png") as drawn:
        assert drawn.width > 700 and len(drawn.convert("L").getcolors() or []) > 20
