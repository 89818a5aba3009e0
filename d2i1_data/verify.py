"""Verification: rows of a dataset made again from its plan, and compared."""

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .errors import InputError
from .makers import Labeller, Order, Skipped, make_maker
from .plan import Plan, listed, read_plan
from .sample import Sample
from .schema import FEATURES, from_row, to_row
from .settings import CreateSettings, LabelSettings, VerifySettings
from .write import RUN, library_versions, shard_path

# what only rounds differently; anything else that differs makes another dataset
ROUNDING = ("device", "threads", "batch_size", "versions")
BYTES = 0.001  # share of an image's bytes that may then be off by more than one
PIXELS = 0.999  # share of a label's pixels that must then agree
IN_SETTINGS = {"steps": "num_inference_steps", "guidance": "guidance_scale"}


def verify(settings: VerifySettings) -> str:
    """Make rows again and compare; what was compared, in one line.

    Byte for byte where plan and place are the same, else within the bounds above. Raises InputError
    that names the row and what of it differs, or the checkpoint or source image that has changed.
    """
    folder = Path(settings.verify)
    plan = read_plan(folder)
    if plan.facts["act"] not in ("create", "label"):
        raise InputError(f"{folder} holds real labels, which nothing makes again")
    maker = make_maker(_as_made(folder, plan, settings))
    assert isinstance(maker, Labeller)
    differences = plan.difference({**plan.facts, **maker.facts(), "versions": library_versions()})
    if other := {key: what for key, what in differences.items() if key not in ROUNDING}:
        raise InputError(f"{folder} was made with something else: {listed(other)}")
    items = [(k, item) for k, shard in enumerate(plan.shards) for item in shard]
    chosen = random.Random(settings.seed).sample(items, min(settings.rows, len(items)))
    compared = 0
    for index in sorted({index for index, _ in chosen}):
        wanted = {item for shard, item in chosen if shard == index}
        stored = _read_shard(folder, index)
        for orders in maker.batches(plan.shards[index], Skipped()):
            if wanted & {order.item for order in orders}:
                compared += _compare_batch(maker, orders, stored, exact=not differences)
    how = "byte for byte" if not differences else f"within rounding ({listed(differences)})"
    return f"{folder}: {compared} rows made again, as they are {how}"


def _as_made(folder: Path, plan: Plan, settings: VerifySettings) -> LabelSettings:
    """The settings that a dataset was made with: its plan, and where source and checkpoint are."""
    file = folder / RUN
    run = json.loads(file.read_text()) if file.is_file() else {}
    places = {}
    for name in ("source", "pipeline"):
        places[name] = getattr(settings, name) or run.get(name)
        if places[name] is None:
            raise InputError(f"{folder} has no {RUN} that says where its {name} is: use --{name}")
    kind = CreateSettings if plan.facts["act"] == "create" else LabelSettings
    known = {field.name for field in fields(kind)}
    facts = {IN_SETTINGS.get(key, key): value for key, value in plan.facts.items()}
    given = {key: value for key, value in facts.items() if key in known}
    return kind(**{**given, **places, "output_dir": str(folder)})


def _read_shard(folder: Path, index: int) -> dict[str, dict[str, Any]]:
    path = shard_path(folder, index)
    if not path.is_file():
        raise InputError(f"{path}: is not there; the command that made the dataset continues it")
    return {row["id"]: row for row in pq.read_table(path).to_pylist()}


def _compare_batch(
    maker: Labeller, orders: list[Order], stored: Mapping[str, Any], exact: bool
) -> int:
    """How many rows of a batch were made again and are what is stored."""
    for order in orders:
        row, found = stored.get(maker.identity(order)), order.source.provenance.source_sha256
        if row is not None and found != row["provenance"]["source_sha256"]:
            then = row["provenance"]["source_sha256"]
            raise InputError(
                f"source image {order.source.id} has changed: its sha256 is {found}, was {then}"
            )
    count = 0
    for sample in maker.look(maker.develop(maker.begin(orders)), Skipped()):
        if sample.id not in stored:
            raise InputError(f"row {sample.id} is missing")
        differs = _columns if exact else _bounds
        if different := list(differs(maker, sample, stored[sample.id])):
            raise InputError(f"row {sample.id} is not what is made again: {', '.join(different)}")
        count += 1
    return count


def _columns(maker: Labeller, sample: Sample, row: Mapping[str, Any]) -> Iterator[str]:
    """Columns whose bytes differ."""
    encoded = FEATURES.encode_example(to_row(sample, maker.tasks))
    (again,) = pa.Table.from_pylist([encoded], FEATURES.arrow_schema).to_pylist()
    return (f"{name} differs" for name in FEATURES if again[name] != row[name])


def _bounds(maker: Labeller, sample: Sample, row: Mapping[str, Any]) -> Iterator[str]:
    """What differs by more than rounding does."""
    then = from_row(row, maker.tasks)
    if sample.caption != then.caption:
        yield "caption differs"
    if asdict(sample.provenance) != asdict(then.provenance):
        yield "provenance differs"
    off = np.abs(sample.image.astype(int) - then.image) > 1
    if off.mean() > BYTES:
        yield f"{off.mean():.2%} of the image's bytes differ"
    for name, family in maker.families.items():
        maps = (family.to_tensor(one.targets[name])[None] for one in (sample, then))
        if (share := family.agreement(*maps).item()) < PIXELS:
            yield f"{name} agrees in {share:.2%} of the pixels"
