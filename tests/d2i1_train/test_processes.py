"""Several processes: they equal one that accumulates, agree bit for bit, and end together."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from d2i1_data.loading import open_pipeline
from d2i1_train.checkpoint import complete_checkpoints
from d2i1_train.cli import LOST, main

ROOMS = (
    *("--source", "rooms:train", "--max_train_samples", 8, "--resolution", 32),
    *("--report_to", "none", "--real_batch_size", 2),
)
HOST = ("--host", "light", "--width", 16, "--tasks", "normals,depth,semseg", "--rank", 4)
SIZE = (
    *("--max_train_steps", 3, "--unet_learning_rate", 1e-3),
    *("--max_grad_norm", 1e6),  # clipping would hide gradients of another scale
)
FEW = (
    *("--source", "rooms:train", "--max_source_samples", 4, "--resolution", 32),
    *("--num_samples", 5, "--shard_size", 2, "--num_inference_steps", 2),
)
LAST = "checkpoint-3"
ALONE = ("--gradient_accumulation_steps", 2)  # one process in the place of two
MODULE = ("-m", "d2i1_train.cli")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2)
END = 60  # seconds that the others may take to end once a process is gone

# Runs one act after another, to begin processes only once, and saves each rank's own weights
# where the library saves those of the first.
OBSERVER = """
import importlib, json, sys
from pathlib import Path
from safetensors.torch import save_file
from d2i1_train.cli import ACTS, main, read_settings
from d2i1_train.run import Run
from d2i1_train.theta import trained_tensors

finish = Run.finish

def observed(run, *arguments):
    rank, own = run.accelerator.process_index, run.thetas["exploitation"]
    for name, theta in run.thetas.items():
        tensors = {k: t.contiguous() for k, t in trained_tensors(theta, own).items()}
        save_file(tensors, run.folder / f"rank{rank}-{name}.safetensors")
    return finish(run, *arguments)

Run.finish = observed
*earlier, last = json.loads(sys.argv[1])
for act, *arguments in earlier:
    module, function = ACTS[act][0].split(":")
    getattr(importlib.import_module(module), function)(read_settings(act, arguments))
sys.exit(main(last))
"""


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def texts(command: tuple[object, ...]) -> list[str]:
    return [str(part) for part in command]


def start(*command: object, told: Path, **environment: object) -> psutil.Popen:
    """Begin a command whose processes have one thread each; what it prints goes to a file."""
    one_thread = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    environment = {**os.environ, **one_thread, **{k: str(v) for k, v in environment.items()}}
    with told.open("wb") as file:
        return psutil.Popen(texts(command), env=environment, stdout=file, stderr=file)


def end(processes: list[psutil.Process]) -> None:
    """Leave nothing of ours behind, however a test went."""
    alive = [process for process in processes if process.is_running()]
    for process in [*alive, *(child for one in alive for child in one.children(recursive=True))]:
        process.kill()
    psutil.wait_procs(alive, timeout=END)


def run_two(*command: object, told: Path, **environment: object) -> None:
    """Run a script or module in two processes; both must succeed."""
    launcher = start(*TORCHRUN, *command, told=told, **environment)
    try:
        assert launcher.wait(200) == 0, told.read_text()
    finally:
        end([launcher])


def wait_for(sign: Path, process: psutil.Popen, told: Path) -> None:
    """Return once a file is there; the process must not have ended before."""
    limit = time.monotonic() + 200
    while not sign.exists():
        assert process.poll() is None and time.monotonic() < limit, told.read_text()
        time.sleep(0.01)


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one and one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def assert_same_training(one: Path, other: Path, *names: str) -> None:
    """Weights and moments of the optimiser after the last step of two runs are the same.

    Even their rounding is: what two processes average, and what two micro-batches sum, is divided
    by two, which is exact.
    """
    for name in names:
        file = f"{LAST}/{name}.safetensors"
        assert equal(load_file(one / file), load_file(other / file)), name
    file = f"{LAST}/optimizer.bin"
    states = [torch.load(folder / file, weights_only=True)["state"] for folder in (one, other)]
    assert states[0] and states[0].keys() == states[1].keys()
    for key, state in states[0].items():  # weights alone would not tell a sum from a mean
        assert equal(state, states[1][key]), key


def assert_ranks_agree(folder: Path, *names: str) -> None:
    """Both processes have the weights that the first one saved, bit for bit."""
    for name in names:
        saved = load_file(folder / LAST / f"{name}.safetensors")
        for rank in (0, 1):
            own = load_file(folder / f"rank{rank}-{name}.safetensors")
            assert equal(own, saved), (rank, name)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Sums round as in the launched processes, which have one thread each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def lone(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `warm/`, a warm-up in one process, and `created/`, a dataset from it."""
    folder = tmp_path_factory.mktemp("lone")
    run(*warm_up("none", tiny_base), "--output_dir", folder / "warm")
    run("create", "--pipeline", folder / "warm/pipeline", *FEW, "--output_dir", folder / "created")
    return folder


@pytest.fixture(scope="module", params=["none", "lora", "full"])
def mode(request: pytest.FixtureRequest) -> str:
    """What of the U-Net is trained."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def two(mode: str, tiny_base: Path, lone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both stages in two processes: `warm/` and `improved/`, from that."""
    folder = tmp_path_factory.mktemp(f"two-{mode}")
    (folder / "observer.py").write_text(OBSERVER)
    stages = [
        texts((*warm_up(mode, tiny_base), "--output_dir", folder / "warm")),
        texts((*improve(mode, folder / "warm", lone), "--output_dir", folder / "improved")),
    ]
    told = folder / "told.txt"
    run_two(folder / "observer.py", json.dumps(stages), told=told, ACCELERATE_USE_CPU="true")
    return folder


