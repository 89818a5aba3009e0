"""Makers: what turns the items of a shard into samples, for each act that writes a dataset.

A producer is built from the settings by every process; what it makes of an item depends on the plan
alone.
"""

from typing import TYPE_CHECKING, Any

from ...sources import open_source
from ..settings import CreateSettings, LabelSettings, WriteSettings
from .creator import Creator
from .labeller import CheckpointInfo, Job, Labeller
from .producer import UNMADE, UNREAD, Importer, Producer, Skipped, require_images

if TYPE_CHECKING:
    from ...diff2in1 import Diff2in1Pipeline

__all__ = [
    "UNMADE",
    "UNREAD",
    "CheckpointInfo",
    "Creator",
    "Importer",
    "Job",
    "Labeller",
    "Producer",
    "Skipped",
    "make_producer",
    "prepare",
]


def make_producer(settings: WriteSettings) -> Producer:
    """The producer of an act, with its pipeline on this process's device."""
    source = open_source(settings.source, settings.resolution)
    if not isinstance(settings, LabelSettings):
        return Importer(source, settings)
    creates = isinstance(settings, CreateSettings) and settings.create_with != "theta"
    parts = {} if creates else {"base_unet": None}  # gigabytes that labelling does not need
    pipe, known = prepare(settings, **parts)
    if isinstance(settings, CreateSettings):
        return Creator(pipe, source, settings, known)
    require_images(source)
    return Labeller(pipe, source, settings, known)


def prepare(settings: LabelSettings, **parts: Any) -> "tuple[Diff2in1Pipeline, CheckpointInfo]":
    """The pipeline of settings on this process's device, in their precision.

    parts: see `loading.open_pipeline`.
    """
    import torch
    from accelerate import PartialState

    from ...checkpoints.files import fetch, fingerprint
    from ...checkpoints.pipelines import open_pipeline
    from ...checkpoints.training_record import read_training

    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    pipe = open_pipeline(settings.pipeline, **parts)
    pipe.to(PartialState().device)
    if settings.precision != "float32":
        pipe.to(getattr(torch, settings.precision))
    folder = fetch(settings.pipeline, "pipeline")
    return pipe, CheckpointInfo(fingerprint(folder), read_training(folder).base_licence)
