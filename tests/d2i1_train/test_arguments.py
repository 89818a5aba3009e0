"""Help texts and errors of flags: our words, not those of a library."""

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from d2i1_data.errors import InputError
from d2i1_train.acts import ACTS
from d2i1_train.arguments import _make_parser
from d2i1_train.type_words import in_words

CREATE = ("create", "--source", "rooms", "--pipeline", "p", "--output_dir", "q")
PLOTTING = (
    "report made",
    "judge made --source rooms --output_file f.json --plot f.png",
    "evaluate --pipeline p --source rooms --sparsification f.png",
    "study --arms {} --output_dir q",
)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (int, "an integer"),
        (str | None, "text or null"),
        (float | list[float] | None, "a number, a list of numbers or null"),
        (Literal["base", "theta"] | None, "one of base, theta or null"),
        (list[dict[str, Any]], "a list of mappings"),
        (dict[str, float], "a mapping of names to numbers"),
        (dict[str, dict[str, Any]], "a mapping of names to mappings"),
    ],
)
def test_types_are_told_in_words(kind: Any, words: str) -> None:
    assert in_words(kind) == words


@pytest.mark.parametrize("act", ACTS)
def test_help_names_no_type_of_python(act: str) -> None:
    shown = _make_parser(ACTS[act].settings, f"d2i1 {act}", None).format_help()
    for raw in ("Union[", "Optional[", "Literal[", "<class", "NoneType", "type: ", "[=flags]"):
        assert raw not in shown, raw
    assert not re.search(r"--\w+\+", shown)  # a form of jsonargparse that no act takes


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--seed", "x"), "--seed x: expected an integer"),
        (("--seed", "1.5"), "--seed 1.5: expected an integer"),
        (("--seed",), "--seed: expected an integer"),
        (("--strength", "high"), "--strength high: expected a number, a list of numbers or null"),
        (("--ways", "3"), "--ways 3: expected a list of mappings or null"),
        (("--compile=maybe",), "--compile maybe: expected true or false"),
        (("--create_with", "me"), "--create_with me: expected one of base, theta or null"),
        (("--config", "wrong.yaml"), "wrong.yaml: seed: 'x': expected an integer"),
        (("--config", "wrong.yaml", "--seed", "y"), "--seed y: expected an integer"),
    ],
)
def test_a_wrong_type_is_told_in_words(
    d2i1: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wrong.yaml").write_text("seed: x\n")
    assert d2i1(*CREATE, *flags, code=2) == f"d2i1 create: error: {message}\n"


def test_missing_flags_are_named(d2i1: Callable[..., str]) -> None:
    message = d2i1("create", "--source", "rooms", code=2)
    assert message == "d2i1 create: error: missing: --output_dir, --pipeline\n"


@pytest.mark.parametrize("command", PLOTTING)
def test_matplotlib_is_needed_only_where_it_draws(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "matplotlib" else find(name, *more),
    )
    act, *flags = command.split()
    with pytest.raises(InputError, match=r"needs matplotlib: pip install 'diff2in1\[plots\]'"):
        ACTS[act].read(flags)
