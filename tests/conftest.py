"""Shared fixtures: a Hub, a tiny base of random weights, tiny photographs, commands as typed."""

from tests.environment import HOME, HUB

# isort: split
import inspect
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from huggingface_hub import HfFileSystem, constants
from huggingface_hub.utils import _xet
from PIL import Image

from d2i1_data import Diff2in1Pipeline
from d2i1_data.dataset.schema import describe_tasks
from d2i1_data.sources.rooms import Rooms
from d2i1_train.cli import main
from tests.hub import Hub
from tests.made import SEVEN, run
from tests.tiny import save_tiny_base


def pytest_unconfigure() -> None:
    """Stop the Hub after the last test."""
    HUB.stop()
    shutil.rmtree(HOME, ignore_errors=True)


SLOW = (main, subprocess, psutil, HUB)  # a command, a process, the Hub


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark a test as quick if no function that it calls, and no fixture of it, uses `SLOW`."""
    slow: dict[FunctionType, bool] = {}
    for item in items:
        assert isinstance(item, pytest.Function)
        fixtures = item._fixtureinfo.name2fixturedefs.values()
        functions = [item.function, *(one.func for found in fixtures for one in found)]
        if not any(_is_slow(function, slow) for function in functions):
            item.add_marker("quick")


def _is_slow(function: FunctionType, known: dict[FunctionType, bool]) -> bool:
    """Whether a function uses `SLOW`, itself or in a function of the tests that it calls."""
    function = inspect.unwrap(function)
    if function not in known:
        known[function] = False  # a circle of calls adds nothing
        used = [function.__globals__.get(name) for name in _names(function.__code__)]
        ours = [one for one in used if isinstance(one, FunctionType)]
        known[function] = any(one is slow for one in used for slow in SLOW) or any(
            _is_slow(one, known) for one in ours if one.__module__.startswith("tests.")
        )
    return known[function]


def _names(code: CodeType) -> Iterator[str]:
    """The names that a function uses, with those in functions inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Commands that ran in this process may have changed the number of threads (--threads)."""
    torch.set_num_threads(1)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The Hub, empty; nothing of it is cached; alice is logged in."""
    HUB.reset()
    for kept in ("hub", "xet", "modules"):
        shutil.rmtree(Path(HOME) / kept, ignore_errors=True)
    vars(_xet).get("XET_CONNECTION_INFO_CACHE", {}).clear()  # not in every version
    _xet.abort_xet_session()  # it remembers what it has sent
    HfFileSystem.clear_instance_cache()
    monkeypatch.setenv("HF_TOKEN", HUB.token)
    return HUB


@pytest.fixture(params=["xet", "lfs"])
def sending(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How large files are sent, in this process and in launched ones: first xet, then lfs."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", request.param == "lfs")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", str(int(request.param == "lfs")))
    return request.param


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub does not wait before it tries again."""
    without_sleep = SimpleNamespace(sleep=lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.utils._http.time", without_sleep)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete base with random weights, stride 4, in Stable Diffusion's layout."""
    return save_tiny_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def tiny_pipe(tiny_base: Path) -> Diff2in1Pipeline:
    """A new `light` host for three tasks of rooms, on the tiny base."""
    torch.manual_seed(0)
    names = ("normals", "depth", "semseg")
    tasks = describe_tasks({name: Rooms.tasks[name] for name in names})
    pipe = Diff2in1Pipeline.from_base(str(tiny_base), "light", tasks, width=16)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def pipeline(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline after a warm-up of one step on two rooms: normals, depth and semseg."""
    folder = tmp_path_factory.mktemp("pipeline") / "warm"
    source = ("--source", "rooms:train", "--max_train_samples", 2, "--resolution", 32)
    host = ("--host", "light", "--width", 16, "--tasks", "normals,depth,semseg")
    size = ("--max_train_steps", 1, "--real_batch_size", 2, "--report_to", "none")
    flags = ("--base", tiny_base, *source, *host, *size, "--output_dir", folder)
    run("warm-up", *flags)
    return folder / "pipeline"


@pytest.fixture(scope="session")
def create(pipeline: Path) -> Callable[..., Path]:
    """A function that creates seven samples from three rooms, in shards of three; the folder."""

    def create(folder: Path, *flags: object) -> Path:
        run("create", "--pipeline", pipeline, *SEVEN, "--output_dir", folder, *flags)
        return folder

    return create


@pytest.fixture
def d2i1(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function that runs a command in this process and checks its exit code; what it printed."""

    def run(*arguments: object, code: int = 0) -> str:
        capfd.readouterr()
        assert main([str(argument) for argument in arguments]) == code, capfd.readouterr().err
        captured = capfd.readouterr()
        return captured.out if code == 0 else captured.err

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A `folder` source: six pictures of 20x14 with class labels of 40x28; its YAML file."""
    rng = np.random.default_rng(0)
    for part in ("image", "label"):
        (tmp_path / "photos" / part).mkdir(parents=True)
    for n in range(6):
        image = rng.integers(0, 256, (14, 20, 3), np.uint8)
        label = rng.integers(0, 4, (28, 40)).astype(np.uint8)  # 3 is what the YAML ignores
        Image.fromarray(image).save(tmp_path / "photos" / "image" / f"{n}.png")
        Image.fromarray(label).save(tmp_path / "photos" / "label" / f"{n}.png")
    file = tmp_path / "photos" / "photos.yaml"
    file.write_text(
        "name: photos\nlicence: cc0-1.0\n"
        "columns: {image: image, semseg: label}\n"
        "classes: {semseg: {names: [sky, road, tree], ignore: [3]}}\n"
        'caption: {template: "a street with {classes}"}\n'
    )
    return file
