"""Shell blocks of the documents: the calls in them, and whether the real parsers accept them."""

import argparse
import os
import runpy
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from d2i1_train.acts import ACTS
from tests.documents.reading import ROOT, Block
from tests.documents.sizes import replaced

# Programs whose calls are recorded instead of made.
PROGRAMS = ("d2i1", "python", "accelerate", "pip", "make", "pytest", "taskset")
RECORDER = """
set -eu
cd "$FOLDER"
record() { printf '%s\\0' "$#" "$@" >&3; }
"""


class Call(NamedTuple):
    """One call of a program in a block."""

    block: Block
    words: list[str]

    def __str__(self) -> str:
        return f"{self.block}: {shlex.join(self.words)}"


def record(block: Block, folder: Path) -> tuple[list[Call], dict[str, str]]:
    """The calls of programs in a block of shell, expanded by bash; what the block exports."""
    functions = "".join(f'{name}() {{ record {name} "$@"; }}\n' for name in PROGRAMS)
    log, exports = folder / ".calls", folder / ".exports"
    script = f'{RECORDER}{functions}{replaced(block.text)}\nenv -0 > "$FOLDER/.exports"\n'
    environment = {**os.environ, "FOLDER": str(folder)}
    with log.open("wb") as calls:
        command = ["bash", "-c", f"exec 3>&{calls.fileno()}\n{script}"]
        done = subprocess.run(
            command, env=environment, pass_fds=[calls.fileno()], capture_output=True, text=True
        )
    assert done.returncode == 0, f"{block}: {done.stderr}"
    words = log.read_bytes().decode().split("\0")[:-1]
    found = []
    while words:
        count = int(words.pop(0))
        found.append(Call(block, words[:count]))
        words = words[count:]
    pairs = (pair.partition("=") for pair in exports.read_text().split("\0"))
    new = {k: v for k, _, v in pairs if k and v != environment.get(k)}
    return found, {k: v for k, v in new.items() if k not in ("_", "PWD", "OLDPWD", "SHLVL")}


# --- the parsers: every call, run or not ---


def act_and_flags(words: list[str]) -> tuple[str, list[str]]:
    """Act and flags of a `d2i1` call."""
    act, *flags = words
    return (f"{act} --verify" if "--verify" in flags else act), flags


def read(words: list[str]) -> None:
    """Read the settings of a `d2i1` call; of one for help, whether there is such an act."""
    act, flags = act_and_flags(words)
    if flags == ["--help"]:
        assert act in ACTS
    elif act != "--help":
        ACTS[act].read(flags)


def check(call: Call) -> None:
    """Refuse a call that the real parser of its program would refuse."""
    program, *words = call.words
    checks = {
        "d2i1": lambda: read(words),
        "accelerate": lambda: _check_accelerate(words),
        "python": lambda: _check_python(words),
        "taskset": lambda: check(call._replace(words=words[2:])),
        "make": lambda: _check_targets(words),
        "pip": lambda: _check_extras(words),
        "pytest": lambda: _check_paths(words),
    }
    checks[program]()


def _check_accelerate(words: list[str]) -> None:
    launch, option, config, script, *flags = [*words, "", "", ""]
    assert launch == "launch"
    if option != "--config_file":
        return  # a script of somebody else
    assert (ROOT / config).is_file(), config
    (act, *_) = (act for act in ACTS.values() if act.script and script == f"scripts/{act.script}")
    act.read([word for word in flags if word])


def _check_python(words: list[str]) -> None:
    """Run a script up to where it has read its flags."""
    script, *flags = words
    if script == "-m":
        script, *flags = flags
        if script == "d2i1_train":
            read(flags)
            return

    class ParsedError(Exception):
        pass

    def parse(parser: argparse.ArgumentParser, *_: Any) -> None:
        real(parser, flags)
        raise ParsedError

    real = argparse.ArgumentParser.parse_args
    with pytest.MonkeyPatch.context() as patched, pytest.raises(ParsedError):
        patched.setattr(argparse.ArgumentParser, "parse_args", parse)
        if words[0] == "-m":
            runpy.run_module(script, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(str(ROOT / script), run_name="__main__")


def _check_targets(words: list[str]) -> None:
    lines = (ROOT / "Makefile").read_text().splitlines()
    targets = {line.partition(":")[0] for line in lines}
    assert words and set(words) <= targets, words


def _check_extras(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = set(extras["optional-dependencies"])
    assert words[:2] == ["install", "-e"] and len(words) == 3, words
    asked = words[2].removeprefix(".").strip("[]")
    assert set(filter(None, asked.split(","))) <= known, words


def _check_paths(words: list[str]) -> None:
    for word in words:
        assert not word.startswith("tests") or (ROOT / word.partition("::")[0]).exists(), word
