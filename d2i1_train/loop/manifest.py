"""The manifest of a checkpoint: the hashes of its files, and what decided the training.

Checkpoints of earlier versions have no manifest. Their files are not checked, and their settings
are those in `run.json` beside them.
"""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from d2i1_data.card.command import public_name, public_source
from d2i1_data.creation.plan import list_differences
from d2i1_data.dataset.files import write_json
from d2i1_data.dataset.record import RUN, read_json, read_run
from d2i1_data.errors import InputError
from d2i1_data.sources import Rows
from d2i1_data.sources.source import fingerprint

from .settings import TrainSettings

MANIFEST = "manifest.json"
COUNTERS = "counters.json"  # a checkpoint has this file
PLACES = ("pipeline", "base", "base_config", "created", "captions")
Facts = Mapping[str, Any]  # name -> value


def write_manifest(folder: Path, facts: Facts) -> None:
    """Write the manifest of a checkpoint, after all its other files.

    Args:
        folder: folder of the checkpoint.
        facts: what decides the training, see `deciding_facts`.
    """
    files = {file.name: _sha256(file) for file in sorted(folder.iterdir())}
    content = {"files": files, "settings": dict(facts)}
    write_json(folder / MANIFEST, content | {"content": _content_hash(content)})


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, as a part of a sentence; None if nothing is known."""
    if not (folder / COUNTERS).is_file():
        return f"{COUNTERS} is missing"
    try:
        manifest = read_json(folder / MANIFEST)
    except InputError as error:
        return str(error)
    if manifest and manifest.pop("content", None) != _content_hash(manifest):
        return f"{MANIFEST} is not as it was written"
    for name, digest in manifest.get("files", {}).items():
        file = folder / Path(name).name
        if not file.is_file():
            return f"{file.name} is missing"
        if _sha256(file) != digest:
            return f"{file.name} is not as it was written"
    return None


def require_intact(folder: Path, advice: str = "take another checkpoint") -> None:
    """Refuse a damaged checkpoint.

    Args:
        folder: folder of the checkpoint.
        advice: end of the message.

    Raises:
        InputError: if files are missing or changed.
    """
    if found := damage(folder):
        raise InputError(f"{folder} is damaged: {found}; {advice}")


def deciding_facts(
    settings: TrainSettings, rows: Sequence[Rows], processes: int, precision: str
) -> dict[str, Any]:
    """All that decides the result of a training, and must be the same when it is resumed.

    Args:
        settings: settings of the stage.
        rows: the real rows, then the created rows if there are any.
        processes: number of processes.
        precision: precision of the computation, such as `bf16`.
    """
    facts = _public(settings.deciding(processes)) | {"mixed_precision": precision}
    for name, own in zip(("source", "created"), rows, strict=False):
        ids = [own.source.identity(row) for row in own.usable]
        facts[f"samples of {name}"] = fingerprint(own.source.fingerprint, ids)[:16]
    return facts


def check_facts(checkpoint: Path, facts: Facts, settings: TrainSettings, processes: int) -> None:
    """Check that a training continues as it began.

    Args:
        checkpoint: the checkpoint to continue from.
        facts: the present `deciding_facts`.
        settings: the present settings.
        processes: number of processes.

    Raises:
        InputError: if a value differs from that of the checkpoint. The message lists all.
    """
    recorded = read_json(checkpoint / MANIFEST).get("settings")
    if recorded is None:
        recorded = _facts_of_run(checkpoint.parent, settings, processes)
    if not isinstance(recorded, dict):
        raise InputError(f"{checkpoint / MANIFEST}: holds no settings")
    refuse_differences(str(checkpoint), recorded, facts)


def refuse_differences(where: str, recorded: Facts, now: Facts) -> None:
    """Refuse to continue a training with other settings.

    Args:
        where: what is continued, for the message.
        recorded: what decided the training so far. What it does not know is not compared.
        now: what decides it now.

    Raises:
        InputError: if they differ.
    """
    differences = {
        name: f"recorded {json.dumps(recorded[name])}, given {json.dumps(value)}"
        for name, value in json.loads(json.dumps(now)).items()
        if name in recorded and recorded[name] != value
    }
    if differences:
        raise InputError(
            f"{where} was trained with other settings ({list_differences(differences)}):"
            " continue with the recorded ones, or choose another --output_dir"
        )


def _facts_of_run(folder: Path, settings: TrainSettings, processes: int) -> Facts:
    """What decided a run of an earlier version, as far as `run.json` tells it."""
    record = read_run(folder)
    if record is None:
        return {}
    earlier = copy.copy(settings)  # settings that the earlier version did not have stay
    vars(earlier).update({k: v for k, v in record.settings.items() if k in vars(settings)})
    try:
        facts = _public(earlier.deciding(processes))
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InputError(f"{folder / RUN}: not the settings of a training ({error!r})") from error
    return {name: value for name, value in facts.items() if name != "mixed_precision"}


def _public(facts: Facts) -> dict[str, Any]:
    """The same facts, with names in place of paths: files may be moved."""
    found = dict(facts)
    found |= {name: public_name(found[name]) for name in PLACES if found.get(name)}
    return found | {"source": public_source(found["source"], None)}


def _content_hash(manifest: Facts) -> str:
    """The hash that a manifest holds of its own content."""
    return fingerprint(json.loads(json.dumps(manifest)))


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
