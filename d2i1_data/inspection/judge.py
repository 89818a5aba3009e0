"""Judge a dataset: measure the errors of its labels, and how well quality scores predict them.

Letters in shape comments: N samples, S sums of a meter (see `tasks.meters`), R rounds.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ..dataset.files import atomic_file, write_json
from ..dataset.record import read_record
from ..dataset.sample import Sample, image_sha256
from ..dataset.schema import SCORES
from ..errors import InputError
from ..sources import Source, agreeing_tasks, open_dataset, open_source
from ..sources.dataset import Dataset
from ..sources.source import evenly_spaced
from ..tasks import Task
from .settings import JudgeSettings

PLACES = ("output_file", "plot")  # settings without effect on the results

Array = NDArray[np.float64]


class Judged(NamedTuple):
    """The samples of one task whose error is defined.

    sums: sums of the meter, [N, S]. errors: the headline metric of each sample, or one minus it if
    higher is better, [N]. scores: quality scores by name, nan where they were not measured, [N].
    """

    sums: Array
    errors: Array
    scores: dict[str, Array]


def judge(settings: JudgeSettings) -> dict[str, Any]:
    """Compare the labels of a dataset with the truth of a source.

    Returns:
        The results that are also written to `--output_file`.

    Raises:
        InputError: if the source has no truth for the images of the dataset.
    """
    rows = open_dataset(settings.dataset)
    record = read_record(settings.dataset)
    resolution, most = settings.resolution or record.resolution, record.setting("max_pixels")
    truth = open_source(settings.source, resolution, max_pixels=most)
    tasks = agreeing_tasks(rows.tasks, f"dataset {rows.name}", truth)
    chosen = evenly_spaced(len(rows), settings.max_samples)
    pairs = dict(zip(chosen, find_truth(rows, truth, chosen), strict=True))
    matches = {row: index for row, index in pairs.items() if index is not None}
    if not matches:
        raise InputError(
            f"source {settings.source}: has no truth for {settings.dataset}: no id or source id"
            f" there belongs to a row such as {rows.identity(0)!r}"
        )
    judged = measure(same_images(rows, truth, matches), tasks, len(matches))
    metrics = {
        name: judge_task(tasks[name], samples, settings)
        for name, samples in judged.items()
        if len(samples.errors)
    }
    results = {
        "dataset": rows.name,
        "truth": truth.name,
        "rows": len(rows),
        "judged": len(matches),
        "settings": {k: v for k, v in asdict(settings).items() if k not in PLACES},
        "tasks": metrics,
    }
    if settings.plot:
        plot(judged, tasks, Path(settings.plot))
    file = Path(settings.output_file)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, results)
    print(
        f"{len(matches)} of {len(rows)} rows judged by {truth.name}\n\n"
        f"{as_table(metrics, settings)}"
    )
    return results


def find_truth(rows: Dataset, truth: Source, chosen: list[int]) -> list[int | None]:
    """Find the image of each row in the truth.

    A labelled row has the same image as its source row. Other rows match in two ways: the truth is
    a dataset that a reference model made from these rows, or it has rows with the same ids.

    Args:
        rows: the dataset.
        truth: the source.
        chosen: indices of rows.

    Returns:
        For each chosen row its index in the truth, None if the truth does not have its image.
    """
    own = {truth.identity(index): index for index in range(len(truth))}
    by_source: dict[str, int] = {}
    if isinstance(truth.original, Dataset):
        column = truth.original.column("provenance.source_id").to_pylist()
        by_source = {identity: index for index, identity in enumerate(column)}
    sources = rows.column("provenance.source_id").take(chosen).to_pylist()
    strengths = rows.column("provenance.strength").take(chosen).to_pylist()
    matches: list[int | None] = []
    for row, source, strength in zip(chosen, sources, strengths, strict=True):
        name = rows.identity(row)
        candidates = [own.get(source)] if strength == 0 else []
        candidates += [by_source.get(name), own.get(name)]
        matches.append(next((index for index in candidates if index is not None), None))
    return matches


def same_images(
    rows: Dataset, truth: Source, matches: Mapping[int, int]
) -> Iterator[tuple[Sample, Sample]]:
    """Yield each row with its truth.

    Args:
        rows: the dataset.
        truth: the source.
        matches: index of a row -> index in the truth.

    Raises:
        InputError: if the images of a row and its truth differ.
    """
    for row, index in matches.items():
        sample, target = rows[row], truth[index]
        if image_sha256(sample.image) != image_sha256(target.image):
            sizes = " and ".join(f"{h}x{w}" for h, w in (sample.size, target.size))
            raise InputError(
                f"row {sample.id!r} of {rows.name} and {target.id!r} of {truth.name} are different"
                f" images ({sizes}): the truth must have exactly the same images"
            )
        yield sample, target


def measure(
    pairs: Iterator[tuple[Sample, Sample]], tasks: Mapping[str, Task], total: int
) -> dict[str, Judged]:
    """Measure sums, errors and scores of every sample, by task.

    Args:
        pairs: rows with their truth.
        tasks: the tasks to score.
        total: number of pairs, for the progress bar.
    """
    measured: dict[str, list[tuple[Array, float, list[float]]]] = {name: [] for name in tasks}
    for row, truth in tqdm(pairs, "judge", total, unit="row", leave=False, mininterval=1):
        for name, task in tasks.items():
            if name not in row.targets or name not in truth.targets:
                continue
            family = task.family
            label, target = (family.to_tensor(s.targets[name])[None] for s in (row, truth))
            # labels that cannot be stored are unknown, such as depth beyond 65 m
            valid = family.valid(target) & family.valid(label)
            sums = task.meter.measure(label, target, valid)[0]
            metric = task.meter.summary(sums)[task.meter.headline]
            error = 1 - metric if task.meter.higher_is_better(task.meter.headline) else metric
            if not math.isnan(error):
                quality = asdict(row.quality[name])
                scores = [math.nan if quality[k] is None else quality[k] for k in SCORES]
                measured[name].append((sums.numpy(), error, scores))
    return {name: _judged(samples) for name, samples in measured.items()}


def _judged(samples: list[tuple[Array, float, list[float]]]) -> Judged:
    columns = np.array([scores for *_, scores in samples]).reshape(-1, len(SCORES)).T
    scores = dict(zip(SCORES, columns, strict=True))
    errors = np.array([error for _, error, _ in samples])
    return Judged(np.array([sums for sums, *_ in samples]), errors, scores)


def judge_task(task: Task, judged: Judged, settings: JudgeSettings) -> dict[str, Any]:
    """Compute the metrics of the labels of one task, and how well each score predicts the error.

    The oracle keeps the samples with the smallest errors. This may not be the best choice for a
    metric that is not a mean over samples, such as the mean IoU. Samples without a score count as
    the worst.

    Args:
        task: the task.
        judged: its samples.
        settings: share to keep, rounds and seed.
    """
    rng = np.random.default_rng(settings.seed)
    count = len(judged.errors)

    def pooled(weights: Array) -> Array:  # [R, N] -> [R]
        totals = torch.from_numpy(weights @ judged.sums)
        return np.array([task.meter.summary(total)[task.meter.headline] for total in totals])

    draw = best_weights(rng.random(count), settings.keep)
    random = pooled(np.stack([rng.permutation(draw) for _ in range(settings.rounds)]))
    names = [name for name, score in judged.scores.items() if not np.isnan(score).all()]
    ranked = [np.where(np.isnan(s), -np.inf, s) for s in (judged.scores[name] for name in names)]
    weights = [best_weights(score, settings.keep) for score in (-judged.errors, *ranked)]
    oracle, *kept = pooled(np.stack(weights)).tolist()
    return {
        "metric": task.meter.headline,
        "samples": count,
        "metrics": task.meter.summary(torch.from_numpy(judged.sums.sum(0))),
        "oracle": oracle,
        "random": {"mean": float(random.mean()), "spread": float(random.std())},
        "scores": {
            name: {
                **correlation(judged.scores[name], judged.errors, settings.rounds, rng),
                "kept": metric,
            }
            for name, metric in zip(names, kept, strict=True)
        },
    }


def correlation(
    score: Array, errors: Array, rounds: int, rng: np.random.Generator
) -> dict[str, float | None]:
    """Rank correlation of a score with the error, and its bootstrap error.

    Args:
        score: score of each sample, nan where it was not measured, [N].
        errors: error of each sample, [N].
        rounds: rounds of the bootstrap.
        rng: draws the samples.

    Returns:
        `samples`, `spearman` and `spearman_error`. The last two are None for a constant score.
    """
    known = ~np.isnan(score)
    x, y = score[known], errors[known]
    rank = spearman(x, y)
    redrawn = [spearman(x[d], y[d]) for d in rng.integers(0, len(x), (rounds, len(x)))]
    constant = math.isnan(rank)
    return {
        "samples": int(known.sum()),
        "spearman": None if constant else rank,
        "spearman_error": None if constant else float(np.nanstd(redrawn)),
    }


def spearman(one: Array, other: Array) -> float:
    """Spearman's rank correlation of two lists of values, nan if one of them is constant."""
    a, b = (ranks(values) - (len(values) + 1) / 2 for values in (one, other))
    size = math.sqrt(float((a @ a) * (b @ b)))
    return float(a @ b) / size if size else math.nan


