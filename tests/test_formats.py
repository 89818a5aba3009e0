"""Folders that an earlier version wrote still open, predict, resume and verify.

tests/fixtures/formats/ was written by tests/fixtures/write_formats.py when the formats were fixed.
Where it is missing, this version writes the folders and must read its own.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from d2i1_data.dataset.shards import library_versions
from tests.fixtures.write_formats import (
    CREATE,
    EXPECTED,
    FORMATS,
    Numbers,
    predict,
    read,
    resume,
    write_formats,
)
from tests.made import run, shards

VERSION = 1
STATED_IN = {
    "dataset": ("plan.json", "diff2in1.json"),
    "pipeline": ("model_index.json",),
    "adapter": ("model_index.json",),
    "checkpoint": ("checkpoint-2/counters.json",),
}
Expected = dict[str, Numbers]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed folders, or new ones."""
    if FORMATS.is_dir():
        return FORMATS
    folder = tmp_path_factory.mktemp("formats") / "formats"
    write_formats(folder)
    return folder


@pytest.fixture
def formats(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to work in; the folders name each other by relative paths."""
    folder = shutil.copytree(original, tmp_path / "formats")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def expected(original: Path) -> Expected:
    """What the folders gave when they were written."""
    numbers: Expected = json.loads((original / EXPECTED).read_text())
    return numbers


def assert_close(found: Numbers, expected: Numbers, tolerance: float) -> None:
    """Other versions of torch round differently."""
    assert found.keys() == expected.keys()
    for name, numbers in found.items():
        assert numbers == pytest.approx(expected[name], rel=tolerance, abs=tolerance), name


@pytest.mark.parametrize("kind", STATED_IN)
def test_folders_state_their_format_version(original: Path, kind: str) -> None:
    for name in STATED_IN[kind]:
        content = json.loads((original / kind / name).read_text())
        assert content["format_version"] == VERSION, name


@pytest.mark.parametrize("kind", ["pipeline", "adapter"])
def test_opens_and_predicts(formats: Path, expected: Expected, kind: str) -> None:
    assert_close(predict(kind), expected[kind], 1e-3)


def test_training_resumes(formats: Path, expected: Expected, tmp_path: Path) -> None:
    found = resume("checkpoint", tmp_path / "resumed")
    assert_close(found, expected["checkpoint"], 1e-4)


def test_dataset_opens_and_verifies(
    formats: Path, expected: Expected, d2i1: Callable[..., str]
) -> None:
    assert_close(read("dataset"), expected["dataset"], 0)
    assert "4 rows made again" in d2i1("create", "--verify", "dataset", "--rows", 4)


def test_dataset_resumes(formats: Path, expected: Expected) -> None:
    """Of two shards one is missing. Shards of other library versions would not be mixed."""
    plan = formats / "dataset/plan.json"
    content = json.loads(plan.read_text())
    plan.write_text(json.dumps({**content, "versions": library_versions()}))
    before = shards(formats / "dataset")
    first, second = before
    (formats / "dataset" / second).unlink()
    run(*CREATE)
    after = shards(formats / "dataset")
    assert list(after) == [first, second]
    assert after[first] == before[first]
    found = read("dataset")
    assert found.keys() == expected["dataset"].keys()
    for name, numbers in found.items():  # images and maps of [0, 255] and of few metres
        assert numbers == pytest.approx(expected["dataset"][name], rel=0.02, abs=0.02), name
