"""Opening what others wrote: bases and published pipelines, and their fingerprint."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from .diff2in1 import Base, Diff2in1Pipeline

BASES = Path(__file__).parent / "bases"
# of a repository on the Hub, leaving out what a base may hold besides
WANTED = ["model_index.json", "*.py", "*/*.json", "*/*.txt", "*/*.py", "*/*.safetensors"]
WANTED += ["pytorch_lora_weights.safetensors"]
UNWANTED = ["*.fp16.*", "*.non_ema.*", "safety_checker/*"]
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
    if path.name == name and (BASES / name / "model_index.json").is_file():
        return Base(str(BASES / name))
    if path.suffix in (".ckpt", ".pt", ".pth", ".bin"):
        raise InputError(f"base {name}: unpickling can run code; convert it to .safetensors")
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise InputError(f"base {name}: no such file")
        _check_single_file(path)
        known = config and (BASES / config / "model_index.json").is_file()
        return Base(str(path), config=str(BASES / str(config)) if known else config)
    if config is not None:
        raise InputError(f"--base_config is for a base in one .safetensors file, got {name}")
    if path.is_dir():
        _check_index(name, read_index(path, "base"))
        _check_folder(path, variant)
        return Base(str(path), variant=variant)
    _check_id(name, "base")
    _check_index(name, _index_on_hub(name, revision))
    return Base(name, revision, variant)


def _check_index(name: str, index: dict[str, Any]) -> None:
    missing = [part for part in PARTS if index.get(part, [None])[0] is None]
    if missing:
        raise InputError(
            f"base {name}: {', '.join(missing)} missing;"
            f" a base has {', '.join(PARTS)} in diffusers layout"
        )
    more = [part for part in ("text_encoder_2", "transformer") if part in index]
    if more:
        raise InputError(
            f"base {name}: is a {index.get('_class_name')} with {', '.join(more)};"
            " expected Stable Diffusion 1.x or 2.x"
        )


def _check_folder(folder: Path, variant: str | None) -> None:
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise InputError(
            f"base {folder}: {', '.join(missing)} missing;"
            f" a base has {', '.join(PARTS)} in diffusers layout"
        )
    ending = f".{variant}.safetensors" if variant else ".safetensors"
    for part in WEIGHED:
        files = [file.name for file in (folder / part).iterdir() if file.is_file()]
        # a shard is called model.fp16-00001-of-00002.safetensors
        ends = [f for f in files if f.endswith(ending) or f".{variant}-" in f]
        if not ends:
            held = ", ".join(sorted(f for f in files if not f.endswith(".json"))) or "none"
            raise InputError(f"base {folder}: {part} has no weights *{ending}, only: {held}")
    channels = json.loads((folder / "unet" / "config.json").read_text())["in_channels"]
    latent = json.loads((folder / "vae" / "config.json").read_text()).get("latent_channels", 4)
    _check_channels(str(folder), channels, latent)


def _check_channels(name: str, channels: int, latent: int) -> None:
    if channels != latent:
        raise InputError(
            f"base {name}: its U-Net takes {channels} channels, its autoencoder gives {latent};"
            " one for inpainting, depth or upscaling cannot be a base"
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
    _check_channels(str(path), channels, 4)


def _index_on_hub(name: str, revision: str | None) -> dict[str, Any]:
    """model_index.json alone: what is wrong is told before gigabytes are loaded."""
    from diffusers import StableDiffusionPipeline

    try:
        index: dict[str, Any] = StableDiffusionPipeline.load_config(name, revision=revision)
    except OSError as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"base {name}: neither a folder nor on the Hub: {first}") from error
    return index


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
    else:
        base = base or _base_of(name, index)
        pipe = Diff2in1Pipeline.from_adapter(str(folder), base)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _base_of(name: str, index: dict[str, Any]) -> "Base":
    """The base an adapter names."""
    try:
        return find_base(index["base"], index["base_revision"])
    except InputError as error:
        raise InputError(
            f"adapter {name}: its base is called {index['base']!r}, which is neither embedded nor"
            " on the Hub; use the pipeline that was saved whole, or say where the base lies"
        ) from error


def fetch(name: str, kind: str) -> Path:
    """A local folder, or the snapshot of a repository of the Hub."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    _check_id(name, kind)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=WANTED, ignore_patterns=UNWANTED))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"{kind} {name}: neither a folder nor on the Hub: {first}") from error


def _check_id(name: str, kind: str) -> None:
    if Path(name).is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise InputError(f"{kind} {name}: no such folder, and not a Hub id of the form user/name")


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
