"""The plan of a dataset: every sample and shard, and all facts that decide their bytes.

The plan is written before the first image is made. It alone decides the content of each sample. So
any process can make a shard, in any order, and make it again.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, cycle, islice, repeat
from pathlib import Path
from typing import Any, NamedTuple

from ..checks import check_format, parse_json
from ..dataset.files import require_folder, temporary_path, write_text
from ..dataset.record import RUN, read_json
from ..dataset.schema import FORMAT_VERSION, METADATA, Schema, differing_columns
from ..dataset.shards import LOGS, PLAN, SKIPPED, dataset_shards, shard_path
from ..dataset.splits import TRAIN, draw_splits, is_name
from ..errors import InputError
from ..sources import Source, random_subset

MAX_DIFFERENCES = 4  # number of differences that an error lists


class Item(NamedTuple):
    """One sample to make: the id of its source image, and the number of its variant."""

    source_id: str
    variant: int


@dataclass
class Plan:
    """The plan of a dataset.

    Attributes:
        facts: all facts besides the samples that decide the bytes of a shard, including versions of
            libraries.
        shards: the samples of each shard.
        schema: the columns of every shard.
        splits: the number of shards of each split, in the order of the shards.
    """

    facts: dict[str, Any]
    shards: list[list[Item]]
    schema: Schema
    splits: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.splits = self.splits or {TRAIN: len(self.shards)}

    def shard_paths(self, folder: Path) -> list[Path]:
        """The file of each shard."""
        names = chain.from_iterable(repeat(name, count) for name, count in self.splits.items())
        return [shard_path(folder, index, name) for index, name in enumerate(names)]

    def write(self, folder: Path) -> None:
        """Write plan.json, with one shard on each line."""
        content = {"format_version": FORMAT_VERSION, **self.facts, "schema": self.schema.config()}
        content |= {"splits": self.splits} if len(self.splits) > 1 else {}
        head = json.dumps(content, indent=2).removesuffix("\n}")
        lines = ",\n".join(f"    {json.dumps(shard)}" for shard in self.shards)
        write_text(folder / PLAN, f'{head},\n  "shards": [\n{lines}\n  ]\n}}\n')

    def difference(self, facts: Mapping[str, Any], schema: Schema) -> dict[str, str]:
        """Compare the plan with present facts and a present schema.

        A column that only the present schema has is not a difference, because shards of this plan
        do not get it.

        Returns:
            Name -> text with the value of the plan and the present value.
        """
        now = json.loads(json.dumps(facts))
        changed = [key for key in {**self.facts, **now} if self.facts.get(key) != now.get(key)]
        differences = {
            key: f"{_value(self.facts.get(key))}, now {_value(now.get(key))}" for key in changed
        }
        own, other = (json.loads(json.dumps(s.config())) for s in (self.schema, schema))
        for name in {**own["tasks"], **other["tasks"]}:
            then, new = own["tasks"].get(name), other["tasks"].get(name)
            if then != new:
                differences[f"task {name}"] = f"{_value(then)}, now {_value(new)}"
        lost = differing_columns(own["columns"], other["columns"], added=False)
        return differences or ({"columns": lost} if lost else {})

    def check(self, facts: Mapping[str, Any], schema: Schema, where: str) -> None:
        """Check that present facts and a present schema would make the same dataset.

        Args:
            facts: the present facts.
            schema: the present schema.
            where: begins the message.

        Raises:
            InputError: if they differ from the plan.
        """
        if differences := self.difference(facts, schema):
            raise InputError(f"{where} differs from the plan in {list_differences(differences)}")


def list_differences(differences: Mapping[str, str]) -> str:
    """The first differences of `Plan.difference` as text for an error."""
    more = len(differences) - MAX_DIFFERENCES
    first = list(differences.items())[:MAX_DIFFERENCES]
    text = "; ".join(f"{name}: {values}" for name, values in first)
    return text + (f"; and {more} more" if more > 0 else "")


def _value(value: Any) -> str:
    return "none" if value is None else json.dumps(value)


def plan_shards(
    source: Source,
    rows: Sequence[int],
    count: int,
    size: int,
    balance: str | None = None,
    subset_seed: int | None = 0,
) -> list[list[Item]]:
    """Choose the samples of each shard: all images once, then their next variant, and so on.

    If there are more images than samples, the images are chosen at random. With `balance`, the
    images of a class then take turns in random order.

    Args:
        source: where the samples come from.
        rows: indices of the images that are used.
        count: number of samples.
        size: number of samples in a shard.
        balance: a label map of the source. Images are then chosen so that its classes occur as
            evenly as possible. Images that cannot be read are not chosen.
        subset_seed: decides which images are chosen, see `random_subset`.

    Raises:
        InputError: if two images have the same id, or `balance` is no label map of the source.
    """
    ids = [source.identity(row) for row in rows]
    if repeated := [name for name, times in Counter(ids).items() if times > 1]:
        raise InputError(
            f"source {source.name}: {len(repeated)} ids occur twice, such as {repeated[0]}"
        )
    chosen: Iterator[str]
    if balance is None:
        chosen = cycle(ids[n] for n in random_subset(len(ids), count, subset_seed))
    else:
        if count < len(rows) and subset_seed is not None:
            places = {row: draw(Item(ids[n], 0), subset_seed, "turn") for n, row in enumerate(rows)}
            rows = sorted(rows, key=places.__getitem__)
        chosen = balanced(source, rows, balance)
    used: Counter[str] = Counter()
    items = []
    for name in islice(chosen, count):
        items.append(Item(name, used[name]))
        used[name] += 1
    return [items[start : start + size] for start in range(0, count, size)]


def split_shards(
    source: Source, shards: Sequence[Sequence[Item]], size: int, shares: Mapping[str, float]
) -> tuple[list[list[Item]], dict[str, int]]:
    """Give each split shards of its own.

    Args:
        source: where the samples come from.
        shards: the planned samples.
        size: number of samples in a shard.
        shares: share of the source images in each split.

    Returns:
        The same samples in their new shards, and the number of shards of each split.

    Raises:
        InputError: if there are fewer source images than splits.
    """
    items = [*chain.from_iterable(shards)]
    rows = {source.identity(row): row for row in range(len(source))}
    splits = draw_splits([source.origin(rows[item.source_id]) for item in items], shares)
    parted, counts = list[list[Item]](), dict[str, int]()
    for name in shares:
        own = [item for item, split in zip(items, splits, strict=True) if split == name]
        parts = [own[start : start + size] for start in range(0, len(own), size)]
        parted, counts[name] = parted + parts, len(parts)
    return parted, counts


def balanced(source: Source, rows: Sequence[int], task: str) -> Iterator[str]:
    """Yield ids without end, so that the classes of a label map occur evenly.

    The next class is always the one that has occurred least often. The images of a class take
    turns. An image counts for a class if the class covers at least a hundredth of it.
    """
    from tqdm import tqdm

    found = source.tasks.get(task)
    if found is None or not found.family.names:
        maps = [n for n, t in source.tasks.items() if t.family.names]
        raise InputError(
            f"--balance {task}: source {source.name} has no such label map;"
            f" it has {', '.join(maps) or 'none'}"
        )
    classes: dict[str, list[int]] = {}
    for row in tqdm(rows, desc=f"classes of {task}", unit="image"):
        try:
            target = source[row].targets.get(task)
        except InputError:
            continue
        if target is not None:
            classes[source.identity(row)] = found.family.present(target, 0.01)
    labels = sorted({label for present in classes.values() for label in present})
    if not labels:
        raise InputError(f"--balance {task}: no image of source {source.name} shows any class")
    turns = {label: cycle([name for name in classes if label in classes[name]]) for label in labels}
    counts = dict.fromkeys(labels, 0)
    while True:
        name = next(turns[min(labels, key=counts.__getitem__)])
        yield name
        for label in classes[name]:
            counts[label] += 1


# --- random numbers of a sample, from its place in the plan ---


def noise_seed(source_id: str, variant: int, seed: int) -> int:
    """The seed of the noise of a sample: the first 63 bits of BLAKE2b.

    Args:
        source_id: id of the source image.
        variant: number of the variant.
        seed: seed of the command.
    """
    return _bits(source_id, variant, seed) >> 1


def draw(item: Item, seed: int, purpose: str) -> float:
    """A uniform random number in [0, 1).

    Args:
        item: the sample.
        seed: seed of the command.
        purpose: names the use of the number. Numbers for different uses are independent.
    """
    return (_bits(*item, seed, purpose) >> 11) / 2**53


def _bits(*parts: object) -> int:
    name = "\0".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")


# --- the folder ---


def plan_sha256(folder: Path, name: str = PLAN) -> str:
    """The sha256 of the file `plan.json` of a folder, or of another. Every shard states it."""
    return hashlib.sha256((folder / name).read_bytes()).hexdigest()


def missing_shards(plan: Plan, folder: Path) -> list[int]:
    """Indices of the shards that are not written yet."""
    there = {file.name for file in dataset_shards(folder)}
    return [k for k, file in enumerate(plan.shard_paths(folder)) if file.name not in there]


def claim_folder(folder: Path, plan: Plan, overwrite: bool) -> None:
    """Claim a folder for a plan.

    A folder with the same plan keeps its own `plan.json`, and so its own schema.

    Args:
        folder: a folder that is new, empty, or has the same plan.
        plan: the plan of the dataset.
        overwrite: replace a dataset of ours that has another plan.

    Raises:
        InputError: if the folder holds anything else. It is not changed then.
    """
    require_folder(folder)
    resumed = False
    unfinished = temporary_path(folder / PLAN)  # left by a run that was killed at its start
    if folder.is_dir() and any(file != unfinished for file in folder.iterdir()):
        old = read_plan(folder, "choose another --output_dir")
        for name in (METADATA, RUN):  # they are written again, so not those of a newer format
            version = read_json(folder / name).get("format_version", 0)
            check_format(version, FORMAT_VERSION, str(folder / name))
        differences = old.difference(plan.facts, plan.schema)
        if not differences and old.splits != plan.splits:
            differences = {"splits": f"{_value(old.splits)}, now {_value(plan.splits)}"}
        if not differences and old.shards != plan.shards:
            differences = {"shards": "other samples, or the same in another order"}
        if differences and not overwrite:
            raise InputError(
                f"{folder} holds another dataset ({list_differences(differences)}):"
                " choose another --output_dir, or replace it with --overwrite"
            )
        resumed = not differences
        if differences:
            shards = old.shard_paths(folder)
            logs = sorted((folder / LOGS).glob("*.jsonl"))
            names = ("README.md", "preview.png", SKIPPED, RUN)
            for file in (*(folder / name for name in names), *shards, *logs):
                file.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    for file in (folder / "data").glob(".*-*.parquet*.tmp"):
        file.unlink()  # left by a run that was killed
    if not resumed:
        plan.write(folder)


def read_plan(folder: Path, advice: str = "was it written by d2i1 create?") -> Plan:
    """Read `plan.json`.

    Args:
        folder: folder of a dataset.
        advice: end of the message if the folder has no plan.

    Raises:
        InputError: if there is no plan of ours, or it has a newer format.
    """
    file = folder / PLAN
    if not folder.exists():
        raise InputError(f"{folder}: no such folder")
    if not file.is_file():
        raise InputError(f"{folder} is not empty and holds no {PLAN}: {advice}")
    try:
        facts = parse_json(file.read_text())
        version = int(facts.pop("format_version"))
        shards = [[Item(*item) for item in shard] for shard in facts.pop("shards")]
        config = facts.pop("schema")
        splits = {name: int(count) for name, count in facts.pop("splits", {}).items()}
        fit = sum(splits.values()) == len(shards) and min(splits.values(), default=0) > 0
        if splits and not (fit and all(map(is_name, splits))):
            raise ValueError("splits")
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise InputError(f"{file} is no plan of ours: {advice}") from error
    check_format(version, FORMAT_VERSION, str(file))
    return Plan(facts, shards, Schema.from_config(config, str(file)), splits)
