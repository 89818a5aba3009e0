"""Full disks, and numbers that no machine can take, end in one line."""

import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from d2i1_train.arguments import MOST
from d2i1_train.cli import _is_out_of_memory
from tests.made import run

D2i1 = Callable[..., str]
SOURCE = ("--source", "rooms:train", "--max_train_samples", 2, "--resolution", 32)
WARM = (*SOURCE, "--real_batch_size", 2, "--report_to", "none", "--checkpointing_steps", 1)
HOST = ("--host", "light", "--tasks", "normals")
BASE = (*SOURCE, "--dataloader_num_workers", 0, "--vae_steps", 1, "--unet_steps", 1)
BASE += ("--vae_channels", "[8,16]", "--unet_channels", "[16,32]", "--text_width", 32)
LATEST = ("--resume_from_checkpoint", "latest")
HUGE = "12345678901234567890123"


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that makes the disk full for files beyond a number of bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit  # type: ignore[misc]
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_keeps_what_is_complete(
    d2i1: D2i1, tiny_base: Path, tmp_path: Path, full: Callable[[int], None]
) -> None:
    folder = tmp_path / "run"
    command = ("warm-up", "--base", tiny_base, *WARM, *HOST, "--width", 16)
    command += ("--output_dir", folder, "--max_train_steps")
    run(*command, 1)
    sizes = {file.name: file.stat().st_size for file in (folder / "checkpoint-1").iterdir()}
    for size in (sizes["optimizer.bin"] // 2, sizes["exploitation.safetensors"] // 2, 1500):
        full(size)
        error = d2i1(*command, 2, *LATEST, code=2)
        assert f"error: {folder}: " in error and "complete files stay" in error
        left = sorted(file.name for file in folder.glob("*checkpoint*"))
        assert left == ["checkpoint-1"]
    full(resource.RLIM_INFINITY)
    run(*command, 2, *LATEST)
    assert (folder / "checkpoint-2").is_dir()


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_of_logs_prints_no_traceback(
    d2i1: D2i1, tiny_base: Path, tmp_path: Path, full: Callable[[int], None]
) -> None:
    flags = ("--report_to", "tensorboard", "--logging_steps", 1, "--checkpointing_steps", 90)
    warm = ("warm-up", "--base", tiny_base, *WARM, *HOST, "--width", 16, *flags)
    full(2500)
    error = d2i1(*warm, "--max_train_steps", 60, "--output_dir", tmp_path / "run", code=2)
    assert "complete files stay" in error and "Traceback" not in error


def test_a_full_disk_while_a_base_trains(
    d2i1: D2i1, tmp_path: Path, full: Callable[[int], None]
) -> None:
    full(50_000)
    error = d2i1("base", *BASE, "--output_dir", tmp_path / "run", code=2)
    assert f"{tmp_path / 'run'}: File too large; complete files stay" in error.splitlines()[-1]
    assert not list((tmp_path / "run/vae").iterdir())


def test_a_folder_that_cannot_be_written(d2i1: D2i1, tiny_base: Path) -> None:
    warm = ("warm-up", "--base", tiny_base, *WARM, *HOST, "--width", 16)
    for command in (warm, ("base", *BASE)):
        error = d2i1(*command, "--output_dir", "/sys/d2i1/run", code=2)  # also root cannot
        assert "/sys/d2i1" in error and "choose another --output_dir" in error


def test_too_little_memory_is_known() -> None:
    for allocate in (torch.empty, np.empty):
        with pytest.raises((RuntimeError, MemoryError)) as found:
            allocate(2**59)
        assert _is_out_of_memory(found.value)
    assert not _is_out_of_memory(RuntimeError("another"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--seed", HUGE), f"--seed {HUGE}: expected at most {MOST}"),
        (("--max_train_steps", HUGE), f"--max_train_steps {HUGE}: expected at most {MOST}"),
        (("--host_options", f"{{a: [{HUGE}]}}"), f"--host_options {HUGE}: expected at most"),
        (("--width", 10**9), "--width 1000000000: expected 1 to 65536"),
        (("--train_unet", "lora", "--rank", 10**9), "--rank 1000000000: expected 1 to 65536"),
        (("--real_batch_size", 10**9), "--real_batch_size 1000000000: expected 0 to 65536"),
        (("--learning_rate", -1), "--learning_rate -1.0: expected at least 0"),
        (("--lr_warmup_steps", -3), "--lr_warmup_steps -3: expected at least 0"),
    ],
)
def test_absurd_numbers_of_a_training(
    d2i1: D2i1, tiny_base: Path, tmp_path: Path, flags: tuple[object, ...], message: str
) -> None:
    command = ("warm-up", "--base", tiny_base, *WARM, *HOST, "--max_train_steps", 1)
    error = d2i1(*command, *flags, "--output_dir", tmp_path / "run", code=2)
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "run/pipeline").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--vae_channels", "[8000000000]"), "expected multiples of 8, at most 65536"),
        (("--unet_channels", "[16000000000]"), "expected multiples of 16, at most 65536"),
        (("--text_width", 3_200_000_000), "--text_width 3200000000: expected 32 to 65536"),
        (("--text_width", 65), "--text_width 65: expected a multiple of 32"),
        (("--text_length", 1), "--text_length 1: expected 3 to 65536"),
        (("--vocabulary", -5), "--vocabulary -5: expected at least 1"),
        (("--vae_layers", 0), "--vae_layers 0: expected 1 to 65536"),
        (("--vae_learning_rate", -1), "--vae_learning_rate -1.0: expected at least 0"),
        (("--ema_decay", 7), "--ema_decay 7.0: expected 0 to 1"),
        (("--vae_batch_size", 10**11), "--vae_batch_size 100000000000: expected 1 to 65536"),
    ],
)
def test_absurd_numbers_of_a_base(
    d2i1: D2i1, tmp_path: Path, flags: tuple[object, ...], message: str
) -> None:
    error = d2i1("base", *BASE, *flags, "--output_dir", tmp_path / "run", code=2)
    assert message in error and not (tmp_path / "run").exists()
