"""Processes on this machine that make the shards of a plan, for commands without a launcher.

New processes import this file first, so it imports nothing heavy itself.
"""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .settings import WriteSettings

if TYPE_CHECKING:
    from .plan import Plan
    from .workers import Worker

OF_THIS_PROCESS: "list[Worker]" = []  # one, in a process that makes shards


def make_in_new_processes(settings: WriteSettings, plan: "Plan", folder: Path, count: int) -> None:
    """Make the missing shards. New processes take them one after another.

    If this process is killed, the others end too.

    Args:
        settings: settings of the command. Each process opens its own producer.
        plan: the plan.
        folder: folder of the dataset.
        count: number of processes.

    Raises:
        InputError: if a sample is unusable, or a process was killed.
    """
    from .plan import missing_shards
    from .workers import Progress

    missing = missing_shards(plan, folder)
    if not missing:
        return
    # a copy of this process could wait for locks of threads that it does not have
    context = multiprocessing.get_context("forkserver")
    given = (settings, folder, context.Value("i", 0), {**os.environ})
    pool = ProcessPoolExecutor(min(count, len(missing)), context, _begin, given)
    try:
        with Progress(plan, folder, missing, quiet=False) as progress:
            shards = {pool.submit(_make, index): index for index in missing}
            for done in as_completed(shards):
                done.result()
                progress(len(plan.shards[shards[done]]))
    except BrokenProcessPool as error:
        raise InputError(
            "a worker ended, perhaps for lack of memory: repeat the command to continue, with fewer"
            " --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(
    settings: WriteSettings,
    folder: Path,
    numbers: "Synchronized[int]",
    environment: Mapping[str, str],
) -> None:
    """Prepare a new process: open its producer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that began it ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(environment)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells of kernels not used here
    import datasets

    from .plan import read_plan
    from .producers import make_producer
    from .workers import Worker

    datasets.disable_progress_bars()
    with numbers.get_lock():
        number, numbers.value = numbers.value, numbers.value + 1
    OF_THIS_PROCESS.append(Worker(make_producer(settings), read_plan(folder), folder, number))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _make(index: int) -> None:
    OF_THIS_PROCESS[0].make(index)
