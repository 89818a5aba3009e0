"""Cache: latents and text embeddings on disk, for all processes of a run and for later runs."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from d2i1_data.dataset.files import atomic_file


class Cache:
    """Tensors on disk, one safetensors file for each key. Without a folder nothing is stored.

    A file is complete or absent, so any number of processes may share a folder.
    """

    def __init__(self, folder: str | None) -> None:
        self.folder = None if folder is None else Path(folder).expanduser()
        self.models: dict[int, str] = {}

    def get(
        self, model: nn.Module, made_of: tuple[object, ...], make: Callable[[], Tensor]
    ) -> Tensor:
        """Get one tensor, see `get_named`."""
        return self.get_named(model, made_of, lambda: {"tensor": make()})["tensor"]

    def get_named(
        self,
        model: nn.Module,
        made_of: tuple[object, ...],
        make: Callable[[], dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Get stored tensors, or make and store them.

        Args:
            model: makes the tensors. Its class and weights are part of the key.
            made_of: all other inputs that decide the tensors.
            make: makes the tensors if they are not stored.

        Returns:
            The tensors by name, on the CPU.
        """
        if self.folder is None:
            return {name: tensor.cpu() for name, tensor in make().items()}
        key = hashlib.sha256(repr((self._fingerprint(model), *made_of)).encode()).hexdigest()
        file = self.folder / key[:2] / f"{key}.safetensors"
        try:
            return load_file(file)
        except (FileNotFoundError, SafetensorError):  # not stored yet, or broken by a full disk
            tensors = {name: tensor.cpu().contiguous() for name, tensor in make().items()}
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file, unique=True, sync=False) as temporary:
            save_file(tensors, temporary)
        return tensors

    def _fingerprint(self, model: nn.Module) -> str:
        if id(model) not in self.models:
            self.models[id(model)] = fingerprint(model)
        return self.models[id(model)]


def fingerprint(model: nn.Module) -> str:
    """Hash of the class and the weights of a model."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
