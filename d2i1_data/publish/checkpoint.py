"""A pipeline or an adapter as a model repository."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..card import Links, model_card
from ..errors import InputError
from ..hub import Changes, Content, Held, Repository
from ..loading import read_index
from .parcel import CARD, Parcel, refuse_foreign

INDEX = "model_index.json"
OURS = "Diff2in1Pipeline"


class Checkpoint(Parcel):
    """A folder that `save_pretrained` or a run wrote, weights first.

    What the repository holds of components, and the folder does not, goes; all else stays, such as
    the checkpoints of a training that pushes.
    """

    kind, sign = "model", INDEX

    def __init__(
        self,
        repo_id: str,
        folder: Path,
        links: Links,
        results: Sequence[Path] = (),
        overwrite: bool = False,
    ) -> None:
        super().__init__(repo_id, overwrite)
        index = read_index(folder, "pipeline")
        if index.get("_class_name") != OURS:
            raise InputError(f"{folder}: is a {index.get('_class_name')}, expected a {OURS}")
        self.whole = "unet" in index
        paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
        names = [name for name, path in paths.items() if path.is_file() and not _untold(name)]
        names.sort(key=lambda name: (not name.endswith(".safetensors"), name == INDEX, name))
        self.files: dict[str, Content] = {name: paths[name] for name in names}
        self.files[CARD] = model_card(folder, links, results).encode()

    def changes(self, held: Held) -> Changes:
        there = read_index_of(self.repository, held)
        if not self.overwrite:
            check_model(self.repository, held, self.whole)
        parts = {name for name, entry in there.items() if isinstance(entry, list)}
        old = [name for name in held.files if name.partition("/")[0] in parts]
        lacking = {name: file for name, file in self.files.items() if not held.has(name, file)}
        return Changes(lacking, [name for name in old if name not in self.files])


def read_index_of(repository: Repository, held: Held) -> dict[str, Any]:
    """model_index.json of a repository, empty where there is none."""
    found = json.loads(repository.read(INDEX, held)) if INDEX in held.files else {}
    return dict(found)


def check_model(repository: Repository, held: Held, whole: bool) -> None:
    """Refuse a model repository that does not hold what is to come: pipelines of ours, which are
    whole, or adapters."""
    refuse_foreign(repository, held, INDEX)
    there = read_index_of(repository, held)
    kind = there.get("_class_name", OURS)
    if kind != OURS or (there and ("unet" in there) != whole):
        what = f"a {kind}" if kind != OURS else "an adapter" if whole else "a whole pipeline"
        raise InputError(
            f"{repository} holds {what}: choose another name, or replace it with --overwrite"
        )


def _untold(name: str) -> bool:
    """Caches, what a run left unfinished, and the card, which is written anew."""
    parts = name.split("/")
    hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
    return hidden or name == CARD or name.endswith(".tmp")
