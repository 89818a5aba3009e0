"""Sections of the page: the values for the template, and the figures as files."""

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

SAMPLES, PAIRS, CAPTIONS = 8, 8, 5  # samples of the gallery, nearest pairs, frequent captions
DPI = 150  # twice what a page 7.2 inches wide shows

Section = dict[str, Any]


def columns(rows: Dataset, record: DatasetRecord, samples: ReadSamples, folder: Path) -> Section:
    """Statistics of the columns without pictures, and of the files beside the shards."""
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
        {"id": one.id, "caption": one.caption, "tiles": sheet.tiles(tiles)}
        for one, tiles in entries
    ]


def maps(
    tasks: Iterable[str], samples: ReadSamples, read_source: ReadSamples | None, folder: Path
) -> list[Section]:
    """The distribution of the labels of each task, beside that of the source if it has labels."""
    found = []
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
        found.append(
            {
                "name": name,
                "about": own.about,
                "heads": [f"{c} {label}".strip() for label in compared for c in own.columns],
                "lines": _side_by_side(compared),
                "compared": len(compared) > 1,
            }
        )
    return found


def _side_by_side(compared: Mapping[str, Distribution]) -> list[Section]:
    """The lines of distributions of one kind, their numbers one after another."""
    found = []
    for lines in zip(*(one.lines() for one in compared.values()), strict=True):
        values = [value for line in lines for value in line.values]
        cells = [line.form.format(value) for line in lines for value in line.values]
        found.append({"name": lines[0].name, "values": values, "cells": cells})
    return found


def near_copies(
    samples: ReadSamples,
    read_source: ReadSamples,
    source_images: SourceImages,
    threshold: float,
    folder: Path,
) -> Section:
    """How similar the created images are to those of the source, and the nearest pairs."""
    assert samples.features is not None and read_source.features is not None
    made = [n for n, one in enumerate(samples.origins) if one.strength]
    place = {number: n for n, number in enumerate(read_source.numbers)}
    own = [place.get(index) for index in (source_images.index(samples.origins[n]) for n in made)]  # type: ignore[arg-type]
    found = copies.compare(samples.features[made], read_source.features, own)
    save(copies.draw(found, threshold), folder / "copies.png")
    sheet, pairs = Sheet("pairs.png"), []
    for pair in found.pairs[:PAIRS]:
        row = made[pair.created]
        images = {"created": samples.source[samples.numbers[row]].image}
        images["source"] = read_source.source[read_source.numbers[pair.source]].image
        tiles = [sheet.add(label, image) for label, image in images.items()]
        pairs.append((pair, samples.ids[row], read_source.ids[pair.source], tiles))
    sheet.save(folder)
    return {
        "threshold": threshold,
        "images": len(made),
        "curves": found.table(threshold),
        "identical": sum(samples.hashes[n] in set(read_source.hashes) for n in made),
        "pairs": [
            {
                "id": one,
                "source": other,
                "cosine": pair.cosine,
                "own": pair.own,
                "tiles": sheet.tiles(tiles),
            }
            for pair, one, other, tiles in pairs
        ],
    }


def save(figure: Figure, file: Path) -> None:
    """Write a figure at the page's resolution."""
    with atomic_file(file) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")
