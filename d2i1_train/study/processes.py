"""Processes of a study. Each has the same number of threads, so that their number is free."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import NamedTuple

from d2i1_data.errors import InputError


class Job(NamedTuple):
    """A call to make. name: what an error message calls it."""

    name: str
    function: Callable[..., None]
    arguments: tuple[object, ...]

    def run(self) -> None:
        """Make the call. Its InputError names the job."""
        try:
            self.function(*self.arguments)
        except InputError as error:
            raise InputError(f"study: {self.name}: {error}") from error


def run_jobs(jobs: Sequence[Job], workers: int, threads: int) -> Iterator[Job]:
    """Run jobs in new processes, or in this process if there is one worker.

    Args:
        jobs: the jobs. They do not depend on one another.
        workers: number of processes.
        threads: CPU threads of each process.

    Yields:
        Each job when it is done.

    Raises:
        InputError: if a job raises it. Jobs that run then are finished, no other job is started.
    """
    if not jobs:
        return
    if workers == 1:
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            for job in jobs:
                job.run()
                yield job
        finally:
            torch.set_num_threads(before)
        return
    size = min(workers, len(jobs))
    pool = ProcessPoolExecutor(size, get_context("spawn"), begin, (threads,))
    try:
        running = {pool.submit(job.run): job for job in jobs}
        for future in as_completed(running):
            future.result()
            yield running[future]
    finally:
        pool.shutdown(cancel_futures=True)


def begin(threads: int) -> None:
    """Prepare a new process before it imports torch: its threads, and no progress bars."""
    os.environ |= {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    os.environ["TQDM_DISABLE"] = "1"
    import torch

    torch.set_num_threads(threads)
