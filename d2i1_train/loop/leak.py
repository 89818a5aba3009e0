"""Leaks: created rows that were made from samples that may be held out for evaluation."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from d2i1_data.dataset.sample import image_sha256
from d2i1_data.errors import InputError
from d2i1_data.sources import Rows, Source
from d2i1_data.sources.dataset import Dataset

from ..settings import SelfImproveSettings
from .validation import open_validation_rows


def check_leaks(settings: SelfImproveSettings, rows: Rows, created: Sequence[Rows]) -> int:
    """Count the created rows that were made from samples that may be held out.

    A row is one of them if its source image is a validation image, or if its source id is not in
    the split that real samples come from, although it is of the same source.

    Args:
        settings: names the real source and the validation source; says whether to accept such rows.
        rows: the real rows. Other rows of the same split are not held out.
        created: the created rows; empty for the real-only baseline.

    Raises:
        InputError: if there are such rows, unless the settings accept them.
    """
    leaks: dict[int, str] = {}
    for made in created:
        leaks |= _of_another_split(made, rows.source, settings.source)
        leaks |= _of_validation_images(made, settings)
        if leaks and not settings.allow_leak:
            first = min(leaks)
            raise InputError(
                f"--created {settings.created}: {len(leaks)} of {len(made.usable)} rows come from"
                f" samples that may be held out, such as row {made.source.identity(first)!r}"
                f" ({leaks[first]}); create from samples of --source, or accept them with"
                " --allow_leak"
            )
    return len(leaks)


def _of_another_split(made: Rows, source: Source, spec: str) -> dict[int, str]:
    """Created rows of the same source that its split does not hold: row -> reason."""
    names = _column(made, "provenance.source_dataset")
    if source.name not in names:
        return {}
    known = {source.identity(index) for index in range(len(source))}
    ids = _column(made, "provenance.source_id")
    found = zip(made.usable, names, ids, strict=True)
    return {
        row: f"its source {identity} is not in --source {spec}"
        for row, name, identity in found
        if name == source.name and identity not in known
    }


def _of_validation_images(made: Rows, settings: SelfImproveSettings) -> dict[int, str]:
    """Created rows whose source image is used for validation: row -> reason."""
    if not settings.validation_source:
        return {}
    rows = open_validation_rows(settings)
    images = (rows.source.original.picture(row) for row in rows.usable)
    held_out = {one.provenance.source_sha256 or image_sha256(one.image) for one in images}
    hashes = zip(made.usable, _column(made, "provenance.source_sha256"), strict=True)
    reason = f"its source image is in --validation_source {settings.validation_source}"
    return {row: reason for row, sha256 in hashes if sha256 in held_out}


def _column(made: Rows, name: str) -> list[Any]:
    """A column of the used rows, without decoding images."""
    dataset = made.source.original
    assert isinstance(dataset, Dataset)
    return dataset.column(name).take(np.asarray(made.usable)).to_pylist()
