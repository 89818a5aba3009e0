"""Prediction for people: labels of image files, as pictures and arrays, without a dataset."""

import shutil
from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from tqdm import tqdm

from ..checkpoints.pipelines import open_pipeline
from ..dataset.files import move_into_place, require_folder, temporary_path
from ..diff2in1.pictures import FORMATS, SUFFIXES
from ..diff2in1.showing import map_files, write_files
from ..errors import InputError
from .photo import read_photo
from .settings import PredictSettings

PREDICTION = (
    "processing_resolution",
    "flip",
    "window",
    "ensemble_size",
    "batch_size",
)  # passed to the pipeline
BATCH_PIXELS = 8_000_000  # of several images; each takes about 200 bytes


def predict(settings: PredictSettings) -> Path:
    """Label images and write the results to a folder.

    If prediction fails, no result is written.

    Args:
        settings: images, pipeline, folder, and how the pipeline predicts.

    Returns:
        The folder.

    Raises:
        InputError: if there is no image, an image cannot be read, two images have the same name,
            or the folder is not empty.
    """
    if PartialState().num_processes > 1:
        raise InputError("predict runs in one process")
    files = find_images(settings.images)
    folder = Path(settings.output_dir).resolve()
    require_folder(folder)
    if folder.is_dir() and any(folder.iterdir()) and not settings.overwrite:
        raise InputError(f"{folder} is not empty: choose another --output_dir, or --overwrite")
    pipe = open_pipeline(settings.pipeline, base_unet=None).to(PartialState().device)
    if settings.precision != "float32":
        pipe.to(getattr(torch, settings.precision))
    settings.check_window(pipe.stride)
    options = {name: getattr(settings, name) for name in PREDICTION}
    families = pipe.perception.families
    temporary = temporary_path(folder, unique=True)
    try:
        with tqdm(total=len(files), desc="predict", unit="image") as bar:
            for group in read_groups(files, settings.batch_size, settings.max_pixels):
                images = [image for _, image in group]
                predictions = pipe.predict(images, **options).predictions
                for n, (file, image) in enumerate(group):
                    maps = {name: predictions[name][n] for name in families}
                    write_files(temporary, map_files(file.stem, image, maps, families))
                bar.update(len(group))
        _move(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def find_images(places: Sequence[str]) -> list[Path]:
    """List the image files that files, folders and patterns name.

    Args:
        places: paths of images, folders, and patterns with `*`, `?`, `[...]` or, for all folders
            below, `**`. A folder stands for the images directly in it. Hidden files are left out.
            An image that several places name counts once.

    Raises:
        InputError: if a place has no image, or two images have the same name.
    """
    files: list[Path] = []
    for place in places:
        path = Path(place).expanduser()
        images = [path]
        if path.is_dir():
            found = (file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            images = sorted(file for file in found if not file.name.startswith("."))
        elif not path.is_file():
            matches = sorted(glob(str(path), recursive=True))
            images = [Path(match) for match in matches if Path(match).is_file()]
        if not images:
            kind = f"no images directly in it; expected {', '.join(FORMATS)}"
            raise InputError(f"{place}: {kind if path.is_dir() else 'no such file or folder'}")
        files += images
    if not files:
        raise InputError("predict: no images given")
    names: dict[str, Path] = {}
    for file in files:
        if names.setdefault(file.stem, file).resolve() != file.resolve():
            raise InputError(
                f"{names[file.stem]} and {file} would write the same files: rename one of them"
            )
    return list(names.values())


def read_groups(
    files: Sequence[Path], most: int, max_pixels: int
) -> Iterator[list[tuple[Path, NDArray[np.uint8]]]]:
    """Yield at most `most` files with their pixels at once, and at most `BATCH_PIXELS`."""
    group: list[tuple[Path, NDArray[np.uint8]]] = []
    for file in files:
        try:
            image = read_photo(file, max_pixels=max_pixels)
        except InputError as error:
            raise InputError(f"{file}: {error}") from error
        pixels = sum(other.size for _, other in [*group, (file, image)]) // 3
        if group and (len(group) == most or pixels > BATCH_PIXELS):
            yield group
            group = []
        group.append((file, image))
    yield group


def _move(temporary: Path, folder: Path) -> None:
    """Move complete results into their folder."""
    for file in sorted(temporary.rglob("*")):
        if file.is_file():
            place = folder / file.relative_to(temporary)
            place.parent.mkdir(parents=True, exist_ok=True)
            move_into_place(file, place)
