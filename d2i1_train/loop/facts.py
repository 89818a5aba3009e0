"""What is said of a training beside its weights: `training.json`, which the card is made from.

No paths, machines or times; the stages before, if the pipeline that was begun with says them.
"""

from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from d2i1_data.card import command
from d2i1_data.card.licence import read_licence
from d2i1_data.card.text import is_repository
from d2i1_data.checkpoints.bases import embedded
from d2i1_data.checkpoints.files import fetch
from d2i1_data.checkpoints.training_record import (
    Stage,
    TrainingRecord,
    TrainingRows,
    ValidationRecord,
    read_training,
)
from d2i1_data.dataset.shards import library_versions
from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.errors import InputError
from d2i1_data.sources import Rows, parse_spec

from ..settings import LORA_SETTINGS, SelfImproveSettings, WarmUpSettings
from .settings import ONE_CYCLE_SETTINGS

if TYPE_CHECKING:
    from .run import Run

# places, and how a run was watched and kept
PRIVATE = {"output_dir", "cache_dir", "resume_from_checkpoint", "report_to", "logging_steps"}
PRIVATE |= {"checkpointing_steps", "checkpoints_total_limit", "dataloader_num_workers"}
PRIVATE |= {"push_to_hub", "hub_model_id", "hub_private_repo"}
PLACES = ("pipeline", "base_config")


def training_facts(run: "Run", pipe: Diff2in1Pipeline) -> TrainingRecord:
    """The content of training.json."""
    before = _before(run)
    licence, embedded_base = _of_base(run, pipe, before)
    stages = (*before.stages, _stage(run, pipe))
    return TrainingRecord(licence, embedded_base, stages)


def _of_base(
    run: "Run", pipe: Diff2in1Pipeline, before: TrainingRecord
) -> tuple[str | None, bool | None]:
    """The base's licence, and whether it is embedded; None where that is not known."""
    if isinstance(run.settings, WarmUpSettings):
        name, revision = run.settings.base, run.settings.revision
        return read_licence(name, revision) or None, name in embedded() or None
    licence, name = before.base_licence, str(pipe.config.base)
    if not licence and is_repository(name):  # of a folder only a name is kept
        licence = read_licence(name, pipe.config.base_revision)
    return licence or None, before.base_embedded


def _before(run: "Run") -> TrainingRecord:
    """The record of the pipeline that a run began with."""
    if not isinstance(run.settings, SelfImproveSettings):
        return TrainingRecord()
    return read_training(fetch(run.settings.pipeline, "pipeline"))


def _stage(run: "Run", pipe: Diff2in1Pipeline) -> Stage:
    public = _public(run, pipe)
    own = LORA_SETTINGS if pipe.config.trained_unet != "lora" else ()
    cycle = () if run.beta1 else ONE_CYCLE_SETTINGS
    real, *created = run.rows
    return Stage(
        stage=run.name,
        command=command.changed_flags(public, type(run.settings)),
        source=_named(real, run.settings.source),
        created=_named(created[0]) if created else None,
        tasks=list(pipe.perception.families),
        steps=run.step,
        seen=_seen(run),
        processes=run.accelerator.num_processes,
        settings={k: v for k, v in public.items() if k not in (*own, *cycle)},
        versions=library_versions(),
        validation=None if run.validated is None else ValidationRecord(**run.validated),
    )


def _public(run: "Run", pipe: Diff2in1Pipeline) -> dict[str, Any]:
    """Settings with names instead of places."""
    found = {k: v for k, v in asdict(run.settings).items() if k not in PRIVATE and v is not None}
    found |= {name: command.public_name(found[name]) for name in PLACES if name in found}
    real, *created = (rows.source.name for rows in run.rows)
    found["source"] = command.public_source(found["source"], real)
    if run.validation:
        name = run.validation.rows.source.name
        found["validation_source"] = command.public_source(found["validation_source"], name)
    if created:
        found["created"] = created[0]
    if "base" in found:
        found["base"] = pipe.config.base
    return found


def _named(rows: Rows, spec: str | None = None) -> TrainingRows:
    """What is known of the rows a run learned from."""
    licence = None
    with suppress(InputError):  # a row that this training did not come to
        licence = rows.source.picture(rows.usable[0]).provenance.licence
    return TrainingRows(
        name=rows.source.name,
        rows=len(rows.usable),
        split=parse_spec(spec).split if spec else None,
        licence=licence,
        fingerprint=rows.source.fingerprint if spec is None else None,
    )


def _seen(run: "Run") -> dict[str, int]:
    """How many samples of each kind were learned from, again and again; of a union, together."""
    settings, steps = run.settings, run.step
    real = steps * run.samples_a_step(settings.real_batch_size)
    if not isinstance(settings, SelfImproveSettings) or len(run.rows) == 1:
        return {"real": real}
    created = steps * run.samples_a_step(settings.created_size)
    if settings.mix == "union":
        return {"real and created": real + created}
    return {"real": real, "created": created}
