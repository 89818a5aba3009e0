"""The source `hub:`: any data set of the Hub, described by a YAML file.

    dataset: alice/streets            # an id of the Hub, or a folder that `load_dataset` reads
    split: train                      # the default of hub:streets.yaml; hub:streets.yaml:test
    columns:
      image: image                    # our column: theirs
      depth: {column: depth_map, scale: 1}
    caption: {column: text}

`docs/your_data.md` describes all keys. Descriptions of some data sets are in `mappings/`.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from ..dataset.sample import Provenance, Sample, image_sha256
from ..diff2in1.pictures import Picture
from ..errors import InputError
from .described import Described
from .hub_rows import Place, Table, open_split, picture_bytes, to_array
from .layout import Layout, content_of, read_layout
from .source import fingerprint

Stored = Picture | NDArray[np.generic]
MAPPINGS = Path(__file__).parent / "mappings"


@dataclass(frozen=True, kw_only=True)
class HubLayout(Layout):
    """The YAML file of the source `hub:`. The keys of the data set are those of `load_dataset`."""

    dataset: str
    name: str = ""
    config: str | None = None
    revision: str | None = None
    data_dir: str | None = None
    split: str = "train"
    id: str | None = None
    streaming: bool = False


class Hub(Described):
    """Samples of a data set of the Hub.

    Args:
        file: the YAML file, or the id of a data set whose description is part of this package.
        split: name of the split; None takes that of the file.

    Raises:
        InputError: if the file is wrong, or the data set cannot be read.
    """

    def __init__(self, file: str, split: str | None = None) -> None:
        layout = read_layout(HubLayout, str(find_mapping(file)), split)
        super().__init__(file, replace(layout, name=layout.name or layout.dataset))
        self.split = split or layout.split
        local = Path(file).parent / layout.dataset  # a path is relative to the YAML file
        path = str(local) if local.is_dir() else layout.dataset
        self.data_place = Place(path, layout.config, layout.revision, layout.data_dir)
        text = self.caption.column if self.caption else None
        if self.caption and self.caption.folder is not None:
            raise InputError(f"{file}: caption: a data set has no `folder`, give `column`")
        places = [column.place for column in self.columns.values()]
        columns = [*dict.fromkeys([*places, *(name for name in (layout.id, text) if name)])]
        opened = open_split(self.data_place, self.split, columns, layout.streaming)
        self.table, self.ids = opened.table, self._read_ids(layout.id, opened.table)
        own = content_of(layout) | {"split": self.split}
        own.pop("streaming")  # it changes no sample
        self.fingerprint = fingerprint(own, opened.fingerprint)

    def _read_ids(self, column: str | None, table: Table) -> list[str]:
        """The id of each row."""
        if column is None:
            return [f"{self.split}-{number:08d}" for number in range(len(table))]
        ids = table.column(column)
        if None in ids:
            raise InputError(f"{self.file}: id: row {ids.index(None)} has no {column}")
        found = [str(one) for one in ids]
        twice = Counter(found).most_common(1)
        if twice and twice[0][1] > 1:
            raise InputError(f"{self.file}: id: {column} has {twice[0][0]!r} twice")
        return found

    def __len__(self) -> int:
        return len(self.table)

    def identity(self, index: int) -> str:
        return self.ids[index]

    def read(self, index: int, tasks: Iterable[str]) -> Sample:
        identity, row = self.ids[index], self.table.row(index)
        picture = self._picture(row, "image", index)
        if picture is None:
            raise InputError(f"{self._where(index)}: no image")
        image = (
            self.pixels_of(picture.image, self._where(index))
            if isinstance(picture, Picture)
            else self._rgb(picture, index)
        )
        targets = {
            name: self._target(name, index, row, picture) for name in self.needed(list(tasks))
        }
        provenance = Provenance("real", self.name, identity, image_sha256(image), self.licence)
        return Sample(identity, image, targets, self._caption(index, row, targets), provenance)

    def _where(self, index: int) -> str:
        return f"{self.data_place}: row {index} of {self.split}"

    def _picture(
        self, row: pa.Table, name: str, index: int
    ) -> Picture | NDArray[np.generic] | None:
        """The picture or array in a column of a row; None if it is null."""
        column, where = row.column(self.columns[name].place), self._where(index)
        try:
            if column.null_count:
                return None
            if (array := to_array(column)) is not None:
                return self._checked(array)
            content = picture_bytes(column[0].as_py(), self.data_place.path)
        except ValueError as error:
            raise InputError(f"{where}: {name} is {error}; {self.line(name)}") from error
        return None if content is None else self.open(content, where)

    def _checked(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        if array.ndim not in (2, 3) or not array.size:
            raise ValueError(f"an array of shape {array.shape}, expected height x width")
        if array.shape[0] * array.shape[1] > self.max_pixels:
            raise ValueError(f"an array of shape {array.shape}, more than {self.max_pixels:,}")
        return array

    def _rgb(self, array: NDArray[np.generic], index: int) -> NDArray[np.uint8]:
        """8-bit RGB pixels of an array: 8 bits, or floats in which 1, or `scale`, is white."""
        if array.ndim == 2:
            array = np.repeat(array[..., None], 3, -1)
        scale = self.columns["image"].scale
        white = scale or (1 if array.dtype.kind == "f" else 255)
        low, high = float(array.min()), float(array.max())
        if array.shape[2] != 3 or not (low >= 0 and high <= white):  # also NaN
            raise InputError(
                f"{self._where(index)}: image has shape {array.shape} and values from {low:g} to"
                f" {high:g}, expected height x width x 3, and {white:g} is white; give `scale`, the"
                f" stored value of white: {self.line('image')}"
            )
        return np.round(array.astype(np.float64) * (255 / white)).astype(np.uint8)

    def _target(self, name: str, index: int, row: pa.Table, image: Stored) -> NDArray[np.generic]:
        stored, where = self._picture(row, name, index), self._where(index)
        if stored is None:
            raise InputError(f"{where}: no {name}")
        if not isinstance(stored, Picture):
            size = image.image.size[::-1] if isinstance(image, Picture) else image.shape[:2]
            return self.target(name, index, stored, (size[0], size[1]), where)
        if not isinstance(image, Picture):
            blank = Image.new("L", (image.shape[1], image.shape[0]))
            image = Picture(blank, 1, "array")
        return self.picture_target(name, index, stored, image, where)

    def _caption(self, index: int, row: pa.Table, targets: dict[str, Any]) -> str | None:
        if self.caption is None or self.caption.column is None:
            return self.caption_of(index, targets)
        text = row.column(self.caption.column)[0].as_py()
        if text is not None and not isinstance(text, str):
            raise InputError(
                f"{self._where(index)}: {self.caption.column} is {text!r:.60}, expected a text"
            )
        return text


def find_mapping(file: str) -> Path:
    """The YAML file that a source names.

    Args:
        file: its path, or the id of a data set whose description is part of this package.

    Raises:
        InputError: if there is neither.
    """
    if Path(file).is_file():
        return Path(file)
    shipped = MAPPINGS / f"{file.replace('/', '--')}.yaml"
    if shipped.parent == MAPPINGS and shipped.is_file():
        return shipped
    raise InputError(
        f"hub {file}: no such YAML file, and no description is shipped but of"
        f" {', '.join(shipped_mappings())}; docs/your_data.md shows how to describe a data set"
    )


def shipped_mappings() -> list[str]:
    """The ids of the data sets whose descriptions are part of this package."""
    return sorted(file.stem.replace("--", "/") for file in MAPPINGS.glob("*.yaml"))
