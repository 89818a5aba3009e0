"""Versions and devices, for bug reports."""

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from .settings import EnvSettings

PACKAGES = (
    "diff2in1",
    "torch",
    "diffusers",
    "transformers",
    "datasets",
    "huggingface-hub",
    "accelerate",
    "peft",
    "numpy",
    "pillow",
)


def env(settings: EnvSettings) -> None:
    """Print the versions of Python, our dependencies and the accelerators."""
    lines = [f"python: {platform.python_version()}", f"platform: {platform.platform()}"]
    lines += [f"{name}: {_version(name)}" for name in PACKAGES]
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print("\n".join([*lines, f"accelerators: {', '.join(gpus) or 'none'}"]))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
