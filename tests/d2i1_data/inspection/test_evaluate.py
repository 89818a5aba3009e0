"""Evaluation: its figures are those of the meters on what `predict` gives."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from d2i1_data import Diff2in1Pipeline
from d2i1_data.checkpoints.pipelines import open_pipeline
from d2i1_data.inspection.evaluation.measure import bootstrap, mean_over_images, per_image
from d2i1_data.sources import open_rows
from d2i1_data.sources.rooms import CLASSES, Rooms
from d2i1_data.tasks import TASKS, Task
from d2i1_data.tasks.protocols import PROTOCOLS
from d2i1_train.loop.trained_size import register_size
from d2i1_train.settings import Protocols, WarmUpSettings
from tests.made import run

NAMES = ("normals", "depth", "semseg")


@pytest.fixture(scope="module")
def improved(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What self-improving without created samples gives, theta_C having followed once."""
    folder = tmp_path_factory.mktemp("evaluate")
    data = ("--source", "rooms:train", "--max_train_samples", 2, "--real_batch_size", 2)
    data += ("--resolution", 32, "--report_to", "none", "--learning_rate", 0.02)
    host = ("--host", "light", "--width", 16, "--tasks", ",".join(NAMES), "--max_train_steps", 1)
    run("warm-up", "--base", tiny_base, *data, *host, "--output_dir", folder / "warm")
    inputs = ("--pipeline", folder / "warm/pipeline", *data, "--max_train_steps", 4)
    run("self-improve", *inputs, "--follow_every", 8, "--output_dir", folder / "improved")
    return folder / "improved/pipeline"


@pytest.fixture
def evaluate(improved: Path, tmp_path: Path) -> Callable[..., dict]:
    """Evaluate on five rooms of 64 x 64; what the file holds."""

    def evaluate(*flags: object) -> dict:
        file = tmp_path / "sub" / "figures.json"
        source = ("--source", "rooms:test", "--max_samples", 5)
        run("evaluate", "--pipeline", improved, *source, "--output_file", file, *flags)
        return json.loads(file.read_text())

    return evaluate


def by_hand(improved: Path, samples: int, **options: object) -> dict[str, dict[str, float]]:
    """The same figures with pooled pixels, one image at a time."""
    pipe = open_pipeline(str(improved))
    totals: dict[str, Tensor] = {}
    for sample in open_rows("rooms:test", None, samples).samples():
        found = pipe.predict(sample.image, output_type="pt", **options).predictions
        for name in NAMES:
            task = Rooms.tasks[name]
            target = task.family.to_tensor(sample.targets[name])[None]
            valid = task.family.valid(target)
            sums = task.meter.measure(found[name][0][None], target, valid)[0]
            totals[name] = totals.get(name, torch.zeros_like(sums)) + sums
    return {name: Rooms.tasks[name].meter.summary(total) for name, total in totals.items()}


@pytest.mark.parametrize(
    ("flags", "samples", "options"),
    [
        ((), 5, {"processing_resolution": 32}),  # what the warm-up trained at
        (("--processing_resolution", 48), 5, {"processing_resolution": 48}),
        (("--processing_resolution", 0), 5, {"processing_resolution": 0}),
        (("--max_samples", 2), 2, {}),
        (("--flip",), 5, {"flip": True}),
        (("--window", 20), 5, {"window": 20}),
        (("--ensemble_size", 2), 5, {"ensemble_size": 2}),
    ],
)
def test_figures_are_the_meters_on_what_predict_gives(
    evaluate: Callable[..., dict],
    improved: Path,
    flags: tuple[object, ...],
    samples: int,
    options: dict[str, object],
) -> None:
    results = evaluate(*flags)
    assert (results["samples"], results["skipped"], results["source"]) == (samples, {}, "rooms")
    expected = by_hand(improved, samples, **options)
    assert results["tasks"].keys() == expected.keys()
    for name, figures in expected.items():
        assert results["tasks"][name] == pytest.approx(figures, rel=2e-3, abs=2e-3, nan_ok=True)


