"""Judging: how right the labels of a dataset are, and whether its quality scores predict it.

N samples, S sums of a meter (see `tasks.meters`).
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

    sums: of the meter, [N, S]. errors: the headline metric of each sample, or one minus it if
    higher is better, [N]. scores: quality scores by name, nan where they were not measured, [N].
    """

    sums: Array
    errors: Array
    scores: dict[str, Array]


def judge(settings: JudgeSettings) -> dict[str, Any]:
    """Compare the labels of a dataset with the truth of a source.

    Returns:
        The metrics, as written to `--output_file`.

    Raises:
        InputError: if the source has no truth for the images of the dataset.
    """
    rows = open_dataset(settings.dataset)
    resolution = settings.resolution or read_record(settings.dataset).resolution
    truth = open_source(settings.source, resolution)
    tasks = agreeing_tasks(rows.tasks, f"dataset {rows.name}", truth)
    chosen = evenly_spaced(len(rows), settings.max_samples)
    pairs = dict(zip(chosen, find_truth(rows, truth, chosen), strict=True))
    known = {row: index for row, index in pairs.items() if index is not None}
    if not known:
        raise InputError(
            f"source {settings.source}: has no truth for {settings.dataset}: none of its ids, nor"
            f" what they were made from, is a row such as {rows.identity(0)!r}"
        )
    judged = measure(same_images(rows, truth, known), tasks, len(known))
    metrics = {
        name: judge_task(tasks[name], one, settings)
        for name, one in judged.items()
        if len(one.errors)
    }
    results = {
        "dataset": rows.name,
        "truth": truth.name,
        "rows": len(rows),
        "judged": len(known),
        "settings": {k: v for k, v in asdict(settings).items() if k not in PLACES},
        "tasks": metrics,
    }
    if settings.plot:
        plot(judged, tasks, Path(settings.plot))
    file = Path(settings.output_file)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, results)
    print(
        f"{len(known)} of {len(rows)} rows judged by {truth.name}\n\n{as_table(metrics, settings)}"
    )
    return results


def find_truth(rows: Dataset, truth: Source, chosen: list[int]) -> list[int | None]:
    """Find the image of each row in the truth.

    A labelled row has the image of the row of its source. Else the truth may be a dataset that a
    reference made from these rows, or may have rows of the same ids.

    Args:
        rows: the dataset.
        truth: the source.
        chosen: indices of rows.

    Returns:
        For each chosen row an index in the truth, None if its image is not there.
    """
    own = {truth.identity(index): index for index in range(len(truth))}
    made_from: dict[str, int] = {}
    if isinstance(truth.original, Dataset):
        column = truth.original.column("provenance.source_id").to_pylist()
        made_from = {identity: index for index, identity in enumerate(column)}
    sources = rows.column("provenance.source_id").take(chosen).to_pylist()
    strengths = rows.column("provenance.strength").take(chosen).to_pylist()
    found: list[int | None] = []
    for row, source, strength in zip(chosen, sources, strengths, strict=True):
        name = rows.identity(row)
        ways = [own.get(source)] if strength == 0 else []
        ways += [made_from.get(name), own.get(name)]
        found.append(next((index for index in ways if index is not None), None))
    return found


def same_images(
    rows: Dataset, truth: Source, known: Mapping[int, int]
) -> Iterator[tuple[Sample, Sample]]:
    """Pairs of a row and its truth.

    Args:
        rows: the dataset.
        truth: the source.
        known: index of a row -> index in the truth.

    Raises:
        InputError: if two images differ.
    """
    for row, index in known.items():
        one, other = rows[row], truth[index]
        if image_sha256(one.image) != image_sha256(other.image):
            sizes = " and ".join(f"{h}x{w}" for h, w in (one.size, other.size))
            raise InputError(
                f"row {one.id!r} of {rows.name} and {other.id!r} of {truth.name} are different"
                f" images ({sizes}): the truth must be on the very images"
            )
        yield one, other


