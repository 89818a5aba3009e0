"""Normals and depth: how far they differ, which axes fit, and what `--axes` does."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from d2i1_data.dataset.sample import Sample
from d2i1_data.errors import InputError
from d2i1_data.sources import check_axes, open_source
from d2i1_data.sources.agreement import WORDS, measure, normals_from_depth
from d2i1_data.sources.axes import read_axes
from d2i1_data.sources.camera import Camera
from d2i1_data.sources.rooms import Rooms
from tests.made import run, samples

SIZE = (48, 64)
CAMERA = Camera([60.0, 55.0], [30.0, 26.0])
AXES = ("+r+g+b", "-r+g+b", "+r-g-b", "+b-g-r", "+r+b-g")  # those of five programs


def plane(normal: tuple[float, float, float], distance: float = 2.0) -> np.ndarray:
    """Depth of a plane that faces the camera."""
    rows, columns = np.indices(SIZE)
    right = (columns - 30.0) / 60.0
    up = (26.0 - rows) / 55.0
    return distance / (normal[2] - normal[0] * right - normal[1] * up)


@pytest.mark.parametrize("normal", [(0.0, 0.0, 1.0), (0.6, 0.0, 0.8), (-0.36, 0.48, 0.8)])
def test_normals_of_planes(normal: tuple[float, float, float]) -> None:
    depth = plane(normal)
    depth[10, 10] = 0
    found = normals_from_depth(depth, CAMERA)
    known = (found != 0).any(-1)
    assert known.sum() == (SIZE[0] - 2) * (SIZE[1] - 2) - 5  # a border, and a hole of five
    np.testing.assert_allclose(found[known], np.tile(normal, (known.sum(), 1)), atol=1e-9)


def test_an_edge_is_no_surface() -> None:
    depth = np.full(SIZE, 1.0)
    depth[:, 32:] = 2
    found = normals_from_depth(depth, CAMERA)
    assert not found[:, 31:33].any() and found[5:40, 5:30].any(-1).all()
    assert not normals_from_depth(np.ones((2, 2)), CAMERA).any()


@cache
def rooms() -> list[Sample]:
    """Four rooms."""
    return [Rooms("train")[number] for number in range(4)]


def write(folder: Path, stored: str, declared: str | None = None) -> str:
    """Rooms in a folder, with normals stored in one way and declared in another."""
    channels, signs = read_axes(stored, "")
    for number, room in enumerate(rooms()):
        pixels = np.zeros((*room.size, 3))
        pixels[..., channels] = room.targets["normals"] * signs
        parts = {
            "image": room.image,
            "depth": np.round(room.targets["depth"] * 1000).astype(np.uint16),
            "normal": np.round((pixels + 1) * 127.5).astype(np.uint8),
        }
        for part, values in parts.items():
            (folder / part).mkdir(exist_ok=True)
            Image.fromarray(values).save(folder / part / f"{number}.png")
    normals = {"folder": "normal"} | ({"axes": declared} if declared else {})
    columns = {"image": "image", "depth": "depth", "normals": normals}
    (folder / "rooms.yaml").write_text(yaml.safe_dump({"name": "rooms", "columns": columns}))
    return f"folder:{folder / 'rooms.yaml'}"


@pytest.mark.parametrize("axes", AXES)
def test_the_right_axes_are_found(tmp_path: Path, axes: str) -> None:
    source = open_source(write(tmp_path, axes, axes))
    found = measure(source, range(4), "normals", "depth")
    assert found is not None and found.best[0] == axes and found.declared < 4
    assert len(found.degrees) == len(WORDS) == 48
    told = check_axes(source, range(4), False) or ""
    degrees = f"{found.declared:.1f}"
    assert told.startswith(f"normals differ from those of depth by {degrees} degrees on average")
    assert "4 images, for a field of view of 60 degrees" in told

    wrong = AXES[AXES.index(axes) - 1]
    with pytest.raises(InputError) as caught:
        check_axes(open_source(write(tmp_path, axes, wrong)), range(4), False)
    assert f"with the axes {wrong}, but by {degrees} with {axes}" in str(caught.value)
    assert f"give --axes={axes}, or --axes={wrong} to keep them" in str(caught.value)


def test_a_wall_alone_refutes_nothing_but_its_own_axis(tmp_path: Path) -> None:
    spec = write(tmp_path, "+r+g+b", "-r+g+b")
    for number in range(4):
        Image.fromarray(np.full((64, 64, 3), (128, 128, 255), "u1")).save(
            tmp_path / "normal" / f"{number}.png"
        )
        Image.fromarray(np.full((64, 64), 2000, np.uint16)).save(
            tmp_path / "depth" / f"{number}.png"
        )
    assert "differ from those of depth by 0.3 degrees" in (
        check_axes(open_source(spec), range(4), False) or ""
    )
    content = yaml.safe_load((tmp_path / "rooms.yaml").read_text())
    content["columns"]["normals"]["axes"] = "+r+g-b"
    (tmp_path / "rooms.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=r"by 179\.7 degrees on average with the axes"):
        check_axes(open_source(spec), range(4), False)


def test_nothing_is_told_of_sources_without_both(photos: Path) -> None:
    assert check_axes(open_source(f"folder:{photos}"), range(6), False) is None


def test_import_refuses_tells_and_overrides(
    tmp_path: Path, d2i1: Callable[..., str], capfd: pytest.CaptureFixture[str]
) -> None:
    spec, out = write(tmp_path, "+r+g+b", "-r+g+b"), tmp_path / "out"
    told = d2i1("import", "--source", spec, "--output_dir", out, code=2)
    assert "d2i1 import: error: source rooms: normals differ" in told and "--axes=+r+g+b" in told
    assert len(told.strip().splitlines()) == 1 and not out.exists()

    run("import", "--source", spec, "--axes=+r+g+b", "--output_dir", out)
    assert "normals differ from those of depth by" in capfd.readouterr().err
    for sample, room in zip(samples(out), rooms(), strict=True):
        cosine = (sample.targets["normals"] * room.targets["normals"]).sum(-1)
        assert cosine.min() > 0.99
    assert "--axes +r+g+b" in (out / "README.md").read_text()

    kept = tmp_path / "kept"
    run("import", "--source", spec, "--axes=-r+g+b", "--resolution", 32, "--output_dir", kept)
    assert "; with the axes +r+g+b by" in capfd.readouterr().err
    assert "--axes=-r+g+b" in (kept / "README.md").read_text()
    ours = open_source(f"dataset:{kept}")  # its axes are certain, so nothing is refused
    assert "differ" in (check_axes(ours, range(4), False) or "")
    with pytest.raises(InputError, match="--axes: axes 'x': expected the channels"):
        open_source(spec, axes="x")
    with pytest.raises(InputError, match="--axes: source image has no normals"):
        open_source(f"folder:{tmp_path / 'image'}", axes="+r+g+b")
