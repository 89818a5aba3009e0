"""A dataset's folder as a dataset repository: it grows, is appended to, or is replaced."""

import json
import re
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from huggingface_hub import HfFileSystem

from ..card import Links, dataset_card
from ..creation.plan import read_plan
from ..creation.workers import missing_shards
from ..dataset.preview import PREVIEW
from ..dataset.schema import METADATA, read_metadata
from ..dataset.shards import PLAN, dataset_shards, shard_path
from ..errors import InputError
from ..hub import Changes, Content, Held, patiently
from .parcel import CARD, Parcel, read_object

SHARD = re.compile(r"data/train-(\d*).*\.parquet")  # what our card's pattern makes a dataset read
PLANS = re.compile(r"plan(-\d+)?\.json")  # those with a number are of what was appended


class Dataset(Parcel):
    """The shards of a folder, then what describes them.

    A shard that the repository holds, under whatever name, is not sent again. Where it holds
    others, `append` gives ours the next free numbers, and `overwrite` replaces all. What only
    concerns this machine, `run.json`, `skipped.json` and `logs/`, stays here.
    """

    kind, sign = "dataset", METADATA

    def __init__(
        self,
        repo_id: str,
        folder: Path,
        links: Links,
        append: bool = False,
        overwrite: bool = False,
    ) -> None:
        super().__init__(repo_id, overwrite)
        self.folder, self.links, self.append = folder, links, append
        self.shards = dataset_shards(folder)
        if not self.shards or not (folder / METADATA).is_file():
            raise InputError(f"dataset {folder}: no shards of ours there; see d2i1 create")
        if lost := [shard for shard in self.shards if not shard.exists()]:
            raise InputError(f"{lost[0]} is a link to nothing")
        read_metadata((folder / METADATA).read_text(), str(folder / METADATA))
        if (folder / PLAN).is_file() and (missing := missing_shards(read_plan(folder), folder)):
            raise InputError(
                f"dataset {folder}: {len(missing)} shards are still to be made; the command that"
                " began it continues"
            )
        self.cards: dict[tuple[str, ...], bytes] = {}  # by the other shards it tells of

    def lacking(self, held: Held) -> Changes:
        theirs = [] if self.overwrite else [name for name in held.files if SHARD.fullmatch(name)]
        ours = self._numbered(held, theirs)
        others = tuple(sorted(set(theirs) - set(ours)))
        files = self._about(held, ours, appended=bool(others)) | {CARD: self._card(held, others)}
        old = [name for name in held.files if SHARD.fullmatch(name) or PLANS.fullmatch(name)]
        gone = [name for name in old if name not in files] if self.overwrite else []
        return Changes({n: f for n, f in files.items() if not held.has(n, f)}, gone)

    def _numbered(self, held: Held, theirs: list[str]) -> dict[str, Content]:
        """Our shards under the names they have, or get, in the repository."""
        alike: dict[int, list[str]] = {}
        for name in theirs:
            alike.setdefault(held.files[name].size, []).append(name)

        def known(shard: Path) -> str | None:
            candidates = alike.get(shard.stat().st_size, [])
            at = next((name for name in candidates if held.has(name, shard)), None)
            if at:
                candidates.remove(at)  # two equal shards are two
            return at

        names = [f"data/{shard.name}" for shard in self.shards]
        there = [known(shard) for shard in self.shards]
        others = sorted(set(theirs) - set(filter(None, there)))
        if None in there and others and not self.append:
            taken = [n for n, at in zip(names, there, strict=True) if at is None and n in others]
            raise InputError(
                f"{self.repository} holds other samples, such as {(taken or others)[0]}: add these"
                " with --append, or replace those with --overwrite"
            )
        # those of a dataset that holds no others keep their numbers
        free = count(1 + max(map(_number, theirs if others else (*theirs, *names)), default=0))
        numbered: dict[str, Content] = {}
        for shard, name, at in zip(self.shards, names, there, strict=True):
            if at is None and (others or name in theirs):
                name = f"data/{shard_path(self.folder, next(free)).name}"
            numbered[at or name] = shard
        return numbered

    def _about(self, held: Held, ours: Mapping[str, Content], appended: bool) -> dict[str, Content]:
        """Our shards between the sign that they are ours, of one that is still empty, and what
        describes them; the plan of appended ones is called by their first number."""
        files: dict[str, Content] = {}
        if appended:
            self._check_tasks(held)
        else:
            files[METADATA] = self.folder / METADATA
        files |= ours
        shown = [] if appended else sorted((self.folder / "report").glob("*.png"))  # of all rows
        for picture in (self.folder / PREVIEW, *shown):
            if picture.is_file():
                files[picture.relative_to(self.folder).as_posix()] = picture
        plan = self.folder / PLAN
        if plan.is_file():
            apart = appended and PLAN in held.files and not held.has(PLAN, plan)
            files[f"plan-{min(map(_number, ours)):05d}.json" if apart else PLAN] = plan
        return files

    def _check_tasks(self, held: Held) -> None:
        """Shards of one dataset have the same classes."""
        ours = json.loads((self.folder / METADATA).read_text())["tasks"]
        theirs = read_object(self.repository, METADATA, held).get("tasks", {})
        differing = sorted(
            name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)
        )
        if differing:
            raise InputError(
                f"{self.repository}: tasks or classes differ in {', '.join(differing)}: a dataset"
                " of its own needs another --repo_id"
            )

    def _card(self, held: Held, others: tuple[str, ...]) -> bytes:
        """The card of all shards, those that lie only on the Hub included."""
        if others not in self.cards:

            def make() -> bytes:
                hub = HfFileSystem()
                root = f"datasets/{self.repository.id}@{held.commit}"
                remote = [hub.open(f"{root}/{name}") for name in others]
                return dataset_card(self.folder, self.links, [*remote, *self.shards]).encode()

            self.cards[others] = patiently(str(self.repository), make)
        return self.cards[others]


def _number(name: str) -> int:
    match = SHARD.fullmatch(name)
    return int(match[1] or 0) if match else 0
