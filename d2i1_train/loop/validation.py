"""Validation while training: figures, pictures, and the best weights so far."""

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from PIL.Image import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from d2i1_data.dataset.preview import coloured, grid
from d2i1_data.dataset.sample import Sample
from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.errors import InputError
from d2i1_data.inspection.evaluation.measure import common_tasks, figures, measure
from d2i1_data.sources import open_rows, parse_spec

from .settings import TrainSettings

BEST = "best.safetensors"
SHOWN = 4  # samples in a picture

Scores = dict[str, dict[str, float]]  # task -> figure -> value


class Validation:
    """Labelled samples that a pipeline is scored on and shown with."""

    def __init__(self, settings: TrainSettings, pipe: Diff2in1Pipeline) -> None:
        spec, limit = str(settings.validation_source), settings.num_validation_samples
        self.rows = open_rows(spec, settings.resolution, limit, settings.on_bad_row)
        self.split = parse_spec(spec).split
        self.tasks = common_tasks(pipe, self.rows.source)
        self.best = None
        if settings.best_metric:
            known = self._score(pipe, [])
            self.best = Best(Path(settings.output_dir), settings.best_metric, known)

    def score(self, pipe: Diff2in1Pipeline) -> Scores:
        """Figures of each task."""
        with _resting(pipe):
            return self._score(pipe, self.rows.samples())

    def _score(self, pipe: Diff2in1Pipeline, samples: Iterable[Sample]) -> Scores:
        sums = measure(pipe, samples, self.tasks, quiet=True)
        return figures(self.tasks, {key: value.sum(0) for key, value in sums.items()})

    def report(self, pipe: Diff2in1Pipeline) -> dict[str, Any]:
        """Figures for tables, and of what: for those who have nothing but the checkpoint."""
        scores = self.score(pipe)
        figures = {
            name: {
                k: scores[name][k]
                for k in task.meter.table_metrics
                if math.isfinite(scores[name][k])
            }
            for name, task in self.tasks.items()
        }
        chosen = {"best_metric": self.best.name} if self.best else {}
        split = {"split": self.split} if self.split else {}
        rows = {"source": self.rows.source.name, **split, "samples": len(self.rows.usable)}
        return {**rows, **chosen, "tasks": figures}

    def picture(self, pipe: Diff2in1Pipeline) -> Image:
        """Some samples, a row each: RGB, then truth, prediction and uncertainty of each task."""
        shown = list(islice(self.rows.samples(), SHOWN))
        with _resting(pipe):
            output = pipe.predict([sample.image for sample in shown])
        pictures = []
        for n, sample in enumerate(shown):
            row = [sample.image]
            for key, task in self.tasks.items():
                unsure = np.round(output.uncertainty[key][n] * 255).astype(np.uint8)
                row += [coloured(sample, key, task)]
                row += [task.family.colorize(output.predictions[key][n])]
                row += [np.repeat(unsure[..., None], 3, -1)]
            pictures.append(row)
        return grid(pictures)


@contextmanager
def _resting(pipe: Diff2in1Pipeline) -> Iterator[None]:
    """Without dropout, also in the midst of training."""
    parts = [part for part in (pipe.unet, pipe.perception) if part.training]
    for part in parts:
        part.eval()
    try:
        yield
    finally:
        for part in parts:
            part.train()


class Best:
    """The weights that validated best by one figure: `best.safetensors`, its header saying by what.

    Kept when the pipeline is written; the optimiser's moments of the last step are not theirs.
    """

    def __init__(self, folder: Path, name: str, known: Scores) -> None:
        names = [f"{task}.{figure}" for task, values in known.items() for figure in values]
        if name not in names:
            raise InputError(f"--best_metric {name}: choose from {', '.join(names)}")
        self.file, self.name = folder / BEST, name
        self.task, _, self.figure = name.partition(".")

    def keep(self, scores: Scores, rises: bool, step: int, tensors: dict[str, Tensor]) -> None:
        """Keep these weights if they are better than what is kept."""
        value, old = scores[self.task][self.figure], self._kept()
        worse = value <= old if rises else value >= old
        if worse or (math.isnan(value) and not math.isnan(old)):
            return
        header = {"metric": self.name, "value": repr(value), "step": str(step)}
        temporary = self.file.with_suffix(".tmp")
        save_file({k: t.contiguous() for k, t in tensors.items()}, temporary, header)
        os.replace(temporary, self.file)

    def _kept(self) -> float:
        """The figure of what is kept, nan where nothing is, or by another figure."""
        if not self.file.is_file():
            return math.nan
        with safe_open(self.file, "pt") as stored:
            header = stored.metadata()
        return float(header["value"]) if header["metric"] == self.name else math.nan


def log_picture(accelerator: Accelerator, name: str, picture: Image, step: int) -> None:
    """Show a picture in every tracker, each in its own way."""
    pixels = np.asarray(picture)[None]  # [1, H, W, 3]
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":
            tracker.log_images({name: pixels}, step, dataformats="NHWC")
        elif tracker.name == "trackio":
            import trackio

            tracker.log({name: trackio.Image(pixels[0])}, step)
        else:
            tracker.log_images({name: pixels}, step)
