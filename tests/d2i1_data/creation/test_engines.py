"""Who makes the shards changes nothing: one process or several, Ray, killed at any time."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch

from tests.made import run, shards

SIZE = (
    *("--source", "rooms:train", "--max_source_samples", 4, "--resolution", 32, "--threads", 1),
    *("--num_samples", 24, "--shard_size", 3, "--batch_size", 2, "--num_inference_steps", 4),
    *("--ways", '[{share: 2}, {strength: [0.3, 1], prompt: "{recombined}, {caption}"}]'),
)
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


@pytest.fixture(scope="module")
def whole(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes in one go."""
    folder = tmp_path_factory.mktemp("engines") / "whole"
    run("create", "--pipeline", pipeline, *SIZE, "--output_dir", folder)
    return folder


def start(*arguments: object) -> psutil.Popen:
    line = [sys.executable, *map(str, arguments)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return psutil.Popen(line, start_new_session=True, **pipes)


def kill(process: psutil.Popen) -> None:
    """A process with all it started, at once."""
    with suppress(psutil.NoSuchProcess):
        family = [process, *process.children(recursive=True)]
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGKILL)
        psutil.wait_procs(family, timeout=30)


def test_killed_at_random_moments_two_processes_lose_nothing(
    pipeline: Path, whole: Path, tmp_path: Path
) -> None:
    folder, rng = tmp_path / "made", random.Random(0)
    command = ("-m", "d2i1_train.cli", "create", "--pipeline", pipeline, *SIZE)
    finished: dict[str, int] = {}
    for attempt in range(3):
        process = start(*TORCHRUN, *command, "--output_dir", folder)
        begin = time.monotonic()
        while process.poll() is None and time.monotonic() - begin < 120:
            if attempt < 2 and len(shards_at(folder)) >= len(finished) + 1:
                time.sleep(rng.uniform(0, 0.4))
                break
            time.sleep(0.02)
        killed = process.poll() is None
        kill(process)
        now = shards_at(folder)
        assert finished.items() <= now.items(), "a finished shard was made again"
        finished = now
        if not killed:
            break
    assert process.returncode == 0, process.stderr.read().decode()[-2000:]
    assert attempt == 2  # it was killed twice
    assert shards(folder) == shards(whole)
    assert not list(folder.rglob("*.tmp"))


def shards_at(folder: Path) -> dict[str, int]:
    """When each finished shard was written."""
    return {file.name: file.stat().st_mtime_ns for file in (folder / "data").glob("*.parquet")}


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """A Ray cluster of two CPUs."""
    ray = pytest.importorskip("ray")
    one_thread = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    environment = {"env_vars": {**one_thread, "PYTHONPATH": os.pathsep.join(sys.path)}}
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("ray")
def test_ray_gives_the_same_rows(pipeline: Path, whole: Path, tmp_path: Path) -> None:
    more = ("--engine", "ray", "--workers", 2, "--output_dir", tmp_path / "made")
    run("create", "--pipeline", pipeline, *SIZE, *more)
    assert shards(tmp_path / "made") == shards(whole)
    workers = Counter(file.name for file in (tmp_path / "made/logs").iterdir())
    assert len(workers) == 2


@pytest.mark.parametrize("deaths", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("ray")
def test_ray_takes_over_from_the_dead(
    pipeline: Path, whole: Path, tmp_path: Path, d2i1: Callable[..., str], deaths: int
) -> None:
    folder = tmp_path / "made"
    killer = threading.Thread(target=kill_at, args=(folder / "data", 3, deaths))
    killer.start()
    command = ("create", "--pipeline", pipeline, *SIZE, "--engine", "ray", "--workers", 1)
    output = d2i1(*command, "--output_dir", folder, code=0 if deaths < 3 else 2)
    killer.join(timeout=10)
    assert not killer.is_alive()
    if deaths < 3:
        assert shards(folder) == shards(whole)
    else:  # it is given up, and nothing else
        assert "1 shards are left out because 3 workers died at each" in output
        assert len(shards(folder)) == 7 and shards(folder).items() <= shards(whole).items()


def kill_at(folder: Path, shard: int, deaths: int) -> None:
    """Kill Ray's workers a number of times while they make a shard."""
    begin = time.monotonic()
    while deaths and time.monotonic() - begin < 200:
        time.sleep(0.002)
        if found := list(folder.glob(f".train-{shard:05d}.*.tmp")):
            actors = [p for p in psutil.process_iter() if p.name().startswith("ray::RayWorker")]
            for actor in actors:
                actor.kill()
            psutil.wait_procs(actors, timeout=10)
            for file in found:
                file.unlink(missing_ok=True)
            deaths -= 1


@pytest.fixture
def threads() -> Iterator[None]:
    """Commands of a test may change the number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("ray", "threads")
def test_ray_needs_room(pipeline: Path, tmp_path: Path, d2i1: Callable[..., str]) -> None:
    command = ("create", "--pipeline", pipeline, *SIZE, "--threads", 3, "--engine", "ray")
    output = d2i1(*command, "--output_dir", tmp_path / "made", code=2)
    assert "a worker has 3 threads, but the largest node has 2 CPUs" in output
