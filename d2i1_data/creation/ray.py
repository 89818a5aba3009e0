"""Workers in a Ray cluster. If a worker dies, another one makes its shard."""

import os
from collections import Counter, deque
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..dataset.files import explain_full_disk
from ..errors import InputError
from .plan import Plan, missing_shards, read_plan
from .producers import make_producer
from .settings import LabelSettings, WriteSettings
from .workers import REFRESH, Progress, Worker

TRIES = 3  # limit of workers that die at one shard, and of workers that fail to start


class RayWorker:
    """A worker in a process of a Ray cluster.

    Args:
        settings: settings of the command.
        number: number of the worker.
        directory: working directory of the command, because paths in the settings may be relative.
    """

    def __init__(self, settings: WriteSettings, number: int, directory: str) -> None:
        os.chdir(directory)
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        folder = Path(settings.output_dir)
        self.worker = Worker(make_producer(settings), read_plan(folder), folder, number)

    def ready(self) -> None:
        """Return once the worker is built."""

    def make(self, index: int) -> None:
        """Write a shard."""
        with explain_full_disk(self.worker.folder):
            self.worker.make(index)


class RayCluster:
    """A Ray cluster: the one of RAY_ADDRESS, or a new one on this machine.

    All nodes must reach the folder, the source and the checkpoint under the same paths.

    Args:
        settings: settings of the command.

    Raises:
        InputError: if Ray is not installed, or there is no cluster.
    """

    def __init__(self, settings: WriteSettings) -> None:
        try:
            import ray
        except ImportError as error:
            raise InputError("--engine ray needs Ray: pip install 'diff2in1[ray]'") from error
        try:
            ray.init(include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
        except (ConnectionError, ValueError) as error:
            raise InputError(f"--engine ray: no cluster: {error}") from error
        self.ray, self.settings = ray, settings
        self.gpus = int(ray.cluster_resources().get("GPU", 0))
        self.device = "cuda" if self.gpus else "cpu"
        # pending answer -> its worker and the shard that it makes; the shard is None at the start
        self.pending: dict[Any, tuple[Any, int | None]] = {}
        self.queue = deque[int]()  # shards that wait for a worker
        self.deaths = Counter[int]()  # shard -> number of workers that died while they made it
        self.started = self.failed_starts = 0

    def make(self, plan: Plan, folder: Path) -> None:
        """Make the missing shards.

        A worker that dies is replaced, and the next free worker makes its shard. If `TRIES` workers
        die at the same shard, the shard is left out.

        Raises:
            InputError: if shards were left out, or workers could not start.
        """
        self.queue = deque(missing_shards(plan, folder))
        threads, room = self._room(plan)
        try:
            with Progress(plan, folder, self.queue, quiet=False) as progress:
                progress.of_others = {*self.queue}
                for _ in range(min(self.settings.workers or room, room, len(self.queue))):
                    self._start(threads)
                while self.pending:
                    answers, _ = self.ray.wait(list(self.pending), timeout=REFRESH)
                    for answer in answers:
                        self._receive(answer, threads)
                    progress.refresh()
        finally:
            for worker, _ in self.pending.values():
                self.ray.kill(worker)
        if given_up := [index for index, times in self.deaths.items() if times == TRIES]:
            first = plan.shards[given_up[0]][0].source_id
            raise InputError(
                f"{len(given_up)} shards are left out because {TRIES} workers died at each;"
                f" the first begins with the sample {first}; all others are complete"
            )

    def _receive(self, answer: Any, threads: int) -> None:
        """Give the worker of an answer the next shard, or replace it if it died."""
        worker, index = self.pending.pop(answer)
        if self._died(answer, index):
            self.ray.kill(worker)  # it may still be alive and only unreachable
            if index is not None:
                self.deaths[index] += 1
                if self.deaths[index] < TRIES:
                    self.queue.append(index)
            self._start(threads)
        elif self.queue:
            following = self.queue.popleft()
            self.pending[worker.make.remote(following)] = (worker, following)
        else:
            self.ray.kill(worker)

    def _room(self, plan: Plan) -> tuple[int, int]:
        """CPU threads of a worker, and the number of workers that fit into the cluster."""
        threads = plan.facts.get("threads", 1)
        if self.gpus:
            return threads, self.gpus
        sizes = [int(node["Resources"].get("CPU", 0)) for node in self.ray.nodes() if node["Alive"]]
        room = sum(size // threads for size in sizes)
        if not room:
            raise InputError(
                f"--engine ray: a worker has {threads} threads, but the largest node has"
                f" {max(sizes)} CPUs; set --threads"
            )
        return threads, room

    def _start(self, threads: int) -> None:
        """Start a worker. Its first answer says that it is ready."""
        needs = {"num_gpus": 1} if self.gpus else {"num_cpus": threads}
        environment = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
        settings = self.settings
        if isinstance(settings, LabelSettings):
            settings = replace(settings, threads=threads)
        actor = self.ray.remote(**needs, runtime_env={"env_vars": environment})(RayWorker)
        worker = actor.remote(settings, self.started, os.getcwd())
        self.started += 1
        self.pending[worker.ready.remote()] = (worker, None)

    def _died(self, answer: Any, index: int | None) -> bool:
        """Whether a worker died. An InputError of the worker is raised again."""
        try:
            self.ray.get(answer)
        except InputError as error:
            raise InputError(str(getattr(error, "cause", error))) from error
        except self.ray.exceptions.RayActorError as error:
            self.failed_starts += index is None
            if self.failed_starts == TRIES:
                reason = str(error).strip().splitlines()[-1]
                raise InputError(f"Ray workers could not start: {reason}") from error
            return True
        return False
