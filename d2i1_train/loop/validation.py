"""Validation during training: metrics, pictures, and the best checkpoint so far."""

import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from PIL.Image import Image

from d2i1_data.checkpoints.training_record import ValidationRecord
from d2i1_data.dataset.preview import coloured, grid
from d2i1_data.dataset.record import read_json
from d2i1_data.dataset.sample import Sample
from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.errors import InputError
from d2i1_data.inspection.evaluation.measure import common_tasks, compute_metrics, measure
from d2i1_data.sources import Rows, open_rows, parse_spec
from d2i1_data.tasks import Task

from .checkpoint import BEST, BEST_FACTS
from .manifest import COUNTERS, require_intact
from .settings import TrainSettings

PICTURE_SAMPLES = 3

Scores = dict[str, dict[str, float]]  # task -> metric -> value


def open_validation_rows(settings: TrainSettings) -> Rows:
    """Open the labelled rows that theta is scored on."""
    return open_rows(
        str(settings.validation_source),
        settings.resolution,
        settings.num_validation_samples,
        settings.on_bad_row,
        subset_seed=settings.subset_seed,
        max_pixels=settings.max_pixels,
    )


class Validation:
    """Scores pipelines on labelled samples, and draws pictures of the first samples.

    Args:
        settings: source, number of samples, and the metric that decides which checkpoint is best.
        pipe: its tasks are scored.

    Raises:
        InputError: if the source has none of the tasks, or there is no such best metric.
    """

    def __init__(self, settings: TrainSettings, pipe: Diff2in1Pipeline) -> None:
        self.rows = open_validation_rows(settings)
        self.split = parse_spec(str(settings.validation_source)).split
        self.tasks = common_tasks(pipe, self.rows.source)
        self.best: BestCheckpoint | None = None
        if settings.best_metric:
            metrics = {name: list(values) for name, values in self._score(pipe, []).items()}
            task, metric = find_metric(settings.best_metric, metrics)
            higher = self.tasks[task].meter.higher_is_better(metric)
            self.best = BestCheckpoint(Path(settings.output_dir), task, metric, higher)

    def score(self, pipe: Diff2in1Pipeline) -> Scores:
        """Compute every metric of each task on all samples."""
        with evaluating(pipe):
            return self._score(pipe, self.rows.samples())

    def _score(self, pipe: Diff2in1Pipeline, samples: Iterable[Sample]) -> Scores:
        sums = measure(pipe, samples, self.tasks, quiet=True)
        return compute_metrics(self.tasks, {key: value.sum(0) for key, value in sums.items()})

    def report(self, pipe: Diff2in1Pipeline) -> ValidationRecord:
        """Compute the metrics for the training record: those of tables, if they are finite."""
        scores = self.score(pipe)
        finite = {
            name: {
                metric: scores[name][metric]
                for metric in task.meter.table_metrics
                if math.isfinite(scores[name][metric])
            }
            for name, task in self.tasks.items()
        }
        best = self.best.name if self.best and self.best.is_saved() else None
        source = self.rows.source.name
        return ValidationRecord(source, len(self.rows.usable), finite, self.split, best)

    def picture(self, pipe: Diff2in1Pipeline) -> Image:
        """Draw the first samples, see `draw_predictions`."""
        return draw_predictions(pipe, self.rows, self.tasks)


def draw_predictions(pipe: Diff2in1Pipeline, rows: Rows, tasks: Mapping[str, Task]) -> Image:
    """Draw three rows for each of the first samples: truth, prediction and uncertainty.

    The first column is the image, each other column is a task.

    Args:
        pipe: predicts.
        rows: labelled samples.
        tasks: the tasks to draw.
    """
    samples = list(islice(rows.samples(), PICTURE_SAMPLES))
    with evaluating(pipe):
        output = pipe.predict([sample.image for sample in samples])
    pictures = []
    for n, sample in enumerate(samples):
        blank = np.full_like(sample.image, 255)
        truth, predicted, uncertain = [sample.image], [blank], [blank]
        for key, task in tasks.items():
            uncertainty = np.round(output.uncertainty[key][n] * 255).astype(np.uint8)
            truth.append(coloured(sample, key, task))
            predicted.append(task.family.colorize(output.predictions[key][n]))
            uncertain.append(np.repeat(uncertainty[..., None], 3, -1))
        pictures += [truth, predicted, uncertain]
    return grid(pictures)


