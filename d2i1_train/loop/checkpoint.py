"""Checkpoints: `checkpoint-N` folders, and `best`, that are complete or not there.

A checkpoint holds the trained tensors of theta_E, and of theta_C if it is another module; counters
as JSON; and accelerate's files for optimiser and random states, which are read with
`weights_only=True`. `best` is a checkpoint of the step with the best validation. It also holds
`best.json` with the metric and its value. The manifest has the hashes of all these files.
"""

import json
import pickle
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from d2i1_data.checkpoints.training_record import read_training
from d2i1_data.checks import check_format, parse_json
from d2i1_data.dataset.files import move_into_place, temporary_path, write_json
from d2i1_data.errors import InputError

from ..theta import Theta, trained_tensors
from .manifest import COUNTERS, Facts, damage, require_intact, write_manifest

BEST, BEST_FACTS = "best", "best.json"
FORMAT_VERSION = 1
BROKEN = (OSError, RuntimeError, ValueError, LookupError, EOFError, TypeError, AttributeError)
UNREADABLE = (*BROKEN, pickle.UnpicklingError, SafetensorError)  # what damaged files raise
Thetas = Mapping[str, Theta]  # "exploitation", and while self-improving "creation"


@dataclass(frozen=True)
class Counters:
    """The progress of a run: the content of `counters.json`.

    Args:
        step: number of optimiser steps.
        consumed: number of samples that theta_E has consumed in self-improving.
        followed: number of updates of theta_C in self-improving.
        format_version: format version of the folder of the checkpoint.
    """

    step: int = 0
    consumed: int = 0
    followed: int = 0
    format_version: int = FORMAT_VERSION


def read_counters(path: Path) -> Counters:
    """Read the counters of a checkpoint.

    Raises:
        InputError: if a newer version of this package wrote it, or the file is not ours.
    """
    file = path / COUNTERS
    try:
        content = parse_json(file.read_bytes())
        check_format(content["format_version"], FORMAT_VERSION, str(path))
        found = Counters(**content)
        if not all(type(value) is int for value in astuple(found)):
            raise TypeError("expected whole numbers")
    except InputError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{file}: not the counters of a checkpoint ({error!r})") from error
    return found


