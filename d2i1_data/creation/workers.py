"""Who makes the shards of a plan: this process and those beside it, or the actors of a Ray cluster.

Both call the same function of the plan. A shard is there or not: whoever continues makes what is
missing, and whatever died leaves at most the shard it was at.
"""

import json
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..dataset.files import explain_full_disk
from ..dataset.shards import (
    LOGS,
    ShardRecord,
    dataset_shards,
    library_versions,
    shard_path,
    write_shard,
)
from ..errors import InputError
from .plan import Plan, read_plan
from .producers import UNMADE, UNREAD, Producer, Skipped, make_producer
from .settings import LabelSettings, WriteSettings

TRIES = 3  # how often a shard may cost a worker its life, and workers may fail to start
LOOK = 1.0  # seconds between two looks at what others have made


class Worker:
    """A process that makes shards of a plan."""

    def __init__(self, producer: Producer, plan: Plan, folder: Path, number: int) -> None:
        here = {**plan.facts, **producer.facts(), "versions": library_versions()}
        plan.check(here, producer.schema, f"process {number}")
        self.producer, self.plan, self.folder, self.number = producer, plan, folder, number

    def make(self, index: int, progress: Callable[[int], Any] = lambda count: None) -> None:
        """Write a shard, and what it cost to logs/."""
        start, skipped, before = time.perf_counter(), Skipped(), self.producer.notes()
        items = self.plan.shards[index]

        def record() -> ShardRecord:
            notes = {k: count - before.get(k, 0) for k, count in self.producer.notes().items()}
            return ShardRecord(
                {name: _kind(skipped[name]) for name in sorted(skipped)},
                {k: count for k, count in notes.items() if count},
                self.producer.base_licence,
            )

        samples = self.producer.make(items, skipped, progress)
        count = write_shard(shard_path(self.folder, index), samples, self.plan.schema, record)
        cost = {
            "shard": index,
            "samples": count,
            "seconds": round(time.perf_counter() - start, 3),
            "process": self.number,
            "device": self.plan.facts.get("device", "cpu"),
            "skipped": skipped,
        }
        (self.folder / LOGS).mkdir(exist_ok=True)
        with (self.folder / LOGS / f"{self.number:05d}.jsonl").open("a") as log:
            log.write("\n" * (log.tell() > 0) + json.dumps(cost))  # a torn line spoils no other


def _kind(why: str) -> str:
    """A reason without places of this machine, as it stands in a shard."""
    return UNMADE if why.endswith(UNMADE) else UNREAD


def missing_shards(plan: Plan, folder: Path) -> list[int]:
    """Shards of a plan that are not there yet."""
    there = {file.name for file in dataset_shards(folder)}
    return [k for k in range(len(plan.shards)) if shard_path(folder, k).name not in there]


class Progress:
    """A bar over the samples of all processes, in the one that shows it."""

    def __init__(self, plan: Plan, folder: Path, missing: Sequence[int], quiet: bool) -> None:
        from tqdm import tqdm

        self.sizes, self.folder, self.plan = [len(s) for s in plan.shards], folder, plan
        self.others: set[int] = set()
        self.looked = time.monotonic()
        total = sum(self.sizes)
        done = total - sum(self.sizes[k] for k in missing)
        self.bar = tqdm(total=total, initial=done, desc="samples", unit="sample", disable=quiet)

    def __call__(self, count: int) -> None:
        """Count own samples, and now and then the shards of others that have come."""
        self.bar.update(count)
        if self.others and not self.bar.disable and time.monotonic() - self.looked > LOOK:
            self.look()

    def look(self) -> None:
        """Count the shards of others that have come."""
        come = self.others - {*missing_shards(self.plan, self.folder)}
        self.others -= come
        self.bar.update(sum(self.sizes[k] for k in come))
        self.looked = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()  # before an error is told, on a line of its own


