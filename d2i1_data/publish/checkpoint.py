"""A pipeline or an adapter as a model repository."""

import fnmatch
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..card import Links, model_card
from ..checkpoints.bases import WEIGHED
from ..checkpoints.files import check_hashes, read_index
from ..dataset.preview import PREVIEW
from ..diff2in1.saving import CODE, HASHES, INDEX, TRAINING
from ..diff2in1.saving import LORA_FILE as LORA
from ..errors import InputError
from ..hub import Changes, Content, RemoteState, Repository
from .content import CARD, RepositoryContent, read_object, refuse_foreign

OURS = "Diff2in1Pipeline"
TOP_FILES = (CODE, LORA, TRAINING, PREVIEW, HASHES)  # our files beside the components
WITH_WEIGHTS = (*WEIGHED, "base_unet", "perception")


class CheckpointContent(RepositoryContent):
    """A folder that `save_pretrained` or a run wrote. Weights are sent first.

    Components of the repository that the folder does not have are deleted. Other files stay, for
    example checkpoints that training pushed.
    """

    kind, marker = "model", INDEX

    def __init__(
        self,
        repo_id: str,
        folder: Path,
        whole: bool,
        links: Links,
        results: Sequence[Path] = (),
        overwrite: bool = False,
    ) -> None:
        """Read the folder and write its card.

        Args:
            repo_id: `user/name`, or a name alone.
            folder: a saved pipeline or adapter.
            whole: True for a pipeline, False for an adapter.
            links: names for the card.
            results: files of `d2i1 evaluate` for the card.
            overwrite: also replace another kind of model.

        Raises:
            InputError: if the folder is not complete.
        """
        super().__init__(repo_id, overwrite)
        self.whole = whole
        files = complete_files(folder, whole)
        names = [name for name in files if name != CARD]
        names.sort(key=lambda name: (not name.endswith(".safetensors"), name == INDEX, name))
        self.files: dict[str, Content] = {name: files[name] for name in names}
        self.files[CARD] = model_card(folder, links, results).encode()

    def check(self, state: RemoteState) -> None:
        """Raise InputError for a repository of another kind of model."""
        check_model(self.repository, state, self.whole)

    def difference(self, state: RemoteState) -> Changes:
        """Files to send because they differ, and old files of components to delete."""
        index = read_object(self.repository, INDEX, state)
        parts = {name for name, entry in index.items() if isinstance(entry, list)}
        old = [name for name in state.files if name.partition("/")[0] in parts or name in TOP_FILES]
        files = {name: file for name, file in self.files.items() if not state.has(name, file)}
        return Changes(files, [name for name in old if name not in self.files])


def check_model(repository: Repository, state: RemoteState, whole: bool) -> None:
    """Raise InputError for a repository that holds another kind of model.

    Args:
        repository: a model repository.
        state: what it holds.
        whole: True if a pipeline is to be published, False for an adapter.
    """
    refuse_foreign(repository, state, INDEX)
    index = read_object(repository, INDEX, state)
    kind = index.get("_class_name", OURS)
    if kind != OURS or (index and ("unet" in index) != whole):
        content = f"a {kind}" if kind != OURS else "an adapter" if whole else "a whole pipeline"
        raise InputError(
            f"{repository} holds {content}: choose another name, or replace it with --overwrite"
        )


def complete_files(folder: Path, whole: bool) -> dict[str, Path]:
    """The files of a pipeline or adapter, by their paths in the folder.

    Args:
        folder: a saved pipeline or adapter.
        whole: True for a pipeline, False for an adapter.

    Raises:
        InputError: if files are missing, or the folder holds the other kind.
    """
    index = read_index(folder, "pipeline" if whole else "adapter")
    if index.get("_class_name") != OURS:
        raise InputError(f"{folder}: is a {index.get('_class_name')}, expected a {OURS}")
    if ("unet" in index) != whole:
        content, flag = ("an adapter", "--adapter") if whole else ("a whole pipeline", "--pipeline")
        raise InputError(f"{folder}: is {content}; publish it with {flag}")
    files = dict(_files(folder))
    needed = [] if whole else [LORA]
    for part in (name for name, entry in index.items() if isinstance(entry, list) and entry[0]):
        needed += ["perception/config.json"] if part == "perception" else []
        needed += [f"{part}/*.safetensors" if part in WITH_WEIGHTS else f"{part}/*"]
    missing = [pattern for pattern in needed if not fnmatch.filter(files, pattern)]
    if missing:
        raise InputError(f"{folder}: {', '.join(missing)} missing, but {INDEX} names it")
    check_hashes(folder)
    return files


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield every file with its path in the folder. Caches and temporary files are left out."""
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n != "__pycache__")
        for name in sorted(names):
            file = Path(place) / name
            if name.startswith(".") or name.endswith(".tmp"):
                continue
            if not file.exists():
                raise InputError(f"{file} is a broken link")
            yield file.relative_to(folder).as_posix(), file
