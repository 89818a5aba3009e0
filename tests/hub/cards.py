"""Validation of the metadata of a README.md, used by `commits.py`. Serves no route itself.

The keys are those of hub-docs' modelcard.md, datasetcard.md and spaces-config-reference.md. Other
keys are allowed. Where the Hub only warns, for example about an unknown task, this is an error: a
published card should cause no warning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

VOCABULARY = Path(__file__).with_name("vocabulary.yaml")
WORDS: dict[str, list[str]] = yaml.safe_load(VOCABULARY.read_text())

REPO_ID = r"\w[\w.-]{0,95}(/\w[\w.-]{0,95})?"
LANGUAGE = r"[a-z]{2,3}|code|multilingual"
Check = Callable[[str, Any], Iterator[str]]


def front_matter(content: str) -> Any:
    """The YAML between the first two lines of dashes; None without it."""
    found = re.match(r"\s*---[ \t]*\r?\n(.*?)^---[ \t]*$", content, re.DOTALL | re.MULTILINE)
    return yaml.safe_load(found[1]) if found else None


def errors_of(content: str, repo_type: str | None) -> list[str]:
    """The errors, one line each."""
    try:
        data = front_matter(content)
    except yaml.YAMLError as error:
        return [f"YAML: {' '.join(str(error).split())}"]
    if data is None:
        return []
    if not isinstance(data, dict):
        return ['"metadata" must be an object']
    checks = COMMON | OF_TYPE.get(repo_type or "model", {})
    given = {key: data[key] for key in checks if data.get(key) is not None}
    return [error for key, value in given.items() for error in checks[key](key, value)]


# --- values ---


def text(name: str, value: Any) -> Iterator[str]:
    if not isinstance(value, str):
        yield f'"{name}" must be a string'


def switch(name: str, value: Any) -> Iterator[str]:
    if not isinstance(value, bool):
        yield f'"{name}" must be a boolean'


def number(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        yield f'"{name}" must be a number'


def like(pattern: str, meaning: str) -> Check:
    """A check: a string of this form."""

    def check(name: str, value: Any) -> Iterator[str]:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            yield f'"{name}" with value {value!r} is not valid. It must be {meaning}'

    return check


def one_of(words: list[str]) -> Check:
    """A check: a word of a vocabulary."""

    def check(name: str, value: Any) -> Iterator[str]:
        if not isinstance(value, str) or value not in words:
            yield f'"{name}" must be one of [{", ".join(words)}]'

    return check


def list_of(check: Check) -> Check:
    """A check: a list."""

    def checked(name: str, value: Any) -> Iterator[str]:
        if not isinstance(value, list):
            yield f'"{name}" must be an array'
            return
        for n, item in enumerate(value):
            yield from check(f"{name}[{n}]", item)

    return checked


def some(check: Check) -> Check:
    """A check: one value, or a list."""

    def checked(name: str, value: Any) -> Iterator[str]:
        yield from (list_of(check) if isinstance(value, list) else check)(name, value)

    return checked


def record(needed: dict[str, Check], optional: dict[str, Check] | None = None) -> Check:
    """A check: an object with these keys, and any others."""

    def check(name: str, value: Any) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f'"{name}" must be an object'
            return
        yield from (f'"{name}.{key}" is required' for key in needed if value.get(key) is None)
        for key, inner in {**needed, **(optional or {})}.items():
            if value.get(key) is not None:
                yield from inner(f"{name}.{key}", value[key])

    return check


def anything(name: str, value: Any) -> Iterator[str]:
    yield from ()


def short(name: str, value: Any) -> Iterator[str]:
    """A check: names of tags, which people see and search for."""
    yield from text(name, value)
    if isinstance(value, str) and not 1 <= len(value) <= 128:
        yield f'"{name}" must have between 1 and 128 characters'


# --- keys ---

repo_id = like(REPO_ID, "a repository id of the Hub")
task = one_of(WORDS["tasks"])

COMMON: dict[str, Check] = {
    "license": some(one_of(WORDS["licences"])),
    "license_name": text,
    "license_link": text,
    "language": some(like(LANGUAGE, "an ISO 639 code, 'code' or 'multilingual'")),
    "tags": list_of(short),
    "datasets": some(repo_id),
    "thumbnail": text,
}

RESULT = record(
    {
        "task": record({"type": task}, {"name": text}),
        "dataset": record({"type": repo_id, "name": text}, {"split": text, "config": text}),
        "metrics": list_of(record({"type": text, "value": anything}, {"name": text})),
    },
    {"source": record({"url": text}, {"name": text})},
)
SPLIT = record({"name": text}, {"num_bytes": number, "num_examples": number})
DATASET_INFO = record(
    {},
    {
        "config_name": text,
        "features": list_of(record({"name": text})),
        "splits": list_of(SPLIT),
        "download_size": number,
        "dataset_size": number,
    },
)


def data_files(name: str, value: Any) -> Iterator[str]:
    """The files of each split: a pattern, a list of patterns, or a list by split."""
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        yield from list_of(record({"split": text, "path": some(text)}))(name, value)
    else:
        yield from some(text)(name, value)


OF_TYPE: dict[str, dict[str, Check]] = {
    "model": {
        "library_name": text,
        "pipeline_tag": task,
        "base_model": some(repo_id),
        "base_model_relation": one_of(WORDS["relations"]),
        "new_version": repo_id,
        "metrics": list_of(text),
        "model-index": list_of(record({"name": text, "results": list_of(RESULT)})),
    },
    "dataset": {
        "pretty_name": text,
        "size_categories": some(one_of(WORDS["sizes"])),
        "task_categories": some(task),
        "task_ids": some(one_of(WORDS["subtasks"])),
        "annotations_creators": some(one_of(WORDS["annotations_creators"])),
        "language_creators": some(one_of(WORDS["language_creators"])),
        "multilinguality": some(one_of(WORDS["multilinguality"])),
        "source_datasets": some(
            like(rf"original|(extended\|)?{REPO_ID}|extended", "original, extended or a data set")
        ),
        "configs": list_of(
            record({"config_name": text}, {"data_files": data_files, "default": switch})
        ),
        "dataset_info": some(DATASET_INFO),
    },
    "space": {
        "title": text,
        "sdk": one_of(WORDS["sdks"]),
        "app_file": text,
        "colorFrom": one_of(WORDS["colours"]),
        "colorTo": one_of(WORDS["colours"]),
        "pinned": switch,
        "fullWidth": switch,
        "models": list_of(repo_id),
        "short_description": text,
    },
}
