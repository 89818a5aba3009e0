"""Polygons: the outline of every connected region of a mask, its holes included.

The outline runs along the edges of pixels, with the region on its right. A bridge connects each
hole to the next outline on its left. The polygon passes the bridge in both directions, so one
polygon describes a region with its holes.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

EAST, SOUTH, WEST, NORTH = range(4)  # y points down: the next direction is a turn to the right
STEPS = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])  # rows and columns
# Outlines lie inside the region by this distance in pixels. So bridges and corners do not touch.
# Some readers, such as OpenCV, cut coordinates to whole pixels and draw the outline too. They then
# get the same mask.
INSET = 0.05


def polygons(mask: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.float64], int]]:
    """The polygon of each 4-connected region of a mask.

    Args:
        mask: [H, W].

    Returns:
        For each region its corners (x, y) in pixels [N, 2], and its area in pixels. The first pixel
        extends from 0 to 1.
    """
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        return
    top, left = rows[0], columns[0]
    around = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    # the pixels around each grid point, [H + 1, W + 1]
    nw, ne, sw, se = around[:-1, :-1], around[:-1, 1:], around[1:, :-1], around[1:, 1:]
    edges = np.stack([se & ~ne, sw & ~se, nw & ~sw, ne & ~nw])  # edges that begin there
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
    """The closed walks along edges [4, H, W]: direction, row and column of each edge, [N, 3].

    A walk turns right if it can. So it stays at its pixel where two pixels touch at a corner.
    """
    listed = np.argwhere(edges)
    number = np.full(edges.shape, -1)
    number[edges] = np.arange(len(listed))
    direction = listed[:, 0]
    row, column = (listed[:, 1:] + STEPS[direction]).T
    following = np.full(len(listed), -1)
    for turn in (-1, 0, 1):
        candidate = number[(direction + turn) % 4, row, column]
        following = np.where(candidate >= 0, candidate, following)
    next_edge, visited = following.tolist(), bytearray(len(listed))
    for start in range(len(listed)):
        walk, edge = [], start
        while not visited[edge]:
            visited[edge] = 1
            walk.append(edge)
            edge = next_edge[edge]
        if walk:
            yield listed[walk]


def _area(walk: NDArray[np.intp]) -> int:
    """Number of pixels inside a walk. It is negative for a hole."""
    direction, row = walk[:, 0], walk[:, 1]
    return int(row[direction == WEST].sum() - row[direction == EAST].sum())


def _bridge(edges: NDArray[np.bool_], within: NDArray[np.bool_], hole: NDArray[np.intp]) -> None:
    """Add edges both ways from a hole's first point to the next outline on its left.

    within: where the edge to the west lies inside the region. The outline that the bridge reaches
    begins further up or left, so bridges cannot form a ring.
    """
    row, column = min(map(tuple, hole[:, 1:].tolist()))
    stop = int(np.flatnonzero(~within[row, :column])[-1])
    edges[WEST, row, stop + 1 : column + 1] = True
    edges[EAST, row, stop:column] = True
