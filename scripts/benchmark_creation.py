"""Measure the cost of creation besides the U-Net, and faster ways, for docs/benchmarks.md.

python scripts/benchmark_creation.py costs --pipeline runs/demo/pipeline
python scripts/benchmark_creation.py ways --pipeline runs/demo/pipeline
python scripts/benchmark_creation.py memory --pipeline runs/demo/pipeline --samples 2000
"""

import argparse
import dataclasses
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from d2i1_data.creation.plan import Item, plan_shards
from d2i1_data.creation.producers import Creator, make_producer
from d2i1_data.creation.settings import CreateSettings
from d2i1_data.dataset.prefetch import prefetch
from d2i1_data.dataset.sample import Sample
from d2i1_data.dataset.shards import shard_path, write_shard

WAYS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"precision": "bfloat16"},
    "compiled": {"compile": True},
    "bfloat16, compiled": {"precision": "bfloat16", "compile": True},
}


def main() -> None:
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("costs", "ways", "memory"))
    parser.add_argument("--pipeline", required=True)
    parser.add_argument("--source", default="rooms:train")
    parser.add_argument("--resolution")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--num_inference_steps", type=int, default=25)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    {"costs": costs, "ways": ways, "memory": memory}[options.what](options)


def _creator(options: argparse.Namespace, **more: Any) -> tuple[Creator, list[Item]]:
    same = ("pipeline", "source", "resolution", "batch_size", "num_inference_steps", "threads")
    given = {name: getattr(options, name) for name in same} | more
    producer = make_producer(CreateSettings(output_dir="", **given))
    assert isinstance(producer, Creator)
    (items,) = plan_shards(producer.source, producer.rows, options.samples, options.samples)
    return producer, items


def _ignore(count: int) -> None:
    pass


# --- costs: labels, quality scores and writing, compared with images alone ---


def costs(options: argparse.Namespace) -> None:
    """Print the time of a sample: the image alone, with labels, with quality, and with writing."""
    producer, items = _creator(options)
    arms: dict[str, Callable[[], object]] = {"images alone": partial(_images, producer, items)}
    for quality, name in (("none", "and labels"), ("fast", "and quality fast"), ("full", "full")):
        arms[name] = partial(_samples, producer, items, quality)
    arms["images and labels, written"] = partial(_written, producer, items)
    spent: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(options.rounds + 1):
        for name, act in arms.items():
            start = time.perf_counter()
            act()
            if producer.pipe.device.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first turn is not timed
                spent[name].append((time.perf_counter() - start) / len(items))
    middle = {name: statistics.median(times) for name, times in spent.items()}
    alone = middle["images alone"]
    print("| | ms a sample | images/s | to images alone |\n|---|---|---|---|")
    for name, seconds in middle.items():
        print(f"| {name} | {seconds * 1e3:.1f} | {1 / seconds:.2f} | {seconds / alone - 1:+.1%} |")
    named = list(middle.values())
    steps = [f"{(b - a) / alone:+.1%}" for a, b in pairwise(named[:4])]
    written = f"{(named[4] - named[1]) / alone:+.1%}"
    print(f"\nlabels {steps[0]}, quality fast {steps[1]}, full {steps[2]} more; writing {written}")


def _images(producer: Creator, items: list[Item]) -> None:
    denoised = map(producer.denoise, producer.batches(items, {}))
    for _ in prefetch(producer.decode, denoised, bound=1):
        pass


def _samples(producer: Creator, items: list[Item], quality: str) -> list[Sample]:
    producer.settings = dataclasses.replace(producer.settings, quality=quality)  # type: ignore[arg-type]
    return list(producer.make(items, {}, _ignore))


def _written(producer: Creator, items: list[Item]) -> None:
    producer.settings = dataclasses.replace(producer.settings, quality="none")
    with tempfile.TemporaryDirectory() as folder:
        path = shard_path(Path(folder), 0)
        write_shard(path, producer.make(items, {}, _ignore), producer.schema)


# --- ways: half precision and compilation ---


def ways(options: argparse.Namespace) -> None:
    """Print the speed of faster ways to create, and the difference from float32."""
    plain, items = _creator(options, quality="none")
    truth = _samples(plain, items, "none")
    names = " | ".join(plain.tasks)
    print(
        f"| | images/s | image, mean of 255 | {names} agree |\n|{'---|' * (len(plain.tasks) + 3)}"
    )
    for name, more in WAYS.items():
        producer, _ = _creator(options, quality="none", **more)
        _samples(producer, items, "none")
        start = time.perf_counter()
        samples = _samples(producer, items, "none")
        rate = len(items) / (time.perf_counter() - start)
        pairs = list(zip(truth, samples, strict=True))
        off = np.mean([np.abs(a.image.astype(int) - b.image).mean() for a, b in pairs])
        shares = [
            np.mean([_agreement(producer, name, a, b) for a, b in pairs]) for name in producer.tasks
        ]
        print(f"| {name} | {rate:.2f} | {off:.3f} | {' | '.join(f'{s:.2%}' for s in shares)} |")


def _agreement(producer: Creator, name: str, one: Sample, other: Sample) -> float:
    family = producer.families[name]
    a, b = (family.to_tensor(sample.targets[name])[None] for sample in (one, other))
    return float(family.agreement(a, b))


# --- memory: whether it grows while samples are created ---


def memory(options: argparse.Namespace) -> None:
    """Print the resident memory of the process after every tenth of the samples."""
    producer, items = _creator(options)
    print("| samples | resident MiB | peak MiB |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        size = len(items) // 10
        for part in range(10):
            own = items[part * size : (part + 1) * size]
            write_shard(shard_path(Path(folder), part), _made(producer, own), producer.schema)
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            now = pages * resource.getpagesize() / 2**20
            print(f"| {(part + 1) * size} | {now:.0f} | {peak:.0f} |", flush=True)


def _made(producer: Creator, items: list[Item]) -> Iterator[Sample]:
    return producer.make(items, {}, _ignore)


if __name__ == "__main__":
    main()
