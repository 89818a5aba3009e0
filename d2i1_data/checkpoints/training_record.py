"""training.json: how a pipeline or adapter was trained."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    pass

TRAINING = "training.json"  # how a pipeline or adapter was trained; computes nothing
# what a card reads of every stage, and besides of those that say it; ... is every other key
ROWS = {"name": str, "rows": int}
STAGE: dict[Any, Any] = {"stage": str, "command": list, "source": ROWS, "steps": int}
STAGE |= {"seen": {...: int}, "processes": int, "versions": {...: str}}
VALIDATION = {"source": str, "samples": int, "tasks": {...: {...: int | float}}}
BESIDES = {"created": ROWS, "validation": VALIDATION}
FLAG = re.compile("--[a-z0-9_]+")


def read_training(folder: Path) -> dict[str, Any]:
    """What a folder says of its training: `stages`, in their order, and of the base `base_licence`
    and `base_embedded` if known; empty where it says nothing.

    Raises InputError where it is not what we write: cards show it, and its commands are copied.
    """
    file = folder / TRAINING
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text())
        for stage in found["stages"]:
            form = STAGE | {key: BESIDES[key] for key in BESIDES.keys() & stage.keys()}
            wrong = [key for key in form if not _fits(stage.get(key), form[key])]
            if wrong or not _is_command(stage["command"]):
                raise ValueError(", ".join(wrong) or "command")
        if not isinstance(found.get("base_licence", ""), str):
            raise ValueError("base_licence")
        return {**found}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{file}: not a training file of ours ({error!r})") from error


def _fits(found: Any, form: Any) -> bool:
    """Whether what JSON says is of a type, or an object whose values are."""
    if not isinstance(form, dict):
        return isinstance(found, form)
    if not isinstance(found, dict):
        return False
    named = {key: found.get(key) for key in form if key is not ...}
    return all(_fits(named[key], form[key]) for key in named) and (
        ... not in form or all(_fits(value, form[...]) for value in found.values())
    )


def _is_command(parts: list[Any]) -> bool:
    """Whether it is flags and values by turns."""
    texts = all(isinstance(part, str) for part in parts)
    return texts and len(parts) % 2 == 0 and all(map(FLAG.fullmatch, parts[::2]))
