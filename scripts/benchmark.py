"""Measure memory and speed at full size, for docs/benchmarks.md.

python scripts/random_base.py runs/random-v1-5     # only if the real v1-5 is not available
python scripts/benchmark.py memory --base runs/random-v1-5
python scripts/benchmark.py speed --base runs/random-v1-5 --mixed_precision bf16 --host bae
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from d2i1_data.checkpoints.bases import find_base
from d2i1_data.diff2in1 import HOSTS, Diff2in1Pipeline
from d2i1_data.sources import open_rows
from d2i1_data.tasks import TASKS
from d2i1_train import self_improve, warm_up
from d2i1_train.loop.augment import Augmentation
from d2i1_train.loop.batches import stack
from d2i1_train.loop.cache import Cache
from d2i1_train.loop.examples import Examples
from d2i1_train.loop.run import Run
from d2i1_train.settings import WarmUpSettings
from d2i1_train.warm_up import choose_tasks, mount

LEARN = {"warm-up": warm_up.learn, "self-improve": self_improve.learn}  # with 1 and 2 samples
MODES = ("none", "lora", "full")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
PREDICT = """
import sys, numpy as np
from d2i1_data import Diff2in1Pipeline
pipe = Diff2in1Pipeline.from_pretrained(sys.argv[1])
pipe.predict(np.zeros((512, 512, 3), np.uint8))
"""


def main() -> None:
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("memory", "speed", "step"))
    parser.add_argument("--base", default="stable-diffusion-v1-5/stable-diffusion-v1-5")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--mixed_precision", choices=("no", "bf16", "fp16"), default="no")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--host", choices=list(HOSTS), default=next(iter(HOSTS)))
    parser.add_argument("--train_unet", choices=MODES, default="lora", help="only for `step`")
    parser.add_argument("--gradient_checkpointing", action="store_true", help="only for `step`")
    options = parser.parse_args()
    if options.what == "memory":
        memory(options.base, options.output_dir)
    elif options.what == "speed":
        speed(options)
    else:
        checkpointing = options.gradient_checkpointing
        with training("warm-up", options.train_unet, checkpointing, options) as step:
            # on Linux this resets the peak, so that it is the peak of the step
            Path("/proc/self/clear_refs").write_text("5")
            step()


# --- memory: the commands as a user types them ---


def memory(base: str, folder: Path) -> None:
    """Print the peak CPU memory of each command at full size, with 2 steps each."""
    print("| command | seconds | peak GiB |\n|---|---|---|", flush=True)
    shared = "--config rooms --max_train_samples 1 --random_flip false --max_train_steps 2"
    shared += " --real_batch_size 1 --report_to none"
    for mode in ("none", "lora"):
        for size, more in ((256, ""), (512, " --gradient_checkpointing")):
            run = folder / f"{mode}-{size}"
            line = f"--train_unet {mode} --resolution {size}{more}"
            act = ["-m", "d2i1_train", "warm-up", *line.split()]
            _row(f"warm-up {line}", *act, *shared.split(), f"--base={base}", f"--output_dir={run}")
            if (mode, size) != ("lora", 512):
                shutil.rmtree(run)  # it has gigabytes
    pipeline = folder / "lora-512" / "pipeline"
    line = "create --resolution 512 --num_samples 1 --num_inference_steps 2"
    where = (f"--pipeline={pipeline}", "--source=rooms:train", f"--output_dir={folder / 'created'}")
    _row(line, "-m", "d2i1_train", *line.split(), *where)
    _row("from_pretrained, predict at 512", "-c", PREDICT, str(pipeline))
    for mode in ("lora", "full"):
        for flags in ([], ["--gradient_checkpointing"]):
            line = f"one step, --train_unet {mode} --resolution 512 {' '.join(flags)}".strip()
            _row(line, __file__, "step", f"--base={base}", f"--train_unet={mode}", *flags)


def _row(label: str, *arguments: str) -> None:
    """Run Python with these arguments, and print its time and memory."""
    command, start = [sys.executable, *arguments], time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)}\n{errors.decode()[-3000:]}")
    peak = usage.ru_maxrss / 2**20
    print(f"| `{label}` | {time.perf_counter() - start:.0f} | {peak:.1f} |", flush=True)


# --- speed: the steps of the loops ---


def speed(options: argparse.Namespace) -> None:
    """Print the speed of training in every mode, and of creation."""
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU"
    print(f"{device}, torch {torch.__version__}, {options.resolution} px\n")
    training_table(options)
    creation_table(options)


def training_table(options: argparse.Namespace) -> None:
    """Print the speed of the steps of both stages."""
    print("| training | checkpointing | batch | steps/s | peak GiB |\n|---|---|---|---|---|")
    for mode in MODES:
        for checkpointing in (False, True):
            for batch, stage in enumerate(LEARN, 1):
                with training(stage, mode, checkpointing, options) as step:
                    seconds, peak = _timed(step, options.steps)
                row = (f"{mode}, {stage}", "yes" if checkpointing else "no", str(batch))
                print(f"| {' | '.join(row)} | {1 / seconds:.2f} | {peak} |", flush=True)


def creation_table(options: argparse.Namespace) -> None:
    """Print the speed of creating labelled images with 50 U-Net calls each, as in the paper."""
    print("\n| creation, 50 calls | batch | images/s | peak GiB |\n|---|---|---|---|")
    for compiled in (False, True):
        pipe = _mounted("none", options)
        if options.mixed_precision != "no":
            pipe.to(DEVICE, PRECISIONS[options.mixed_precision])
        if compiled:
            pipe.unet.compile()
        for batch in options.batch_sizes:
            images = torch.rand(batch, 3, options.resolution, options.resolution)
            seconds, peak = _timed(partial(pipe, images, num_inference_steps=50), 3)
            label = "compiled" if compiled else "eager"
            print(f"| {label} | {batch} | {batch / seconds:.2f} | {peak} |", flush=True)


def _mounted(mode: str, options: argparse.Namespace) -> Diff2in1Pipeline:
    settings = _settings(mode, False, options, "")
    source = open_rows(settings.source, None, 1).source
    tasks = choose_tasks(settings.host, settings.tasks, source)
    return mount(settings, find_base(options.base), tasks).to(DEVICE)


def _settings(
    mode: str, checkpointing: bool, options: argparse.Namespace, folder: str
) -> WarmUpSettings:
    return WarmUpSettings(
        source="rooms:train",
        output_dir=folder,
        base=options.base,
        host=options.host,
        train_unet=mode,  # type: ignore[arg-type]
        resolution=str(options.resolution),
        gradient_checkpointing=checkpointing,
        mixed_precision=options.mixed_precision,
        report_to="none",
    )


@contextmanager
def training(
    stage: str, mode: str, checkpointing: bool, options: argparse.Namespace
) -> Iterator[Callable[[], None]]:
    """Open a run of a stage, and give its real step on one micro-batch without a pyramid.

    The micro-batch holds one real sample; for self-improving also one created sample.
    """
    improves = stage == "self-improve"
    with TemporaryDirectory() as folder:
        pipe = _mounted(mode, options)
        settings = _settings(mode, checkpointing, options, folder)
        rows = open_rows(settings.source, settings.resolution, 2)
        with Run(settings, stage, pipe, [rows], follows=improves) as run:
            conditioning = pipe.perception_conditioning()
            weights = {name: TASKS[name].weight for name in pipe.perception.families}
            parts = (rows, pipe, run.exploitation, conditioning, Cache(None))
            real = Examples(*parts, augment=Augmentation()).get(0, False)._replace(pyramid=None)
            samples = [real, real._replace(created=True)] if improves else [real]
            batch, learn = stack(samples, run.device), LEARN[stage]

            def step() -> None:
                with run.accelerator.accumulate(run.model):
                    learn(run, batch, conditioning, weights)

            yield step
            run.close()


def _timed(act: Callable[[], object], times: int) -> tuple[float, str]:
    """Median seconds of an act after two runs without timing, and its peak GPU memory in GiB."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    spent = []
    for _ in range(times + 2):
        start = time.perf_counter()
        act()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - start)
    peak = f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if DEVICE.type == "cuda" else "-"
    return sorted(spent[2:])[times // 2], peak


if __name__ == "__main__":
    main()
