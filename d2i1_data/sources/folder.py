"""The source `folder:`: your own images and labels in files, described by a YAML file.

    name: camvid
    licence: cc-by-nc-4.0
    root: $PHOTOS/camvid              # default: the folder of the YAML file
    columns:
      image: "{split}/image"          # {split} is the last part of folder:camvid.yaml:val
      semseg: "{split}/label"         # or {folder: ..., scale: ..., unknown: ..., values: ...}
    classes:
      semseg: {names: [sky, road], palette: [[128, 128, 128], [128, 64, 128]], ignore: [11]}
    split: "*"                        # a glob over ids, a list of ids, or a text file of ids
    caption: {template: "a street with {classes}", of: semseg, at_least: 0.01}
                                    # or {folder: texts}, one .txt per image

An id is the path of a file in its folder, without the ending. With a `manifest` the files and ids
stand in a table. `docs/your_data.md` describes all keys.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..dataset.sample import Provenance, Sample, image_sha256
from ..diff2in1.pictures import SUFFIXES, Picture, read_size
from ..errors import InputError
from .described import Described
from .layout import content_of, read_folder_layout, read_manifest_keys
from .manifest import read_manifest, read_text
from .source import fingerprint

logger = logging.getLogger(__name__)
NEW = ("manifest", "camera")  # keys that files of earlier versions do not have


class Folder(Described):
    """Samples from files. Files with the same id belong together; a missing file is an error.

    Args:
        file: the YAML file, or a folder of images without labels.
        split: replaces `{split}` in the file, and chooses the rows of a manifest.

    Raises:
        InputError: if the file is wrong, or a folder has two files of one id.
    """

    def __init__(self, file: str, split: str | None = None) -> None:
        layout = read_folder_layout(file, split)
        keys = read_manifest_keys(layout, file)
        self.place = "folder" if keys is None else "column"
        super().__init__(file, layout)
        place = Path(file) if Path(file).is_dir() else Path(file).parent
        self.root = place / os.path.expandvars(layout.root)
        self.texts: dict[str, str] = {}
        own = content_of(layout)
        for key in NEW:
            if own[key] is None:
                del own[key]
        if keys is None:
            self.files = {name: self._list(column.place) for name, column in self.columns.items()}
        else:
            text = self.caption.column if self.caption else None
            columns = {name: column.place for name, column in self.columns.items()}
            table = read_manifest(self.root, keys, columns, text, split)
            self.files, self.texts = table.files, table.texts
            own |= {"manifest": table.digest, "rows": split}
        self.fingerprint = fingerprint(own)
        self.ids = self._choose(layout.split)
        if keys is None and isinstance(layout.split, str) and not layout.split.endswith(".txt"):
            self.strays = self._find_strays(layout.split)

    def _list(self, folder: str) -> dict[str, Path]:
        path = self.root / folder
        if not path.is_dir():
            raise InputError(f"{self.file}: no such folder: {path}")
        files: dict[str, Path] = {}
        hidden = []
        for file in sorted(f for f in _walk(path) if f.suffix.lower() in SUFFIXES):
            place = file.relative_to(path)
            if any(part.startswith(".") for part in place.parts):
                hidden.append(place)
                continue
            other = files.setdefault(place.with_suffix("").as_posix(), file)
            if other != file:
                raise InputError(
                    f"{self.file}: {other} and {file.name} have the same id; expected one of them"
                )
        if hidden:
            logger.warning("%s: %s hidden files are left out: %s", path, len(hidden), hidden[0])
        return files

    def _choose(self, split: str | list[str]) -> list[str]:
        images = self.files["image"]
        if isinstance(split, list):
            chosen = [str(i) for i in split]
        elif split.endswith(".txt"):
            listing = self.root / split
            if not listing.is_file():
                raise InputError(f"{self.file}: no such list of ids: {listing}")
            lines = [line.strip() for line in read_text(listing).splitlines()]
            # ids may hold spaces, or stand beside each other in one line
            chosen = [i for line in lines for i in ([line] if line in images else line.split())]
        else:
            chosen = [i for i in images if fnmatch(i, split)]
        if not chosen:
            raise InputError(f"{self.file}: split {split!r} selects none of {len(images)} images")
        if len({*chosen}) < len(chosen):
            twice = next(i for n, i in enumerate(chosen) if i in chosen[:n])
            raise InputError(f"{self.file}: split: names {twice!r} twice")
        self._require(chosen, "image")
        return chosen

    def _find_strays(self, split: str) -> dict[str, str]:
        """Label files whose image is missing: id -> why."""
        images = self.files["image"]
        return {
            i: f"{file}: a label without an image"
            for files in self.files.values()
            for i, file in files.items()
            if i not in images and fnmatch(i, split)
        }

    def _require(self, ids: list[str], name: str) -> None:
        missing = [i for i in ids if i not in self.files[name]]
        if missing:
            raise InputError(
                f"{self.file}: {len(missing)} of {len(ids)} images have no {name},"
                f" the first is {missing[0]!r} in {self._where(name)}"
            )

    def _where(self, name: str) -> str:
        """Where the files of a column are, for errors."""
        place = self.columns[name].place
        return str(self.root / place) if self.place == "folder" else f"the column {place!r}"

    def check_pairs(self) -> None:
        for name in self.files:
            self._require(self.ids, name)
        super().check_pairs()

    def __len__(self) -> int:
        return len(self.ids)

    def identity(self, index: int) -> str:
        return self.ids[index]

    def read(self, index: int, tasks: Iterable[str]) -> Sample:
        identity, names = self.ids[index], self.needed(list(tasks))
        file = self.files["image"][identity]
        picture = self.open(file, file)
        image = self.pixels_of(picture.image, file)
        targets = {name: self._target(name, index, picture) for name in names}
        provenance = Provenance("real", self.name, identity, image_sha256(image), self.licence)
        return Sample(identity, image, targets, self.caption_of(index, targets), provenance)

    def image_size(self, index: int) -> tuple[int, int]:
        file = self.files["image"][self.ids[index]]
        try:
            return read_size(file)
        except ValueError as error:
            raise InputError(f"{file}: {error}") from error

    def _target(self, name: str, index: int, image: Picture) -> NDArray[np.generic]:
        identity = self.ids[index]
        if identity not in self.files[name]:
            raise InputError(f"{self._where(name)}: no {name} of {identity!r}")
        file = self.files[name][identity]
        return self.picture_target(name, index, self.open(file, file), image, str(file))

    def stored_caption(self, index: int) -> str | None:
        assert self.caption is not None
        if self.caption.column is not None:
            return self.texts.get(self.ids[index])
        return read_text(self.root / str(self.caption.folder) / f"{self.ids[index]}.txt")


def _walk(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """All files in a folder. Links to folders are followed, but not a link to a folder above it."""
    here = os.path.realpath(folder)
    if here in above:
        return
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        logger.warning("%s is left out: %s", folder, error.strerror)
        return
    for entry in entries:
        if os.path.isdir(entry) if entry.is_symlink() else entry.is_dir():
            yield from _walk(Path(entry.path), above | {here})
        else:
            yield Path(entry.path)
