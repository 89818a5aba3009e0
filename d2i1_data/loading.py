"""Opening what others wrote: bases and published pipelines, and their fingerprint."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from .diff2in1 import Diff2in1Pipeline

BASES = Path(__file__).parent / "bases"
# of a repository on the Hub; Stable Diffusion's hold everything several times over
WANTED = ["model_index.json", "*.py", "*/*.json", "*/*.txt", "*/*.py", "*/*.safetensors"]
UNWANTED = ["*.fp16.*", "*.non_ema.*", "safety_checker/*"]
PARTS = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")


def find_base(name: str) -> str:
    """The folder of a base: an embedded one by its name, a local folder, or one from the Hub."""
    if Path(name).name == name and (BASES / name / "model_index.json").is_file():
        return str(BASES / name)
    folder = fetch(name, "base")
    index = read_index(folder, "base")
    missing = [part for part in PARTS if index.get(part, [None])[0] is None]
    missing += [part for part in PARTS if part not in missing and not (folder / part).is_dir()]
    if missing:
        raise InputError(
            f"base {name}: {', '.join(missing)} missing;"
            f" a base has {', '.join(PARTS)} in diffusers layout"
        )
    return str(folder)


def open_pipeline(name: str) -> "Diff2in1Pipeline":
    """A published or trained pipeline, a local folder or a Hub id, ready to predict."""
    from .diff2in1 import Diff2in1Pipeline

    folder = fetch(name, "pipeline")
    index = read_index(folder, "pipeline")
    if index.get("_class_name") != "Diff2in1Pipeline":
        raise InputError(
            f"pipeline {name}: is a {index.get('_class_name')}, expected a Diff2in1Pipeline;"
            " train one with d2i1 warm-up"
        )
    pipe = Diff2in1Pipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def fetch(name: str, kind: str) -> Path:
    """A local folder, or the snapshot of a repository of the Hub."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise InputError(f"{kind} {name}: no such folder, and not a Hub id of the form user/name")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=WANTED, ignore_patterns=UNWANTED))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"{kind} {name}: neither a folder nor on the Hub: {first}") from error


def read_index(folder: Path, kind: str) -> dict[str, Any]:
    """model_index.json of a folder in diffusers layout."""
    file = folder / "model_index.json"
    if not file.is_file():
        raise InputError(f"{kind} {folder}: no model_index.json there, expected diffusers layout")
    index: dict[str, Any] = json.loads(file.read_text())
    return index


def fingerprint(folder: Path) -> str:
    """sha256 over the names and contents of all weight and config files of a checkpoint."""
    digest = hashlib.sha256()
    for file in sorted(f for f in folder.rglob("*") if f.suffix in (".safetensors", ".json")):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
