"""Settings files: presets by name, and files of the user."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from d2i1_data.errors import InputError

FOLDER = Path(__file__).parent


def preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def find_settings_file(name: str) -> Path:
    """Find a file by its path, or a preset by its name.

    Args:
        name: path of a YAML file, or name of a preset. If both exist, the file is used.

    Raises:
        InputError: if there is no such file and no such preset.
    """
    preset = FOLDER / f"{name}.yaml"
    for path in (Path(name), preset):
        with suppress(OSError):  # the name is too long
            if path.is_file():
                return path
    raise InputError(f"--config {name}: no such file; presets are {', '.join(preset_names())}")


def read_settings_file(path: Path) -> dict[str, Any]:
    """Read the settings that a YAML file holds.

    Raises:
        InputError: if it is not YAML, or does not consist of `key: value` lines.
    """
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise InputError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected `key: value` lines")
    return content
