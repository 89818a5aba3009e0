"""End to end: our commands publish, and people without our package use it.

The same script runs where our package cannot be imported, and (slow) in a virtual environment that
never had it.
"""

import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import load_dataset
from diffusers import DiffusionPipeline

from d2i1_data import Diff2in1Pipeline
from tests.hub import Hub
from tests.made import run
from tests.pages import snippets
from tests.tiny import MOUNTS, mount_tiny

ROOT = Path(__file__).resolve().parent.parent
IMAGE = np.random.default_rng(0).integers(0, 256, (18, 22, 3), np.uint8)
STRANGER = Path(__file__).with_name("stranger.py")
PICTURES = ("image", "normals", "depth", "semseg")
NEEDED = ("torch", "diffusers", "transformers", "datasets", "accelerate", "pillow")


@pytest.fixture
def published(
    hub: Hub, tiny_base: Path, create: Callable[..., Path], tmp_path: Path
) -> dict[str, np.ndarray]:
    """Publish a pipeline of every host and a dataset; what a user without our package must find."""
    expected: dict[str, np.ndarray] = {}
    for mount in MOUNTS:
        pipe, name = mount_tiny(tiny_base, mount), f"alice/{mount}"
        pipe.save_pretrained(tmp_path / mount)
        run("publish", "--pipeline", tmp_path / mount, "--repo_id", name)
        for task, maps in pipe.predict(IMAGE).predictions.items():
            expected[f"{name} {task}"] = maps[0]
        generator = torch.Generator().manual_seed(0)
        created = pipe(IMAGE, "a room", num_inference_steps=2, generator=generator)
        expected[f"{name} created"] = np.asarray(created.images[0])
    folder = create(tmp_path / "created")
    run("publish", folder, "--repo_id", "alice/rooms")
    rows = load_dataset(str(folder), split="train")
    for way in ("plain", "streamed"):
        expected[f"{way} id"] = np.array(rows["id"][:])
        for column in PICTURES:
            expected[f"{way} {column}"] = np.stack([np.asarray(one) for one in rows[column]])
    return expected


def assert_found(python: str, published: dict[str, np.ndarray], tmp_path: Path) -> None:
    """What a process of this Python finds on the Hub is what we published."""
    np.save(tmp_path / "image.npy", IMAGE)
    (tmp_path / "empty").mkdir()
    names = [f"alice/{mount}" for mount in MOUNTS]
    files = (tmp_path / "image.npy", tmp_path / "found.npz")
    environment = {k: v for k, v in os.environ.items() if k not in ("HF_TOKEN", "PYTHONPATH")}
    homes = {"HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [python, str(STRANGER), *map(str, files), "alice/rooms", ",".join(PICTURES), *names],
        cwd=tmp_path / "empty",
        env=environment | homes,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = dict(np.load(tmp_path / "found.npz"))
    assert found.keys() == published.keys()
    for name, array in published.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_without_our_package(published: dict[str, np.ndarray], tmp_path: Path) -> None:
    assert_found(sys.executable, published, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_in_an_environment_that_never_had_it(
    published: dict[str, np.ndarray], tmp_path: Path
) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, "torch"], check=True)  # first and alone, as in the Makefile
    subprocess.run([*pip, *NEEDED], check=True)
    assert_found(python, published, tmp_path)


def test_with_our_package(
    hub: Hub, published: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No remote code; then without any network, from the cache; also the snippet of a card."""
    for mount in MOUNTS:
        name = f"alice/{mount}"
        for kind in (Diff2in1Pipeline, DiffusionPipeline):
            pipe = kind.from_pretrained(name)
            assert type(pipe) is Diff2in1Pipeline
            for task, maps in pipe.predict(IMAGE).predictions.items():
                expected = published[f"{name} {task}"]
                np.testing.assert_allclose(maps[0], expected, rtol=1e-5, atol=1e-6)
    card = hub.files(f"alice/{next(iter(MOUNTS))}")["README.md"].decode()
    monkeypatch.chdir(tmp_path)
    exec(snippets(card)[0], {})
    assert (tmp_path / "created.png").is_file()
    asked = len(hub.log)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: True)
    for mount in MOUNTS:
        assert type(DiffusionPipeline.from_pretrained(f"alice/{mount}")) is Diff2in1Pipeline
    assert len(hub.log) == asked


def test_diffusers_own_way_to_push(hub: Hub, tiny_pipe: Diff2in1Pipeline, tmp_path: Path) -> None:
    """It sends our code and our card, not the empty card of diffusers."""
    tiny_pipe.push_to_hub("pushed", private=True)
    tiny_pipe.save_pretrained(tmp_path / "saved", push_to_hub=True)
    for name in ("alice/pushed", "alice/saved"):
        files = hub.files(name)
        assert {"pipeline.py", "perception/diff2in1.py", "model_index.json"} <= files.keys()
        assert f'from_pretrained("{name}")' in files["README.md"].decode()
        assert b"More Information Needed" not in files["README.md"]
        found = Diff2in1Pipeline.from_pretrained(name).predict(IMAGE).predictions
        for task, maps in tiny_pipe.predict(IMAGE).predictions.items():
            np.testing.assert_allclose(found[task][0], maps[0], rtol=1e-5, atol=1e-6)
    assert hub.repo("alice/pushed").private and not hub.repo("alice/saved").private
