"""Publish a dataset folder as a dataset repository."""

import re
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from huggingface_hub import HfFileSystem

from ..card import Links, dataset_card
from ..creation.plan import read_plan
from ..creation.shard_check import require_complete
from ..dataset.preview import PREVIEW
from ..dataset.record import read_json
from ..dataset.schema import METADATA, differing_columns, read_schema
from ..dataset.shards import ID2LABEL, PLAN, dataset_shards, shard_path, shard_split
from ..dataset.splits import TRAIN
from ..errors import InputError
from ..hub import Changes, Content, RemoteState, with_retries
from .content import CARD, RepositoryContent, read_object

SHARD = re.compile(r"data/[A-Za-z]\w*-(\d*).*\.parquet")  # as the card names them to the Hub
PLANS = re.compile(r"plan(-\d+)?\.json")  # a number belongs to shards that were appended
NAMES = re.compile(r"id2label(_\w+)?\.json")


class DatasetContent(RepositoryContent):
    """The shards of a folder, then the files that describe them.

    A shard that the repository already holds, under any name, is not sent again. If the repository
    holds other shards, `append` gives our shards the next free numbers, and `overwrite` replaces
    the others. `run.json`, `skipped.json` and `logs/` concern this machine only and are never sent.
    """

    kind, marker = "dataset", METADATA

    def __init__(
        self,
        repo_id: str,
        folder: Path,
        links: Links,
        append: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Check the folder.

        Args:
            repo_id: `user/name`, or a name alone.
            folder: a dataset whose shards are complete.
            links: names for the card.
            append: add the samples to other samples of the repository.
            overwrite: replace other samples of the repository.

        Raises:
            InputError: if shards are missing.
        """
        super().__init__(repo_id, overwrite)
        self.folder, self.links, self.append = folder, links, append
        self.shards = dataset_shards(folder)
        if not self.shards or not (folder / METADATA).is_file():
            raise InputError(f"dataset {folder}: no shards of ours there; see d2i1 create")
        if broken := [shard for shard in self.shards if not shard.exists()]:
            raise InputError(f"{broken[0]} is a broken link")
        read_schema((folder / METADATA).read_bytes(), str(folder / METADATA))
        if (folder / PLAN).is_file():
            require_complete(read_plan(folder), folder)
        self.cards: dict[tuple[str, ...], bytes] = {}  # other shards of the repository -> card

    def difference(self, state: RemoteState) -> Changes:
        """Missing shards and descriptions to send, and files that `overwrite` deletes."""
        theirs = [] if self.overwrite else [name for name in state.files if SHARD.fullmatch(name)]
        ours = self._numbered(state, theirs)
        others = tuple(sorted(set(theirs) - set(ours)))
        files = self._files(state, ours, appended=bool(others))
        files[CARD] = self._card(state, others)
        kinds = (SHARD, PLANS, NAMES)
        old = [name for name in state.files if any(kind.fullmatch(name) for kind in kinds)]
        deleted = [name for name in old if name not in files] if self.overwrite else []
        return Changes({n: f for n, f in files.items() if not state.has(n, f)}, deleted)

    def _numbered(self, state: RemoteState, theirs: list[str]) -> dict[str, Content]:
        """Our shards by their names in the repository, present or new."""
        names = [f"data/{shard.name}" for shard in self.shards]
        present = self._find(state, theirs)
        others = sorted(set(theirs) - set(filter(None, present)))
        if None in present and others and not self.append:
            taken = [n for n, at in zip(names, present, strict=True) if at is None and n in others]
            raise InputError(
                f"{self.repository} holds other samples, such as {(taken or others)[0]}: add these"
                " with --append, or replace those with --overwrite"
            )
        # if the repository holds no other shards, ours keep their numbers
        free = count(1 + max(map(_number, theirs if others else (*theirs, *names)), default=0))
        numbered: dict[str, Content] = {}
        for shard, name, at in zip(self.shards, names, present, strict=True):
            if at is None and (others or name in theirs):
                name = f"data/{shard_path(self.folder, next(free), shard_split(shard)).name}"
            numbered[at or name] = shard
        return numbered

    def _find(self, state: RemoteState, theirs: list[str]) -> list[str | None]:
        """The name that each of our shards has in the repository, None if it is not there."""
        by_size: dict[int, list[str]] = {}
        for name in theirs:
            by_size.setdefault(state.files[name].size, []).append(name)

        def find(shard: Path) -> str | None:
            candidates = by_size.get(shard.stat().st_size, [])
            name = next((name for name in candidates if state.has(name, shard)), None)
            if name:
                candidates.remove(name)  # two equal shards need two names
            return name

        return [find(shard) for shard in self.shards]

    def _files(
        self, state: RemoteState, ours: Mapping[str, Content], appended: bool
    ) -> dict[str, Content]:
        """The marker file, our shards, then the files that describe them.

        The marker comes first. So an upload that was stopped finds a repository of ours again.
        """
        files: dict[str, Content] = {}
        if appended:
            self._check_schema(state)
        else:
            files[METADATA] = self.folder / METADATA
        files |= ours
        # a report describes this folder only, so it is not sent if the folder is appended
        pictures = [] if appended else sorted((self.folder / "report").glob("*.png"))
        for picture in (self.folder / PREVIEW, *sorted(self.folder.glob(ID2LABEL)), *pictures):
            if picture.is_file():
                files[picture.relative_to(self.folder).as_posix()] = picture
        plan = self.folder / PLAN
        if plan.is_file():
            # the name of an appended plan contains the number of its first shard
            apart = appended and PLAN in state.files and not state.has(PLAN, plan)
            files[f"plan-{min(map(_number, ours)):05d}.json" if apart else PLAN] = plan
        return files

    def _check_schema(self, state: RemoteState) -> None:
        """Raise InputError unless tasks, classes and columns are those of the repository."""
        local = read_json(self.folder / METADATA)
        remote = read_object(self.repository, METADATA, state)
        ours, theirs = local["tasks"], remote.get("tasks", {})
        differing = sorted(
            name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)
        )
        if differing:
            raise InputError(
                f"{self.repository}: tasks or classes differ in {', '.join(differing)}: publish"
                " this dataset under another --repo_id"
            )
        if local.get("splits") != remote.get("splits"):
            ours, theirs = (", ".join(one.get("splits", [TRAIN])) for one in (local, remote))
            raise InputError(
                f"{self.repository} has the splits {theirs}, this dataset {ours}: publish it under"
                " another --repo_id"
            )
        if columns := differing_columns(remote.get("columns", {}), local["columns"]):
            raise InputError(
                f"{self.repository}: columns differ ({columns}): publish this dataset under another"
                " --repo_id"
            )

    def _card(self, state: RemoteState, others: tuple[str, ...]) -> bytes:
        """The card of all shards, including those that are only on the Hub."""
        if others not in self.cards:

            def make() -> bytes:
                hub = HfFileSystem()
                root = f"datasets/{self.repository.id}@{state.commit}"
                remote = [hub.open(f"{root}/{name}") for name in others]
                return dataset_card(self.folder, self.links, [*remote, *self.shards]).encode()

            self.cards[others] = with_retries(str(self.repository), make)
        return self.cards[others]


def _number(name: str) -> int:
    match = SHARD.fullmatch(name)
    return int(match[1] or 0) if match else 0
