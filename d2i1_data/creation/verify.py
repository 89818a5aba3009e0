"""Verification: make rows of a dataset again from its plan, and compare them."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..dataset.record import RUN, read_run
from ..dataset.sample import Provenance, Quality, Sample
from ..dataset.schema import Schema
from ..dataset.shards import PLAN, library_versions, read_shard_record
from ..diff2in1.schedulers import find_scheduler_name
from ..errors import InputError
from .plan import Plan, list_differences, read_plan
from .producers import Job, Labeller, Skipped, make_producer
from .settings import CreateSettings, LabelSettings, VerifySettings
from .shard_check import require_complete

# facts that affect only rounding; any other difference would make another dataset
ROUNDING = ("device", "versions")
BYTES = 0.001  # with other rounding, this share of image bytes may differ by more than one
PIXELS = 0.999  # with other rounding, this share of label pixels must agree
SCORE = 0.01  # with other rounding, a score may differ by this
IN_SETTINGS = {"steps": "num_inference_steps", "guidance": "guidance_scale"}


def verify(settings: VerifySettings) -> str:
    """Make rows again and compare them with the stored ones.

    With the same kind of machine and the same library versions, they must be equal byte for byte.
    Otherwise they must agree within the bounds of this file.

    Returns:
        One line that says how many rows were compared, and how.

    Raises:
        InputError: if a row differs, or the checkpoint or a source image has changed.
    """
    folder = Path(settings.verify)
    plan = read_plan(folder)
    if plan.facts.get("act") not in ("create", "label"):
        raise InputError(f"{folder} holds real labels, which cannot be made again")
    require_complete(plan, folder)
    producer = make_producer(_as_made(folder, plan, settings))
    assert isinstance(producer, Labeller)
    now = {**plan.facts, **producer.facts(), "versions": library_versions()}
    differences = plan.difference(now, producer.schema)
    if other := {key: text for key, text in differences.items() if key not in ROUNDING}:
        raise InputError(f"{folder} was made from another plan: {list_differences(other)}")
    items = [(k, item) for k, shard in enumerate(plan.shards) for item in shard]
    chosen = random.Random(settings.seed).sample(items, min(settings.rows, len(items)))
    compared = 0
    for index in sorted({index for index, _ in chosen}):
        own = {item for shard, item in chosen if shard == index}
        stored, skipped = _read_shard(folder, index, producer, plan), Skipped()
        batches = list(producer.batches(plan.shards[index], skipped))
        _require_made(stored, skipped)  # a skipped row would change the batches
        for jobs in batches:
            if own & {job.item for job in jobs}:
                compared += _compare_batch(producer, plan, jobs, stored, exact=not differences)
    if not compared:
        raise InputError(f"{folder}: all chosen rows are skipped rows")
    how = (
        "byte for byte" if not differences else f"within rounding ({list_differences(differences)})"
    )
    return f"{folder}: {compared} rows made again, equal {how}"


def _as_made(folder: Path, plan: Plan, settings: VerifySettings) -> LabelSettings:
    """The settings in the plan of a dataset, with the present places of source and pipeline."""
    run = read_run(folder)
    places = {}
    for name in ("source", "pipeline"):
        places[name] = getattr(settings, name) or (run.settings.get(name) if run else None)
        if places[name] is None:
            raise InputError(f"{folder} has no {RUN} that says where its {name} is: use --{name}")
    places["captions"] = settings.captions or (run.settings.get("captions") if run else None)
    kind = CreateSettings if plan.facts["act"] == "create" else LabelSettings
    names = {field.name for field in fields(kind)}
    facts = {IN_SETTINGS.get(key, key): value for key, value in plan.facts.items()}
    given = {key: value for key, value in facts.items() if key in names}
    if "scheduler" in given:  # a plan has the name of its class
        given["scheduler"] = find_scheduler_name(given["scheduler"])
    given["subset_seed"] = facts.get("subset_seed")  # without it, the first rows or all were used
    try:
        return kind(**{**given, **places, "on_bad_row": "skip", "output_dir": str(folder)})
    except (TypeError, AttributeError, InputError) as error:
        raise InputError(f"{folder / PLAN} is no plan of ours: {error}") from error


def _read_shard(
    folder: Path, index: int, producer: Labeller, plan: Plan
) -> dict[str, dict[str, Any]]:
    """Read the rows of a shard by id, and check that they are those of the plan."""
    path = plan.shard_paths(folder)[index]
    rows = pq.read_table(path).to_pylist()
    planned = {producer.identity(item) for item in plan.shards[index]} - {
        *read_shard_record(path).skipped
    }
    stored = Counter(row["id"] for row in rows)
    wrong = {name: "is missing" for name in planned if name not in stored}
    wrong |= {name: "is not in the plan" for name in stored if name not in planned}
    wrong |= {name: "is there twice" for name, count in stored.items() if count > 1}
    for name, problem in sorted(wrong.items()):
        raise InputError(f"{path}: row {name} {problem}")
    return {row["id"]: row for row in rows}


def _require_made(stored: Mapping[str, Any], skipped: Skipped) -> None:
    """Raise InputError for a stored row that cannot be made again."""
    for name, why in skipped.items():
        if name in stored:
            raise InputError(f"row {name}: {why}")


def _compare_batch(
    producer: Labeller, plan: Plan, jobs: list[Job], stored: Mapping[str, Any], exact: bool
) -> int:
    """Make a batch again and compare its rows. Return their number."""
    for job in jobs:
        row = stored.get(producer.identity(job.item))
        then, now = row and row["provenance"].get("source_sha256"), producer.provenance(job)
        if row and then != now.source_sha256:
            raise InputError(
                f"source image {job.source.id} has changed: its sha256 is {now.source_sha256},"
                f" was {then}"
            )
    skipped = Skipped()
    samples = list(producer.label(producer.decode(producer.denoise(jobs)), skipped))
    _require_made(stored, skipped)
    for sample in samples:
        if sample.id not in stored:
            raise InputError(f"row {sample.id} was left out, but can be made")
        differs = _columns if exact else _bounds
        if different := list(differs(producer, plan.schema, sample, stored[sample.id])):
            raise InputError(f"row {sample.id} differs when made again: {', '.join(different)}")
    return len(samples)


def _columns(
    producer: Labeller, schema: Schema, sample: Sample, row: Mapping[str, Any]
) -> Iterator[str]:
    """Describe the columns whose bytes differ."""
    encoded = schema.features.encode_example(schema.to_row(sample))
    (again,) = pa.Table.from_pylist([encoded], schema.arrow).to_pylist()
    return (f"{name} differs" for name in schema.columns if again[name] != row.get(name))


def _bounds(
    producer: Labeller, schema: Schema, sample: Sample, row: Mapping[str, Any]
) -> Iterator[str]:
    """Describe the columns that differ by more than rounding."""
    then = schema.from_row(row)
    fields_now = {name: getattr(sample.provenance, name) for name in schema.inner("provenance")}
    if "caption" in schema.columns and sample.caption != then.caption:
        yield "caption differs"
    if Provenance(**fields_now) != then.provenance:
        yield "provenance differs"
    stored = {**then.targets, "image": then.image}
    for name, pixels in {**sample.targets, "image": sample.image}.items():
        if name not in stored or stored[name].shape != pixels.shape:
            yield f"{name} is missing" if name not in stored else f"{name} has another size"
            return
    off = np.abs(sample.image.astype(int) - then.image) > 1
    if off.mean() > BYTES:
        yield f"{off.mean():.2%} of the image's bytes differ"
    for name, family in producer.families.items():
        one, other = (family.to_tensor(maps[name])[None] for maps in (sample.targets, then.targets))
        known, known_then = family.valid(one), family.valid(other)
        same = (known & known_then & family.agrees(one, other)) | (~known & ~known_then)
        if (share := same.float().mean().item()) < PIXELS:
            yield f"{name} agrees in {share:.2%} of the pixels"
    if scores := [name for name in producer.tasks if not _near(sample, then, name)]:
        yield f"quality of {', '.join(scores)} differs"


def _near(one: Sample, other: Sample, name: str) -> bool:
    """Whether two samples have the same scores for a task, except for rounding."""
    pairs = zip(*(astuple(s.quality.get(name, Quality())) for s in (one, other)), strict=True)
    return all(a == b or (a is not None and b and abs(a - b) <= SCORE) for a, b in pairs)
