"""Evaluation: predictions of a pipeline compared with the labels of a source."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from accelerate import PartialState

from d2i1_data.checkpoints.files import fetch, fingerprint
from d2i1_data.dataset.files import write_json
from d2i1_data.inspection.evaluation.measure import (
    common_tasks,
    compute_metrics,
    mean_over_images,
    measure,
    per_image,
    score_classes,
    sum_over_processes,
)
from d2i1_data.inspection.evaluation.scored_pixels import ScoredPixels, parse_crop
from d2i1_data.inspection.evaluation.sparsification import Sparsification, curve, plot
from d2i1_data.sources import open_rows, parse_spec
from d2i1_data.tasks import Task
from d2i1_data.tasks.protocols import find_protocol

from .loop.reopen import open_theta
from .settings import EvaluateSettings

PREDICTION = (
    "processing_resolution",
    "flip",
    "window",
    "ensemble_size",
)  # settings that `predict` takes
PLACES = ("pipeline", "output_file", "sparsification")  # settings that do not affect metrics


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Score a pipeline on a source, and write the results if the settings name a file.

    Returns:
        The results: metrics by task, and facts about pipeline, source and settings.

    Raises:
        InputError: if the pipeline or the source cannot be used.
    """
    parse_crop(settings.crop)  # before the models are opened
    limit, on_bad_row = settings.max_samples, settings.on_bad_row
    least, seed = settings.min_quality, settings.subset_seed
    rows = open_rows(settings.source, None, limit, on_bad_row, least, seed, settings.max_pixels)
    state = PartialState()
    pipe = open_theta(settings.pipeline, settings.theta).to(state.device)
    settings.check_window(pipe.stride)
    tasks = common_tasks(pipe, rows.source)
    settings, tasks = _follow_protocol(settings, tasks)
    scored_pixels = ScoredPixels(parse_crop(settings.crop), settings.farthest)
    scored_pixels.check(tasks)
    mine = rows._replace(usable=rows.usable[state.process_index :: state.num_processes])
    options = {name: getattr(settings, name) for name in PREDICTION}
    sparsification = Sparsification(tasks) if settings.sparsification else None
    sums = measure(
        pipe,
        mine.samples(),
        tasks,
        scored_pixels=scored_pixels,
        sparsification=sparsification,
        **options,
    )
    total = {name: sum_over_processes(sums[name].sum(0)) for name in tasks}
    if settings.average == "images":
        totals = {name: sum_over_processes(per_image(tasks[name], sums[name])) for name in tasks}
        scores = {name: mean_over_images(tasks[name], totals[name]) for name in tasks}
    else:
        scores = compute_metrics(tasks, total)
    classes = score_classes(tasks, total)
    results = {
        "source": rows.source.name,
        "split": parse_spec(settings.source).split,
        "samples": len(rows.usable),
        "skipped": rows.skipped,
        "fingerprint": fingerprint(fetch(settings.pipeline, "pipeline")),
        "settings": {k: v for k, v in asdict(settings).items() if k not in PLACES},
        "tasks": scores,
        "classes": classes,
    }
    if sparsification:
        curves = {name: curve(sum_over_processes(sparsification.sums[name])) for name in tasks}
        results["sparsification"] = {name: one._asdict() for name, one in curves.items()}
        if state.is_main_process:
            panels = {name: {"theta": one} for name, one in curves.items()}
            plot(panels, tasks, Path(str(settings.sparsification)))
    if state.is_main_process:
        for name, values in scores.items():
            _print(name, values | ({"ause": curves[name].ause} if sparsification else {}))
        for name, own in classes.items():
            _print(f"{name} IoU", dict(zip(own["names"], own["iou"], strict=True)))
    if settings.output_file and state.is_main_process:
        file = Path(settings.output_file)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, results)
    return results


def _print(name: str, values: Mapping[str, float]) -> None:
    print(f"{name}: " + ", ".join(f"{key} {value:.4f}" for key, value in values.items()))


def _follow_protocol(
    settings: EvaluateSettings, tasks: dict[str, Task]
) -> tuple[EvaluateSettings, dict[str, Task]]:
    """The settings that a protocol completes, and the tasks that it scores."""
    if settings.protocol is None:
        return replace(settings, average=settings.average or "pixels"), tasks
    protocol = find_protocol(settings.protocol, tasks)
    given = {name: getattr(settings, name) for name in ("crop", "farthest", "average")}
    own = {name: getattr(protocol, name) if one is None else one for name, one in given.items()}
    return replace(settings, **own), {protocol.task.name: tasks[protocol.task.name]}
