"""Arguments: the settings of an act, read from flags and YAML files.

Settings are flat dataclasses. They inherit from groups, which are dataclasses without a parent. The
docstring of a group is its heading in `--help`.
"""

import difflib
import json
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar

from d2i1_data.errors import InputError
from d2i1_data.registry import load

from .presets.files import find_settings_file, read_settings_file

Settings = TypeVar("Settings")
LISTS = {  # placeholders of help texts -> functions that give the text for them
    "{sources}": "d2i1_data.sources.registry:source_forms",
    "{origins}": "d2i1_data.sources.registry:origins",
    "{labelled_sources}": "d2i1_data.sources.registry:labelled_source_forms",
    "{exporters}": "d2i1_data.export.registry:exporter_forms",
}
MOST = 2**63 - 1
ESSENTIAL = "Essential settings"


def read_settings(
    kind: type[Settings],
    arguments: Sequence[str],
    program: str = "d2i1",
    positional: str | None = None,
) -> Settings:
    """Read the settings of an act. Flags override files, and a later file overrides an earlier one.

    Args:
        kind: dataclass of the settings.
        arguments: as typed, such as `["--config", "rooms", "--seed", "1"]`.
        program: name of the command in its help.
        positional: the setting that gets the arguments without a flag, None if there is none.

    Raises:
        InputError: if a flag or key is unknown, a value has another type, or one is missing.
    """
    parser = _make_parser(kind, program, positional)
    parsed = parser.parse_args(_complete(kind, list(arguments), positional))
    values = {field.name: parsed[field.name] for field in fields(kind)}  # type: ignore[arg-type]
    for name, value in values.items():
        _check_integers(name, value)
    return kind(**values)


def _check_integers(name: str, value: Any) -> None:
    """Refuse integers of more than 64 bits, also in lists and objects: no library takes them."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_integers(name, inner)
    elif isinstance(value, int) and abs(value) > MOST:
        raise InputError(f"--{name} {value}: expected at most {MOST}")


def nearest(name: str, known: Sequence[str], prefix: str = "") -> str:
    """Return the end of an error message that suggests the most similar word; empty if none is.

    Args:
        name: the wrong word.
        known: the allowed words.
        prefix: text before the suggested word.
    """
    near = difflib.get_close_matches(name, known, 1, 0.0)
    return f", did you mean {prefix}{near[0]}?" if near else ""


def setting_groups(kind: type) -> list[type]:
    """List the dataclasses without parents that a settings dataclass inherits from."""
    parents = [parent for parent in kind.__mro__[1:] if is_dataclass(parent)]
    return [parent for parent in parents if not any(map(is_dataclass, parent.__mro__[1:]))]


def _make_parser(kind: type, program: str, positional: str | None) -> Any:
    import jsonargparse  # imported here, because `d2i1 --help` does not need it

    class Parser(jsonargparse.ArgumentParser):  # type: ignore[misc]
        def error(self, message: str, *_: Any) -> Any:
            raise InputError(message)

    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    usage = _usage(kind, program, positional)
    parser = Parser(prog=program, usage=usage, description=kind.__doc__, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with any of these settings.")
    groups = setting_groups(kind)
    grouped = {field.name for group in groups for field in fields(group)}
    if grouped < {field.name for field in fields(kind)}:
        essential = parser.add_argument_group(ESSENTIAL if groups else "Settings")
        essential.add_class_arguments(kind, as_group=False, skip=grouped)
    for group in groups:
        parser.add_class_arguments(group)
    for action in parser._actions:
        action.help = _complete_help(action.help)
    return parser


def _complete_help(text: Any) -> Any:
    """Replace the placeholders of a help text by the lists of the registries."""
    for word, function in LISTS.items():
        if isinstance(text, str) and word in text:
            text = text.replace(word, load(function)())
    return text


def _usage(kind: type, program: str, positional: str | None) -> str:
    """The command with its required flags."""
    parts = [program]
    for field in fields(kind):
        if field.default is MISSING and field.default_factory is MISSING:
            value = field.name.upper()
            parts.append(f"{value}..." if field.name == positional else f"--{field.name} {value}")
    return " ".join([*parts, "[--config FILE.yaml] [--FLAG VALUE ...]"])


def _complete(kind: type, arguments: list[str], positional: str | None) -> list[str]:
    """Join every flag with its value and put settings files first.

    A flag without a value becomes true. The name of a preset becomes its path.

    Raises:
        InputError: if a flag or a key of a file is unknown, or a value has no flag.
    """
    if "--help" in arguments or arguments[-1:] == ["-h"]:
        return ["--help"]  # the flag before it may lack its value, as in `create --verify --help`
    types = {field.name: field.type for field in fields(kind)}
    files: list[str] = []
    flags: list[str] = []
    values: list[str] = []  # without a flag
    while arguments:
        argument = arguments.pop(0)
        if argument == "-h":
            flags.append(argument)
            continue
        if not argument.startswith("-"):
            values.append(argument)
            continue
        flag, assigned, value = argument.partition("=")
        name = flag.removeprefix("--")
        allowed = [*types, "config", "help", "print_config"]
        if not flag.startswith("--") or name not in allowed:
            raise InputError(f"unknown flag {flag}{nearest(name, allowed, '--')}")
        if not assigned and name in types and types[name] in (bool, "bool"):
            follows = arguments[:1] == ["true"] or arguments[:1] == ["false"]
            argument = f"{flag}={arguments.pop(0) if follows else 'true'}"
        elif not assigned and name in (*types, "config") and _is_value(arguments[:1]):
            value = arguments.pop(0)
            argument = f"{flag}={value}"
        if name == "config" and value:
            argument = f"--config={_checked_file(value, list(types))}"
        (files if name == "config" else flags).append(argument)
    return [*files, *_positional(types, values, positional), *flags]


def _is_value(following: list[str]) -> bool:
    return bool(following) and not following[0].startswith("--")


def _positional(types: dict[str, Any], values: list[str], name: str | None) -> list[str]:
    """Turn values without a flag into the flag of the positional setting."""
    if not values:
        return []
    if name is None:
        raise InputError(f"{values[0]!r} has no flag: write --FLAG before every value")
    if str(types[name]).startswith("list"):
        return [f"--{name}={json.dumps(values)}"]
    if len(values) > 1:
        raise InputError(f"{' '.join(values)}: expected one {name}, got {len(values)}")
    return [f"--{name}={values[0]}"]


def _checked_file(name: str, known: Sequence[str]) -> str:
    """Find a settings file and check that all its keys are known."""
    path = find_settings_file(name)
    for key in read_settings_file(path):
        if key not in known:
            raise InputError(f"{path}: unknown key {key!r}{nearest(str(key), known)}")
    return str(path)
