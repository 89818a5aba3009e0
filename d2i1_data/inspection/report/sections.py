"""Sections of the page: what each shows, as values for the template, and its figures as files."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ...dataset.columns import count_values
from ...dataset.record import Record
from ...diff2in1.families import Distribution
from ...sources.dataset import Dataset
from ...sources.source import evenly_spaced
from . import copies, distributions
from . import summary as facts
from .pictures import Sheet, add_sample
from .reading import Seen
from .source_images import Origin

SHOWN, PAIRS, CAPTIONS = 8, 8, 5  # samples of the gallery, nearest pairs, frequent captions
DPI = 150  # twice what a page 7.2 inches wide shows

Section = dict[str, Any]


def columns(rows: Dataset, record: Record, seen: Seen, folder: Path) -> Section:
    """What the columns without pictures say, and the files beside the shards."""
    captions = count_values(rows.column("caption"))
    captions.pop(None, None)
    scores = facts.quality(rows)
    if scores:
        save(facts.draw_quality(scores, len(rows)), folder / "quality.png")
    return {
        "counts": facts.counts(rows, record, seen.sizes),
        "captions": [pair for pair in captions.most_common(CAPTIONS) if pair[1] > 1],
        "provenance": facts.provenance(rows),
        "licence": facts.licence(rows),
        "cost": facts.cost(record),
        "quality": facts.quality_table(scores),
        "equal": seen.equal(),
    }


def gallery(seen: Seen, origin: Origin, folder: Path) -> list[Section]:
    """A few samples with all that is known of them."""
    sheet, shown = Sheet("gallery.png"), []
    for number in evenly_spaced(len(seen.numbers), SHOWN):
        sample = seen.source[seen.numbers[number]]
        tiles = add_sample(sheet, sample, origin.of(sample), seen.source.tasks)
        shown.append((sample, tiles))
    sheet.save(folder)
    return [
        {"id": one.id, "caption": one.caption, "tiles": sheet.tiles(tiles)} for one, tiles in shown
    ]


def maps(tasks: Iterable[str], seen: Seen, truth: Seen | None, folder: Path) -> list[Section]:
    """Per task what its maps hold, beside the source's where that has such."""
    found = []
    for name in tasks:
        own, others = seen.distributions[name], truth and truth.distributions.get(name)
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


def near_copies(seen: Seen, truth: Seen, origin: Origin, threshold: float, folder: Path) -> Section:
    """How near the created images are to those of the source, and the nearest pairs."""
    assert seen.features is not None and truth.features is not None
    made = [n for n, one in enumerate(seen.origins) if one.strength]
    place = {number: n for n, number in enumerate(truth.numbers)}
    own = [place.get(index) for index in (origin.index(seen.origins[n]) for n in made)]  # type: ignore[arg-type]
    found = copies.compare(seen.features[made], truth.features, own)
    save(copies.draw(found, threshold), folder / "copies.png")
    sheet, pairs = Sheet("pairs.png"), []
    for pair in found.pairs[:PAIRS]:
        row = made[pair.created]
        images = {"created": seen.source[seen.numbers[row]].image}
        images["source"] = truth.source[truth.numbers[pair.source]].image
        tiles = [sheet.add(label, image) for label, image in images.items()]
        pairs.append((pair, seen.ids[row], truth.ids[pair.source], tiles))
    sheet.save(folder)
    return {
        "threshold": threshold,
        "images": len(made),
        "curves": found.table(threshold),
        "identical": sum(seen.hashes[n] in set(truth.hashes) for n in made),
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
    figure.savefig(file, dpi=DPI)
