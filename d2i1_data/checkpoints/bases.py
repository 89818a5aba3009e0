"""Bases: find them by name, folder, file or Hub id, and check them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open

from ..diff2in1 import Base
from ..diff2in1.checkpoint import EMBEDDED
from ..errors import InputError
from ..hub import download
from .files import check_id, loading, not_found, read_index

PARTS = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
WEIGHED = ("vae", "text_encoder", "unet")  # parts with weights
IN_ONE_FILE = {  # how the names of their weights begin in a single file
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.",
}
FIRST_CONVOLUTION = "model.diffusion_model.input_blocks.0.0.weight"


def find_base(
    name: str, revision: str | None = None, variant: str | None = None, config: str | None = None
) -> Base:
    """Find a base and check it, as far as that is possible without loading its weights.

    Args:
        name: name of an embedded base, a folder, a `.safetensors` file, or a Hub id.
        revision: branch, tag or commit on the Hub.
        variant: variant of the weight files, such as `fp16`.
        config: configs for a single file, see `Base`, or the name of an embedded base.

    Raises:
        InputError: if something is missing or not supported.
    """
    path = Path(name).expanduser()
    embedded = path.name == name and (EMBEDDED / name / "model_index.json").is_file()
    if path.is_dir() or embedded:
        _refuse(name, "a folder", revision=revision, base_config=config)
        folder = EMBEDDED / name if embedded else path
        _check_index(name, read_index(folder, "base"))
        _check_folder(folder, variant)
        return Base(str(folder), variant=variant)
    if path.suffix in (".ckpt", ".pt", ".pth", ".bin"):
        raise InputError(f"base {name}: a pickle file can run code; convert it to .safetensors")
    if path.suffix == ".safetensors":
        _refuse(name, "one file", revision=revision, variant=variant)
        if not path.is_file():
            raise InputError(f"base {name}: no such file")
        _check_single_file(path)
        known = config and (EMBEDDED / config / "model_index.json").is_file()
        return Base(str(path), config=str(EMBEDDED / str(config)) if known else config)
    _refuse(name, "on the Hub", base_config=config)
    check_id(name, "base")
    index, commit = _index_on_hub(name, revision)
    _check_index(name, index)
    return Base(name, commit, variant)


def _refuse(name: str, kind: str, **flags: str | None) -> None:
    """Refuse settings that have no effect on a base of this kind."""
    for flag, value in flags.items():
        if value is not None:
            raise InputError(f"--{flag} {value} has no effect: base {name} is {kind}")


@contextmanager
def explained(base: Base) -> Iterator[None]:
    """Turn errors of loading a base into an InputError that names it."""
    hint = ""
    if base.is_file and base.config is None:
        hint = "; its configs come from the Hub, --base_config chooses others"
    with loading(f"base {base.path}", hint):
        yield


def _require(name: str, missing: list[str]) -> None:
    if missing:
        raise InputError(
            f"base {name}: {', '.join(missing)} missing;"
            f" a base has {', '.join(PARTS)} in diffusers layout"
        )


def _check_index(name: str, index: dict[str, Any]) -> None:
    parts = {name for name, entry in index.items() if isinstance(entry, list) and any(entry)}
    _require(name, [part for part in PARTS if part not in parts])
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
            others = ", ".join(file for file in files if not file.endswith(".json")) or "none"
            asked = f" of variant {variant}" if variant else ""
            raise InputError(
                f"base {folder}: {part} has no .safetensors{asked}, only: {others};"
                " --variant chooses, such as fp16"
            )


def _check_single_file(path: Path) -> None:
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            channels = 4
            if FIRST_CONVOLUTION in names:
                channels = file.get_slice(FIRST_CONVOLUTION).get_shape()[1]
    except SafetensorError as error:
        raise InputError(f"base {path}: not a complete safetensors file: {error}") from error
    found = {part for part, start in IN_ONE_FILE.items() if any(n.startswith(start) for n in names)}
    missing = [part for part in IN_ONE_FILE if part not in found]
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
    """The content of model_index.json on the Hub, and its commit.

    This finds errors before gigabytes are loaded. All other files are then loaded from this commit.
    """
    try:
        file = download(name, "model_index.json", revision=revision)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise not_found("base", name, error) from error
    return read_index(file.parent, "base"), file.parent.name


def embedded() -> list[str]:
    """Names of the bases that come with the package."""
    return [file.parent.name for file in EMBEDDED.glob("*/model_index.json")]
