"""Opening what others wrote: bases and published pipelines, and their fingerprint."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from .diff2in1 import Base, Diff2in1Pipeline

BASES = Path(__file__).parent / "bases"
TRAINING = "training.json"  # how a pipeline or adapter was trained; computes nothing
# what a card reads of every stage, and besides of those that say it; ... is every other key
ROWS = {"name": str, "rows": int}
STAGE: dict[Any, Any] = {"stage": str, "command": list, "source": ROWS, "steps": int}
STAGE |= {"seen": {...: int}, "processes": int, "versions": {...: str}}
VALIDATION = {"source": str, "samples": int, "tasks": {...: {...: int | float}}}
BESIDES = {"created": ROWS, "validation": VALIDATION}
FLAG = re.compile("--[a-z0-9_]+")
# of a repository on the Hub, leaving out what a base may hold besides
WANTED = ["model_index.json", "*.py", "*/*.json", "*/*.txt", "*/*.py", "*/*.safetensors"]
WANTED += ["pytorch_lora_weights.safetensors", "training.json"]
UNWANTED = ["*.fp16.*", "*.non_ema.*", "safety_checker/*", "checkpoint-*"]
PARTS = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
WEIGHED = ("vae", "text_encoder", "unet")  # parts with weights
IN_ONE_FILE = {  # a single file's names of these parts
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.",
}
FIRST_CONVOLUTION = "model.diffusion_model.input_blocks.0.0.weight"


def find_base(
    name: str, revision: str | None = None, variant: str | None = None, config: str | None = None
) -> "Base":
    """A base by its name (an embedded one), folder, file or Hub id, see `diff2in1.Base`; checked.

    Raises InputError that names what is missing or not supported.
    """
    from .diff2in1 import Base

    path = Path(name).expanduser()
    embedded = path.name == name and (BASES / name / "model_index.json").is_file()
    if path.is_dir() or embedded:
        _refuse(name, "a folder", revision=revision, base_config=config)
        folder = BASES / name if embedded else path
        _check_index(name, read_index(folder, "base"))
        _check_folder(folder, variant)
        return Base(str(folder), variant=variant)
    if path.suffix in (".ckpt", ".pt", ".pth", ".bin"):
        raise InputError(f"base {name}: unpickling can run code; convert it to .safetensors")
    if path.suffix == ".safetensors":
        _refuse(name, "one file", revision=revision, variant=variant)
        if not path.is_file():
            raise InputError(f"base {name}: no such file")
        _check_single_file(path)
        known = config and (BASES / config / "model_index.json").is_file()
        return Base(str(path), config=str(BASES / str(config)) if known else config)
    _refuse(name, "on the Hub", base_config=config)
    check_id(name, "base")
    index, commit = _index_on_hub(name, revision)
    _check_index(name, index)
    return Base(name, commit, variant)


def _refuse(name: str, kind: str, **flags: str | None) -> None:
    """Refuse settings that say nothing about a base of this kind."""
    for flag, value in flags.items():
        if value is not None:
            raise InputError(f"--{flag} {value}: base {name} is {kind}, which has none")


@contextmanager
def explained(base: "Base") -> Iterator[None]:
    """What goes wrong in loading a base, as an InputError that names it."""
    from diffusers.loaders.single_file_utils import SingleFileComponentError
    from safetensors import SafetensorError

    try:
        yield
    except (ValueError, OSError, KeyError, SafetensorError, SingleFileComponentError) as error:
        hint = ""
        if base.is_file and base.config is None:
            hint = "; its configs were asked of the Hub, --base_config names others"
        raise InputError(f"base {base.path}: {error}{hint}") from error


def _require(name: str, missing: list[str]) -> None:
    if missing:
        raise InputError(
            f"base {name}: {', '.join(missing)} missing;"
            f" a base has {', '.join(PARTS)} in diffusers layout"
        )


def _check_index(name: str, index: dict[str, Any]) -> None:
    _require(name, [part for part in PARTS if index.get(part, [None])[0] is None])
    more = [part for part in ("text_encoder_2", "transformer") if part in index]
    if more:
        raise InputError(
            f"base {name}: is a {index.get('_class_name')} with {', '.join(more)};"
            " expected Stable Diffusion 1.x or 2.x"
        )


def _check_folder(folder: Path, variant: str | None) -> None:
    _require(str(folder), [part for part in PARTS if not (folder / part).is_dir()])
    # a shard is called model.fp16-00001-of-00002.safetensors
    middle = re.escape(f".{variant}" if variant else "")
    wanted = re.compile(rf"[^.]+{middle}(-\d+-of-\d+)?\.safetensors")
    for part in WEIGHED:
        files = sorted(file.name for file in (folder / part).iterdir() if file.is_file())
        if not any(wanted.fullmatch(file) for file in files):
            held = ", ".join(file for file in files if not file.endswith(".json")) or "none"
            asked = f" of variant {variant}" if variant else ""
            raise InputError(
                f"base {folder}: {part} has no .safetensors{asked}, only: {held};"
                " --variant chooses, such as fp16"
            )


def _check_single_file(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            channels = 4
            if FIRST_CONVOLUTION in names:
                channels = file.get_slice(FIRST_CONVOLUTION).get_shape()[1]
    except SafetensorError as error:
        raise InputError(f"base {path}: not a complete safetensors file: {error}") from error
    held = {part for part, start in IN_ONE_FILE.items() if any(n.startswith(start) for n in names)}
    missing = [part for part in IN_ONE_FILE if part not in held]
    if missing:
        raise InputError(
            f"base {path}: {', '.join(missing)} missing; expected a file of Stable Diffusion 1.x"
            f" or 2.x, with weights called {', '.join(IN_ONE_FILE.values())}"
        )
    if channels != 4:
        raise InputError(
            f"base {path}: its U-Net takes {channels} channels, expected 4;"
            " one for inpainting, depth or upscaling cannot be a base"
        )


def _index_on_hub(name: str, revision: str | None) -> tuple[dict[str, Any], str]:
    """model_index.json alone, and its commit: what is wrong is told before gigabytes are loaded,
    and what is loaded, now or later, is of one commit."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        file = Path(hf_hub_download(name, "model_index.json", revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise _unfound("base", name, error) from error
    return json.loads(file.read_text()), file.parent.name


