"""Write datasets. theta_C creates and labels images, or labels real images, or labels are imported.

A dataset is a pure function of (checkpoint, source, settings, seed). The plan lists every sample
and shard before the first image is made, so an interrupted run can continue.
"""

import logging
from contextlib import ExitStack
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .settings import CreateSettings, ImportSettings, LabelSettings, WriteSettings

if TYPE_CHECKING:
    from .plan import Plan
    from .producers import Producer
    from .ray import RayCluster

logger = logging.getLogger(__name__)

MAX_SAMPLES = 10_000_000  # of one dataset; their plan takes about 2 GB of memory
PROCESS_TIMEOUT = timedelta(days=7)  # time that a process waits for others to finish their shards


def import_source(settings: ImportSettings) -> Path:
    """Write a dataset of real samples with their labels.

    Returns:
        Its folder.

    Raises:
        InputError: if the settings, the source or the folder cannot be used.
    """
    return _write_dataset(settings)


def label(settings: LabelSettings) -> Path:
    """Write a dataset of the images of a source, labelled by theta_C.

    Returns:
        Its folder.

    Raises:
        InputError: if the settings, the source, the pipeline or the folder cannot be used.
    """
    return _write_dataset(settings)


def create(settings: CreateSettings) -> Path:
    """Write a dataset of images that theta_C created and labelled.

    Returns:
        Its folder.

    Raises:
        InputError: if the settings, the source, the pipeline or the folder cannot be used.

    Source: paper Sec. 3.
    """
    return _write_dataset(settings)


def _write_dataset(settings: WriteSettings) -> Path:
    from accelerate import PartialState

    from ..dataset.files import explain_full_disk, locked, require_folder
    from .plan import read_plan
    from .processes import make_in_new_processes
    from .producers import make_producer
    from .ray import RayCluster
    from .workers import make_in_processes

    folder, state = Path(settings.output_dir), PartialState(timeout=PROCESS_TIMEOUT)
    if settings.engine == "ray" and state.num_processes > 1:
        raise InputError("--engine ray starts its own workers: run it in one process")
    if settings.starts_processes and settings.workers is not None and state.num_processes > 1:
        raise InputError("--workers starts processes itself: run it in one process")
    require_folder(folder)
    producer = make_producer(settings)
    cluster = RayCluster(settings) if settings.engine == "ray" else None
    with ExitStack() as stack:
        stack.enter_context(explain_full_disk(folder))
        if state.is_main_process:
            producer.examine()
            plan = _plan(producer, settings, cluster)
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder))
            _begin(folder, producer, plan, settings)
        state.wait_for_everyone()
        plan = read_plan(folder)
        if cluster is not None:
            cluster.make(plan, folder)
        elif settings.starts_processes and (settings.workers or 1) > 1:
            make_in_new_processes(settings, plan, folder, settings.workers or 1)
        else:
            make_in_processes(producer, plan, folder)
        if state.is_main_process:
            _finish(folder, plan)
    return folder


def _plan(producer: "Producer", settings: WriteSettings, cluster: "RayCluster | None") -> "Plan":
    """Make the plan: every sample and its shard, and all other facts that decide their bytes."""
    from ..dataset.shards import library_versions
    from ..dataset.splits import read_splits
    from .plan import Plan, plan_shards, split_shards

    rows, count, balance = producer.rows, len(producer.rows), None
    if not rows:
        raise InputError(f"source {producer.source.name}: holds no sample")
    if isinstance(settings, CreateSettings):
        count, balance = settings.num_samples or count * settings.variants, settings.balance
    if count > MAX_SAMPLES:
        raise InputError(
            f"{count:,} samples: expected at most {MAX_SAMPLES:,}, because the plan lists each;"
            " create more into other folders, with another --seed"
        )
    size = settings.shard_size
    facts: dict[str, Any] = {"act": producer.act, "resolution": settings.resolution}
    facts |= {"samples": count, "shard_size": size, **producer.facts()}
    if min(count, len(rows)) < len(producer.source) and settings.subset_seed is not None:
        facts["subset_seed"] = settings.subset_seed
    if cluster is not None and "device" in facts:
        facts["device"] = cluster.device
    facts["versions"] = library_versions()
    shards = plan_shards(producer.source, rows, count, size, balance, settings.subset_seed)
    if settings.splits is None:
        return Plan(facts, shards, producer.schema)
    shards, splits = split_shards(producer.source, shards, size, read_splits(settings.splits))
    return Plan(facts, shards, producer.schema, splits)


def _begin(folder: Path, producer: "Producer", plan: "Plan", settings: WriteSettings) -> None:
    """Write the plan and all other files that do not depend on shards."""
    from ..card.command import changed_flags
    from ..dataset.record import RunRecord, write_run
    from ..dataset.shards import write_metadata
    from .plan import claim_folder, read_plan
    from .shard_check import broken_shards

    claim_folder(folder, plan, settings.overwrite)
    for shard, why in broken_shards(plan, folder).items():
        logger.warning("%s; it is made again", why)
        shard.unlink()
    own = ("output_dir", "overwrite")  # these settings do not affect the content
    given = {name: value for name, value in asdict(settings).items() if name not in own}
    write_run(folder, RunRecord(producer.act, changed_flags(given, type(settings)), given))
    own_plan = read_plan(folder)
    write_metadata(folder, own_plan.schema, [*own_plan.splits])


def _finish(folder: Path, plan: "Plan") -> None:
    """Write the files about all shards: the list of skipped samples, and the card."""
    from ..card import write_card
    from ..dataset.files import write_json
    from ..dataset.record import read_record
    from ..dataset.shards import SKIPPED, dataset_shards, read_shard_record
    from .plan import missing_shards

    if missing := missing_shards(plan, folder):
        raise InputError(
            f"{folder}: {len(missing)} shards are missing; can all processes reach this folder?"
        )
    skipped: dict[str, str] = {}
    for shard in dataset_shards(folder):
        skipped |= read_shard_record(shard).skipped
    for entry in read_record(str(folder)).logs:  # logs have the full reasons, but can be lost
        skipped |= {name: why for name, why in entry.skipped.items() if name in skipped}
    (folder / SKIPPED).unlink(missing_ok=True)
    if skipped:
        write_json(folder / SKIPPED, skipped)
    if len(skipped) == sum(map(len, plan.shards)):
        raise InputError(f"{folder}: no sample could be made, see {SKIPPED}")
    write_card(folder)
