"""Measure metrics of a pipeline on labelled samples."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from .scored_pixels import ScoredMaps, ScoredPixels
from .sparsification import Sparsification

BATCH = 16
ALL_PIXELS = ScoredPixels()
Maps = Mapping[str, Sequence[Tensor]]  # task -> a map of each sample, [C, H, W]
Outputs = Iterator[tuple[Sequence[Sample], Maps, Maps]]  # samples, predictions, uncertainty
Sums = dict[str, Tensor]  # task -> a meter's sums, [N, S] of N samples or [S] in total


def sum_over_processes(sums: Tensor) -> Tensor:
    """Add tensors over all processes. Every process gets the sum."""
    return reduce(sums.to(PartialState().device), "sum").cpu()


def common_tasks(pipe: Diff2in1Pipeline, source: Source) -> dict[str, Task]:
    """The tasks of a pipeline for which a source has labels.

    Raises:
        InputError: if there is no such task, or the classes differ.
    """
    configs = {name: family.config() for name, family in pipe.perception.families.items()}
    return agreeing_tasks(read_tasks(configs, "pipeline"), "the pipeline", source)


def measure(
    pipe: Diff2in1Pipeline,
    samples: Iterable[Sample],
    tasks: dict[str, Task],
    *,
    scored_pixels: ScoredPixels = ALL_PIXELS,
    sparsification: Sparsification | None = None,
    quiet: bool = False,
    **options: Any,
) -> Sums:
    """Measure the sums of each sample. `compute_metrics` turns their total into metrics.

    Predictions are compared at the size of the truth.

    Args:
        pipe: the pipeline.
        samples: samples with labels.
        tasks: the tasks that are scored.
        scored_pixels: the pixels that count.
        sparsification: if given, also counts every pixel.
        quiet: show no progress bar.
        options: options of `pipe.predict`.

    Returns:
        The sums of each task, [N, S].
    """

    def outputs() -> Outputs:
        hidden = {"disable": quiet, "leave": False, "mininterval": 1}
        for batch in batched(tqdm(samples, "evaluate", unit="image", **hidden), BATCH):
            images = [sample.image for sample in batch]
            output = pipe.predict(images, output_type="pt", **options)
            yield batch, output.predictions, output.uncertainty

    return measure_outputs(
        outputs(), tasks, scored_pixels=scored_pixels, sparsification=sparsification
    )


def measure_outputs(
    outputs: Outputs,
    tasks: dict[str, Task],
    *,
    scored_pixels: ScoredPixels = ALL_PIXELS,
    sparsification: Sparsification | None = None,
) -> Sums:
    """Measure the sums of each sample from its prediction.

    A pixel that a model predicts as unknown, NaN or infinite counts as wrong.

    Args:
        outputs: batches of samples, with their predictions and uncertainty.
        tasks: the tasks that are scored.
        scored_pixels: the pixels that count.
        sparsification: if given, also counts every pixel.

    Returns:
        The sums of each task, [N, S].
    """
    sums: dict[str, list[Tensor]] = {name: [] for name in tasks}
    for batch, predictions, uncertainty_maps in outputs:
        for name, task in tasks.items():
            maps_of = zip(batch, predictions[name], uncertainty_maps[name], strict=True)
            for sample, predicted, unsure in maps_of:
                maps = ScoredMaps(predicted[None].cpu(), truth(sample, task), unsure[None].cpu())
                prediction, target, uncertainty = scored_pixels.apply(task.family, sample, maps)
                known = task.family.valid(prediction) & prediction.isfinite().all(1, keepdim=True)
                prediction = torch.where(known, prediction, task.meter.worst(target))
                valid = task.family.valid(target)
                sums[name].append(task.meter.measure(prediction, target, valid))
                if sparsification:
                    error = task.meter.error(prediction, target)
                    known &= uncertainty.isfinite()
                    uncertainty = torch.where(known, uncertainty, 1.0)
                    sparsification.add(name, uncertainty, error, valid)
    return {
        name: torch.cat(parts) if parts else _empty(tasks[name]) for name, parts in sums.items()
    }


def truth(sample: Sample, task: Task) -> Tensor:
    """The label of a sample, [1, C, H, W]. Without a label for the task, all pixels are unknown."""
    if task.name not in sample.targets:
        return task.family.blank(sample.size)[None]
    return task.family.to_tensor(sample.targets[task.name])[None]


def batched(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    """Yield lists of up to `size` samples."""
    iterator = iter(samples)
    while batch := list(islice(iterator, size)):
        yield batch


def _empty(task: Task) -> Tensor:
    """Sums of no samples, [0, S]. A process without samples needs them to take part in adding."""
    blank = task.family.blank((1, 1))[None]
    return task.meter.measure(blank, blank, task.family.valid(blank))[:0]


def compute_metrics(tasks: dict[str, Task], total: Sums) -> dict[str, dict[str, float]]:
    """Compute the metrics of each task from its total sums, [S]."""
    return {name: task.meter.summary(total[name]) for name, task in tasks.items()}


def score_classes(tasks: dict[str, Task], total: Sums) -> dict[str, dict[str, Any]]:
    """The scores of single classes, for each task with classes.

    Returns:
        Task name -> `names` of the classes, and `iou` and `confusion`, see `ByClass`.
    """
    found = {name: task.meter.by_class(total[name]) for name, task in tasks.items()}
    return {
        name: {"names": list(tasks[name].family.names), **own._asdict()}
        for name, own in found.items()
        if own is not None
    }


def table_metrics(tasks: dict[str, Task], metrics: dict[str, dict[str, float]]) -> dict[str, float]:
    """The metrics that tables show, `TASK METRIC` -> value; nan if it is not defined."""
    return {
        f"{name} {metric}": metrics[name].get(metric, math.nan)
        for name, task in tasks.items()
        for metric in task.meter.table_metrics
    }


def per_image(task: Task, sums: Tensor) -> Tensor:
    """Add each metric over images.

    A metric that is not defined for an image is left out, for example if no pixel is valid.

    Args:
        task: the task.
        sums: sums of each image, [N, S].

    Returns:
        For each metric its sum over the images that have it, and their number, [F, 2].
    """
    count = len(task.meter.summary(sums.new_zeros(sums.shape[1])))
    values = [list(task.meter.summary(own).values()) for own in sums]
    each = torch.tensor(values, dtype=torch.float64).view(-1, count)
    return torch.stack([each.nansum(0), (~each.isnan()).sum(0)], 1)


def mean_over_images(task: Task, total: Tensor) -> dict[str, float]:
    """The mean of each metric over images, nan where no image has it.

    Args:
        task: the task.
        total: result of `per_image`, added over processes, [F, 2].
    """
    blank = torch.zeros(_empty(task).shape[1], dtype=torch.float64)
    return dict(zip(task.meter.summary(blank), (total[:, 0] / total[:, 1]).tolist(), strict=True))


def bootstrap(
    task: Task, one: Tensor, other: Tensor, rounds: int = 1000, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Difference of each metric between two models on the same samples, with its spread.

    Each round draws samples with replacement, the same for both models. The spread is the standard
    deviation of the difference over the rounds.

    Args:
        task: the task.
        one: sums of each sample for the first model, [N, S].
        other: sums of each sample for the second model, [N, S].
        rounds: number of rounds.
        seed: seed of the draws.

    Returns:
        For each metric `difference`, which is second minus first, and `spread`.
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