def measure(
    pairs: Iterator[tuple[Sample, Sample]], tasks: Mapping[str, Task], total: int
) -> dict[str, Judged]:
    """Sums, errors and scores of every sample, by task.

    Args:
        pairs: rows with their truth.
        tasks: the tasks to score.
        total: number of pairs, for the progress bar.
    """
    found: dict[str, list[tuple[Array, float, list[float]]]] = {name: [] for name in tasks}
    for one, other in tqdm(pairs, "judge", total, unit="row", leave=False, mininterval=1):
        for name, task in tasks.items():
            if name not in one.targets or name not in other.targets:
                continue
            family = task.family
            label, target = (family.to_tensor(s.targets[name])[None] for s in (one, other))
            # a label may be unknown where it cannot be stored, as depth beyond 65 m
            valid = family.valid(target) & family.valid(label)
            sums = task.meter.measure(label, target, valid)[0]
            metric = task.meter.summary(sums)[task.meter.headline]
            error = 1 - metric if task.meter.higher_is_better(task.meter.headline) else metric
            if not math.isnan(error):
                quality = asdict(one.quality[name])
                scores = [math.nan if quality[k] is None else quality[k] for k in SCORES]
                found[name].append((sums.numpy(), error, scores))
    return {name: _judged(samples) for name, samples in found.items()}


def _judged(samples: list[tuple[Array, float, list[float]]]) -> Judged:
    columns = np.array([scores for *_, scores in samples]).reshape(-1, len(SCORES)).T
    scores = dict(zip(SCORES, columns, strict=True))
    errors = np.array([error for _, error, _ in samples])
    return Judged(np.array([sums for sums, *_ in samples]), errors, scores)


def judge_task(task: Task, judged: Judged, settings: JudgeSettings) -> dict[str, Any]:
    """The metrics of the labels of one task, and how well each score predicts their error.

    The oracle keeps the samples of least error. For a metric that is no mean over samples, such as
    the mean IoU, that may not be the best choice. Samples without a score are kept last.

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
                "kept": one,
            }
            for name, one in zip(names, kept, strict=True)
        },
    }


def correlation(
    score: Array, errors: Array, rounds: int, rng: np.random.Generator
) -> dict[str, float | None]:
    """Rank correlation of a score with the error, and its bootstrap error.

    Args:
        score: of each sample, nan where it was not measured, [N].
        errors: [N].
        rounds: of the bootstrap.
        rng: draws the samples.

    Returns:
        `samples`, `spearman` and `spearman_error`; the last two are None for a constant score.
    """
    known = ~np.isnan(score)
    one, other = score[known], errors[known]
    found = spearman(one, other)
    redrawn = [spearman(one[d], other[d]) for d in rng.integers(0, len(one), (rounds, len(one)))]
    constant = math.isnan(found)
    return {
        "samples": int(known.sum()),
        "spearman": None if constant else found,
        "spearman_error": None if constant else float(np.nanstd(redrawn)),
    }


def spearman(one: Array, other: Array) -> float:
    """Spearman's rank correlation, nan if one of the two is constant."""
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
        score: [N].
        share: of the samples that are kept.

    Returns:
        1 for a kept sample, else 0; samples of equal score share the rest equally, [N].
    """
    _, place, counts = np.unique(-score, return_inverse=True, return_counts=True)
    wanted = max(1, round(share * len(score)))
    before = counts.cumsum() - counts
    weights: Array = ((wanted - before) / counts).clip(0, 1)
    return weights[place]


def as_table(metrics: Mapping[str, Mapping[str, Any]], settings: JudgeSettings) -> str:
    """A Markdown table with a line for each score of each task.

    Args:
        metrics: by task, see `judge_task`.
        settings: whose share of kept samples is in the head.
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
        tasks: by name.
        file: the PNG.
    """
    from matplotlib.figure import Figure

    figure = Figure((2.6 * len(SCORES) + 0.4, 2.1 * len(judged) + 0.3), layout="constrained")
    panels = figure.subplots(len(judged), len(SCORES), squeeze=False, sharey="row")
    for row, (name, one) in zip(panels, judged.items(), strict=True):
        meter = tasks[name].meter
        error = (
            f"1 - {meter.headline}"
            if meter.higher_is_better(meter.headline)
            else f"{meter.headline} error"
        )
        row[0].set_ylabel(f"{name}, {error}", fontsize=8)
        for panel, (score, values) in zip(row, one.scores.items(), strict=True):
            panel.scatter(values, one.errors, s=7, alpha=0.5, linewidths=0, color="C0")
            known = ~np.isnan(values)
            rank = spearman(values[known], one.errors[known])
            text = "constant" if math.isnan(rank) else f"rank correlation {rank:+.2f}"
            panel.set_title(f"{score}, {text if known.any() else 'not measured'}", fontsize=8)
            panel.locator_params(axis="x", nbins=4)
            panel.tick_params(labelsize=7)
            panel.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(file) as temporary:
        figure.savefig(temporary, dpi=120, format=file.suffix[1:] or "png")
