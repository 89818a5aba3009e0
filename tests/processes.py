"""Processes that run Python as `python -m MODULE` and `python SCRIPT` do, but start in a moment.

The libraries take seconds to import. One process imports them once; the others are forked from it
and import our packages only. Variables that a library reads when it is imported, such as HF_HOME,
have no effect here.
"""

import multiprocessing
import os
import runpy
import sys
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tests.serving import free_port

LIBRARIES = ["torch", "diffusers", "transformers", "datasets", "accelerate", "peft"]
LIBRARIES += [
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "transformers.models.clip.modeling_clip",
    "torch.utils.tensorboard",
    "matplotlib.pyplot",
    "jsonargparse",
]
LIMIT = 200  # seconds
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(LIBRARIES)


def start(
    *command: object, log: Path, cwd: Path | None = None, **environment: object
) -> ForkServerProcess:
    """Begin a process.

    Args:
        command: `-m`, a module and its arguments, or a script and its arguments.
        log: the file for all that it prints.
        cwd: the folder to work in.
        environment: variables beside those of this process.
    """
    own = {name: str(value) for name, value in environment.items()}
    words, variables = [str(word) for word in command], {**os.environ, **own}
    process = FORKS.Process(target=_run, args=(words, log, cwd, variables))
    process.start()
    return process


def run_ranks(*command: object, log: Path, count: int = 2) -> None:
    """Run a script or module in several processes that train together; all must succeed."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    size = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    ranks = [{"RANK": rank, "LOCAL_RANK": rank} for rank in range(count)]
    processes = [start(*command, log=log, **place, **size, **rank) for rank in ranks]
    try:
        end = time.monotonic() + LIMIT
        while any(process.exitcode is None for process in processes):
            assert time.monotonic() < end, log.read_text()
            assert not any(process.exitcode for process in processes), log.read_text()
            time.sleep(0.02)
        assert not any(process.exitcode for process in processes), log.read_text()
    finally:
        for process in processes:
            process.kill()
            process.join()


def _run(words: list[str], log: Path, cwd: Path | None, variables: dict[str, str]) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.environ.clear()
    os.environ.update(variables)
    if cwd:
        os.chdir(cwd)
    sys.path[:0] = filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))
    module, sys.argv = words[0] == "-m", words[1:] if words[0] == "-m" else words
    if module:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