def save_checkpoint(
    accelerator: Accelerator,
    final: Path,
    counters: Counters,
    thetas: Thetas,
    facts: Facts,
    best: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint, as a whole or not at all. All processes must call this.

    Args:
        accelerator: has the optimiser and the random states of all processes.
        final: folder of the checkpoint. An older one is replaced.
        counters: content of `counters.json`.
        thetas: modules whose trained tensors are saved.
        facts: what decides the training, for the manifest.
        best: content of `best.json`; None writes no such file.
    """
    temporary = temporary_path(final)
    if accelerator.is_main_process and temporary.exists():
        shutil.rmtree(temporary)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(str(temporary), safe_serialization=True)
        accelerator.wait_for_everyone()  # every process writes its random states
        if accelerator.is_main_process:
            for name, theta in thetas.items():
                tensors = trained_tensors(theta, thetas["exploitation"])
                tensors = {k: t.contiguous() for k, t in tensors.items()}
                save_file(tensors, temporary / f"{name}.safetensors")
            if best is not None:
                write_json(temporary / BEST_FACTS, best)
            (temporary / COUNTERS).write_text(json.dumps(asdict(counters)) + "\n")
            write_manifest(temporary, facts)
            # an older run may have written the same checkpoint
            move_into_place(temporary, final, replace=True)
    except Exception:
        shutil.rmtree(temporary, ignore_errors=True)  # a full disk needs the room
        raise
    accelerator.wait_for_everyone()


def prune_checkpoints(folder: Path, limit: int | None) -> None:
    """Delete all but the newest checkpoints. Call this when the newest one is complete.

    Args:
        folder: folder of the run.
        limit: number of checkpoints to keep; None keeps all.
    """
    for old in complete_checkpoints(folder)[:-limit] if limit else []:
        shutil.rmtree(old)


def set_aside(damaged: Path) -> str:
    """Rename a damaged checkpoint, so that it no longer counts as one. Return its new name."""
    place = damaged.with_name(f"{damaged.name}.damaged")
    shutil.rmtree(place, ignore_errors=True)
    return damaged.rename(place).name


def complete_checkpoints(folder: Path) -> list[Path]:
    """List all checkpoints, oldest first. Incomplete ones have another name."""
    found = [
        path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)
    ]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def checkpoint_of(pipeline: str) -> Path | None:
    """The checkpoint beside a pipeline that has theta_E and the optimiser state of its step.

    This is `best` if a metric chose the weights of the pipeline, otherwise the newest checkpoint.

    Args:
        pipeline: the folder `pipeline` or `adapter` of a run.

    Returns:
        The folder of the checkpoint. None if there is none, or the pipeline is no folder.
    """
    own = Path(pipeline)
    if not own.is_dir():
        return None
    stages, best = read_training(own).stages, own.parent / BEST
    validation = stages[-1].validation if stages else None
    if validation and validation.best_metric and (best / COUNTERS).is_file():
        return best
    checkpoints = complete_checkpoints(own.parent)
    return checkpoints[-1] if checkpoints else None


def find_checkpoint(folder: Path, wanted: str) -> tuple[Path | None, dict[Path, str]]:
    """Find the checkpoint that `--resume_from_checkpoint` names.

    Args:
        folder: folder of the run.
        wanted: `latest`, a path, or the name of a checkpoint in the folder.

    Returns:
        The folder of the checkpoint; None if `latest` is wanted and there is no checkpoint. Then
        the damaged checkpoints that are newer, with what is wrong.

    Raises:
        InputError: if there is no checkpoint with this path or name, or none is intact.
    """
    if wanted == "latest":
        damaged: dict[Path, str] = {}
        for path in reversed(complete_checkpoints(folder)):
            found = damage(path)
            if found is None:
                return path, damaged
            damaged[path] = found
        if damaged:
            list_ = "; ".join(f"{path.name}: {found}" for path, found in damaged.items())
            raise InputError(f"{folder} has no intact checkpoint ({list_}): begin in a new folder")
        return None, {}
    path = Path(wanted) if Path(wanted).is_dir() else folder / wanted
    if not (path / COUNTERS).is_file():
        names = ", ".join(c.name for c in complete_checkpoints(folder)) or "none"
        raise InputError(
            f"--resume_from_checkpoint {wanted}: not a checkpoint; {folder} has {names}"
        )
    require_intact(path)
    return path, {}


def load_checkpoint(accelerator: Accelerator, path: Path, thetas: Thetas) -> None:
    """Load the weights, the optimiser and the random states of a checkpoint.

    Raises:
        InputError: if it belongs to another model, or a file of an earlier version is damaged.
    """
    for name, theta in thetas.items():  # first: its errors say which model the checkpoint is of
        load_tensors(path / f"{name}.safetensors", theta, thetas["exploitation"])
    with explain_damage(path):
        accelerator.load_state(str(path))


@contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Raise InputError if a file of a checkpoint cannot be read."""
    try:
        yield
    except InputError:
        raise
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} cannot be read ({reason}): take another checkpoint") from error


@torch.no_grad()
def load_tensors(file: Path, theta: Theta, like: Theta) -> None:
    """Copy a file of tensors into a theta.

    Args:
        file: a file that `save_checkpoint` wrote.
        theta: gets the tensors.
        like: theta_E. Its `requires_grad` marks the tensors that the file must hold.

    Raises:
        InputError: if there is no such file, or it belongs to another model.
    """
    if not file.is_file():
        raise InputError(f"{file.parent} holds no {file.name}")
    with explain_damage(file):
        stored = load_file(file)
    tensors = trained_tensors(theta, like)
    if stored.keys() != tensors.keys():
        some = sorted(stored.keys() ^ tensors.keys())[:3]
        raise InputError(f"{file} belongs to another model: it differs in {', '.join(some)}, ...")
    for name, tensor in tensors.items():
        if stored[name].shape != tensor.shape:
            sizes = f"{list(stored[name].shape)}, here {list(tensor.shape)}"
            raise InputError(f"{file} belongs to another model: {name} has the shape {sizes}")
    for name, tensor in tensors.items():
        tensor.copy_(stored[name])
