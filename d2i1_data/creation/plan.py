"""The plan of a dataset: every sample and shard, and all that decides their bytes.

It is written before the first image. What a sample is made with follows from its place in the plan
alone, so shards can be made by anyone, in any order, and again.
"""

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

from ..dataset.files import require_folder, temporary_path, write_text
from ..dataset.schema import FORMAT_VERSION, Schema, check_format, differing_columns
from ..dataset.shards import LOGS, PLAN, RUN, SKIPPED, shard_path
from ..errors import InputError
from ..sources import Source

SHOWN = 4  # differences between two plans that an error lists


class Item(NamedTuple):
    """One sample to make: from which image of the source, and which of its variants."""

    source_id: str
    variant: int


@dataclass
class Plan:
    """The plan of a dataset.

    Attributes:
        facts: what decides the bytes of a shard beside its samples, library versions included.
        shards: the samples of each shard.
        schema: the columns of every shard.
    """

    facts: dict[str, Any]
    shards: list[list[Item]]
    schema: Schema

    def write(self, folder: Path) -> None:
        """Write plan.json, a shard a line."""
        content = {"format_version": FORMAT_VERSION, **self.facts, "schema": self.schema.config()}
        head = json.dumps(content, indent=2).removesuffix("\n}")
        lines = ",\n".join(f"    {json.dumps(shard)}" for shard in self.shards)
        write_text(folder / PLAN, f'{head},\n  "shards": [\n{lines}\n  ]\n}}\n')

    def difference(self, facts: Mapping[str, Any], schema: Schema) -> dict[str, str]:
        """What is different now, by name: the value of the plan, and the value now.

        Columns that only the new schema has are no difference: shards of this plan do not get them.
        """
        now = json.loads(json.dumps(facts))
        changed = [key for key in {**self.facts, **now} if self.facts.get(key) != now.get(key)]
        found = {
            key: f"{_shown(self.facts.get(key))}, now {_shown(now.get(key))}" for key in changed
        }
        own, other = (json.loads(json.dumps(one.config())) for one in (self.schema, schema))
        for name in {**own["tasks"], **other["tasks"]}:
            then, new = own["tasks"].get(name), other["tasks"].get(name)
            if then != new:
                found[f"task {name}"] = f"{_shown(then)}, now {_shown(new)}"
        lost = differing_columns(own["columns"], other["columns"], added=False)
        return found or ({"columns": lost} if lost else {})

    def check(self, facts: Mapping[str, Any], schema: Schema, where: str) -> None:
        """Raise InputError for facts or a schema that would make something else."""
        if differences := self.difference(facts, schema):
            raise InputError(f"{where} differs from the plan in {listed(differences)}")


def listed(differences: Mapping[str, str]) -> str:
    """The first differences, for an error."""
    more = len(differences) - SHOWN
    told = "; ".join(f"{key}: {what}" for key, what in list(differences.items())[:SHOWN])
    return told + (f"; and {more} more" if more > 0 else "")


def _shown(value: Any) -> str:
    return "none" if value is None else json.dumps(value)


def plan_shards(
    source: Source, rows: Sequence[int], count: int, size: int, balance: str | None = None
) -> list[list[Item]]:
    """Which samples go into which shard: all images once, then their next variant.

    balance: a label map of the source, whose classes are then shown as evenly as they can be;
    images that cannot be read are not chosen.
    """
    ids = [source.identity(row) for row in rows]
    if twice := [name for name, times in Counter(ids).items() if times > 1]:
        raise InputError(f"source {source.name}: {len(twice)} ids occur twice, such as {twice[0]}")
    chosen = cycle(ids) if balance is None else balanced(source, rows, balance)
    used: Counter[str] = Counter()
    items = []
    for name in islice(chosen, count):
        items.append(Item(name, used[name]))
        used[name] += 1
    return [items[start : start + size] for start in range(0, count, size)]


