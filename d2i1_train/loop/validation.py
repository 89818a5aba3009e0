"""Validation during training: metrics, pictures, and the best weights so far."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from PIL.Image import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from d2i1_data.checkpoints.training_record import ValidationRecord
from d2i1_data.dataset.files import atomic_file
from d2i1_data.dataset.preview import coloured, grid
from d2i1_data.dataset.sample import Sample
from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.errors import InputError
from d2i1_data.inspection.evaluation.measure import common_tasks, compute_metrics, measure
from d2i1_data.sources import Rows, open_rows, parse_spec

from .settings import TrainSettings

BEST = "best.safetensors"
PICTURE_SAMPLES = 4

Scores = dict[str, dict[str, float]]  # task -> metric -> value


def open_validation_rows(settings: TrainSettings) -> Rows:
    """Open the labelled rows that theta is scored on."""
    return open_rows(
        str(settings.validation_source),
        settings.resolution,
        settings.num_validation_samples,
        settings.on_bad_row,
        subset_seed=settings.subset_seed,
    )


class Validation:
    """Scores pipelines on labelled samples, and draws pictures of the first samples.

    Args:
        settings: source, number of samples, and the metric that decides which weights are best.
        pipe: its tasks are scored.

    Raises:
        InputError: if the source has none of the tasks, or there is no such best metric.
    """

    def __init__(self, settings: TrainSettings, pipe: Diff2in1Pipeline) -> None:
        self.rows = open_validation_rows(settings)
        self.split = parse_spec(str(settings.validation_source)).split
        self.tasks = common_tasks(pipe, self.rows.source)
        self.best: BestWeights | None = None
        if settings.best_metric:
            metrics = {name: list(values) for name, values in self._score(pipe, []).items()}
            task, metric = find_metric(settings.best_metric, metrics)
            higher = self.tasks[task].meter.higher_is_better(metric)
            self.best = BestWeights(Path(settings.output_dir), task, metric, higher)

    def score(self, pipe: Diff2in1Pipeline) -> Scores:
        """Compute every metric of each task on all samples."""
        with _evaluating(pipe):
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
        best = self.best.name if self.best else None
        source = self.rows.source.name
        return ValidationRecord(source, len(self.rows.usable), finite, self.split, best)

    def picture(self, pipe: Diff2in1Pipeline) -> Image:
        """Draw a row for each sample: image; truth, prediction and uncertainty of each task."""
        samples = list(islice(self.rows.samples(), PICTURE_SAMPLES))
        with _evaluating(pipe):
            output = pipe.predict([sample.image for sample in samples])
        pictures = []
        for n, sample in enumerate(samples):
            row = [sample.image]
            for key, task in self.tasks.items():
                uncertainty = np.round(output.uncertainty[key][n] * 255).astype(np.uint8)
                row += [coloured(sample, key, task)]
                row += [task.family.colorize(output.predictions[key][n])]
                row += [np.repeat(uncertainty[..., None], 3, -1)]
            pictures.append(row)
        return grid(pictures)


@contextmanager
def _evaluating(pipe: Diff2in1Pipeline) -> Iterator[None]:
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


class BestWeights:
    """The weights with the best validation so far, in `best.safetensors`.

    The header of the file names the metric and its value. The pipeline gets these weights at the
    end. The optimiser state in checkpoints always belongs to the last weights.

    Args:
        folder: folder of the run.
        task: the task of the metric.
        metric: the metric that decides.
        higher_is_better: whether a higher value of the metric is better.
    """

    def __init__(self, folder: Path, task: str, metric: str, higher_is_better: bool) -> None:
        self.file, self.name = folder / BEST, f"{task}.{metric}"
        self.task, self.metric, self.higher_is_better = task, metric, higher_is_better

    def update(self, scores: Scores, step: int, tensors: dict[str, Tensor]) -> None:
        """Save weights if they are better than the saved ones.

        Args:
            scores: scores of these weights.
            step: step of these weights.
            tensors: the weights.
        """
        value, old = scores[self.task][self.metric], self._saved_value()
        worse = value <= old if self.higher_is_better else value >= old
        if worse or (math.isnan(value) and not math.isnan(old)):
            return
        header = {"metric": self.name, "value": repr(value), "step": str(step)}
        with atomic_file(self.file) as temporary:
            save_file({k: t.contiguous() for k, t in tensors.items()}, temporary, header)

    def _saved_value(self) -> float:
        """The metric of the saved weights; nan without saved weights, or if another metric chose
        them."""
        if not self.file.is_file():
            return math.nan
        with safe_open(self.file, "pt") as stored:
            header = stored.metadata()
        return float(header["value"]) if header["metric"] == self.name else math.nan


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
