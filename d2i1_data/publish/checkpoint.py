"""A pipeline or an adapter as a model repository."""

import fnmatch
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..card import Links, model_card
from ..checkpoints.bases import WEIGHED
from ..checkpoints.files import read_index
from ..checkpoints.training_record import TRAINING
from ..dataset.preview import PREVIEW
from ..errors import InputError
from ..hub import Changes, Content, Held, Repository
from .parcel import CARD, Parcel, read_object, refuse_foreign

INDEX, CODE, LORA = "model_index.json", "pipeline.py", "pytorch_lora_weights.safetensors"
OURS = "Diff2in1Pipeline"
TOP = (CODE, LORA, TRAINING, PREVIEW)  # what we write beside components
WITH_WEIGHTS = (*WEIGHED, "base_unet", "perception")


class Checkpoint(Parcel):
    """A folder that `save_pretrained` or a run wrote, weights first.

    whole: a pipeline, otherwise an adapter. What the repository holds of components, and the folder
    does not, goes; all else stays, such as the checkpoints of a training that pushes.
    """

    kind, sign = "model", INDEX

    def __init__(
        self,
        repo_id: str,
        folder: Path,
        whole: bool,
        links: Links,
        results: Sequence[Path] = (),
        overwrite: bool = False,
    ) -> None:
        super().__init__(repo_id, overwrite)
        self.whole = whole
        files = complete_files(folder, whole)
        names = [name for name in files if name != CARD]
        names.sort(key=lambda name: (not name.endswith(".safetensors"), name == INDEX, name))
        self.files: dict[str, Content] = {name: files[name] for name in names}
        self.files[CARD] = model_card(folder, links, results).encode()

    def check(self, held: Held) -> None:
        check_model(self.repository, held, self.whole)

    def lacking(self, held: Held) -> Changes:
        there = read_object(self.repository, INDEX, held)
        parts = {name for name, entry in there.items() if isinstance(entry, list)}
        old = [name for name in held.files if name.partition("/")[0] in parts or name in TOP]
        files = {name: file for name, file in self.files.items() if not held.has(name, file)}
        return Changes(files, [name for name in old if name not in self.files])


def check_model(repository: Repository, held: Held, whole: bool) -> None:
    """Refuse a model repository that does not hold what is to come: pipelines of ours, which are
    whole, or adapters."""
    refuse_foreign(repository, held, INDEX)
    there = read_object(repository, INDEX, held)
    kind = there.get("_class_name", OURS)
    if kind != OURS or (there and ("unet" in there) != whole):
        what = f"a {kind}" if kind != OURS else "an adapter" if whole else "a whole pipeline"
        raise InputError(
            f"{repository} holds {what}: choose another name, or replace it with --overwrite"
        )


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file by its path in the folder, through links too; without caches, and what a run left
    unfinished."""
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n != "__pycache__")
        for name in sorted(names):
            file = Path(place) / name
            if not name.startswith(".") and not name.endswith(".tmp"):
                if not file.exists():
                    raise InputError(f"{file} is a link to nothing")
                yield file.relative_to(folder).as_posix(), file


def complete_files(folder: Path, whole: bool) -> dict[str, Path]:
    """The files of a pipeline or adapter by their paths; refuses less than the whole of it."""
    index = read_index(folder, "pipeline" if whole else "adapter")
    if index.get("_class_name") != OURS:
        raise InputError(f"{folder}: is a {index.get('_class_name')}, expected a {OURS}")
    if ("unet" in index) != whole:
        what, flag = ("an adapter", "--adapter") if whole else ("a whole pipeline", "--pipeline")
        raise InputError(f"{folder}: is {what}; publish it with {flag}")
    files = dict(_files(folder))
    wanted = [] if whole else [LORA]
    for part in (name for name, entry in index.items() if isinstance(entry, list) and entry[0]):
        wanted += ["perception/config.json"] if part == "perception" else []
        wanted += [f"{part}/*.safetensors" if part in WITH_WEIGHTS else f"{part}/*"]
    missing = [one for one in wanted if not fnmatch.filter(files, one)]
    if missing:
        raise InputError(f"{folder}: {', '.join(missing)} missing, which {INDEX} tells of")
    return files