def open_pipeline(name: str, base: "Base | None" = None, **parts: Any) -> "Diff2in1Pipeline":
    """A published or trained pipeline, a local folder or a Hub id, ready to predict.

    An adapter repository is mounted on its base, or on `base` where that lies elsewhere. parts:
    components to use instead of those saved.
    """
    from .diff2in1 import Diff2in1Pipeline

    folder = fetch(name, "pipeline")
    index = read_index(folder, "pipeline")
    if index.get("_class_name") != "Diff2in1Pipeline":
        raise InputError(
            f"pipeline {name}: is a {index.get('_class_name')}, expected a Diff2in1Pipeline;"
            " train one with d2i1 warm-up"
        )
    if "unet" in index:
        pipe = Diff2in1Pipeline.from_pretrained(folder, **parts)
        pipe.set_progress_bar_config(disable=True)
        return pipe
    try:
        base = base or find_base(index["base"], index["base_revision"], index["base_variant"])
    except InputError as error:
        raise InputError(
            f"adapter {name}: its base {index['base']!r} is neither embedded nor on the Hub;"
            " use the pipeline saved whole, or in Python"
            " Diff2in1Pipeline.from_adapter(adapter, base=...)"
        ) from error
    with explained(base):
        pipe = Diff2in1Pipeline.from_adapter(str(folder), base)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def fetch(name: str, kind: str) -> Path:
    """A local folder, or the snapshot of a repository of the Hub."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    check_id(name, kind)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=WANTED, ignore_patterns=UNWANTED))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise _unfound(kind, name, error) from error


def _unfound(kind: str, name: str, error: Exception) -> InputError:
    from .hub import reason

    return InputError(f"{kind} {name}: neither a folder nor on the Hub: {reason(error)}")


def check_id(name: str, kind: str) -> None:
    """Refuse what is not the id of a repository on the Hub."""
    if Path(name).is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise InputError(f"{kind} {name}: no such folder, and not a Hub id of the form user/name")


def read_index(folder: Path, kind: str) -> dict[str, Any]:
    """model_index.json of a folder in diffusers layout."""
    file = folder / "model_index.json"
    if not file.is_file():
        raise InputError(f"{kind} {folder}: no model_index.json there, expected diffusers layout")
    try:
        index = json.loads(file.read_text())
    except ValueError as error:
        raise InputError(f"{file}: not readable as JSON: {error}") from error
    if not isinstance(index, dict):
        raise InputError(f"{file}: expected an object, got {type(index).__name__}")
    return index


def embedded() -> list[str]:
    """Names of the bases that come with the package."""
    return [file.parent.name for file in BASES.glob("*/model_index.json")]


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


def fingerprint(folder: Path) -> str:
    """sha256 over the names and contents of all weight and config files of a checkpoint."""
    digest = hashlib.sha256()
    files = (f for f in folder.rglob("*") if f.suffix in (".safetensors", ".json"))
    for file in sorted(file for file in files if file != folder / TRAINING):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
