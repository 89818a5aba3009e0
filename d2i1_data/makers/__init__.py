"""Makers: what turns the items of a shard into samples, for each act that writes a dataset.

A maker is built from the settings by every process; what it makes of an item depends on the plan
alone.
"""

from ..settings import CreateSettings, LabelSettings, WriteSettings
from ..sources import open_source
from .base import UNMADE, UNREAD, Importer, Maker, Skipped, require_images
from .creator import Creator
from .labeller import Labeller, Order

__all__ = [
    "UNMADE",
    "UNREAD",
    "Creator",
    "Importer",
    "Labeller",
    "Maker",
    "Order",
    "Skipped",
    "make_maker",
]


def make_maker(settings: WriteSettings) -> Maker:
    """The maker of an act, with its pipeline on this process's device."""
    source = open_source(settings.source, settings.resolution)
    if not isinstance(settings, LabelSettings):
        return Importer(source, settings)
    import torch
    from accelerate import PartialState

    from ..loading import fetch, fingerprint, open_pipeline, read_training

    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    creates = isinstance(settings, CreateSettings) and settings.create_with != "theta"
    parts = {} if creates else {"base_unet": None}  # gigabytes that labelling does not need
    pipe = open_pipeline(settings.pipeline, **parts)
    pipe.to(PartialState().device)
    if settings.precision != "float32":
        pipe.to(getattr(torch, settings.precision))
    folder = fetch(settings.pipeline, "pipeline")
    checkpoint = fingerprint(folder)
    if isinstance(settings, CreateSettings):
        maker: Labeller = Creator(pipe, source, settings, checkpoint)
    else:
        require_images(source)
        maker = Labeller(pipe, source, settings, checkpoint)
    maker.base_licence = read_training(folder).get("base_licence")
    return maker
