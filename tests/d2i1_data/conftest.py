"""A tiny trained pipeline, and datasets created with it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.made import SEVEN, run

TASKS = ("normals", "depth", "semseg")


@pytest.fixture(scope="session")
def pipeline(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a warm-up of one step gives."""
    folder = tmp_path_factory.mktemp("create") / "warm"
    source = ("--source", "rooms:train", "--max_train_samples", 2, "--resolution", 32)
    host = ("--host", "light", "--width", 16, "--tasks", ",".join(TASKS), "--report_to", "none")
    size = ("--max_train_steps", 1, "--real_batch_size", 2)
    run("warm-up", "--base", tiny_base, *source, *host, *size, "--output_dir", folder)
    return folder / "pipeline"


@pytest.fixture(scope="session")
def create(pipeline: Path) -> Callable[..., Path]:
    """Create seven samples from three rooms in shards of three; the folder."""

    def create(folder: Path, *flags: object) -> Path:
        run("create", "--pipeline", pipeline, *SEVEN, "--output_dir", folder, *flags)
        return folder

    return create