def test_classes_are_scored_one_by_one(
    evaluate: Callable[..., dict], improved: Path, d2i1: Callable[..., str]
) -> None:
    results = evaluate("--average", "images")
    classes = results["classes"]["semseg"]
    assert classes["names"] == list(CLASSES)
    found = np.array(classes["iou"], float)
    confusion = np.array(classes["confusion"])
    hits = np.diagonal(confusion)
    with np.errstate(invalid="ignore"):
        expected = hits / (confusion.sum(0) + confusion.sum(1) - hits)
    np.testing.assert_allclose(found, expected)
    assert np.nanmean(found) == pytest.approx(by_hand(improved, 5)["semseg"]["miou"], rel=2e-3)
    command = ("evaluate", "--pipeline", improved, "--source", "rooms:test", "--max_samples", 5)
    assert f"semseg IoU: {CLASSES[0]} {found[0]:.4f}, " in d2i1(*command)


def test_flags_change_the_figures(evaluate: Callable[..., dict]) -> None:
    figures = [
        json.dumps(evaluate(*flags)["tasks"])
        for flags in (
            (),
            ("--flip",),
            ("--window", 20),
            ("--ensemble_size", 4),
            ("--processing_resolution", 0),
            ("--theta", "exploitation"),
        )
    ]
    assert len(set(figures)) == 6


def rooms_by_hand(improved: Path, name: str, edit: Callable[..., Any], samples: int = 5) -> Tensor:
    """Sums per room of what `edit` leaves of prediction and truth, [N, S]."""
    pipe, task = open_pipeline(str(improved)), Rooms.tasks[name]
    rooms = list(open_rows("rooms:test", None, samples).samples())
    found = pipe.predict([room.image for room in rooms], output_type="pt").predictions
    sums = []
    for n, prediction in enumerate(found[name]):
        target = task.family.to_tensor(rooms[n].targets[name])
        one, other = edit(prediction[None], target[None])
        sums.append(task.meter.measure(one, other, task.family.valid(other)))
    return torch.cat(sums)


@pytest.mark.parametrize("name", NAMES)
def test_crop_scores_these_rows_and_columns(
    evaluate: Callable[..., dict], improved: Path, name: str
) -> None:
    def inside(*maps: Tensor) -> list[Tensor]:
        return [one[:, :, 5:64, 20:33] for one in maps]

    meter, found = Rooms.tasks[name].meter, evaluate("--crop", "5:64,20:33")["tasks"]
    expected = meter.summary(rooms_by_hand(improved, name, inside).sum(0))
    assert found[name] == pytest.approx(expected, rel=2e-3, abs=2e-3)
    assert found[name] != pytest.approx(evaluate()["tasks"][name], rel=2e-3, abs=2e-3)


