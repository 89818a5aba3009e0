"""Scenes of ScanNet in the layouts in use: exported frames, `.sens` files, FrameNet's frames."""

import re
import zipfile
from abc import ABC, abstractmethod
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from . import sens
from .camera import Camera

NUMBERED = re.compile(r"\d+")
LARGEST = 50_000_000  # bytes of a picture in an archive
KNOWN_SENS = 64  # files whose places of frames are kept in memory


class Scene(ABC):
    """One scene. A column is a kind of file of it, as the layout names it.

    layout: its name in options. folder: the folder of the scene.
    """

    layout: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    @abstractmethod
    def fits(cls, folder: Path) -> bool:
        """Whether a folder holds a scene in this layout."""

    @abstractmethod
    def frames(self) -> list[int]:
        """The numbers of its frames, in order."""

    @abstractmethod
    def colour(self, frame: int) -> Path | bytes:
        """The image of a frame: a file or its content."""


class Exported(Scene):
    """`color/N.jpg`, `depth/N.png`, and `label-filt/N.png` or `label/N.png`. N may have zeros."""

    layout = "frames"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.names: dict[int, str] = {}

    @classmethod
    def fits(cls, folder: Path) -> bool:
        return (folder / "color").is_dir()

    def frames(self) -> list[int]:
        names = (file.stem for file in (self.folder / "color").glob("*.jpg"))
        self.names = {int(name): name for name in names if NUMBERED.fullmatch(name)}
        return sorted(self.names)

    def colour(self, frame: int) -> Path:
        return self.folder / "color" / f"{self.names[frame]}.jpg"

    def picture(self, column: str, frame: int) -> Path:
        """The file of a column of pictures."""
        return self.folder / column / f"{self.names[frame]}.png"

    def cameras(self) -> tuple[Camera, Camera] | None:
        """The cameras of colour and depth, if their files are there."""
        for colour, depth in (
            ("intrinsic/intrinsic_color.txt", "intrinsic/intrinsic_depth.txt"),
            ("intrinsics_color.txt", "intrinsics_depth.txt"),
        ):
            if (self.folder / colour).is_file() and (self.folder / depth).is_file():
                return _camera(self.folder / colour), _camera(self.folder / depth)
        return None


class Sens(Scene):
    """`SCENE.sens`; labels in `label-filt/N.png` or in `SCENE_2d-label-filt.zip`."""

    layout = "sens"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.file = folder / f"{folder.name}.sens"

    @classmethod
    def fits(cls, folder: Path) -> bool:
        return (folder / f"{folder.name}.sens").is_file()

    def frames(self) -> list[int]:
        return [*range(sens.read_header(self.file).frames)]

    def colour(self, frame: int) -> bytes:
        return sens.read_colour(self.file, _places(self.file)[frame])

    def depth(self, frame: int) -> NDArray[np.float32]:
        """Depth in metres, [H, W]."""
        header = sens.read_header(self.file)
        stored = sens.read_depth(self.file, _places(self.file)[frame], header)
        return stored.astype(np.float32) / np.float32(header.shift)

    def cameras(self) -> tuple[Camera, Camera]:
        """The cameras of colour and depth."""
        header = sens.read_header(self.file)
        return header.colour, header.depth


class Framenet(Scene):
    """`frame-000000-color.png`, `-normal.png`, `-orient-mask.png`."""

    layout = "framenet"

    @classmethod
    def fits(cls, folder: Path) -> bool:
        return any(folder.glob("frame-*-color.png"))

    def frames(self) -> list[int]:
        names = (file.name.split("-")[1] for file in self.folder.glob("frame-*-color.png"))
        return sorted(int(name) for name in names if NUMBERED.fullmatch(name))

    def colour(self, frame: int) -> Path:
        return self.picture("color", frame)

    def picture(self, column: str, frame: int) -> Path:
        """The file of a column of pictures."""
        return self.folder / f"frame-{frame:06d}-{column}.png"


LAYOUTS: dict[str, type[Scene]] = {kind.layout: kind for kind in (Exported, Sens, Framenet)}


def zipped(folder: Path) -> Path:
    """The archive of a scene's raw labels."""
    return folder / f"{folder.name}_2d-label-filt.zip"


def read_zipped(archive: Path, frame: int) -> bytes:
    """The picture of a frame in an archive of raw labels.

    Raises:
        InputError: if the archive is damaged or has no such picture.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entry = opened.getinfo(f"label-filt/{frame}.png")
            if entry.file_size > LARGEST:
                raise ValueError(f"{entry.file_size} bytes")
            return opened.read(entry)
    except KeyError as error:
        raise InputError(f"{archive}: has no label-filt/{frame}.png") from error
    except Exception as error:  # damaged archives raise errors of many kinds
        raise InputError(f"{archive}: not readable as a ZIP archive") from error


def onto_colour(
    depth: NDArray[np.float32], cameras: tuple[Camera, Camera] | None, size: tuple[int, int]
) -> NDArray[np.float32]:
    """Depth at the pixels of the colour image; 0 where the depth camera sees nothing.

    Both cameras are taken to stand at one place. Then a pixel of one belongs to a pixel of the
    other, whatever its depth. Depth stays as it is if it has the size of the image, or if the
    cameras are unknown or belong to images of another size.

    Args:
        depth: metres, [H, W].
        cameras: of colour and depth, in pixels of their images.
        size: height and width of the colour image.
    """
    if depth.shape == size or cameras is None:
        return depth
    for camera, shape in zip(cameras, (size, depth.shape), strict=True):
        centre = np.asarray(camera.centre) / shape[::-1]
        if (np.abs(centre - 0.5) > 0.1).any():
            return depth
    columns, rows = (_project(cameras, axis, size[1 - axis]) for axis in (0, 1))
    height, width = depth.shape
    seen = np.outer((rows >= 0) & (rows < height), (columns >= 0) & (columns < width))
    rows, columns = rows.clip(0, height - 1), columns.clip(0, width - 1)
    return np.where(seen, depth[np.ix_(rows, columns)], np.float32(0))


def _project(cameras: tuple[Camera, Camera], axis: int, count: int) -> NDArray[np.intp]:
    """For each column (axis 0) or row (axis 1) of colour that of depth."""
    colour, depth = ((camera.focal, camera.centre or [0, 0]) for camera in cameras)
    rays = (np.arange(count) - colour[1][axis]) / colour[0][axis]
    return np.round(rays * depth[0][axis] + depth[1][axis]).astype(int)


@lru_cache(KNOWN_SENS)
def _places(file: Path) -> list[sens.Place]:
    return sens.find_frames(file, sens.read_header(file))


def _camera(file: Path) -> Camera:
    try:
        matrix = np.loadtxt(file)
    except (ValueError, OSError) as error:
        raise InputError(f"{file}: expected an intrinsic matrix, 4 x 4 numbers") from error
    return sens.read_camera(matrix, file)
