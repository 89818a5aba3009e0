"""Rooms: reproducible, at any resolution, with labels that agree with one another."""

import hashlib
import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from d2i1_data.dataset.sample import Sample
from d2i1_data.errors import InputError
from d2i1_data.sources import open_source
from d2i1_data.sources.rooms import MAIN_OBJECTS, Rooms, describe, main_object
from d2i1_data.sources.rooms.render import CLASSES, render
from d2i1_data.sources.rooms.scene import COLOURS, SHAPES, Room, draw_room


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    rooms = Rooms("train")
    return [rooms[index] for index in range(40)]


def room_of(source: Rooms, index: int) -> Room:
    """The scene behind a sample, drawn as the source draws it."""
    seed = hashlib.blake2b(source.identity(index).encode(), digest_size=8).digest()
    rng = np.random.default_rng(int.from_bytes(seed, "big"))
    while True:
        room = draw_room(rng)
        if describe(room, render(room, source.size)[1]):
            return room


def test_same_index_is_the_same_room() -> None:
    one, other = Rooms("val")[3], Rooms("val")[3]
    assert (one.id, one.caption, one.provenance) == (other.id, other.caption, other.provenance)
    assert one.image.tobytes() == other.image.tobytes()
    for name, target in one.targets.items():
        assert target.tobytes() == other.targets[name].tobytes(), name


def test_splits_never_share_images() -> None:
    seen = [Rooms(s)[n] for s in ("train", "val", "test") for n in range(15)]
    assert len({sample.provenance.source_sha256 for sample in seen}) == len(seen)
    assert len({sample.id for sample in seen}) == len(seen)


def test_unknown_split_and_index_are_refused() -> None:
    with pytest.raises(InputError, match="no split 'tset': choose from train, val, test"):
        open_source("rooms:tset")
    with pytest.raises(IndexError, match="500"):
        Rooms("test")[500]


@pytest.mark.parametrize("size", [(48, 80), (80, 48), (64, 64), (33, 20)])
def test_any_resolution(size: tuple[int, int]) -> None:
    rooms = Rooms("train", size)
    sample = rooms[1]
    assert sample.image.shape == (*size, 3)
    assert sample.image.dtype == np.uint8
    assert set(sample.targets) == set(rooms.tasks)
    for name, task in rooms.tasks.items():
        assert sample.targets[name].shape[:2] == size
        assert task.family.find_problem(sample.targets[name]) is None
        assert task.family.valid(task.family.to_tensor(sample.targets[name])[None]).all(), name


def surface_normals(depth: NDArray[Any], tan_half_fov: float) -> NDArray[Any]:
    """Normals of the inner pixels from central differences of the unprojected depth."""
    height, width = depth.shape
    pixel = 2 * tan_half_fov / max(height, width)
    x = (np.arange(width) + 0.5 - width / 2) * pixel
    y = (height / 2 - 0.5 - np.arange(height)) * pixel
    x, y = np.meshgrid(x, y)
    points = depth[..., None].astype(np.float64) * np.stack([x, y, -np.ones_like(x)], -1)
    right = points[1:-1, 2:] - points[1:-1, :-2]
    up = points[:-2, 1:-1] - points[2:, 1:-1]
    normals = np.cross(right, up)
    return normals / np.linalg.norm(normals, axis=-1, keepdims=True)


@pytest.mark.parametrize("size", [(128, 128), (96, 160)])
def test_normals_agree_with_depth(size: tuple[int, int]) -> None:
    rooms, errors = Rooms("test", size), []
    for index in range(6):
        targets = rooms[index].targets
        ours = surface_normals(targets["depth"], room_of(rooms, index).tan_half_fov)
        theirs = targets["normals"][1:-1, 1:-1]
        edge = targets["edges"] > 0
        height, width = edge.shape
        near = [edge[i : height - 2 + i, j : width - 2 + j] for i in range(3) for j in range(3)]
        cosine = (ours * theirs).sum(-1)[~np.any(near, 0)]
        errors.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    pooled = np.concatenate(errors)
    assert len(pooled) > 3 * size[0] * size[1]  # most pixels are inner ones
    assert np.median(pooled) < 1
    assert np.quantile(pooled, 0.95) < 3


def test_saliency_is_the_coloured_shapes(samples: list[Sample]) -> None:
    shapes = [Rooms.tasks["semseg"].family.names.index(shape) for shape in SHAPES]  # type: ignore[attr-defined]
    for sample in samples:
        expected = np.isin(sample.targets["semseg"], shapes)
        np.testing.assert_array_equal(sample.targets["saliency"], expected)
        assert expected.any()


def test_edges_where_class_or_depth_jumps(samples: list[Sample]) -> None:
    for sample in samples:
        classes, depth = sample.targets["semseg"].astype(int), sample.targets["depth"]
        jump = np.zeros(classes.shape, bool)
        ratio = np.log(1.15)
        across = np.abs(np.diff(np.log(depth), axis=1)) > ratio
        down = np.abs(np.diff(np.log(depth), axis=0)) > ratio
        jump[:, :-1] |= (np.diff(classes, axis=1) != 0) | across
        jump[:-1] |= (np.diff(classes, axis=0) != 0) | down
        np.testing.assert_array_equal(sample.targets["edges"] > 0, jump)


def test_caption_names_what_is_visible(samples: list[Sample]) -> None:
    named_alone = 0
    for sample in samples:
        caption = sample.caption or ""
        assert re.fullmatch(
            r"a room with a \w+( \w+)?(, a \w+( \w+)?)*( and a \w+( \w+)?)?", caption
        )
        assert main_object(caption) in MAIN_OBJECTS
        share = np.bincount(sample.targets["semseg"].ravel(), minlength=len(CLASSES)) / 64**2
        words = re.findall(r"\w+", caption)
        things = [word for word in words if word in CLASSES]
        assert all(share[CLASSES.index(thing)] >= 0.012 for thing in things), caption
        # three objects at most: a class over three times the limit holds a visible one
        assert all(s in words for s in SHAPES if share[CLASSES.index(s)] > 3 * 0.012), caption
        for colour, shape in re.findall(rf"({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})", caption):
            mask = sample.targets["semseg"] == CLASSES.index(shape)
            if words.count(shape) == 1 and mask.mean() > 0.05:  # no other may be in the picture
                assert nearest_colour(sample.image[mask].mean(0)) == colour, caption
                named_alone += 1
    assert named_alone > 10


def nearest_colour(mean: NDArray[Any]) -> str:
    """The named colour of the same hue: light scales all three channels alike."""
    cosine = {
        name: mean @ np.array(c) / np.linalg.norm(mean) / np.linalg.norm(c)
        for name, c in COLOURS.items()
    }
    return max(cosine, key=lambda name: cosine[name])
