"""Make the training record of a stage, for `training.json`. Cards show this record.

The record holds no paths, machines or times. It includes the earlier stages of the pipeline.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, NamedTuple

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
from .settings import ONE_CYCLE_SETTINGS, PRIVATE, TrainSettings

PLACES = ("pipeline", "base_config", "captions")


class StageFacts(NamedTuple):
    """Facts about a finished stage.

    Args:
        name: name of the stage, such as `warm-up`.
        settings: settings of the stage.
        rows: the real rows, then the created rows if there are any.
        steps: number of optimiser steps.
        processes: number of processes.
        validation: metrics of the published weights, if they were measured.
        held_out: number of created rows made from samples that may be held out.
    """

    name: str
    settings: TrainSettings
    rows: Sequence[Rows]
    steps: int
    processes: int
    validation: ValidationRecord | None
    held_out: int = 0


def training_record(facts: StageFacts, pipe: Diff2in1Pipeline) -> TrainingRecord:
    """Describe a training: the base, the earlier stages, and this one.

    Args:
        facts: facts about this stage.
        pipe: the trained pipeline.
    """
    earlier = TrainingRecord()
    if isinstance(facts.settings, SelfImproveSettings):
        earlier = read_training(fetch(facts.settings.pipeline, "pipeline"))
    licence, is_embedded = _base_facts(facts.settings, pipe, earlier)
    return TrainingRecord(licence, is_embedded, (*earlier.stages, _stage(facts, pipe)))


def _base_facts(
    settings: TrainSettings, pipe: Diff2in1Pipeline, earlier: TrainingRecord
) -> tuple[str | None, bool | None]:
    """The licence of the base, and whether it is embedded; None if unknown."""
    if isinstance(settings, WarmUpSettings):
        name, revision = settings.base, settings.revision
        return read_licence(name, revision) or None, name in embedded() or None
    licence, name = earlier.base_licence, str(pipe.config.base)
    if not licence and is_repository(name):  # of a folder only a name is kept
        licence = read_licence(name, pipe.config.base_revision)
    return licence or None, earlier.base_embedded


def _stage(facts: StageFacts, pipe: Diff2in1Pipeline) -> Stage:
    settings = facts.settings
    public = _public_settings(facts, pipe)
    unused = set() if pipe.config.trained_unet == "lora" else {*LORA_SETTINGS}
    unused |= set() if settings.lr_scheduler == "one_cycle" else {*ONE_CYCLE_SETTINGS}
    real, *created = facts.rows
    return Stage(
        stage=facts.name,
        command=command.changed_flags(public, type(settings)),
        source=_describe_rows(real, settings.source),
        created=_describe_rows(created[0], held_out=facts.held_out) if created else None,
        tasks=list(pipe.perception.families),
        steps=facts.steps,
        seen=_count_samples(facts),
        processes=facts.processes,
        settings={key: value for key, value in public.items() if key not in unused},
        versions=library_versions(),
        validation=facts.validation,
    )


def _public_settings(facts: StageFacts, pipe: Diff2in1Pipeline) -> dict[str, Any]:
    """The settings, with names instead of paths."""
    given = asdict(facts.settings)
    known = {"subset_seed"}  # None is not its default
    known |= {key for key, one in given.items() if one is not None}
    found = {key: one for key, one in given.items() if key in known - PRIVATE}
    found |= {name: command.public_name(found[name]) for name in PLACES if name in found}
    real, *created = (rows.source.name for rows in facts.rows)
    found["source"] = command.public_source(found["source"], real)
    if facts.validation:
        source = facts.validation.source
        found["validation_source"] = command.public_source(found["validation_source"], source)
    if created:
        found["created"] = created[0]
    if "base" in found:
        found["base"] = pipe.config.base
    return found


def _describe_rows(rows: Rows, spec: str | None = None, held_out: int = 0) -> TrainingRows:
    """Describe rows. spec: the `--source` of real rows; None for created rows."""
    licence = None
    with suppress(InputError):  # if training did not use the first row, it may be unreadable
        licence = rows.source.picture(rows.usable[0]).provenance.licence
    return TrainingRows(
        name=rows.source.name,
        rows=len(rows.usable),
        split=parse_spec(spec).split if spec else None,
        licence=licence,
        fingerprint=rows.source.fingerprint if spec is None else None,
        held_out=held_out or None,
    )


def _count_samples(facts: StageFacts) -> dict[str, int]:
    """Count the drawn samples of each kind, with repetitions. A union has one count for both."""
    settings = facts.settings
    batches = facts.steps * settings.gradient_accumulation_steps * facts.processes
    real = batches * settings.real_batch_size
    if not isinstance(settings, SelfImproveSettings) or len(facts.rows) == 1:
        return {"real": real}
    created = batches * settings.created_size
    if settings.mix == "union":
        return {"real and created": real + created}
    return {"real": real, "created": created}
