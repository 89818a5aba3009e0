"""Several processes: they equal one that accumulates, agree bit for bit, and end together."""

import json
import os
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
DENOISE = ("--denoise_weight", 0.5)
FEW = (
    *("--source", "rooms:train", "--max_source_samples", 4, "--resolution", 32),
    *("--num_samples", 5, "--shard_size", 2, "--num_inference_steps", 2),
)
ALONE = ("--gradient_accumulation_steps", 2)  # one process in the place of two
END = 60  # seconds a launcher may take to end once a process of its is gone

OBSERVER = """
import os, sys
from pathlib import Path
from safetensors.torch import save_file
from d2i1_train.cli import main
from d2i1_train.run import Run
from d2i1_train.theta import trained_tensors

finish = Run.finish

def observed(run, *arguments):
    rank, own = run.accelerator.process_index, run.thetas["exploitation"]
    for name, theta in run.thetas.items():
        tensors = {k: t.contiguous() for k, t in trained_tensors(theta, own).items()}
        save_file(tensors, Path(os.environ["OBSERVED"]) / f"rank{rank}-{name}.safetensors")
    return finish(run, *arguments)

Run.finish = observed
sys.exit(main(sys.argv[1:]))
"""


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def start(*command: object, told: Path, **environment: object) -> subprocess.Popen[bytes]:
    """Begin a script or module in two processes; what they print goes to a file."""
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    line = (*launcher, "--nproc_per_node", 2, *command)
    one_thread = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    more = {name: str(value) for name, value in environment.items()}
    told.parent.mkdir(parents=True, exist_ok=True)
    with told.open("wb") as file:
        return subprocess.Popen(
            [str(part) for part in line],
            env={**os.environ, **one_thread, **more},
            stdout=file,
            stderr=file,
        )


def end(launcher: subprocess.Popen[bytes], workers: list[psutil.Process]) -> None:
    """Leave nothing behind, however a test went."""
    if launcher.poll() is None:
        workers = [*workers, *psutil.Process(launcher.pid).children(recursive=True)]
        launcher.kill()
        launcher.wait()
    for worker in workers:
        if worker.is_running():  # compares the time it began, so it is no other of that number
            worker.kill()


def run_two(*command: object, told: Path, **environment: object) -> None:
    """Run a script or module in two processes; both must succeed."""
    launcher = start(*command, told=told, **environment)
    try:
        assert launcher.wait(200) == 0, told.read_text()
    finally:
        end(launcher, [])


def tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """The trained tensors of theta_E (`exploitation`) or theta_C (`creation`) in a folder."""
    return load_file(folder / f"{name}.safetensors")


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys() and one
    return all(torch.equal(one[name], other[name]) for name in one)


def assert_rounding(one: dict[str, Tensor], other: dict[str, Tensor], of: str) -> None:
    """AdamW divides by the gradient's size, so that of a vanishing one is all rounding."""
    assert one.keys() == other.keys()
    difference = torch.cat([(one[name] - other[name]).abs().flatten() for name in one])
    share = (difference > 1e-5).double().mean()
    print(f"{of}: differs by at most {difference.max():.2e}, more than 1e-5 in {share:.3%}")
    assert difference.max() < 1e-4 and share < 1e-3


def assert_same_training(one: Path, other: Path, of: str) -> None:
    """The last checkpoints of two runs differ by rounding, moments of the optimiser included."""
    one, other = one / "checkpoint-3", other / "checkpoint-3"
    names = sorted(file.stem for file in one.glob("*.safetensors"))
    assert "exploitation" in names
    for name in names:
        assert_rounding(tensors(one, name), tensors(other, name), f"{of}, {name}")
    states = [torch.load(f / "optimizer.bin", weights_only=True)["state"] for f in (one, other)]
    assert states[0].keys() == states[1].keys() and states[0]
    for key, moments in states[0].items():  # weights alone would not tell a sum from a mean
        again = states[1][key]["exp_avg"]
        torch.testing.assert_close(moments["exp_avg"], again, atol=1e-4, rtol=1e-3)


