"""Resuming: a run that was killed and continued equals one that was not, bit for bit."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.utils.other import TORCH_SAFE_GLOBALS
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from d2i1_train.loop.manifest import MANIFEST
from tests.made import contents, run
from tests.processes import start

ROOMS = (
    *("--source", "rooms:train", "--max_train_samples", 4, "--resolution", 32),
    *("--report_to", "none"),
)
HOST = ("--host", "light", "--width", 16, "--tasks", "normals,semseg", "--real_batch_size", 2)
LATEST = ("--resume_from_checkpoint", "latest")


def kill_after(sign: Path, *arguments: object) -> None:
    """Run a command in a process of its own and SIGKILL it once a file is there."""
    log = Path(f"{sign.parents[1]}.txt")
    log.parent.mkdir(parents=True, exist_ok=True)
    process = start("-m", "d2i1_train.cli", *arguments, log=log)
    try:
        end = time.monotonic() + 200
        while not sign.exists():
            assert process.exitcode is None and time.monotonic() < end, log.read_text()
            time.sleep(0.005)
    finally:
        process.kill()
        process.join()
    assert process.exitcode == -9


@pytest.fixture(scope="module")
def warm(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warm-up of six steps, a checkpoint every two, the newest two kept."""
    folder = tmp_path_factory.mktemp("resume") / "warm"
    often = ("--max_train_steps", 6, "--checkpointing_steps", 2, "--checkpoints_total_limit", 2)
    run("warm-up", "--base", tiny_base, *ROOMS, *HOST, *often, "--output_dir", folder)
    return folder


@pytest.mark.parametrize("stage", ["warm-up", "self-improve"])
def test_killed_and_resumed_equals_uninterrupted(
    tiny_base: Path, warm: Path, tmp_path: Path, stage: str
) -> None:
    command: tuple[object, ...] = ("warm-up", "--base", tiny_base, *ROOMS, *HOST)
    if stage == "self-improve":
        few = ("--num_samples", 4, "--num_inference_steps", 2, "--resolution", 32)
        created = tmp_path / "created"
        pipeline = ("--pipeline", warm / "pipeline")
        run("create", *pipeline, "--source", "rooms:train", *few, "--output_dir", created)
        size = ("--created", created, "--follow_every", 7, "--real_batch_size", 2)
        command = ("self-improve", *pipeline, *ROOMS, *size)
    command += ("--max_train_steps", 40, "--checkpointing_steps", 5)
    command += ("--lr_scheduler", "cosine", "--lr_warmup_steps", 4)
    whole, killed = tmp_path / "whole/run", tmp_path / "killed/run"
    kill_after(killed / "checkpoint-5", *command, "--output_dir", killed)
    assert not (killed / "checkpoint-40").exists()
    run(*command, "--output_dir", whole)
    run(*command, "--output_dir", killed, *LATEST)
    for part in ("checkpoint-40", "pipeline"):
        one, other = contents(whole / part), contents(killed / part)
        for files in (one, other):
            files.pop("random_states_0.pkl", None)  # nothing is drawn from these states
            files.pop("manifest.json", None)  # it has the hash of these states
        assert one.keys() == other.keys()
        assert [name for name in one if one[name] != other[name]] == []


def test_only_the_newest_checkpoints_are_kept(warm: Path) -> None:
    assert sorted(f.name for f in warm.glob("*checkpoint*")) == ["checkpoint-4", "checkpoint-6"]


def test_checkpoints_hold_nothing_that_must_be_unpickled(warm: Path) -> None:
    files = {f.name: f for f in (warm / "checkpoint-6").iterdir()}
    known = {"counters.json", "exploitation.safetensors", "optimizer.bin", "random_states_0.pkl"}
    assert set(files) == {*known, MANIFEST}
    optimizer = torch.load(files["optimizer.bin"], weights_only=True)
    assert len(optimizer["state"]) == len(load_file(files["exploitation.safetensors"]))
    with torch.serialization.safe_globals(TORCH_SAFE_GLOBALS):  # NumPy's state, as accelerate does
        assert "torch_manual_seed" in torch.load(files["random_states_0.pkl"], weights_only=True)


