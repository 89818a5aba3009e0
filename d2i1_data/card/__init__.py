"""Cards: what a dataset or checkpoint is, in words and metadata, from nothing but its folder."""

from .dataset import dataset_card, write_card
from .links import Links
from .model import model_card, write_model_card

__all__ = ["Links", "dataset_card", "model_card", "write_card", "write_model_card"]
