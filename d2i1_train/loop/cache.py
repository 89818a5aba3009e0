"""Cache: latents and text embeddings on disk, for later runs and for all processes of a run."""

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


class Cache:
    """Tensors by what they were made of, one safetensors file each; without a folder none is kept.

    A file is complete or not there, so any number of processes may share a folder.
    """

    def __init__(self, folder: str | None) -> None:
        self.folder = None if folder is None else Path(folder).expanduser()
        self.models: dict[int, str] = {}

    def get(
        self, model: nn.Module, made_of: tuple[object, ...], make: Callable[[], Tensor]
    ) -> Tensor:
        """What `model` made of something once, or makes of it now, on the CPU.

        The key is the model's class and weights, and made_of, all else that decides the tensor.
        """
        if self.folder is None:
            return make().cpu()
        key = hashlib.sha256(repr((self._fingerprint(model), *made_of)).encode()).hexdigest()
        file = self.folder / key[:2] / f"{key}.safetensors"
        try:
            return load_file(file)["tensor"]
        except (FileNotFoundError, SafetensorError):  # not made yet, or broken by a full disk
            tensor = make().cpu().contiguous()
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{key}.{os.getpid()}.{threading.get_ident()}.tmp")
        save_file({"tensor": tensor}, temporary)
        os.replace(temporary, file)
        return tensor

    def _fingerprint(self, model: nn.Module) -> str:
        if id(model) not in self.models:
            digest = hashlib.sha256(type(model).__name__.encode())
            for name, tensor in model.state_dict().items():
                digest.update(name.encode())
                digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy())
            self.models[id(model)] = digest.hexdigest()
        return self.models[id(model)]