def test_farthest_hides_truth_and_clips_predictions(
    evaluate: Callable[..., dict], improved: Path
) -> None:
    def near(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return prediction.clamp(max=2), torch.where(target <= 2, target, 0)

    found, whole = evaluate("--farthest", 2)["tasks"], evaluate()["tasks"]
    expected = Rooms.tasks["depth"].meter.summary(rooms_by_hand(improved, "depth", near).sum(0))
    assert found["depth"] == pytest.approx(expected, rel=2e-3, abs=2e-3)
    assert found["depth"] != pytest.approx(whole["depth"], rel=2e-2)
    assert found["normals"] == whole["normals"] and found["semseg"] == whole["semseg"]


@pytest.mark.parametrize("name", NAMES)
def test_average_of_images_is_the_mean_of_their_figures(
    evaluate: Callable[..., dict], improved: Path, name: str
) -> None:
    meter = Rooms.tasks[name].meter
    each = [meter.summary(one) for one in rooms_by_hand(improved, name, lambda *maps: maps)]
    expected = {key: np.mean([figures[key] for figures in each]) for key in each[0]}
    found = evaluate("--average", "images")
    assert found["tasks"][name] == pytest.approx(expected, rel=2e-3, abs=2e-3)
    assert found["tasks"][name] != pytest.approx(evaluate()["tasks"][name], rel=1e-6)
    assert found["settings"]["average"] == "images"


def test_images_without_a_figure_are_left_out_of_its_mean() -> None:
    task = TASKS["depth"]
    known = sums(task, 0.3)
    unknown = torch.cat([known[:3], torch.zeros_like(known[:2]), known[3:]])
    found = mean_over_images(task, per_image(task, unknown))
    each = [task.meter.summary(one) for one in known]
    assert found == pytest.approx({k: np.mean([one[k] for one in each]) for k in each[0]})
    parts = per_image(task, unknown[:4]) + per_image(task, unknown[4:]) + per_image(task, known[:0])
    assert mean_over_images(task, parts) == pytest.approx(found)
    nothing = mean_over_images(task, per_image(task, torch.zeros_like(known)))
    assert nothing.keys() == found.keys() and np.isnan(list(nothing.values())).all()


def test_sparsification_is_drawn_and_written(
    evaluate: Callable[..., dict], improved: Path, tmp_path: Path
) -> None:
    file = tmp_path / "figures" / "curves.png"
    results = evaluate("--sparsification", file, "--crop", "0:64,0:40", "--farthest", 3)
    assert file.stat().st_size < 200_000
    with Image.open(file) as drawn:
        pixels = np.asarray(drawn.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    curves = results["sparsification"]
    assert tuple(curves) == NAMES and str(file) not in json.dumps(results["settings"])
    for name, one in curves.items():
        assert one.keys() == {"kept", "error", "oracle", "ause"}
        assert one["kept"] == pytest.approx(np.linspace(1, 0.05, 20))
        assert one["error"][0] == pytest.approx(one["oracle"][0])
        assert one["ause"] > 0, name
    assert curves["normals"]["error"][0] == pytest.approx(results["tasks"]["normals"]["mean"])
    assert curves["depth"]["error"][0] == pytest.approx(results["tasks"]["depth"]["abs_rel"])
    wrong = 1 - results["tasks"]["semseg"]["accuracy"]
    assert curves["semseg"]["error"][0] == pytest.approx(wrong)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--crop 5,6", "--crop 5,6: expected rows, then columns"),
        ("--crop 5:5,0:9", "--crop 5:5,0:9: expected rows, then columns"),
        ("--crop 0:9,9:3", "--crop 0:9,9:3: expected rows, then columns"),
        ("--crop 0:65,0:64", "has 64 rows and 64 columns"),
        ("--crop 0:64,0:65", "has 64 rows and 64 columns"),
        ("--farthest 0", "--farthest 0: expected more than 0 metres"),
        ("--farthest -3.5", "--farthest -3.5: expected more than 0 metres"),
        ("--average image", "expected one of pixels, images or null"),
        ("--sparsification curves.pdf", "--sparsification curves.pdf: expected a .png file"),
        ("--window 3", "--window 3: this pipeline needs at least 4"),
    ],
)
def test_protocols_that_cannot_be(
    d2i1: Callable[..., str], improved: Path, tmp_path: Path, flags: str, told: str
) -> None:
    command = ("evaluate", "--pipeline", improved, "--source", "rooms:test", "--max_samples", 1)
    file = tmp_path / "figures.json"
    assert told in d2i1(*command, "--output_file", file, *flags.split(), code=2)
    assert not file.exists()


def test_farthest_needs_a_task_in_metres(
    d2i1: Callable[..., str], improved: Path, photos: Path
) -> None:
    photos.write_text("name: walls\ncolumns: {image: image, normals: image}\n")  # any RGB is some
    command = ("evaluate", "--pipeline", improved, "--source", f"folder:{photos}")
    d2i1(*command)
    told = "--farthest 10: none of the scored tasks is measured in metres: normals"
    assert told in d2i1(*command, "--farthest", 10, code=2)