def ranks(values: Array) -> Array:
    """Ranks from 1; equal values get the average of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    average: Array = counts.cumsum() - (counts - 1) / 2
    return average[place]


def best_weights(score: Array, share: float) -> Array:
    """Weights that keep the samples with the highest scores.

    Args:
        score: score of each sample, [N].
        share: share of the samples that is kept.

    Returns:
        1 for a kept sample, otherwise 0, [N]. If not all samples with the same score can be kept,
        they get the same fraction.
    """
    _, place, counts = np.unique(-score, return_inverse=True, return_counts=True)
    number = max(1, round(share * len(score)))
    before = counts.cumsum() - counts
    weights: Array = ((number - before) / counts).clip(0, 1)
    return weights[place]


def as_table(metrics: Mapping[str, Mapping[str, Any]], settings: JudgeSettings) -> str:
    """A Markdown table with a line for each score of each task.

    Args:
        metrics: results of `judge_task` by task.
        settings: the heading names their share of kept samples.
    """
    share = f"{settings.keep:.0%}"
    names = ["task", "metric", "score", "rank correlation with the error", "all"]
    names += [f"best {share}", f"random {share}", f"oracle {share}"]
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for task, own in metrics.items():
        whole, chance = own["metrics"][own["metric"]], own["random"]
        for name, score in own["scores"].items() or [("none", None)]:
            correlated = ""
            if score:
                rank, spread = score["spearman"], score["spearman_error"]
                correlated = "constant" if rank is None else f"{rank:+.3f} ± {spread:.3f}"
            cells = [task, own["metric"], name, correlated, f"{whole:.4f}"]
            cells += [f"{score['kept']:.4f}" if score else ""]
            cells += [f"{chance['mean']:.4f} ± {chance['spread']:.4f}", f"{own['oracle']:.4f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(judged: Mapping[str, Judged], tasks: Mapping[str, Task], file: Path) -> None:
    """Draw the error of every sample against each of its scores as a PNG.

    Args:
        judged: samples by task; each task is a row of panels.
        tasks: the tasks by name.
        file: the PNG.
    """
    from matplotlib.figure import Figure

    figure = Figure((2.6 * len(SCORES) + 0.4, 2.1 * len(judged) + 0.3), layout="constrained")
    panels = figure.subplots(len(judged), len(SCORES), squeeze=False, sharey="row")
    for row, (name, samples) in zip(panels, judged.items(), strict=True):
        meter = tasks[name].meter
        error = (
            f"1 - {meter.headline}"
            if meter.higher_is_better(meter.headline)
            else f"{meter.headline} error"
        )
        row[0].set_ylabel(f"{name}, {error}", fontsize=8)
        for panel, (score, values) in zip(row, samples.scores.items(), strict=True):
            panel.scatter(values, samples.errors, s=7, alpha=0.5, linewidths=0, color="C0")
            known = ~np.isnan(values)
            rank = spearman(values[known], samples.errors[known])
            text = "constant" if math.isnan(rank) else f"rank correlation {rank:+.2f}"
            panel.set_title(f"{score}, {text if known.any() else 'not measured'}", fontsize=8)
            panel.locator_params(axis="x", nbins=4)
            panel.tick_params(labelsize=7)
            panel.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(file) as temporary:
        figure.savefig(temporary, dpi=120, format=file.suffix[1:] or "png")
