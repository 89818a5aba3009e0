"""The axes of normals in folders: a wall, a floor and a left wall as four programs store them."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from d2i1_data.errors import InputError
from d2i1_data.sources import open_source

WALL, FLOOR, LEFT = (0, 0, 1), (0, 1, 0), (1, 0, 0)  # the left wall faces right
STORED = {  # how red, green and blue of the wall, the floor and the left wall are stored
    "+r+g+b": ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
    "-r+g+b": ((0, 0, 1), (0, 1, 0), (-1, 0, 0)),  # Bae et al., DSINE
    "+r-g-b": ((0, 0, -1), (0, -1, 0), (1, 0, 0)),  # FrameNet
    "+b-g-r": ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),  # Ladicky
    "+r+b-g": ((0, -1, 0), (0, 0, 1), (1, 0, 0)),  # Silberman and Eigen
}


def write(folder: Path, vectors: object, axes: str | None) -> str:
    """A source whose pixels are the vectors; black is appended."""
    pixels = np.append(np.round((np.array(vectors) + 1) * 127.5), [[0, 0, 0]], 0).astype(np.uint8)
    for name in ("image", "normal"):
        (folder / name).mkdir(exist_ok=True)
        Image.fromarray(pixels[None]).save(folder / name / "0.png")
    column = {"folder": "normal"} | ({"axes": axes} if axes else {})
    content = {"columns": {"image": "image", "normals": column}}
    (folder / "x.yaml").write_text(yaml.safe_dump(content))
    return f"folder:{folder / 'x.yaml'}"


@pytest.mark.parametrize(("axes", "vectors"), STORED.items())
def test_normals_of_every_program_become_ours(
    tmp_path: Path, axes: str, vectors: tuple[tuple[int, int, int], ...]
) -> None:
    source = open_source(write(tmp_path, vectors, None if axes == "+r+g+b" else axes))
    found = source[0].targets["normals"][0]
    np.testing.assert_allclose(found, [WALL, FLOOR, LEFT, (0, 0, 0)], atol=0.01)
    assert not found[3].any()


def test_axes_of_other_forms_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"columns: normals: axes '-r\+r\+b': expected the channels"
    ):
        open_source(write(tmp_path, [WALL], "-r+r+b"))
    file = tmp_path / "x.yaml"
    file.write_text("columns: {image: image, depth: {folder: normal, axes: +r+g+b}}")
    with pytest.raises(InputError, match="a metric_map has no axes"):
        open_source(f"folder:{file}")
    for camera in ("{focal: [1]}", "{focal: [0, 1]}", "{focal: [1, 1], centre: [1]}"):
        file.write_text(f"columns: {{image: image}}\ncamera: {camera}")
        with pytest.raises(InputError, match=r"x\.yaml: camera: got focal"):
            open_source(f"folder:{file}")
