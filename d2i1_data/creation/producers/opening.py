"""Build the producer of a command."""

from typing import TYPE_CHECKING, Any

from ...sources import open_source
from ..settings import CreateSettings, ImportSettings, LabelSettings, WriteSettings
from .creator import Creator
from .labeller import CheckpointInfo, Labeller
from .producer import Importer, Producer, require_images

if TYPE_CHECKING:
    from ...diff2in1 import Diff2in1Pipeline


def make_producer(settings: WriteSettings) -> Producer:
    """Build the producer of a command, with its pipeline on the device of this process.

    Raises:
        InputError: if the source or the pipeline cannot be used with these settings.
    """
    most, captions = settings.max_pixels, settings.captions
    axes = settings.axes if isinstance(settings, ImportSettings) else None
    source = open_source(
        settings.source, settings.resolution, max_pixels=most, captions=captions, axes=axes
    )
    if not isinstance(settings, LabelSettings):
        return Importer(source, settings)
    denoises = isinstance(settings, CreateSettings) and settings.create_with != "theta"
    parts = {} if denoises else {"base_unet": None}  # saves gigabytes, labelling does not need it
    pipe, checkpoint = open_checkpoint(settings, **parts)
    if isinstance(settings, CreateSettings):
        return Creator(pipe, source, settings, checkpoint)
    require_images(source)
    return Labeller(pipe, source, settings, checkpoint)


def open_checkpoint(
    settings: LabelSettings, **parts: Any
) -> "tuple[Diff2in1Pipeline, CheckpointInfo]":
    """Open the pipeline, on the device of this process and in the chosen precision.

    Args:
        settings: settings that name the pipeline.
        parts: see `open_pipeline`.

    Raises:
        InputError: if there is no such pipeline.
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
