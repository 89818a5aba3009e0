"""Cards of datasets and checkpoints: text and metadata for the Hub.

A card depends on its folder only. It states only facts that are written or were measured there.
"""

from .dataset import dataset_card, write_card
from .links import Links
from .model import model_card, write_model_card

__all__ = ["Links", "dataset_card", "model_card", "write_card", "write_model_card"]
