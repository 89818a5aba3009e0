"""Checkpoints: `checkpoint-N` folders that are complete or not there.

One holds the trained tensors of theta_E (and theta_C), counters as JSON, and accelerate's files for
the optimiser, schedule and random states, which are read with `weights_only=True`.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from d2i1_data.errors import InputError

from ..theta import Theta, trained_tensors

Thetas = Mapping[str, Theta]  # "exploitation", and while self-improving "creation"


def save_checkpoint(
    accelerator: Accelerator, folder: Path, step: int, thetas: Thetas, counters: Mapping[str, int]
) -> None:
    """Write `checkpoint-<step>` beside its place, sync it, move it there."""
    final = folder / f"checkpoint-{step}"
    temporary = folder / f".checkpoint-{step}.tmp"
    if accelerator.is_main_process and temporary.exists():
        shutil.rmtree(temporary)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(temporary), safe_serialization=True)
    accelerator.wait_for_everyone()  # every process writes its random states
    if accelerator.is_main_process:
        for name, theta in thetas.items():
            tensors = trained_tensors(theta, thetas["exploitation"])
            save_file(
                {k: t.contiguous() for k, t in tensors.items()}, temporary / f"{name}.safetensors"
            )
        (temporary / "counters.json").write_text(json.dumps({"step": step, **counters}) + "\n")
        for file in temporary.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        if final.exists():  # resumed from an older one: the same checkpoint again
            shutil.rmtree(final)
        os.replace(temporary, final)
    accelerator.wait_for_everyone()


def prune_checkpoints(folder: Path, limit: int | None) -> None:
    """Keep only the newest checkpoints; called once the newest is complete."""
    for old in complete_checkpoints(folder)[:-limit] if limit else []:
        shutil.rmtree(old)


def complete_checkpoints(folder: Path) -> list[Path]:
    """All checkpoints, oldest first; what a killed run left half-written has another name."""
    found = [
        path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)
    ]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def find_checkpoint(folder: Path, wanted: str) -> Path | None:
    """`latest` is the newest one or None; otherwise the named one, which must exist."""
    if wanted == "latest":
        found = complete_checkpoints(folder)
        return found[-1] if found else None
    path = Path(wanted) if Path(wanted).is_dir() else folder / wanted
    if not (path / "counters.json").is_file():
        names = ", ".join(c.name for c in complete_checkpoints(folder)) or "none"
        raise InputError(
            f"--resume_from_checkpoint {wanted}: not a checkpoint; {folder} has {names}"
        )
    return path


def load_thetas(path: Path, thetas: Thetas) -> None:
    """Copy the tensors of a checkpoint into theta_E (and theta_C)."""
    for name, theta in thetas.items():
        load_tensors(path / f"{name}.safetensors", theta, thetas["exploitation"])


@torch.no_grad()
def load_tensors(file: Path, theta: Theta, like: Theta) -> None:
    """Copy one file of a checkpoint into a theta."""
    if not file.is_file():
        raise InputError(f"{file.parent} holds no {file.name}")
    stored, tensors = load_file(file), trained_tensors(theta, like)
    if stored.keys() != tensors.keys():
        some = sorted(stored.keys() ^ tensors.keys())[:3]
        raise InputError(f"{file} is of another model: it differs in {', '.join(some)}, ...")
    for name, tensor in tensors.items():
        tensor.copy_(stored[name])


def load_counters(path: Path) -> dict[str, int]:
    """Step, and while self-improving consumed and followed."""
    counters: dict[str, int] = json.loads((path / "counters.json").read_text())
    return counters