@contextmanager
def evaluating(pipe: Diff2in1Pipeline) -> Iterator[None]:
    """Switch dropout off inside the block."""
    parts = [part for part in (pipe.unet, pipe.perception) if part.training]
    for part in parts:
        part.eval()
    try:
        yield
    finally:
        for part in parts:
            part.train()


def find_metric(name: str, metrics: dict[str, list[str]]) -> tuple[str, str]:
    """Find the task and the metric that `--best_metric TASK.METRIC` names.

    Args:
        name: the value of the flag.
        metrics: task -> names of its metrics.

    Raises:
        InputError: if there is no such metric.
    """
    pairs = {f"{task}.{metric}": (task, metric) for task, own in metrics.items() for metric in own}
    if name not in pairs:
        raise InputError(f"--best_metric {name}: choose from {', '.join(pairs)}")
    return pairs[name]


class BestCheckpoint:
    """The folder `best`: the checkpoint with the best validation so far.

    The pipeline gets its theta_C at the end.

    Args:
        folder: folder of the run.
        task: the task of the metric.
        metric: the metric that decides.
        higher_is_better: whether a higher value of the metric is better.

    Raises:
        InputError: if the folder `best` of an earlier part of the run is damaged.
    """

    def __init__(self, folder: Path, task: str, metric: str, higher_is_better: bool) -> None:
        self.folder, self.name = folder / BEST, f"{task}.{metric}"
        if self.folder.exists():
            require_intact(self.folder, "delete it to choose among later steps")
        self.task, self.metric, self.higher_is_better = task, metric, higher_is_better

    def better(self, scores: Scores) -> dict[str, Any] | None:
        """Metric and value, for `best.json`, if they are better than those of the checkpoint.

        Args:
            scores: scores of the present weights.
        """
        value, old = scores[self.task][self.metric], self._saved_value()
        worse = value <= old if self.higher_is_better else value >= old
        if worse or (math.isnan(value) and not math.isnan(old)):
            return None
        return {"metric": self.name, "value": value}

    def is_saved(self) -> bool:
        """Whether there is such a checkpoint, and this metric chose it."""
        return saved_metric(self.folder).get("metric") == self.name

    def _saved_value(self) -> float:
        """The value of the checkpoint; nan if there is none, or another metric chose it."""
        found = saved_metric(self.folder) if self.is_saved() else {}
        return float(found.get("value", math.nan))


def saved_metric(best: Path) -> dict[str, Any]:
    """The content of `best.json`; empty without a complete checkpoint."""
    if not (best / COUNTERS).is_file():
        return {}
    return read_json(best / BEST_FACTS)


def remove_stale_best(folder: Path, best: BestCheckpoint | None) -> None:
    """Delete the folder `best` of a run if no metric, or another metric, chooses the weights now.

    Args:
        folder: folder of the run.
        best: the checkpoint with the best validation; None without `--best_metric`.
    """
    if best is None or not best.is_saved():
        shutil.rmtree(folder / BEST, ignore_errors=True)


def log_picture(accelerator: Accelerator, name: str, picture: Image, step: int) -> None:
    """Log a picture to every tracker."""
    pixels = np.asarray(picture)[None]  # [1, H, W, 3]
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":
            tracker.log_images({name: pixels}, step, dataformats="NHWC")
        elif tracker.name == "trackio":
            import trackio

            tracker.log({name: trackio.Image(pixels[0])}, step)
        else:
            tracker.log_images({name: pixels}, step)