def balanced(source: Source, rows: Sequence[int], task: str) -> Iterator[str]:
    """Ids without end: the class that was shown least chooses next, and each its images in turn.

    An image shows a class that covers at least a hundredth of it.
    """
    from tqdm import tqdm

    found = source.tasks.get(task)
    if found is None or not found.family.names:
        maps = [n for n, t in source.tasks.items() if t.family.names]
        raise InputError(
            f"--balance {task}: source {source.name} has no such label map;"
            f" it has {', '.join(maps) or 'none'}"
        )
    shows: dict[str, list[int]] = {}
    for row in tqdm(rows, desc=f"classes of {task}", unit="image"):
        try:
            target = source[row].targets.get(task)
        except InputError:
            continue
        if target is not None:
            shows[source.identity(row)] = found.family.present(target, 0.01)
    labels = sorted({label for present in shows.values() for label in present})
    if not labels:
        raise InputError(f"--balance {task}: no image of source {source.name} shows any class")
    turns = {label: cycle([name for name in shows if label in shows[name]]) for label in labels}
    shown = dict.fromkeys(labels, 0)
    while True:
        name = next(turns[min(labels, key=shown.__getitem__)])
        yield name
        for label in shows[name]:
            shown[label] += 1


# --- what a sample is made with, drawn from its place in the plan ---


def noise_seed(source_id: str, variant: int, seed: int) -> int:
    """The first 63 bits of BLAKE2b over what identifies a sample."""
    return _bits(source_id, variant, seed) >> 1


def draw(item: Item, seed: int, what: str) -> float:
    """A number in [0, 1) for each use, even and independent."""
    return (_bits(*item, seed, what) >> 11) / 2**53


def _bits(*parts: object) -> int:
    name = "\0".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")


# --- the folder ---


def claim_folder(folder: Path, plan: Plan, overwrite: bool) -> None:
    """Make the folder ours: new, or holding the same plan; otherwise refuse and touch nothing.

    A folder with the same plan keeps its own file, and so its own schema.

    overwrite: a dataset of ours with another plan is replaced; what is not ours never is.
    """
    require_folder(folder)
    resumed = False
    unfinished = temporary_path(folder / PLAN)  # of a run that was killed before it began
    if folder.is_dir() and any(file != unfinished for file in folder.iterdir()):
        old = read_plan(folder, "choose another --output_dir")
        differences = old.difference(plan.facts, plan.schema)
        if not differences and old.shards != plan.shards:
            differences = {"shards": "other samples, or the same in another order"}
        if differences and not overwrite:
            raise InputError(
                f"{folder} holds another dataset ({listed(differences)}):"
                " choose another --output_dir, or replace it with --overwrite"
            )
        resumed = not differences
        if differences:
            shards = [shard_path(folder, index) for index in range(len(old.shards))]
            logs = sorted((folder / LOGS).glob("*.jsonl"))
            names = ("README.md", "preview.png", SKIPPED, RUN)
            for file in (*(folder / name for name in names), *shards, *logs):
                file.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    for file in (folder / "data").glob(".train-*.tmp"):
        file.unlink()  # of a run that was killed
    if not resumed:
        plan.write(folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a folder for one run at a time; the lock goes with the process that holds it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{folder}: another run is writing it") from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def read_plan(folder: Path, advice: str = "was it written by d2i1 create?") -> Plan:
    """The plan of a dataset's folder."""
    file = folder / PLAN
    if not folder.exists():
        raise InputError(f"{folder}: no such folder")
    if not file.is_file():
        raise InputError(f"{folder} is not empty and holds no {PLAN}: {advice}")
    try:
        facts = json.loads(file.read_text())
        version = int(facts.pop("format_version"))
        shards = [[Item(*item) for item in shard] for shard in facts.pop("shards")]
        config = facts.pop("schema")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{file} is no plan of ours: {advice}") from error
    check_format(version, str(file))
    return Plan(facts, shards, Schema.from_config(config, str(file)))
