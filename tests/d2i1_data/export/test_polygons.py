"""Polygons cover the pixels of their region, and no hole."""

import numpy as np
import pytest

from d2i1_data.export.polygons import polygons
from tests.exports import drawn


@pytest.mark.parametrize("seed", range(40))
def test_polygons_keep_every_pixel_and_hole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 20, 2)) < rng.random()
    if seed % 2:
        mask = np.kron(mask, np.ones((2, 3), bool))
    found = np.zeros(mask.shape, int)
    for corners, area in polygons(mask):
        region = drawn(corners, mask.shape)
        assert region.sum() == area
        found += region
    assert np.array_equal(found, mask)


def test_holes_in_holes_are_one_polygon_each() -> None:
    mask = np.zeros((30, 30), bool)
    for ring in range(0, 15, 2):
        mask[ring : 30 - ring, ring : 30 - ring] = ring % 4 == 0
    assert len(list(polygons(mask))) == 4
    assert list(polygons(np.zeros((3, 3), bool))) == []
    touching = np.eye(4, dtype=bool)
    assert [area for _, area in polygons(touching)] == [1] * 4  # corners do not connect
