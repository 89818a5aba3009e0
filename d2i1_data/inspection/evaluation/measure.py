"""Measuring: figures of a pipeline on labelled samples."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor
from tqdm import tqdm

from ...dataset.sample import Sample
from ...dataset.schema import read_tasks
from ...diff2in1 import Diff2in1Pipeline
from ...sources import Source, agreeing_tasks
from ...tasks import Task
from .protocol import Maps, Protocol
from .sparsification import Sparsification

BATCH = 16
WHOLE = Protocol()
Sums = dict[str, Tensor]  # task -> a meter's sums, [N, S] per sample or [S] in total


def together(sums: Tensor) -> Tensor:
    """The sum over all processes."""
    return reduce(sums.to(PartialState().device), "sum").cpu()


def common_tasks(pipe: Diff2in1Pipeline, source: Source) -> dict[str, Task]:
    """The tasks of the pipeline that the source has truth for, with the pipeline's classes."""
    configs = {name: family.config() for name, family in pipe.perception.families.items()}
    return agreeing_tasks(read_tasks(configs, "pipeline"), "the pipeline", source)


def measure(
    pipe: Diff2in1Pipeline,
    samples: Iterable[Sample],
    tasks: dict[str, Task],
    *,
    protocol: Protocol = WHOLE,
    watch: Sparsification | None = None,
    quiet: bool = False,
    **options: Any,
) -> Sums:
    """Every meter's sums of every sample, [N, S]: their total gives the figures.

    Predictions are compared at the truth's own size. watch: is told of every pixel too. options: of
    `pipe.predict`.
    """
    sums: dict[str, list[Tensor]] = {name: [] for name in tasks}
    shown = tqdm(samples, "evaluate", unit="image", disable=quiet, leave=False, mininterval=1)
    for batch in batched(shown, BATCH):
        images = [sample.image for sample in batch]
        output = pipe.predict(images, output_type="pt", **options)
        for name, task in tasks.items():
            found = zip(batch, output.predictions[name], output.uncertainty[name], strict=True)
            for sample, prediction, unsure in found:
                seen = Maps(prediction[None].cpu(), truth(sample, task), unsure[None].cpu())
                one, other, unsure = protocol.apply(task.family, sample, seen)
                valid = task.family.valid(other)
                sums[name].append(task.meter.measure(one, other, valid))
                if watch:
                    watch.add(name, unsure, task.meter.error(one, other), valid)
    return {
        name: torch.cat(parts) if parts else _empty(tasks[name]) for name, parts in sums.items()
    }


def truth(sample: Sample, task: Task) -> Tensor:
    """What a sample knows of a task, all unknown if nothing, [1, C, H, W]."""
    if task.name not in sample.targets:
        return task.family.blank(sample.size)[None]
    return task.family.to_tensor(sample.targets[task.name])[None]


def batched(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    """Lists of up to `size` samples."""
    iterator = iter(samples)
    while batch := list(islice(iterator, size)):
        yield batch


def _empty(task: Task) -> Tensor:
    """No sample's sums, as wide as one sample's: a rank without samples still takes part."""
    blank = task.family.blank((1, 1))[None]
    return task.meter.measure(blank, blank, task.family.valid(blank))[:0]


def figures(tasks: dict[str, Task], total: Sums) -> dict[str, dict[str, float]]:
    """Each task's figures from summed sums."""
    return {name: task.meter.summary(total[name]) for name, task in tasks.items()}


def shown(tasks: dict[str, Task], scores: dict[str, dict[str, float]]) -> dict[str, float]:
    """The figures for tables, `TASK FIGURE` -> value."""
    return {
        f"{name} {figure}": scores[name][figure]
        for name, task in tasks.items()
        for figure in task.meter.table_metrics
    }


def per_image(task: Task, sums: Tensor) -> Tensor:
    """Of each figure the sum over the images that have one, and how many these are, [F, 2].

    sums: [N, S]. An image has none that its truth does not define, or without valid pixels any.
    """
    count = len(task.meter.summary(sums.new_zeros(sums.shape[1])))
    values = [list(task.meter.summary(one).values()) for one in sums]
    each = torch.tensor(values, dtype=torch.float64).view(-1, count)
    return torch.stack([each.nansum(0), (~each.isnan()).sum(0)], 1)


def mean_over_images(task: Task, total: Tensor) -> dict[str, float]:
    """A task's figures from what `per_image` gives, summed; nan where no image has one."""
    blank = torch.zeros(_empty(task).shape[1], dtype=torch.float64)
    return dict(zip(task.meter.summary(blank), (total[:, 0] / total[:, 1]).tolist(), strict=True))


def bootstrap(
    task: Task, one: Tensor, other: Tensor, rounds: int = 1000, seed: int = 0
) -> dict[str, dict[str, float]]:
    """How each figure differs between two models on the same samples, and its spread over samples.

    one, other: sums per sample, [N, S]. Samples are redrawn with replacement, the same for both;
    the spread is the standard deviation of other - one over the rounds.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(len(one), (rounds, len(one)), generator=generator)
    weights = torch.stack([torch.bincount(draw, minlength=len(one)) for draw in draws]).double()
    before = [task.meter.summary(total) for total in weights @ one]
    after = [task.meter.summary(total) for total in weights @ other]
    start, end = task.meter.summary(one.sum(0)), task.meter.summary(other.sum(0))
    results = {}
    for name in start:
        changes = torch.tensor([b[name] - a[name] for a, b in zip(before, after, strict=True)])
        results[name] = {"difference": end[name] - start[name], "spread": changes.std().item()}
    return results
