"""Functions that the tests of exports share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from d2i1_data.export.entries import file_name


def export(
    d2i1: Callable[..., str], dataset: Path, form: str, folder: Path, *flags: object
) -> Path:
    """Export a dataset; the folder of the export."""
    d2i1("export", dataset, "--format", form, "--output_dir", folder, *flags)
    return folder


def drawn(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centre is in a polygon, drawn by Pillow at eight times the size."""
    canvas = Image.new("1", (8 * size[1], 8 * size[0]))
    ImageDraw.Draw(canvas).polygon([tuple(one) for one in (8 * corners - 0.5).tolist()], fill=1)
    return np.asarray(canvas)[4::8, 4::8]


def assert_same_samples(found: Any, source: Any) -> None:
    """What was read from an export has the tasks, images, captions and labels of its source."""
    configs = [{n: t.family.config() for n, t in one.tasks.items()} for one in (found, source)]
    assert configs[0] == configs[1]
    samples = {sample.id: sample for sample in found}
    assert len(samples) == len(source)
    for real in source:
        own = samples[file_name(real.id)]
        assert np.array_equal(own.image, real.image)
        assert (own.caption or None) == real.caption
        for name, task in source.tasks.items():
            blank = task.family.to_array(task.family.blank(real.size))
            assert np.array_equal(own.targets[name], real.targets.get(name, blank))
