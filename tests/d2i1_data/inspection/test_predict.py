"""Prediction for people: files of every image, complete or not there."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from d2i1_data.checkpoints.pipelines import open_pipeline
from d2i1_data.inspection.predict import find_images, read_groups
from tests.made import contents

Command = Callable[..., str]
KINDS = {"labels": "png", "arrays": "npy", "pictures": "png", "overlays": "png"}
TASKS = ("normals", "depth", "semseg")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with three photographs, two of one size, and a file that is no image."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (16, 24)), ("b.jpg", (16, 24)), ("c.PNG", (20, 12))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


def predict(d2i1: Command, pipeline: Path, folder: Path, *arguments: object, code: int = 0) -> str:
    where = ("--pipeline", pipeline, "--output_dir", folder)
    return d2i1("predict", *arguments, *where, code=code)


def test_a_folder_gives_four_files_for_each_image_and_task(
    d2i1: Command, pipeline: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert predict(d2i1, pipeline, out, images, "--batch_size", 2).strip() == str(out)
    expected = {
        f"{kind}/{task}/{name}.{suffix}"
        for kind, suffix in KINDS.items()
        for task in TASKS
        for name in "abc"
    }
    assert set(contents(out)) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out"]
    pipe = open_pipeline(str(pipeline))
    for file in ("a.png", "b.jpg", "c.PNG"):
        image = np.asarray(Image.open(images / file).convert("RGB"))
        predictions = pipe.predict(image).predictions
        for task, family in pipe.perception.families.items():
            (own,), name = predictions[task], file[0]
            array = np.load(out / f"arrays/{task}/{name}.npy")
            close = np.isclose(array, own, atol=1e-3).mean()  # batches round differently
            assert array.dtype == own.dtype and close > 0.99
            stored = family.from_png((out / f"labels/{task}/{name}.png").read_bytes())
            assert np.array_equal(stored, family.from_png(family.to_png(array)))
            colours = np.asarray(Image.open(out / f"pictures/{task}/{name}.png"))
            overlay = np.asarray(Image.open(out / f"overlays/{task}/{name}.png")).astype(int)
            assert np.array_equal(colours, family.colorize(array))
            assert abs(2 * overlay - image - colours).max() <= 1


@pytest.mark.parametrize("views", [{"flip": True}, {"ensemble_size": 2}])
def test_options_are_those_of_the_pipeline(
    d2i1: Command, pipeline: Path, images: Path, tmp_path: Path, views: dict[str, Any]
) -> None:
    file = images / "a.png"
    options = {**views, "window": 16, "processing_resolution": 20}
    flags = [flag for name, value in options.items() for flag in (f"--{name}", str(value).lower())]
    predict(d2i1, pipeline, tmp_path / "out", file, *flags)
    own = open_pipeline(str(pipeline)).predict(np.asarray(Image.open(file)), **options)
    plain = open_pipeline(str(pipeline)).predict(np.asarray(Image.open(file)))
    for task in TASKS:
        array = np.load(tmp_path / f"out/arrays/{task}/a.npy")
        assert np.array_equal(array, own.predictions[task][0])
    assert not np.array_equal(plain.predictions["depth"][0], own.predictions["depth"][0])


@pytest.mark.parametrize("precision", ["bfloat16"])
def test_half_precision(
    d2i1: Command, pipeline: Path, images: Path, tmp_path: Path, precision: str
) -> None:
    predict(d2i1, pipeline, tmp_path / "out", images / "a.png", "--precision", precision)
    half = np.load(tmp_path / "out/arrays/depth/a.npy")
    full = open_pipeline(str(pipeline)).predict(Image.open(images / "a.png")).predictions["depth"]
    assert not np.array_equal(half, full[0]) and np.allclose(half, full[0], rtol=0.1)


def test_an_image_is_read_as_people_see_it(
    d2i1: Command, pipeline: Path, images: Path, tmp_path: Path
) -> None:
    picture = Image.open(images / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    picture.save(tmp_path / "turned.png", exif=exif)
    predict(d2i1, pipeline, tmp_path / "out", tmp_path / "turned.png")
    assert np.load(tmp_path / "out/arrays/depth/turned.npy").shape == (24, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "images"),
        (("{tmp}/none.png",), "{tmp}/none.png: no such file or folder"),
        (("{tmp}/images/*.gif",), "{tmp}/images/*.gif: no such file or folder"),
        (("{tmp}/empty",), "{tmp}/empty: no images directly in it; expected JPEG"),
        (("{tmp}/images", "{tmp}/images/notes.txt"), "notes.txt: not a readable image"),
        (("{tmp}/images", "{tmp}/a.png"), "would write the same files"),
        (("{tmp}/images", "--window", "0"), "--window 0: expected at least 1"),
        (("{tmp}/images", "--window", "3"), "--window 3: this pipeline needs at least 4"),
        (("{tmp}/images", "--processing_resolution", "-1"), "expected 0 to 8192"),
        (("{tmp}/images", "--processing_resolution", "1000000000"), "expected 0 to 8192"),
        (("{tmp}/images", "--max_pixels", "300"), "a.png: 24 x 16 pixels, allowed are 300"),
        (("{tmp}/images", "--max_pixels", "0"), "--max_pixels 0: expected at least 1"),
        (("{tmp}/images", "--pipeline", "{tmp}/images"), "no model_index.json there"),
    ],
)
def test_wrong_input_writes_nothing(
    d2i1: Command,
    pipeline: Path,
    images: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.png").write_bytes((images / "a.png").read_bytes())
    before = sorted(path.name for path in tmp_path.iterdir())
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    where = [] if "--pipeline" in given else ["--pipeline", pipeline]
    error = d2i1("predict", *given, *where, "--output_dir", tmp_path / "out", code=2)
    assert error.splitlines()[-1].startswith("d2i1 predict: error: ")
    assert message.format(tmp=tmp_path) in error
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_folder_that_is_not_empty_is_kept_unless_told(
    d2i1: Command, pipeline: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "labels/depth").mkdir(parents=True)
    (out / "mine.txt").write_text("years of work")
    (out / "labels/depth/a.png").write_bytes(b"old")
    message = predict(d2i1, pipeline, out, images / "a.png", code=2)
    assert f"{out} is not empty" in message and "--overwrite" in message
    predict(d2i1, pipeline, out, images / "a.png", "--overwrite")
    assert (out / "mine.txt").read_text() == "years of work"
    assert (out / "labels/depth/a.png").read_bytes()[:4] == b"\x89PNG"


def test_places_name_each_image_once(images: Path) -> None:
    (images / "link").symlink_to(images, target_is_directory=True)
    (images / "._a.png").write_bytes(b"Mac OS X")
    other = [f"{images}/../images/a.png", f"{images}/link/b.jpg"]
    found = find_images([f"{images}/b.*", str(images), str(images / "a.png"), *other])
    assert [file.name for file in found] == ["b.jpg", "a.png", "c.PNG"]


def test_batches_of_large_images_are_small(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = find_images([str(images)])  # 384, 384 and 240 pixels
    for most, expected in ((384, [1, 1, 1]), (624, [1, 2]), (768, [2, 1]), (2000, [3])):
        monkeypatch.setattr(f"{read_groups.__module__}.BATCH_PIXELS", most)
        assert [len(group) for group in read_groups(files, 8, 1000)] == expected
    assert [len(group) for group in read_groups(files, 2, 1000)] == [2, 1]


def test_python_m_runs_the_command(pipeline: Path, images: Path, tmp_path: Path) -> None:
    where = ["--pipeline", str(pipeline), "--output_dir", str(tmp_path / "out")]
    command = [sys.executable, "-m", "d2i1_train", "predict", *where, str(images / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "out")
    assert set(re.findall(r"(\w+): +\d+%", done.stderr)) == {"predict"}  # one bar
    assert len(contents(tmp_path / "out")) == 12
