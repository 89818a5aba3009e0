"""Producers: they turn the items of a shard into samples. Each command has its kind of producer.

Every process builds its own producer from the settings. The samples depend only on the plan.
"""

from .creator import Creator
from .labeller import CheckpointInfo, Job, Labeller
from .opening import make_producer, open_checkpoint
from .producer import NOT_FINITE, UNREADABLE, Importer, Producer, Skipped, require_images

__all__ = [
    "NOT_FINITE",
    "UNREADABLE",
    "CheckpointInfo",
    "Creator",
    "Importer",
    "Job",
    "Labeller",
    "Producer",
    "Skipped",
    "make_producer",
    "open_checkpoint",
    "require_images",
]
