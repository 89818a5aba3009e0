"""The command `d2i1 ACT`: read the settings of an act and call its function."""

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

from d2i1_data.errors import InputError

from .acts import ACTS, Act, overview
from .arguments import nearest

LOST = "another process of this run ended; continue with {}"
RESUME = "--resume_from_checkpoint latest"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one act.

    Args:
        arguments: the act and its flags; None takes those of this process.

    Returns:
        The exit code: 0 if all went well; 2 for wrong input, for a file that the system refuses,
        and for too little memory, with an error of one line; 1 if another process of the run ended;
        130 if the user stopped the act.
    """
    name, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(overview())
        return 0
    if name in ("-V", "--version"):
        print(f"diff2in1 {version('diff2in1')}")
        return 0
    if f"{name} --verify" in ACTS and any(a.partition("=")[0] == "--verify" for a in rest):
        name = f"{name} --verify"
    try:
        if name not in ACTS:
            raise InputError(f"no act {name!r}{nearest(name, list(ACTS))}; see d2i1 --help")
        return run_act(ACTS[name], rest)
    except KeyboardInterrupt:
        print(f"d2i1 {name}: stopped", file=sys.stderr)
        return 130
    except (InputError, OSError, RuntimeError, MemoryError) as error:
        message, code = _explain(error, name)
        print(f"d2i1 {name}: error: {' '.join(message.split())}", file=sys.stderr)
        return code


def _explain(error: Exception, act: str) -> tuple[str, int]:
    """What an error says to the user, and the exit code. A bug of ours is raised again."""
    if isinstance(error, InputError):
        return str(error), 2
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename!s:.200}: {error.strerror}", 2
    if isinstance(error, RuntimeError | MemoryError) and _is_out_of_memory(error):
        return f"not enough memory: give smaller images, batches or widths ({error!s:.200})", 2
    if isinstance(error, RuntimeError) and _is_process_lost(error):
        resumes = any(f.name == "resume_from_checkpoint" for f in fields(ACTS[act].settings))
        advice = LOST.format(RESUME if resumes else "the same command")
        return f"{advice} ({str(error).splitlines()[0]})", 1
    raise error


def run_act(act: Act, arguments: Sequence[str]) -> int:
    """Read the settings of an act and call its function.

    Raises:
        InputError: if the settings are wrong, or a file or model that they name cannot be used.
    """
    settings = act.read(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # or else processes on few cores stall
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # large pages: a CPU trains 15 % faster
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # no warning of missing torchvision
    module, function = act.function.split(":")
    if act.name != "env":
        _silence_libraries()
        _find_processes()
    result = getattr(importlib.import_module(module), function)(settings)
    if isinstance(result, Path | str) and os.environ.get("RANK", "0") == "0":
        print(result)
    _end_processes()
    return 0


# these functions import torch and other libraries, so that `d2i1 --help` stays quick


def _silence_libraries() -> None:
    """Hide the progress bars of file loading, and warnings that do not concern the user."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # it lists a schema for a damaged shard; our error names the shard
    logging.getLogger("datasets.packaged_modules.parquet.parquet").setLevel(logging.CRITICAL)
    import datasets
    import diffusers.utils.logging
    import transformers.utils.logging

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def _find_processes() -> None:
    """Make accelerate find the processes of `torchrun` on machines without an accelerator."""
    import torch
    from accelerate import PartialState

    if "LOCAL_RANK" in os.environ and not torch.cuda.is_available():
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")
        PartialState(cpu=True)  # accelerate does not read this variable


def _is_out_of_memory(error: Exception) -> bool:
    """Whether an error of Python or torch says that there is not enough memory."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "allocate memory" in str(error)  # torch raises no other type for the memory of a CPU


def _is_process_lost(error: Exception) -> bool:
    """Whether an error says that another process no longer answers."""
    import torch.distributed

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


def _end_processes() -> None:
    """Wait for all processes, because a process that ends alone may abort the others."""
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
