"""Study: compare ways to warm up over several seeds, by how they perceive and create."""

import json
import math
import shutil
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from d2i1_data.dataset.files import write_json, write_text
from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.errors import InputError
from d2i1_data.inspection.evaluation.measure import (
    common_tasks,
    compute_metrics,
    measure,
    table_metrics,
)
from d2i1_data.inspection.evaluation.sparsification import Curve, Sparsification, curve, plot
from d2i1_data.sources import open_rows, open_source
from d2i1_data.tasks import TASKS

from .arguments import read_settings
from .loop.reopen import open_theta
from .scratch.generation import Generation, Metrics
from .scratch.vae import save_grid
from .settings import StudySettings, WarmUpSettings
from .training_mean import training_means
from .warm_up import warm_up

RESULT = "study.json"
CURVES = "sparsification.json"

Row = dict[str, float]  # metric -> value, for one arm and seed


def study(settings: StudySettings) -> Path:
    """Train and score every arm with every seed that has no result yet.

    Arms may have different tasks. The first lines of the table are the training means.

    Returns:
        The file of the Markdown table.

    Raises:
        InputError: if the settings of an arm are wrong, or arms differ in precision.
    """
    folder = Path(settings.output_dir)
    arms = {name: _warm_up(settings, own) for name, own in settings.arms.items()}
    if len({arm.mixed_precision for arm in arms.values()}) > 1:  # a process can have only one
        raise InputError("study: arms differ in mixed_precision; compare those in two studies")
    means = training_means(settings, arms)
    generation: Generation | None = None
    for seed in settings.seeds:
        for name, arm in arms.items():
            run = folder / name / f"seed-{seed}"
            if (run / RESULT).is_file():
                continue
            row = _train(replace(arm, seed=seed, output_dir=str(run)), settings)
            if settings.generation_samples:
                generation = generation or _generation(run, settings)
                row |= _generate(run, generation)
            write_json(run / RESULT, row)
    rows = {line: [row] for line, row in means.items()} | {
        name: [_read(folder / name / f"seed-{seed}") for seed in settings.seeds] for name in arms
    }
    table = folder / "table.md"
    write_text(table, as_table(rows))
    _plot(settings, list(arms))
    print(table.read_text())
    return table


def _warm_up(settings: StudySettings, own: dict[str, Any]) -> WarmUpSettings:
    """The settings of an arm, with the same checks as a command."""
    given = {"output_dir": settings.output_dir, "report_to": "none", **settings.common, **own}
    forbidden = sorted({"seed", "output_dir"} & {*settings.common, *own})
    if forbidden:
        raise InputError(f"study: {', '.join(forbidden)} cannot be set for an arm")
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in given.items()}
    return read_settings(WarmUpSettings, [f"--{k}={v}" for k, v in texts.items()])


def _train(arm: WarmUpSettings, settings: StudySettings) -> Row:
    """Warm up and score one arm. It always starts at step 0, so that seconds are comparable."""
    shutil.rmtree(arm.output_dir, ignore_errors=True)
    start = time.perf_counter()
    warm_up(arm)
    row: Row = {"seconds": round(time.perf_counter() - start, 1)}
    rows = open_rows(settings.test, None, settings.test_samples, subset_seed=settings.subset_seed)
    pipe = _open(Path(arm.output_dir))
    tasks = common_tasks(pipe, rows.source)
    sparsification = Sparsification(tasks)
    sums = measure(pipe, rows.samples(), tasks, sparsification=sparsification)
    scores = compute_metrics(tasks, {name: value.sum(0) for name, value in sums.items()})
    curves = {name: curve(sparsification.sums[name]) for name in tasks}
    text = json.dumps({name: one._asdict() for name, one in curves.items()})
    write_text(Path(arm.output_dir) / CURVES, text + "\n")
    return (
        row
        | table_metrics(tasks, scores)
        | {f"{n} ause": curve.ause for n, curve in curves.items()}
    )


def _plot(settings: StudySettings, arms: list[str]) -> None:
    """Draw the sparsification curves of every arm's first seed."""
    panels: dict[str, dict[str, Curve]] = {}
    for arm in arms:
        file = Path(settings.output_dir) / arm / f"seed-{settings.seeds[0]}" / CURVES
        for task, one in json.loads(file.read_text()).items():
            panels.setdefault(task, {})[arm] = Curve(**one)
    plot(panels, TASKS, Path(settings.output_dir) / "sparsification.png")


def _generation(run: Path, settings: StudySettings) -> Generation:
    stride = _open(run).stride
    return Generation(open_source(settings.test), settings.generation_samples, stride)


def _generate(run: Path, generation: Generation) -> Metrics:
    """Score images that an arm creates with theta's U-Net. A frozen one is that of the base."""
    pipe = _open(run)
    varied, images = generation.vary(pipe, "theta")
    invented, imagined = generation.invent(pipe, 1.0, "theta")
    save_grid([generation.images[:8], images[:8], imagined[:8]], run / "created.png")
    return varied | invented


def _open(run: Path) -> Diff2in1Pipeline:
    pipe = open_theta(str(run / "pipeline"), "creation")
    return pipe.to("cuda" if torch.cuda.is_available() else "cpu")


def _read(run: Path) -> Row:
    row: Row = json.loads((run / RESULT).read_text())
    return row


def as_table(rows: dict[str, list[Row]]) -> str:
    """Write a Markdown table with a line for each arm: mean ± standard error over seeds.

    Args:
        rows: arm -> metrics of every seed.
    """
    names = list(dict.fromkeys(name for seeds in rows.values() for name in seeds[0]))
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for arm, seeds in rows.items():
        cells = [
            with_error([seed[name] for seed in seeds]) if name in seeds[0] else "\N{EN DASH}"
            for name in names
        ]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def with_error(values: list[float]) -> str:
    """Write the mean ± its standard error. A single value has no error."""
    if len(values) == 1:
        return f"{values[0]:.4g}"
    error = stdev(values) / math.sqrt(len(values))
    digits = max(0, 1 - math.floor(math.log10(error))) if error > 0 else 3
    return f"{mean(values):.{digits}f} ± {error:.{digits}f}"