def test_latest_is_the_newest_complete_one(tiny_base: Path, warm: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(warm, tmp_path / "run")
    (folder / "checkpoint-6").rename(folder / "checkpoint-10")  # 10 is later than 9 and 4
    counters = folder / "checkpoint-10" / "counters.json"
    counters.write_text(json.dumps({"step": 10, "format_version": 1}))
    (folder / "checkpoint-10" / MANIFEST).unlink()
    half = folder / ".checkpoint-99.tmp"
    half.mkdir()
    (half / "exploitation.safetensors").write_bytes(b"half")
    shutil.copytree(folder / "checkpoint-4", folder / "checkpoint-9")
    command = ("warm-up", "--base", tiny_base, *ROOMS, *HOST, "--max_train_steps", 11)
    run(*command, "--output_dir", folder, *LATEST)
    stored = json.loads((folder / "checkpoint-11/counters.json").read_text())
    assert stored == {"step": 11, "consumed": 0, "followed": 0, "format_version": 1}
    old = load_file(folder / "checkpoint-10/exploitation.safetensors")
    new = load_file(folder / "checkpoint-11/exploitation.safetensors")
    assert 0 < max((old[name] - new[name]).abs().max() for name in old) < 3e-3  # one step further


def test_latest_begins_where_there_is_none(tiny_base: Path, tmp_path: Path) -> None:
    command = ("warm-up", "--base", tiny_base, *ROOMS, *HOST, "--max_train_steps", 1)
    run(*command, "--output_dir", tmp_path / "run", *LATEST)
    assert (tmp_path / "run/checkpoint-1/counters.json").is_file()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"format_version": 2, "samples": 3}',
            "format version 2, this version of diff2in1",
        ),
        ('{"step": 4}', "not the counters of a checkpoint (KeyError('format_version'))"),
        ('{"step": "4", "format_version": 1}', "expected whole numbers"),
        ("[4]", "not the counters of a checkpoint"),
        ("{", "not the counters of a checkpoint"),
    ],
)
def test_a_checkpoint_of_another_format_is_refused(
    d2i1: Callable[..., str],
    tiny_base: Path,
    warm: Path,
    tmp_path: Path,
    content: str,
    message: str,
) -> None:
    folder = shutil.copytree(warm, tmp_path / "run")
    (folder / "checkpoint-6/counters.json").write_text(content)
    (folder / "checkpoint-6" / MANIFEST).unlink()  # or else the file counts as damaged
    before = (folder / "run.json").read_bytes()
    command = ("warm-up", "--base", tiny_base, *ROOMS, *HOST, "--max_train_steps", 7)
    error = d2i1(*command, "--output_dir", folder, *LATEST, code=2)
    assert message in error and "checkpoint-6" in error
    assert not (folder / "checkpoint-7").exists()
    assert (folder / "run.json").read_bytes() == before


@pytest.mark.parametrize("flags", [("--tasks", "normals,depth,semseg"), ("--width", 32)])
def test_a_checkpoint_of_another_model_is_refused(
    d2i1: Callable[..., str], tiny_base: Path, warm: Path, tmp_path: Path, flags: tuple[object, ...]
) -> None:
    checkpoint = shutil.copytree(warm / "checkpoint-6", tmp_path / "alone")
    (checkpoint / MANIFEST).unlink()  # and no run.json is beside it: nothing tells its settings
    command = ("warm-up", "--base", tiny_base, *ROOMS, *HOST, *flags, "--max_train_steps", 7)
    more = ("--output_dir", tmp_path / "run", "--resume_from_checkpoint", checkpoint)
    assert "belongs to another model" in d2i1(*command, *more, code=2)
    assert contents(tmp_path / "run") == {}


def test_a_named_checkpoint_must_exist(
    d2i1: Callable[..., str], tiny_base: Path, warm: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(warm, tmp_path / "run")
    before = contents(folder)
    command = ("warm-up", "--base", tiny_base, *ROOMS, *HOST, "--output_dir", folder)
    message = d2i1(*command, "--resume_from_checkpoint", "checkpoint-5", code=2)
    assert "checkpoint-5" in message and "checkpoint-4, checkpoint-6" in message
    assert contents(folder) == before


TINY_BASE = (
    *("--vae_channels", "[8,16]", "--unet_channels", "[16,32]", "--text_width", 32),
    *("--text_layers", 1, "--vae_batch_size", 2, "--unet_batch_size", 2),
    *("--dataloader_num_workers", 0, "--vae_steps", 4),
)


def test_base_trains_and_resumes(photos: Path, tmp_path: Path) -> None:
    command = ("base", "--source", f"folder:{photos}", *TINY_BASE)
    command += ("--unet_steps", 30, "--checkpointing_steps", 2)
    whole, killed = tmp_path / "whole/run", tmp_path / "killed/run"
    kill_after(killed / "unet/state.safetensors", *command, "--output_dir", killed)
    assert not (killed / "pipeline").exists()
    run(*command, "--output_dir", whole)
    run(*command, "--output_dir", killed, *LATEST)
    one, other = contents(whole / "pipeline"), contents(killed / "pipeline")
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []

    pipe = StableDiffusionPipeline.from_pretrained(killed / "pipeline", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    images = pipe("a street", height=16, width=24, num_inference_steps=2, output_type="np").images
    assert images.shape == (1, 16, 24, 3) and np.isfinite(images).all()


def test_base_resumes_in_the_autoencoder(photos: Path, tmp_path: Path) -> None:
    command = ("base", "--source", f"folder:{photos}", *TINY_BASE)
    command += ("--unet_steps", 2, "--checkpointing_steps", 2)
    earlier, later = tmp_path / "earlier/run", tmp_path / "later/run"
    kill_after(earlier / "vae/state.safetensors", *command, "--output_dir", earlier)
    run(*command, "--output_dir", later)
    run(*command, "--output_dir", earlier, *LATEST)
    assert contents(earlier / "pipeline") == contents(later / "pipeline")
