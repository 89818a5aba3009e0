"""Arguments: the settings of an act, read from flags and YAML files.

Settings are flat dataclasses. They inherit from groups, which are dataclasses without a parent. The
docstring of a group is its heading in `--help`.
"""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from d2i1_data.errors import InputError
from d2i1_data.registry import load

from .presets.files import find_settings_file, read_settings_file
from .type_words import in_words

Settings = TypeVar("Settings")
LISTS = {  # placeholders of help texts -> functions that give the text for them
    "{sources}": "d2i1_data.sources.registry:source_forms",
    "{origins}": "d2i1_data.sources.registry:origins",
    "{labelled_sources}": "d2i1_data.sources.registry:labelled_source_forms",
    "{exporters}": "d2i1_data.export.registry:exporter_forms",
}
MOST = 2**63 - 1
ESSENTIAL = "Essential settings"
PRINT_CONFIG = "Print all settings as a YAML file, and exit."
# errors of jsonargparse and argparse
MISSING_FLAGS = re.compile("the following arguments are required: (.+)")
WRONG_VALUE = re.compile(r'^Parser key "(\w+)":|^argument --(\w+): expected one argument')


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
    given = _complete(kind, list(arguments), positional)
    parsed = _make_parser(kind, program, positional, given).parse_args(given)
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


def _make_parser(
    kind: type, program: str, positional: str | None, given: Sequence[str] = ()
) -> Any:
    """The parser of an act. given: the arguments, for errors."""
    import jsonargparse  # imported here, because `d2i1 --help` does not need it

    types = get_type_hints(kind)

    class Formatter(jsonargparse.DefaultHelpFormatter):  # type: ignore[misc]
        def _get_help_string(self, action: Any) -> str:
            if action.dest not in types:
                return super()._get_help_string(action)
            return f"{action.help} ({_facts(action, types[action.dest])})"

    class Parser(jsonargparse.ArgumentParser):  # type: ignore[misc]
        def error(self, message: str, *_: Any) -> Any:
            raise InputError(_explain(message, types, given))

    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    looks = {"usage": _usage(kind, program, positional), "formatter_class": Formatter}
    parser = Parser(prog=program, description=kind.__doc__, allow_abbrev=False, **looks)
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
        # those that end with + would add to a list; no act takes them
        action.option_strings = [name for name in action.option_strings if name[-1] != "+"]
        if action.dest == "print_config":
            action.help, action.metavar = PRINT_CONFIG, ""
    return parser


def _facts(action: Any, kind: Any) -> str:
    """The type of a setting in words, and its default."""
    if action.required:
        return f"{in_words(kind)}; required"
    default = action.default
    shown = default if default and isinstance(default, str) else json.dumps(default)
    return f"{in_words(kind)}; default: {shown}".replace("%", "%%")


def _explain(message: str, types: Mapping[str, Any], given: Sequence[str]) -> str:
    """What an error of the parser says, in our words.

    Args:
        message: words of the parser.
        types: the types of all settings.
        given: the arguments.
    """
    if missing := MISSING_FLAGS.fullmatch(message):
        return f"missing: --{missing[1].replace(', ', ', --')}"
    found = WRONG_VALUE.search(message)
    name = found and (found[1] or found[2])
    if not name or name not in types:
        return message
    place = f"--{name}"
    for argument in given:
        flag, _, value = argument.partition("=")
        content = read_settings_file(Path(value)) if flag == "--config" else {}
        if name in content:
            place = f"{value}: {name}: {content[name]!r:.200}"
        if flag == f"--{name}" and value:
            place = f"--{name} {value:.200}"
    return f"{place}: expected {in_words(types[name])}"


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
