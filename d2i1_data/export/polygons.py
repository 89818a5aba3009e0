"""Polygons: the outline of every connected region of a mask, its holes included.

The outline runs along the edges of pixels with the region on its right. A hole is connected to the
next outline on its left by a bridge, which the polygon passes in both directions. So one polygon
describes a region with its holes.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

EAST, SOUTH, WEST, NORTH = range(4)  # y points down: the next direction is a turn to the right
STEPS = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])  # rows and columns
# Distance in pixels by which outlines lie inside the region. Bridges and corners then do not touch,
# and a reader that cuts coordinates to whole pixels and draws the outline, as OpenCV does, gets the
# same mask.
INSET = 0.05


def polygons(mask: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.float64], int]]:
    """The polygon of each 4-connected region of a mask.

    Args:
        mask: [H, W].

    Returns:
        For each region its corners (x, y) in pixels [N, 2], and its area in pixels. The first pixel
        reaches from 0 to 1.
    """
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        return
    top, left = rows[0], columns[0]
    around = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    # the pixels around each grid point, [H + 1, W + 1]
    nw, ne, sw, se = around[:-1, :-1], around[:-1, 1:], around[1:, :-1], around[1:, 1:]
    edges = np.stack([se & ~ne, sw & ~se, nw & ~sw, ne & ~nw])  # that leave it, by direction
    holes = [walk for walk in _walks(edges) if _area(walk) < 0]
    for walk in holes:
        _bridge(edges, nw & sw, walk)
    for walk in _walks(edges):
        direction, points = walk[:, 0], walk[:, 1:]
        before = np.roll(direction, 1)
        inwards = STEPS[(before + 1) % 4] + STEPS[(direction + 1) % 4]
        corners = (points + INSET * inwards + (top, left))[direction != before]
        yield corners[:, ::-1], _area(walk)


def _walks(edges: NDArray[np.bool_]) -> Iterator[NDArray[np.intp]]:
    """The closed walks along these edges [4, H, W]: direction, row and column of each edge [N, 3].

    Every walk turns right where it can: it keeps to its pixel where two touch at a corner.
    """
    found = np.argwhere(edges)
    number = np.full(edges.shape, -1)
    number[edges] = np.arange(len(found))
    direction = found[:, 0]
    row, column = (found[:, 1:] + STEPS[direction]).T
    following = np.full(len(found), -1)
    for turn in (-1, 0, 1):
        candidate = number[(direction + turn) % 4, row, column]
        following = np.where(candidate >= 0, candidate, following)
    next_edge, seen = following.tolist(), bytearray(len(found))
    for start in range(len(found)):
        walk, edge = [], start
        while not seen[edge]:
            seen[edge] = 1
            walk.append(edge)
            edge = next_edge[edge]
        if walk:
            yield found[walk]


def _area(walk: NDArray[np.intp]) -> int:
    """Pixels on the right of a walk; of a hole, minus those in it."""
    direction, row = walk[:, 0], walk[:, 1]
    return int(row[direction == WEST].sum() - row[direction == EAST].sum())


def _bridge(edges: NDArray[np.bool_], within: NDArray[np.bool_], hole: NDArray[np.intp]) -> None:
    """Add edges both ways from a hole's first point to the next outline on its left.

    within: where the edge to the west lies inside the region. The outline that is met begins
    further up or left, so that no ring of bridges can form.
    """
    row, column = min(map(tuple, hole[:, 1:].tolist()))
    stop = int(np.flatnonzero(~within[row, :column])[-1])
    edges[WEST, row, stop + 1 : column + 1] = True
    edges[EAST, row, stop:column] = True