def warm_up(mode: str, base: Path) -> tuple[object, ...]:
    """The command of a warm-up that trains so much of the U-Net."""
    return ("warm-up", "--base", base, "--train_unet", mode, *HOST, *ROOMS, *SIZE, *denoise(mode))


def improve(mode: str, warm: Path, lone: Path) -> tuple[object, ...]:
    """The command of self-improving a warm-up; theta_C follows once a step."""
    inputs = ("--pipeline", warm / "pipeline", "--created", lone / "created")
    return ("self-improve", *inputs, "--follow_every", 8, *ROOMS, *SIZE, *denoise(mode))


def denoise(mode: str) -> tuple[object, ...]:
    """Denoise too, where that is possible."""
    return () if mode == "none" else ("--denoise_weight", 0.5)


def test_warm_up_equals_one_process(mode: str, two: Path, tiny_base: Path, tmp_path: Path) -> None:
    run(*warm_up(mode, tiny_base), *ALONE, "--output_dir", tmp_path / "one")
    assert_same_training(two / "warm", tmp_path / "one", "exploitation")
    assert_ranks_agree(two / "warm", "exploitation")


def test_self_improving_equals_one_process(
    mode: str, two: Path, lone: Path, tmp_path: Path
) -> None:
    one, both = tmp_path / "one", ("exploitation", "creation")
    run(*improve(mode, two / "warm", lone), *ALONE, "--output_dir", one)
    assert_same_training(two / "improved", one, *both)
    assert_ranks_agree(two / "improved", *both)
    begun = load_file(two / "warm" / LAST / "exploitation.safetensors")
    for name in both:
        assert not equal(load_file(two / "improved" / LAST / f"{name}.safetensors"), begun), name
    counters = [
        json.loads((f / LAST / "counters.json").read_text()) for f in (two / "improved", one)
    ]
    assert counters == [{"step": 3, "consumed": 24, "followed": 3}] * 2


def long_warm_up(base: Path, folder: Path) -> tuple[object, ...]:
    """A warm-up with many checkpoints; how long it is comes after it."""
    often = ("--checkpointing_steps", 2, "--output_dir", folder, "--max_train_steps")
    return (*MODULE, "warm-up", "--base", base, *HOST, *ROOMS, *often)


def test_a_killed_process_ends_the_run_which_resumes(tiny_base: Path, tmp_path: Path) -> None:
    folder, told = tmp_path / "run", tmp_path / "told.txt"
    command = long_warm_up(tiny_base, folder)
    launcher = start(*TORCHRUN, *command, 2000, told=told)
    workers: list[psutil.Process] = []
    try:
        wait_for(folder / "checkpoint-4", launcher, told)
        workers = launcher.children(recursive=True)
        (second,) = [worker for worker in workers if worker.environ().get("LOCAL_RANK") == "1"]
        second.kill()
        assert launcher.wait(END) > 0
        assert psutil.wait_procs(workers, timeout=10)[1] == []
    finally:
        end([launcher, *workers])
    assert f"Signal 9 (SIGKILL) received by PID {second.pid}" in told.read_text()
    assert not (folder / "pipeline").exists()

    newest = int(complete_checkpoints(folder)[-1].name.removeprefix("checkpoint-"))
    assert 4 <= newest < 1998
    run_two(*command, newest + 2, "--resume_from_checkpoint", "latest", told=told)
    counters = json.loads((folder / f"checkpoint-{newest + 2}/counters.json").read_text())
    assert counters == {"step": newest + 2}
    families = open_pipeline(str(folder / "pipeline")).perception.families
    assert sorted(families) == ["depth", "normals", "semseg"]


@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_tells_that_another_is_lost(tiny_base: Path, tmp_path: Path, killed: int) -> None:
    with socket.socket() as free:  # torchrun would end the other before it can tell: there is none
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = (sys.executable, *long_warm_up(tiny_base, tmp_path / "run"), 2000)
    place = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": 2,
        "LOCAL_WORLD_SIZE": 2,
    }
    tolds = [tmp_path / f"told-{rank}.txt" for rank in (0, 1)]
    processes = [
        start(*command, told=told, RANK=rank, LOCAL_RANK=rank, **place)
        for rank, told in enumerate(tolds)
    ]
    left = 1 - killed
    try:
        wait_for(tmp_path / "run/checkpoint-2", processes[left], tolds[left])
        processes[killed].kill()
        assert processes[left].wait(END) == 1
    finally:
        end(processes)
    message = tolds[left].read_text()
    assert f"d2i1 warm-up: error: {LOST} (" in message and "Traceback" not in message


def test_two_processes_create_the_same_bytes(lone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "created"  # the card tells the folder's name
    command = ("create", "--pipeline", lone / "warm/pipeline", *FEW, "--output_dir", folder)
    run_two(*MODULE, *command, told=tmp_path / "told.txt")
    one, two = (
        {f.relative_to(d).as_posix(): f.read_bytes() for f in d.rglob("*") if f.is_file()}
        for d in (lone / "created", folder)
    )
    assert one.keys() == two.keys() and len([name for name in one if "parquet" in name]) == 3
    assert [name for name in one if one[name] != two[name]] == []
