"""Sections of the page: they compute values for the template and write figures."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ...dataset.columns import count_values
from ...dataset.files import atomic_file
from ...dataset.record import DatasetRecord
from ...diff2in1.families import Distribution
from ...sources.dataset import Dataset
from ...sources.source import evenly_spaced
from . import copies, distributions, summary
from .pictures import Sheet, add_sample
from .reading import ReadSamples
from .source_images import SourceImages

SAMPLES, PAIRS, CAPTIONS = 8, 8, 5  # numbers of samples, nearest pairs and captions on the page
SIZES, SKIPPED_ROWS = 12, 50  # numbers of sizes and of rows that were left out on the page
DPI = 150  # twice the resolution of a page that is 7.2 inches wide

Section = dict[str, Any]


def columns(rows: Dataset, record: DatasetRecord, samples: ReadSamples, folder: Path) -> Section:
    """Statistics of the columns without pictures, and of the files beside the shards.

    Args:
        rows: the dataset.
        record: record of the dataset.
        samples: the samples that were read.
        folder: gets the figure of the scores.
    """
    captions = count_values(rows.column("caption"))
    captions.pop(None, None)
    scores = summary.quality(rows)
    if scores:
        save(summary.draw_quality(scores, len(rows)), folder / "quality.png")
    return {
        "counts": summary.counts(rows, record, samples.sizes),
        "captions": [pair for pair in captions.most_common(CAPTIONS) if pair[1] > 1],
        "provenance": summary.provenance(rows),
        "licence": summary.licence(rows),
        "cost": summary.cost(record),
        "quality": summary.quality_table(scores),
        "equal": samples.equal(),
        "sizes": samples.sizes.most_common(SIZES),
        "skipped": [*record.reasons.items()][:SKIPPED_ROWS],
    }


def gallery(samples: ReadSamples, source_images: SourceImages, folder: Path) -> list[Section]:
    """A few samples with their source image, labels and confidence."""
    sheet, entries = Sheet("gallery.png"), []
    for number in evenly_spaced(len(samples.numbers), SAMPLES):
        sample = samples.source[samples.numbers[number]]
        tiles = add_sample(sheet, sample, source_images.of(sample), samples.source.tasks)
        entries.append((sample, tiles))
    sheet.save(folder)
    return [
        {"id": sample.id, "caption": sample.caption, "tiles": sheet.tiles(tiles)}
        for sample, tiles in entries
    ]


def maps(
    tasks: Iterable[str], samples: ReadSamples, read_source: ReadSamples | None, folder: Path
) -> list[Section]:
    """The distribution of the labels of each task, beside the distribution of the source.

    Args:
        tasks: names of the tasks.
        samples: the samples that were read.
        read_source: the source images that were read, if there are any.
        folder: gets a figure for each task.
    """
    sections = []
    for name in tasks:
        own, others = (
            samples.distributions[name],
            read_source and read_source.distributions.get(name),
        )
        if not own.maps:
            continue
        compared = {"dataset": own}
        if others and others.maps:
            compared["source"] = others
        save(distributions.draw(compared), folder / f"{name}.png")
        sections.append(
            {
                "name": name,
                "about": own.about,
                "heads": [f"{c} {label}".strip() for label in compared for c in own.columns],
                "lines": _side_by_side(compared),
                "compared": len(compared) > 1,
                "unknown": samples.unknown[name] / max(samples.pixels[name], 1),
            }
        )
    return sections


def _side_by_side(compared: Mapping[str, Distribution]) -> list[Section]:
    """Join the tables of distributions of one kind, side by side."""
    joined = []
    for lines in zip(*(counts.lines() for counts in compared.values()), strict=True):
        values = [value for line in lines for value in line.values]
        cells = [line.form.format(value) for line in lines for value in line.values]
        joined.append({"name": lines[0].name, "values": values, "cells": cells})
    return joined


def near_copies(
    samples: ReadSamples,
    read_source: ReadSamples,
    source_images: SourceImages,
    threshold: float,
    folder: Path,
) -> Section:
    """Compare created images with source images, and show the nearest pairs.

    Args:
        samples: the samples that were read, with features.
        read_source: the source images that were read, with features.
        source_images: tells the own source image of each sample.
        threshold: cosine from which on an image counts as a copy.
        folder: gets the figures.
    """
    assert samples.features is not None and read_source.features is not None
    created = [n for n, origin in enumerate(samples.origins) if origin.strength]
    place = {number: n for n, number in enumerate(read_source.numbers)}
    indices = (source_images.index(samples.origins[n]) for n in created)
    own = [place.get(index) for index in indices]  # type: ignore[arg-type]
    result = copies.compare(samples.features[created], read_source.features, own)
    save(copies.draw(result, threshold), folder / "copies.png")
    sheet, pairs = Sheet("pairs.png"), []
    for pair in result.pairs[:PAIRS]:
        row = created[pair.created]
        images = {"created": samples.source[samples.numbers[row]].image}
        images["source"] = read_source.source[read_source.numbers[pair.source]].image
        tiles = [sheet.add(label, image) for label, image in images.items()]
        pairs.append((pair, samples.ids[row], read_source.ids[pair.source], tiles))
    sheet.save(folder)
    return {
        "threshold": threshold,
        "images": len(created),
        "curves": result.table(threshold),
        "identical": sum(samples.hashes[n] in set(read_source.hashes) for n in created),
        "pairs": [
            {
                "id": identity,
                "source": source,
                "cosine": pair.cosine,
                "own": pair.own,
                "tiles": sheet.tiles(tiles),
            }
            for pair, identity, source, tiles in pairs
        ],
    }


def save(figure: Figure, file: Path) -> None:
    """Write a figure at the resolution of the page."""
    with atomic_file(file) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")
