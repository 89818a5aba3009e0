"""Surface normals of NYUv2, in the ways in which they are handed around."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError

SPLITS = ("train", "test")


class Packing(NamedTuple):
    """One way to store the normals of NYUv2.

    places: folders that may hold it, below the folder of the source. normals, image, mask: patterns
    of its files. Without a mask black pixels are unknown; with `dense` no pixel is. first: the
    number that its files give to the first image of NYUv2. axes: see `axes.read_axes`.
    """

    places: tuple[str, ...]
    normals: str
    axes: str
    first: int = 0
    image: str | None = None
    mask: str | None = None
    dense: bool = False


PACKINGS = {
    # github.com/baegwangbin/surface_normal_uncertainty; the normals of GeoNet as pictures
    "bae": Packing(
        ("nyu", "."),
        "{split}/norm/{number:06d}.png",
        "-r+g+b",
        image="{split}/img/{number:06d}.png",
    ),
    # github.com/baegwangbin/DSINE
    "dsine": Packing(
        ("dsine_eval/nyuv2", "nyuv2", "."),
        "{split}/{number:06d}_normal.png",
        "-r+g+b",
        image="{split}/{number:06d}_img.png",
    ),
    # Ladicky et al. 2014, packed as in github.com/VainF/nyuv2-python-toolkit
    "ladicky": Packing(
        ("nyu_normals_gt",), "{split}/{number:05d}.png", "+b-g-r", first=1, dense=True
    ),
    # Silberman et al. 2012, as Eigen and Fergus 2015 packed them
    "silberman": Packing(
        ("normals_gt",), "normals/{number:04d}.png", "+r+b-g", mask="masks/{number:04d}.png"
    ),
}


class Normals(NamedTuple):
    """The normals in a folder. name: a name in `PACKINGS`. root: the folder of its patterns."""

    name: str
    root: Path

    @property
    def packing(self) -> Packing:
        """How they are stored."""
        return PACKINGS[self.name]

    def file(self, pattern: str, image: int) -> Path:
        """The file of an image. If there is none, the one that is expected.

        Args:
            pattern: a pattern of the packing.
            image: the number of the image in NYUv2, from 0.
        """
        number = image + self.packing.first
        files = [self.root / pattern.format(split=split, number=number) for split in SPLITS]
        return next((file for file in files if file.is_file()), files[-1])

    def images(self, split: str) -> Iterator[Path]:
        """The images that lie beside the normals, in the order of their names."""
        if self.packing.image:
            yield from sorted(self.root.glob(_glob(self.packing.image, split)))


def find_normals(root: Path, wanted: str) -> Normals | None:
    """Find the normals in a folder.

    Args:
        root: the folder.
        wanted: a packing, `auto` for the only one that the folder has, or `none`.

    Raises:
        InputError: if the wanted packing is not there, or `auto` finds several.
    """
    if wanted == "none":
        return None
    names = [*PACKINGS] if wanted == "auto" else [wanted]
    found = [normals for name in names for normals in _find(root, name)]
    if wanted != "auto" and not found:
        packing = PACKINGS[wanted]
        expected = root / packing.places[0] / _glob(packing.normals, "train")
        raise InputError(f"nyuv2: no normals of the packing {wanted}: expected {expected}")
    if len(found) > 1:
        ways = " or ".join(f"normals={one.name}" for one in found)
        raise InputError(f"nyuv2: {root} has normals in several packings: choose {ways}")
    return found[0] if found else None


def _find(root: Path, name: str) -> list[Normals]:
    """The normals of a packing in the first place that has some."""
    pattern = PACKINGS[name].normals
    for place in PACKINGS[name].places:
        if any(any((root / place).glob(_glob(pattern, split))) for split in SPLITS):
            return [Normals(name, root / place)]
    return []


def _glob(pattern: str, split: str) -> str:
    """The pattern of the files of a split, with a question mark for each digit."""
    head, _, rest = pattern.format(split=split, number=0).partition("0")
    return f"{head}?{rest.replace('0', '?')}"