def make_in_processes(producer: Producer, plan: Plan, folder: Path) -> None:
    """Every process of the launcher makes its share of what is missing."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    state = PartialState()
    # the same for all, whatever a network's file system shows to each
    (missing,) = broadcast_object_list([missing_shards(plan, folder)])
    mine = missing[state.process_index :: state.num_processes]
    worker = Worker(producer, plan, folder, state.process_index)
    with Progress(plan, folder, missing, quiet=not state.is_main_process) as progress:
        progress.others = {*missing} - {*mine}
        for index in mine:
            worker.make(index, progress)
        state.wait_for_everyone()
        progress.look()


# --- Ray ---


class RayWorker:
    """A worker in a process of a Ray cluster."""

    def __init__(self, settings: WriteSettings, number: int, place: str) -> None:
        os.chdir(place)  # paths in the settings may be relative
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        folder = Path(settings.output_dir)
        self.worker = Worker(make_producer(settings), read_plan(folder), folder, number)

    def ready(self) -> None:
        """Answers once the actor could be built."""

    def make(self, index: int) -> None:
        """Write a shard."""
        with explain_full_disk(self.worker.folder):
            self.worker.make(index)


class RayCluster:
    """A Ray cluster, the one of RAY_ADDRESS or a new one of this machine.

    All nodes must reach the folder, the source and the checkpoint under the same paths.
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
        self.busy: dict[Any, tuple[Any, int | None]] = {}  # answers to come, of whom, on what
        self.started = self.stillborn = 0

    def make(self, plan: Plan, folder: Path) -> None:
        """Make what is missing: every worker a shard at a time.

        A worker that dies is replaced and its shard made by the next that is free. A shard that has
        cost `TRIES` workers their lives is left out, and told in the end.
        """
        queue = deque(missing_shards(plan, folder))
        lives, lost = Counter[int](), list[int]()
        threads, room = self._room(plan)
        try:
            with Progress(plan, folder, queue, quiet=False) as progress:
                progress.others = {*queue}
                for _ in range(min(self.settings.workers or room, room, len(queue))):
                    self._start(threads)
                while self.busy:
                    done, _ = self.ray.wait(list(self.busy), timeout=LOOK)
                    for answer in done:
                        actor, index = self.busy.pop(answer)
                        if self._died(answer, index):
                            self.ray.kill(actor)  # it may only have been out of reach
                            if index is not None:
                                lives[index] += 1
                                (lost if lives[index] == TRIES else queue).append(index)
                            self._start(threads)
                        elif queue:
                            index = queue.popleft()
                            self.busy[actor.make.remote(index)] = (actor, index)
                        else:
                            self.ray.kill(actor)
                    progress.look()
        finally:
            for actor, _ in self.busy.values():
                self.ray.kill(actor)
        if lost:
            first = plan.shards[lost[0]][0].source_id
            raise InputError(
                f"{len(lost)} shards cost {TRIES} workers each their lives and are left out,"
                f" the first with the sample {first}; all others are complete"
            )

    def _room(self, plan: Plan) -> tuple[int, int]:
        """CPU threads of a worker, and how many workers the cluster has room for."""
        threads = plan.facts.get("threads", 1)
        if self.gpus:
            return threads, self.gpus
        sizes = [int(node["Resources"].get("CPU", 0)) for node in self.ray.nodes() if node["Alive"]]
        room = sum(size // threads for size in sizes)
        if not room:
            raise InputError(
                f"--engine ray: a worker has {threads} threads, but no node more than {max(sizes)}"
                " CPUs; set --threads"
            )
        return threads, room

    def _start(self, threads: int) -> None:
        """A new worker, first busy with getting ready."""
        needs = {"num_gpus": 1} if self.gpus else {"num_cpus": threads}
        environment = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
        settings = self.settings
        if isinstance(settings, LabelSettings):
            settings = replace(settings, threads=threads)
        kind = self.ray.remote(**needs, runtime_env={"env_vars": environment})(RayWorker)
        actor = kind.remote(settings, self.started, os.getcwd())
        self.started += 1
        self.busy[actor.ready.remote()] = (actor, None)

    def _died(self, answer: Any, index: int | None) -> bool:
        """Whether a worker died at a shard; what is wrong with the input is raised."""
        try:
            self.ray.get(answer)
        except InputError as error:
            raise InputError(str(getattr(error, "cause", error))) from error
        except self.ray.exceptions.RayActorError as error:
            self.stillborn += index is None
            if self.stillborn == TRIES:
                reason = str(error).strip().splitlines()[-1]
                raise InputError(f"Ray workers could not start: {reason}") from error
            return True
        return False
