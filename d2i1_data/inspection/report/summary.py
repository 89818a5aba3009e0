"""Summary: statistics of the columns without pictures, and of the record of a dataset."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ...dataset.columns import count_values, describe_counts
from ...dataset.record import DatasetRecord, LogEntry
from ...dataset.sample import Provenance
from ...dataset.schema import SCORES
from ...sources.dataset import Dataset
from .distributions import WIDTH

THRESHOLDS = (0.7, 0.8, 0.9, 0.95, 0.99)
KEPT = 0.8  # the table gives the threshold that keeps this share of the rows
# fields that differ in every row, and the licence, which has its own line
OF_A_SAMPLE = ("source_id", "source_sha256", "noise_seed", "licence")

Facts = dict[str, str]


def counts(rows: Dataset, record: DatasetRecord, sizes: Mapping[str, int]) -> Facts:
    """Numbers of rows, shards, labels, images and captions.

    Args:
        rows: the dataset.
        record: record of the dataset.
        sizes: how often each image size occurs among the images that were read.
    """
    captions = count_values(rows.column("caption"))
    written = f"{record.written:,}" if record.written else "unknown"
    if record.planned and record.planned != record.written:
        written += f" of {record.planned:,} planned"
    without = captions.pop(None, 0)
    return {
        "rows": f"{len(rows):,}",
        "shards": written,
        "skipped": f"{record.skipped:,}",
        "labels": ", ".join(_labelled(rows, name) for name in rows.tasks),
        "image sizes, height x width": describe_counts(sizes),
        "source images": f"{len(count_values(rows.column('provenance.source_id'))):,}",
        "captions": f"{len(captions):,} different" + (f", {without:,} without" if without else ""),
    }


def _labelled(rows: Dataset, name: str) -> str:
    missing = rows.column(name).null_count
    return f"{name} ({missing:,} without)" if missing else name


def provenance(rows: Dataset) -> Facts:
    """The values of each field of the provenance, in a few words."""
    names = [field.name for field in fields(Provenance) if field.name not in OF_A_SAMPLE]
    counted = {name: count_values(rows.column(f"provenance.{name}")) for name in names}
    return {
        n.replace("_", " "): describe_counts(values)
        for n, values in counted.items()
        if set(values) != {None}
    }


def licence(rows: Dataset) -> str:
    """The licence of the images that the rows were made from."""
    licences = count_values(rows.column("provenance.licence"))
    return describe_counts({value or "unknown": count for value, count in licences.items()})


def cost(record: DatasetRecord) -> list[dict[str, Any]]:
    """Time of the finished shards, for each kind of device. Seconds are summed over processes."""
    devices: dict[str, list[LogEntry]] = {}
    for entry in record.logs:
        devices.setdefault(entry.device, []).append(entry)
    return [
        {
            "device": device,
            "processes": len({entry.process for entry in entries}),
            "shards": len(entries),
            "images": (images := sum(entry.samples for entry in entries)),
            "seconds": (seconds := sum(entry.seconds for entry in entries)),
            "rate": images / seconds if seconds else 0.0,
        }
        for device, entries in devices.items()
    ]


def quality(rows: Dataset) -> dict[str, dict[str, NDArray[np.float32]]]:
    """All measured values of each score, by task."""
    measured: dict[str, dict[str, NDArray[np.float32]]] = {}
    for name in rows.tasks:
        for score in SCORES:
            column = rows.column(f"quality.{name}.{score}").drop_null()
            if len(column):
                measured.setdefault(name, {})[score] = column.to_numpy()
    return measured


def quality_table(scores: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Statistics of each task and score.

    These are mean, median, the number of rows that each threshold keeps, and the threshold that
    keeps 80 % of the rows with the score.
    """
    return [
        {
            "task": task,
            "score": score,
            "mean": float(values.mean()),
            "median": float(np.median(values)),
            "measured": len(values),
            "keeps_most": float(np.quantile(values, 1 - KEPT)),
            "kept": {f"{least:g}": int((values >= least).sum()) for least in THRESHOLDS},
        }
        for task, own in scores.items()
        for score, values in own.items()
    ]


def draw_quality(scores: Mapping[str, Mapping[str, Any]], rows: int) -> Figure:
    """A figure of the scores of each task.

    Args:
        scores: result of `quality`.
        rows: number of all rows of the dataset, with and without scores.
    """
    figure = Figure((WIDTH, 1.75 * len(scores) + 0.4), layout="constrained")
    panels = figure.subplots(len(scores), 2, squeeze=False, sharex="row")
    colours = dict(zip(SCORES, ("#1f5fa8", "#d9822b", "#3a8f5c"), strict=False))
    for (left, right), (task, own) in zip(panels, scores.items(), strict=True):
        least = min(float(values.min()) for values in own.values())
        limits = (min(0.95, np.floor(20 * least) / 20), 1)  # scores are often all near 1
        for score, values in own.items():
            shares, edges = np.histogram(values, 50, limits)
            left.stairs(100 * shares / len(values), edges, color=colours[score], label=score)
            fine, edges = np.histogram(values, 500, limits)
            # for each edge, the number of values at or above it
            kept = np.append(fine[::-1].cumsum()[::-1], 0)
            right.plot(edges, 100 * kept / rows, color=colours[score])
        left.set_ylabel(f"{task}\n% of rows", fontsize=8)
        left.set(xlim=limits, ylim=(0, None))
        right.set(ylim=(0, 103))
        for panel in (left, right):
            panel.tick_params(labelsize=8)
            panel.spines[["top", "right"]].set_visible(False)
    panels[0, 0].set_title("distribution", fontsize=9)
    panels[0, 1].set_title("rows kept by a threshold, %", fontsize=9)
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=3,
        frameon=False,
        fontsize=8,
    )
    return figure
