"""Whole clients as people use them: the command line, datasets, diffusers."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict, Features, Image, Value, load_dataset
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from huggingface_hub import HfApi
from PIL import Image as Picture

from tests.hub import Hub
from tests.hub.store import Store

HF = Path(sys.executable).with_name("hf")


def hf(*arguments: object, code: int = 0, **environment: str) -> str:
    """The output of `hf`; checks its exit code."""
    done = subprocess.run(
        [HF, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_command_line(hub: Hub, tmp_path: Path, sending: str) -> None:
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "w.bin").write_bytes(os.urandom(100_000))
    (tmp_path / "up" / "a.txt").write_text("text")
    assert "alice" in hf("auth", "whoami")
    hf("repos", "create", "alice/rooms", "--repo-type", "dataset", "--private")
    assert hub.repo("alice/rooms", "dataset").private
    hf("upload", "alice/rooms", tmp_path / "up", ".", "--repo-type", "dataset")
    down = ("--repo-type", "dataset", "--local-dir", tmp_path / "down")
    hf("download", "alice/rooms", *down)
    for name in ("w.bin", "a.txt"):
        sent = (tmp_path / "up" / name).read_bytes()
        assert (tmp_path / "down" / name).read_bytes() == sent
        assert hub.files("alice/rooms", "dataset")[name] == sent
    assert hub.unknown == []


def test_the_command_line_with_a_wrong_token(hub: Hub) -> None:
    wrong = "hf_" + "x" * 34
    assert "Invalid user token" in hf("auth", "whoami", code=1, HF_TOKEN=wrong)


def test_by_hand(tmp_path: Path) -> None:
    """It prints what to export, and keeps repositories in a folder."""
    command = [sys.executable, "-m", "tests.hub", "--folder", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            lines = [running.stdout.readline().split() for _ in range(2)]
            told = dict(pair.split("=") for export, pair in lines if export == "export")
            api = HfApi(told["HF_ENDPOINT"], token=told["HF_TOKEN"])
            api.create_repo("alice/kept")
        finally:
            running.terminate()
    assert Store(tmp_path).repos.keys() == {("model", "alice/kept")}


FEATURES = Features({"id": Value("string"), "image": Image(), "n": Value("int64")})


def rows(count: int) -> Dataset:
    def row(n: int) -> dict[str, Any]:
        picture = Picture.fromarray(np.full((8, 8, 3), n, np.uint8))
        return {"id": f"row {n}", "image": picture, "n": n}

    return Dataset.from_list([row(n) for n in range(count)], features=FEATURES)


def test_datasets(hub: Hub, sending: str) -> None:
    rows(5).push_to_hub("alice/rooms", max_shard_size="1KB")
    loaded = load_dataset("alice/rooms", split="train")
    assert loaded.features == FEATURES and loaded["id"] == [f"row {n}" for n in range(5)]
    assert np.array_equal(loaded[3]["image"], np.full((8, 8, 3), 3, np.uint8))

    streamed = load_dataset("alice/rooms", split="train", streaming=True)
    assert [row["n"] for row in streamed] == list(range(5))
    columns = load_dataset("alice/rooms", split="train", streaming=True, columns=["id"])
    assert next(iter(columns)) == {"id": "row 0"}

    DatasetDict(train=rows(2), test=rows(3)).push_to_hub("alice/rooms", private=True)
    again = load_dataset("alice/rooms")
    assert {split: len(data) for split, data in again.items()} == {"train": 2, "test": 3}
    assert hub.unknown == []


def test_datasets_on_a_branch(hub: Hub, sending: str) -> None:
    rows(2).push_to_hub("alice/rooms")
    rows(3).push_to_hub("alice/rooms", revision="v2")
    assert len(load_dataset("alice/rooms", split="train")) == 2
    assert len(load_dataset("alice/rooms", split="train", revision="v2")) == 3


def test_diffusers(hub: Hub, api: HfApi, tiny_base: Path, sending: str) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    pipe.push_to_hub("alice/tiny", private=True)
    loaded = DiffusionPipeline.from_pretrained("alice/tiny", safety_checker=None)
    for part in ("unet", "vae", "text_encoder"):
        own, other = getattr(pipe, part).state_dict(), getattr(loaded, part).state_dict()
        assert own.keys() == other.keys()
        assert all(torch.equal(own[key], other[key]) for key in own)
    assert hub.repo("alice/tiny").private and hub.unknown == []
