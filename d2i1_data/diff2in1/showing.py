"""Showing: the maps of an output as pictures and as files.

Letters in shape comments: C channels, H W pixels.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .families import encode_png
from .outputs import Diff2in1Output

SHOWN = ("predictions", "uncertainty")  # fields of an output


class ShowsMaps:
    """The part of a pipeline that turns its outputs into pictures and files."""

    perception: Any

    def visualize(
        self, output: Diff2in1Output, field: str = "predictions"
    ) -> dict[str, list[Image.Image]]:
        """The maps of an output as pictures.

        Args:
            output: the result of a call or of `predict`, of any `output_type`.
            field: "predictions" in the colours of each task, or "uncertainty", where white is 1.

        Returns:
            Task -> one picture for each image.

        Raises:
            ValueError: if the field is another one.
        """
        if field not in SHOWN:
            raise ValueError(f"field {field!r}: expected {' or '.join(SHOWN)}")
        families, shown = self.perception.families, {}
        for name, maps in output[field].items():
            if field == "predictions":
                drawn = [families[name].colorize(to_map(families[name], one)) for one in maps]
            else:
                drawn = [np.round(to_plane(one) * 255).astype(np.uint8) for one in maps]
            shown[name] = [Image.fromarray(pixels) for pixels in drawn]
        return shown

    def export(
        self, output: Diff2in1Output, folder: str | Path, names: Sequence[str] | None = None
    ) -> list[Path]:
        """Write the images and maps of an output as files, all of them or, after an error, none.

        For each image NAME and each task, `labels/TASK/NAME.png` is the label as datasets store it
        (depth: 16 bits, millimetres), `arrays/TASK/NAME.npy` the map in physical units,
        `pictures/TASK/NAME.png` the map in colours, `overlays/TASK/NAME.png` these on the image,
        `uncertainty/TASK/NAME.png` the uncertainty in 16 bits (65535 is 1). `images/NAME.png` is
        the image.

        Args:
            output: the result of a call or of `predict`, of any `output_type` but "latent".
            folder: a folder; it is made if there is none.
            names: a name for each image; None numbers them.

        Returns:
            The files.

        Raises:
            ValueError: if a file exists, or the names or the output do not fit.
        """
        images = [to_pixels(image) for image in output.images]
        names = [f"{n:05}" for n in range(len(images))] if names is None else names
        folder = Path(folder)
        check_names(names, len(images))
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".export-") as temporary:
            files: list[Path] = []
            for n, (name, image) in enumerate(zip(names, images, strict=True)):
                contents = self._contents(output, n, name, image)
                write_files(Path(temporary), contents)
                files += map(Path, contents)
            for file in files:
                if (folder / file).exists():
                    raise ValueError(f"{folder / file} exists: choose another folder or names")
            for file in files:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                Path(temporary, file).rename(folder / file)
        return [folder / file for file in files]

    def _contents(
        self, output: Diff2in1Output, n: int, name: str, image: NDArray[np.uint8]
    ) -> dict[str, bytes]:
        """The files of the n-th image."""
        families = self.perception.families
        maps = {task: to_map(families[task], one[n]) for task, one in output.predictions.items()}
        contents = {f"images/{name}.png": encode_png(image)}
        contents |= map_files(name, image, maps, families)
        for task, one in output.uncertainty.items():
            sixteen = np.round(to_plane(one[n]) * 65535).astype(np.uint16)
            contents[f"uncertainty/{task}/{name}.png"] = encode_png(sixteen)
        return contents


def map_files(
    name: str,
    image: NDArray[np.uint8],
    maps: Mapping[str, NDArray[np.generic]],
    families: Mapping[str, Any],
) -> dict[str, bytes]:
    """The files of the maps of an image: path -> content.

    Args:
        name: name of the image.
        image: its pixels, `[H, W, 3]`.
        maps: task -> map.
        families: task -> its `Family`.
    """
    contents = {}
    for task, family in families.items():
        colours = family.colorize(maps[task])
        overlay = ((image.astype(np.uint16) + colours) // 2).astype(np.uint8)
        array = io.BytesIO()
        np.save(array, maps[task])
        contents[f"labels/{task}/{name}.png"] = family.to_png(maps[task])
        contents[f"arrays/{task}/{name}.npy"] = array.getvalue()
        contents[f"pictures/{task}/{name}.png"] = encode_png(colours)
        contents[f"overlays/{task}/{name}.png"] = encode_png(overlay)
    return contents


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files: path in the folder -> content."""
    for path, data in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def check_names(names: Sequence[str], count: int) -> None:
    """Check the names of files.

    Raises:
        ValueError: if their number is wrong, one occurs twice, or one is no name of a file.
    """
    if len(names) != count or len({*names}) != count:
        raise ValueError(f"{len({*names})} different names for {count} images")
    for name in names:
        if Path(name).name != name:
            raise ValueError(f"name {name!r}: expected the name of a file, without folders")


def to_map(family: Any, one: Any) -> NDArray[np.generic]:
    """A map of an output as an array."""
    found: NDArray[np.generic] = family.to_array(one) if isinstance(one, Tensor) else one
    return found


def to_plane(one: Any) -> NDArray[np.float32]:
    """Uncertainty of an output, in [0, 1], as `[H, W]`; what is not a number becomes 1."""
    plane = one[0].float().cpu().numpy() if isinstance(one, Tensor) else one
    return np.nan_to_num(plane, nan=1.0).clip(0, 1)


def to_pixels(image: Any) -> NDArray[np.uint8]:
    """An image of an output as `[H, W, 3]` uint8.

    Raises:
        ValueError: if it is latents.
    """
    if isinstance(image, Image.Image):
        return np.asarray(image)
    array = image.movedim(0, -1).cpu().numpy() if isinstance(image, Tensor) else image
    if array.shape[-1] != 3:
        raise ValueError("latents cannot be exported: use another output_type")
    return np.round(array * 255).astype(np.uint8)
