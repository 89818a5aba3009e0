"""Several processes: they equal one that accumulates, agree bit for bit, and end together."""

import json
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from d2i1_data.checkpoints.pipelines import open_pipeline
from d2i1_train.cli import LOST, RESUME
from d2i1_train.loop.checkpoint import BEST, Counters, complete_checkpoints, read_counters
from tests.made import contents, run
from tests.processes import run_ranks

MODES = ("none", "lora", "full")
HOST = ("--host", "light", "--width", 16, "--tasks", "normals,depth,semseg")
SIZE = (
    *("--source", "rooms:train", "--max_train_samples", 8, "--resolution", 32),
    *("--report_to", "none", "--real_batch_size", 2, "--unet_learning_rate", 1e-3),
    *("--max_grad_norm", 1e6),  # clipping would hide gradients of another scale
)
WITH = ("--denoise_weight", 0.5)
DENOISE: dict[str, tuple[object, ...]] = {"none": (), "lora": WITH, "full": WITH}
SHORT, LAST = ("--max_train_steps", 3), "checkpoint-3"
LONG = 2000  # steps that no test waits for
FEW = (
    *("--source", "rooms:train", "--max_source_samples", 4, "--resolution", 32),
    *("--num_samples", 5, "--shard_size", 2, "--num_inference_steps", 2),
)
ALONE = ("--gradient_accumulation_steps", 2)  # one process in the place of two
MODULE = ("-m", "d2i1_train.cli")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2)
END = 60  # seconds that the others may take to end once a process is gone

OBSERVER = """
import sys
from safetensors.torch import save_file
from d2i1_train import self_improve, warm_up
from d2i1_train.cli import main
from d2i1_train.loop.finish import finish
from d2i1_train.theta import trained_tensors

def observed(run, *arguments):
    rank, own = run.accelerator.process_index, run.thetas["exploitation"]
    for name, theta in run.thetas.items():
        tensors = {k: t.contiguous() for k, t in trained_tensors(theta, own).items()}
        save_file(tensors, run.folder / f"rank{rank}-{name}.safetensors")
    return finish(run, *arguments)

warm_up.finish = self_improve.finish = observed
sys.exit(main())
"""  # the library saves the first rank's weights only


def start(*command: object, log: Path, **environment: object) -> psutil.Popen:
    """Begin a command whose processes have one thread each; what it prints goes to a file."""
    own = {name: str(value) for name, value in environment.items()}
    whole = {**os.environ, **own}
    with log.open("wb") as file:
        line = [str(part) for part in command]
        return psutil.Popen(line, env=whole, stdout=file, stderr=file)


def end(processes: list[psutil.Process]) -> None:
    """Leave nothing of ours behind, however a test went."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            for one in (*process.children(recursive=True), process):
                one.kill()
    psutil.wait_procs(processes, timeout=END)


def wait_for(sign: Path, process: psutil.Popen, log: Path) -> None:
    """Return once a file is there; the process must not have ended before."""
    limit = time.monotonic() + 200
    while not sign.exists():
        assert process.poll() is None and time.monotonic() < limit, log.read_text()
        time.sleep(0.01)


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one and one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def assert_same_training(one: Path, other: Path) -> None:
    """Two checkpoints hold the same weights and moments of the optimiser, rounding included.

    What two processes average, and what two micro-batches sum, is divided by two: that is exact.
    """
    names = sorted(file.name for file in one.glob("*.safetensors"))
    assert "exploitation.safetensors" in names
    for name in names:
        assert equal(load_file(one / name), load_file(other / name)), name
    files = [folder / "optimizer.bin" for folder in (one, other)]
    states = [torch.load(file, weights_only=True)["state"] for file in files]
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


@pytest.fixture(scope="module")
def lone(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with warm-ups in one process, by what of the U-Net they train, and `created/`."""
    folder = tmp_path_factory.mktemp("lone")
    for mode in MODES:
        run(*warm_up(mode, tiny_base), *ALONE, *SHORT, "--output_dir", folder / mode)
    run("create", "--pipeline", folder / "none/pipeline", *FEW, "--output_dir", folder / "created")
    return folder


@pytest.fixture(scope="module")
def observer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A script that is `d2i1`, and saves every rank's weights after the last step."""
    script = tmp_path_factory.mktemp("observer") / "observer.py"
    script.write_text(OBSERVER)
    return script


def warm_up(mode: str, base: Path) -> tuple[object, ...]:
    """The command of a warm-up that trains so much of the U-Net, and denoises if it can."""
    return ("warm-up", "--base", base, "--train_unet", mode, *HOST, *SIZE, *DENOISE[mode])


