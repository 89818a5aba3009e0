"""The doors: `d2i1 ACT`. Every act is a function, a command and a script, fed by one dataclass."""

import difflib
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from d2i1_data.app.settings import AppSettings
from d2i1_data.creation.settings import (
    CreateSettings,
    ImportSettings,
    LabelSettings,
    VerifySettings,
)
from d2i1_data.errors import InputError
from d2i1_data.export.settings import ExportSettings
from d2i1_data.inspection.settings import JudgeSettings, ReportSettings
from d2i1_data.publish.settings import PublishSettings

from .scratch.settings import BaseSettings
from .settings import (
    DemoSettings,
    EnvSettings,
    EvaluateSettings,
    SelfImproveSettings,
    StudySettings,
    WarmUpSettings,
)

ACTS = {
    "demo": ("d2i1_train.demo:demo", DemoSettings),
    "base": ("d2i1_train.scratch.base:base", BaseSettings),
    "import": ("d2i1_data.creation.create:import_source", ImportSettings),
    "warm-up": ("d2i1_train.warm_up:warm_up", WarmUpSettings),
    "create": ("d2i1_data.creation.create:create", CreateSettings),
    "create --verify": ("d2i1_data.creation.verify:verify", VerifySettings),
    "label": ("d2i1_data.creation.create:label", LabelSettings),
    "self-improve": ("d2i1_train.self_improve:self_improve", SelfImproveSettings),
    "evaluate": ("d2i1_train.evaluate:evaluate", EvaluateSettings),
    "report": ("d2i1_data.inspection.report.report:report", ReportSettings),
    "judge": ("d2i1_data.inspection.judge:judge", JudgeSettings),
    "export": ("d2i1_data.export.export:export", ExportSettings),
    "publish": ("d2i1_data.publish.publish:publish", PublishSettings),
    "app": ("d2i1_data.app.app:app", AppSettings),
    "study": ("d2i1_train.study:study", StudySettings),
    "env": ("d2i1_train.environment:env", EnvSettings),
}
LOST = "another process of this run ended; continue with {}"
RESUME = "--resume_from_checkpoint latest"
PRESETS = Path(__file__).parent / "presets"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one act; the exit code: 0, or 2 for wrong input, which is told in one line."""
    act, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if act in ("-h", "--help"):
        print(overview())
        return 0
    if f"{act} --verify" in ACTS and any(a.partition("=")[0] == "--verify" for a in rest):
        act = f"{act} --verify"
    try:
        if act not in ACTS:
            raise InputError(f"no act {act!r}{_nearest(act, list(ACTS))}; see d2i1 --help")
        return run_act(act, rest)
    except InputError as error:
        print(f"d2i1 {act}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"d2i1 {act}: stopped", file=sys.stderr)
        return 130
    except RuntimeError as error:
        if not _process_lost(error):
            raise
        resumes = any(field.name == "resume_from_checkpoint" for field in fields(ACTS[act][1]))
        lost = LOST.format(RESUME if resumes else "the same command")
        print(f"d2i1 {act}: error: {lost} ({str(error).splitlines()[0]})", file=sys.stderr)
        return 1


def overview() -> str:
    """What `d2i1 --help` shows."""
    lines = [
        f"  {act:16} {(kind.__doc__ or '').splitlines()[0]}" for act, (_, kind) in ACTS.items()
    ]
    return "\n".join(
        [
            "usage: d2i1 ACT [--config FILE.yaml] [--flag value ...]",
            "",
            *lines,
            "",
            "d2i1 ACT --help lists the flags of an act.",
        ]
    )


def run_act(act: str, arguments: list[str]) -> int:
    """Read the settings of an act and call its function."""
    path, _ = ACTS[act]
    settings = read_settings(act, arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # two processes on few cores else stall
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns that torchvision is missing
    module, function = path.split(":")
    if act != "env":
        _quieten()
        _find_processes()
    result = getattr(importlib.import_module(module), function)(settings)
    if isinstance(result, Path | str) and os.environ.get("RANK", "0") == "0":
        print(result)
    _end_processes()
    return 0


def _quieten() -> None:
    """No bars for loading files between our own, nor what a library warns all CPUs of."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import datasets
    import diffusers.utils.logging
    import transformers.utils.logging

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def _find_processes() -> None:
    """Make accelerate see the processes of `torchrun` where there is no accelerator."""
    import torch
    from accelerate import PartialState

    if "LOCAL_RANK" in os.environ and not torch.cuda.is_available():
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")
        PartialState(cpu=True)  # which by itself does not read that variable


def _process_lost(error: RuntimeError) -> bool:
    """Whether an error says that a process does not answer the others any more."""
    import torch.distributed

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


def _end_processes() -> None:
    """Leave together: a process that ends alone may abort the others."""
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def read_settings(act: str, arguments: list[str]) -> Any:
    """The dataclass of an act from --config files and flags; flags override."""
    import jsonargparse

    _, kind = ACTS[act]

    class Parser(jsonargparse.ArgumentParser):  # type: ignore[misc]
        def error(self, message: str, *_: Any) -> Any:
            raise InputError(message)

    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = Parser(prog=f"d2i1 {act}", description=kind.__doc__, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with any of these settings.")
    parser.add_class_arguments(kind)
    parsed = parser.parse_args(_files_first(_checked(kind, arguments)))
    return kind(**_only(kind, parsed))


def _only(kind: Any, parsed: Any) -> dict[str, Any]:
    return {field.name: parsed[field.name] for field in fields(kind)}


def _checked(kind: Any, arguments: list[str]) -> list[str]:
    """The arguments with presets found and bare switches set; unknown names are refused."""
    known = {field.name: field.type for field in fields(kind)}
    allowed = [*known, "config", "help", "print_config"]
    if "dataset" in known and arguments and not arguments[0].startswith("--"):
        arguments = ["--dataset", *arguments]  # what an act is about needs no name
    result: list[str] = []
    for place, argument in enumerate(arguments):
        name, _, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--"):
            previous = arguments[place - 1] if place else ""
            result.append(_config(argument, known) if previous == "--config" else argument)
            continue
        if name not in allowed:
            raise InputError(f"unknown flag --{name}{_nearest(name, allowed, '--')}")
        following = arguments[place + 1 : place + 2]
        bare = not value and (not following or following[0].startswith("--"))
        if name == "config" and value:
            result += ["--config", _config(value, known)]
        elif known.get(name) in (bool, "bool") and bare:
            result.append(f"--{name}=true")
        else:
            result.append(argument)
    return result


def _files_first(arguments: list[str]) -> list[str]:
    """The same arguments, every --config with its file before all flags, so that these override."""
    files: list[str] = []
    flags: list[str] = []
    for place, argument in enumerate(arguments):
        of_file = argument == "--config" or arguments[place - 1 : place] == ["--config"]
        (files if of_file else flags).append(argument)
    return files + flags


def _config(name: str, known: dict[str, Any]) -> str:
    """The path of a settings file, ours by its name; its keys must be known."""
    import yaml

    path = Path(name)
    if not path.is_file() and (PRESETS / f"{name}.yaml").is_file():
        path = PRESETS / f"{name}.yaml"
    if not path.is_file():
        ours = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
        raise InputError(f"--config {name}: no such file; presets are {ours}")
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected `key: value` lines")
    for key in content:
        if key not in known:
            raise InputError(f"{path}: unknown key {key!r}{_nearest(str(key), list(known))}")
    return str(path)


def _nearest(name: str, known: list[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, known, 1, 0.0)
    return f", did you mean {prefix}{near[0]}?" if near else ""


if __name__ == "__main__":
    sys.exit(main())