def assert_ranks_agree(folder: Path, *names: str) -> None:
    """Every process has the weights, bit for bit, that the first one saved."""
    for name in names:
        saved = tensors(folder / "checkpoint-3", name)
        for rank in (0, 1):
            assert equal(tensors(folder.parent, f"rank{rank}-{name}"), saved), (rank, name)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Sums round as in the launched processes, which have one thread each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def observe(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Run an act in two processes that also save their own weights beside its folder."""
    script = tmp_path_factory.mktemp("observer") / "observer.py"
    script.write_text(OBSERVER)

    def observe(folder: Path, *command: object) -> Path:
        told = folder.parent / "told.txt"
        run_two(script, *command, "--output_dir", folder, told=told, OBSERVED=folder.parent)
        return folder

    return observe


def warm_up_of(mode: str, base: Path) -> tuple[object, ...]:
    """The command of a warm-up that trains so much of the U-Net."""
    denoise = () if mode == "none" else DENOISE
    return ("warm-up", "--base", base, *ROOMS, *HOST, *SIZE, "--train_unet", mode, *denoise)


@pytest.fixture(scope="module", params=["none", "lora", "full"])
def mode(request: pytest.FixtureRequest) -> str:
    """What of the U-Net is trained."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def warm(
    mode: str,
    tiny_base: Path,
    observe: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A warm-up in two processes."""
    return observe(tmp_path_factory.mktemp(f"warm-{mode}") / "two", *warm_up_of(mode, tiny_base))


@pytest.fixture(scope="module")
def lone(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `warm/`, a warm-up in one process, and `created/`, a dataset from it."""
    folder = tmp_path_factory.mktemp("lone")
    run(*warm_up_of("none", tiny_base), "--output_dir", folder / "warm")
    run("create", "--pipeline", folder / "warm/pipeline", *FEW, "--output_dir", folder / "created")
    return folder


def test_warm_up_equals_one_process(mode: str, warm: Path, tiny_base: Path, tmp_path: Path) -> None:
    run(*warm_up_of(mode, tiny_base), *ALONE, "--output_dir", tmp_path / "one")
    assert_same_training(warm, tmp_path / "one", f"warm-up {mode}")
    assert_ranks_agree(warm, "exploitation")


def test_self_improving_equals_one_process(
    mode: str, warm: Path, lone: Path, observe: Callable[..., Path], tmp_path: Path
) -> None:
    inputs = ("--pipeline", warm / "pipeline", "--created", lone / "created", *ROOMS, *SIZE)
    command = ("self-improve", *inputs, "--follow_every", 8, *(() if mode == "none" else DENOISE))
    two = observe(tmp_path / "two", *command)
    run(*command, *ALONE, "--output_dir", tmp_path / "one")
    assert_same_training(two, tmp_path / "one", f"self-improve {mode}")
    assert_ranks_agree(two, "exploitation", "creation")
    before = tensors(warm / "checkpoint-3", "exploitation")
    for name in ("exploitation", "creation"):
        assert not equal(tensors(two / "checkpoint-3", name), before), name
    counters = json.loads((two / "checkpoint-3/counters.json").read_text())
    assert counters == {"step": 3, "consumed": 24, "followed": 3}
    assert counters == json.loads((tmp_path / "one/checkpoint-3/counters.json").read_text())


def test_a_killed_process_ends_the_run_which_resumes(tiny_base: Path, tmp_path: Path) -> None:
    folder, told = tmp_path / "run", tmp_path / "told.txt"
    command = ("warm-up", "--base", tiny_base, *ROOMS, *HOST, "--checkpointing_steps", 2)
    command = ("-m", "d2i1_train.cli", *command, "--output_dir", folder, "--max_train_steps")
    launcher, workers = start(*command, 2000, told=told), list[psutil.Process]()
    try:
        limit = time.monotonic() + 200
        while not (folder / "checkpoint-4").exists():
            assert launcher.poll() is None and time.monotonic() < limit, told.read_text()
            time.sleep(0.01)
        workers = psutil.Process(launcher.pid).children(recursive=True)
        (second,) = [w for w in workers if w.environ().get("LOCAL_RANK") == "1"]
        second.kill()
        assert launcher.wait(END) != 0
        _, left = psutil.wait_procs(workers, timeout=10)
        assert left == []
    finally:
        end(launcher, workers)
    message = told.read_text()
    assert LOST in message and "Traceback" not in message.split("torch.distributed.elastic")[0]
    assert "SIGKILL" in message and "rank      : 1 (local_rank: 1)" in message
    assert not (folder / "pipeline").exists()

    newest = int(complete_checkpoints(folder)[-1].name.removeprefix("checkpoint-"))
    assert 4 <= newest < 1998
    latest = ("--resume_from_checkpoint", "latest")
    run_two(*command, newest + 2, *latest, told=told)
    counters = json.loads((folder / f"checkpoint-{newest + 2}/counters.json").read_text())
    assert counters == {"step": newest + 2}
    assert sorted(open_pipeline(str(folder / "pipeline")).perception.families) == [
        *("depth", "normals", "semseg")
    ]


def test_two_processes_create_the_same_bytes(lone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "created"  # the card tells the folder's name
    command = ("create", "--pipeline", lone / "warm/pipeline", *FEW, "--output_dir", folder)
    run_two("-m", "d2i1_train.cli", *command, told=tmp_path / "told.txt")
    one, two = (
        {f.relative_to(d).as_posix(): f.read_bytes() for f in d.rglob("*") if f.is_file()}
        for d in (lone / "created", folder)
    )
    assert one.keys() == two.keys() and len([n for n in one if n.endswith(".parquet")]) == 3
    assert [name for name in one if one[name] != two[name]] == []