def test_a_protocol_is_the_same_as_its_flags(
    evaluate: Callable[..., dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert get_args(Protocols) == (*PROTOCOLS,)
    with_flags = evaluate("--crop", "5:64,20:33", "--farthest", 2, "--average", "images")
    small = replace(PROTOCOLS["nyu-depth"], crop="5:64,20:33", farthest=2)  # rooms are small
    monkeypatch.setitem(PROTOCOLS, small.name, small)
    found = evaluate("--protocol", small.name)
    assert found["tasks"] == {"depth": with_flags["tasks"]["depth"]}
    kept = {name: found["settings"][name] for name in ("protocol", "crop", "farthest", "average")}
    assert [*kept.values()] == ["nyu-depth", "5:64,20:33", 2, "images"]
    other = evaluate("--protocol", small.name, "--average", "pixels")
    assert (other["settings"]["crop"], other["settings"]["average"]) == ("5:64,20:33", "pixels")
    assert other["tasks"]["depth"] != found["tasks"]["depth"]


def test_a_protocol_needs_its_task_and_its_size(
    d2i1: Callable[..., str], improved: Path, photos: Path
) -> None:
    photos.write_text("name: walls\ncolumns: {image: image, normals: image}\n")
    command = ("evaluate", "--pipeline", improved, "--source", f"folder:{photos}")
    told = "--protocol nyu-depth: scores depth; pipeline and source have in common normals"
    assert told in d2i1(*command, "--protocol", "nyu-depth", code=2)
    told = "--crop 44:471,40:601: sample 0 has 14 rows and 20 columns"
    assert told in d2i1(*command, "--protocol", "geonet-normals", code=2)


def test_skipped_samples_are_listed_with_their_reason(
    d2i1: Callable[..., str], improved: Path, photos: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    (photos.parent / "range").mkdir()
    for n in range(6):
        pixels = rng.integers(1000, 5000, (14, 20)).astype(np.uint16)
        Image.fromarray(pixels).save(photos.parent / "range" / f"{n}.png")
    photos.write_text("name: walls\ncolumns: {image: image, depth: range}\n")
    (photos.parent / "image/3.png").write_bytes(b"\x89PNG")
    command = ("evaluate", "--pipeline", improved, "--source", f"folder:{photos}")
    assert "image/3.png" in d2i1(*command, code=2)
    d2i1(*command, "--on_bad_row", "skip", "--output_file", tmp_path / "figures.json")
    results = json.loads((tmp_path / "figures.json").read_text())
    assert (results["samples"], list(results["skipped"])) == (5, ["3"])
    assert "image/3.png: not a readable image" in results["skipped"]["3"]
    assert list(results["tasks"]) == ["depth"]


@pytest.mark.parametrize(
    ("resolution", "registered"), [(None, 64), ("48", 48), ("32x48", 48), ("short:32", 32)]
)
def test_training_registers_the_size_it_trains_at(
    tiny_pipe: Diff2in1Pipeline, resolution: str | None, registered: int
) -> None:
    settings = WarmUpSettings(source="rooms", output_dir="", host="light", resolution=resolution)
    register_size(tiny_pipe, settings, open_rows("rooms", resolution, 3))
    assert tiny_pipe.config.default_processing_resolution == registered


def test_the_registered_resolution_travels_along(improved: Path) -> None:
    for pipeline in (improved.parents[1] / "warm/pipeline", improved):
        assert open_pipeline(str(pipeline)).config.default_processing_resolution == 32


def test_theta_exploitation_needs_its_checkpoint(
    d2i1: Callable[..., str], improved: Path, tmp_path: Path
) -> None:
    (tmp_path / "lonely").symlink_to(improved)
    command = ("evaluate", "--pipeline", tmp_path / "lonely", "--source", "rooms:test")
    message = d2i1(*command, "--max_samples", 1, "--theta", "exploitation", code=2)
    assert "no checkpoint-N beside" in message


def sums(task: Task, noise: float) -> Tensor:
    """Sums per sample of twelve random predictions of one task, [12, S]."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(12, 1, 8, 8, generator=generator) + 1
    other = target + noise * torch.rand(12, 1, 8, 8, generator=generator)
    return task.meter.measure(other, target, task.family.valid(target))


def test_bootstrap_of_equal_sums_is_zero() -> None:
    task = TASKS["depth"]
    same = bootstrap(task, sums(task, 0.3), sums(task, 0.3), rounds=50)
    assert same.keys() == task.meter.summary(sums(task, 0.3).sum(0)).keys()
    for figure in same.values():
        assert figure == {"difference": 0, "spread": 0}


def test_bootstrap_tells_models_apart() -> None:
    task = TASKS["depth"]
    better, worse = sums(task, 0.3), sums(task, 0.6)
    found = bootstrap(task, better, worse, rounds=200)["rmse"]
    figures = [task.meter.summary(part.sum(0))["rmse"] for part in (better, worse)]
    assert found["difference"] == pytest.approx(figures[1] - figures[0])
    assert 0 < found["spread"] < 0.2 * found["difference"]
    assert bootstrap(task, better, worse, rounds=200)["rmse"] == found