def test_warm_up_equals_one_process(
    tiny_base: Path, lone: Path, observer: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "two"
    command = (*warm_up("none", tiny_base), *SHORT, "--output_dir", folder)
    run_ranks(observer, *command, log=tmp_path / "log.txt")
    assert_same_training(folder / LAST, lone / "none" / LAST)
    assert_ranks_agree(folder, "exploitation")


def test_the_best_checkpoint_equals_that_of_one_process(
    tiny_base: Path, observer: Path, tmp_path: Path
) -> None:
    """One process scores, both save their part."""
    best = ("--validation_source", "rooms:val", "--num_validation_samples", 2)
    best += ("--validation_steps", 1, "--best_metric", "depth.abs_rel", "--learning_rate", 3)
    command = (*warm_up("none", tiny_base), *SHORT, *best, "--output_dir")
    one, two = tmp_path / "one", tmp_path / "two"
    run(*command, one, *ALONE)
    run_ranks(observer, *command, two, log=tmp_path / "log.txt")
    assert_same_training(two / BEST, one / BEST)
    names = ("best.json", "counters.json")
    assert all(
        (two / BEST / name).read_bytes() == (one / BEST / name).read_bytes() for name in names
    )
    assert {"random_states_0.pkl", "random_states_1.pkl"} <= {*contents(two / BEST)}


@pytest.mark.parametrize("mode", MODES)
def test_self_improving_equals_one_process(
    mode: str, lone: Path, observer: Path, tmp_path: Path
) -> None:
    inputs = ("--pipeline", lone / mode / "pipeline", "--created", lone / "created")
    command = ("self-improve", *inputs, "--follow_every", 8, *SIZE, *SHORT, *DENOISE[mode])
    one, two = tmp_path / "one", tmp_path / "two"
    run(*command, *ALONE, "--output_dir", one)
    run_ranks(observer, *command, "--output_dir", two, log=tmp_path / "log.txt")
    assert_same_training(two / LAST, one / LAST)
    assert_ranks_agree(two, "exploitation", "creation")
    begun = load_file(lone / mode / LAST / "exploitation.safetensors")
    for name in ("exploitation", "creation"):
        assert not equal(load_file(two / LAST / f"{name}.safetensors"), begun), name
    counters = [read_counters(folder / LAST) for folder in (one, two)]
    assert counters == [Counters(step=3, consumed=24, followed=3)] * 2


def test_a_killed_process_ends_the_run_which_resumes(tiny_base: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "run", tmp_path / "log.txt"
    command = (*warm_up("lora", tiny_base), "--checkpointing_steps", 2, "--max_train_steps")
    output = ("--output_dir", folder)
    launcher = start(*TORCHRUN, *MODULE, *command, LONG, *output, log=log)
    workers: list[psutil.Process] = []
    try:
        wait_for(folder / "checkpoint-4", launcher, log)
        workers = launcher.children(recursive=True)
        (second,) = [worker for worker in workers if worker.environ().get("LOCAL_RANK") == "1"]
        second.kill()
        assert launcher.wait(END) > 0
        assert psutil.wait_procs(workers, timeout=10)[1] == []
    finally:
        end([launcher, *workers])
    assert f"Signal 9 (SIGKILL) received by PID {second.pid}" in log.read_text()
    assert not (folder / "pipeline").exists()

    steps = int(complete_checkpoints(folder)[-1].name.removeprefix("checkpoint-")) + 2
    assert 6 <= steps < LONG
    latest = ("--resume_from_checkpoint", "latest")
    run_ranks(*MODULE, *command, steps, *output, *latest, log=log)
    assert len(open_pipeline(str(folder / "pipeline")).perception.families) == 3
    run(*command, steps, *ALONE, "--output_dir", tmp_path / "whole")
    last = f"checkpoint-{steps}"
    assert_same_training(folder / last, tmp_path / "whole" / last)


def test_a_process_tells_that_another_is_lost(tiny_base: Path, tmp_path: Path) -> None:
    with socket.socket() as free:  # torchrun would end the other before it can tell: there is none
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    often = (
        "--checkpointing_steps",
        2,
        "--max_train_steps",
        LONG,
        "--output_dir",
        tmp_path / "run",
    )
    command = (sys.executable, *MODULE, *warm_up("full", tiny_base), *often)
    place = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": 2,
        "LOCAL_WORLD_SIZE": 2,
    }
    logs = [tmp_path / f"log-{rank}.txt" for rank in (0, 1)]
    processes: list[psutil.Popen] = []
    try:
        for rank, log in enumerate(logs):
            processes.append(start(*command, log=log, RANK=rank, LOCAL_RANK=rank, **place))
        wait_for(tmp_path / "run/checkpoint-2", processes[0], logs[0])
        processes[1].kill()
        assert processes[0].wait(END) == 1
    finally:
        end(processes)
    message = logs[0].read_text()
    assert f"d2i1 warm-up: error: {LOST.format(RESUME)} (" in message and "Traceback" not in message


def test_two_processes_evaluate_to_the_same_figures(lone: Path, tmp_path: Path) -> None:
    source = ("--source", "rooms:test", "--max_samples", 5, "--crop", "2:64,0:50")
    common = ("evaluate", "--pipeline", lone / "none/pipeline", *source, "--farthest", 3)
    for average in ("pixels", "images"):
        one, two = tmp_path / f"one-{average}", tmp_path / f"two-{average}"
        drawn = ("--average", average, "--sparsification")
        run(*common, *drawn, one / "curves.png", "--output_file", one / "figures.json")
        command = (*common, *drawn, two / "curves.png", "--output_file", two / "figures.json")
        run_ranks(*MODULE, *command, log=tmp_path / "log.txt")
        figures, other = (json.loads((at / "figures.json").read_text()) for at in (one, two))
        for name, values in figures["tasks"].items():
            assert other["tasks"][name] == pytest.approx(values, rel=1e-4, abs=1e-4), name
            curves, others = (each["sparsification"][name] for each in (figures, other))
            for key, value in curves.items():
                assert others[key] == pytest.approx(value, rel=1e-3, abs=1e-4), (name, key)
        assert (two / "curves.png").is_file()


def test_two_processes_create_the_same_bytes(lone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "created"  # the card tells the folder's name
    command = ("create", "--pipeline", lone / "none/pipeline", *FEW, "--output_dir", folder)
    run_ranks(*MODULE, *command, log=tmp_path / "log.txt")
    one, two = contents(lone / "created"), contents(folder)
    assert one.keys() == two.keys() and len([name for name in one if "parquet" in name]) == 3
    assert [name for name in one if one[name] != two[name]] == []
