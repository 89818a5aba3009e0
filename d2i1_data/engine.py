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

from .errors import InputError
from .makers import Maker, Skipped, make_maker
from .plan import Plan, read_plan
from .settings import LabelSettings, WriteSettings
from .write import library_versions, shard_path, write_shard

TRIES = 3  # how often a shard may cost a worker its life


class Workshop:
    """A process that makes shards of a plan."""

    def __init__(self, maker: Maker, plan: Plan, folder: Path, number: int) -> None:
        here = {**plan.facts, **maker.facts(), "versions": library_versions()}
        plan.check(here, f"process {number}")
        self.maker, self.plan, self.folder, self.number = maker, plan, folder, number

    def make(self, index: int, progress: Callable[[int], Any] = lambda count: None) -> None:
        """Write a shard, and what it cost to logs/."""
        start, skipped = time.perf_counter(), Skipped()
        items = self.plan.shards[index]
        samples = self.maker.make(items, skipped, progress)
        count = write_shard(shard_path(self.folder, index), samples, self.maker.tasks, skipped)
        cost = {
            "shard": index,
            "samples": count,
            "seconds": round(time.perf_counter() - start, 3),
            "process": self.number,
            "device": self.plan.facts.get("device", "cpu"),
        }
        (self.folder / "logs").mkdir(exist_ok=True)
        with (self.folder / "logs" / f"{self.number:05d}.jsonl").open("a") as log:
            log.write(json.dumps(cost) + "\n")


def missing_shards(plan: Plan, folder: Path) -> list[int]:
    """Shards of a plan that are not there yet."""
    return [k for k in range(len(plan.shards)) if not shard_path(folder, k).exists()]


class Progress:
    """A bar over the samples of all processes, in the one that shows it."""

    def __init__(self, plan: Plan, folder: Path, missing: Sequence[int], quiet: bool) -> None:
        from tqdm import tqdm

        self.sizes, self.folder = [len(shard) for shard in plan.shards], folder
        self.others: list[int] = []
        total = sum(self.sizes)
        done = total - sum(self.sizes[k] for k in missing)
        self.bar = tqdm(total=total, initial=done, desc="samples", unit="sample", disable=quiet)

    def __call__(self, count: int) -> None:
        """Count own samples, and the shards of others that have come meanwhile."""
        here = [k for k in self.others if shard_path(self.folder, k).exists()]
        self.others = [k for k in self.others if k not in here]
        self.bar.update(count + sum(self.sizes[k] for k in here))


def make_in_processes(maker: Maker, plan: Plan, folder: Path) -> None:
    """Every process of the launcher makes its share of what is missing."""
    from accelerate import PartialState

    state = PartialState()
    missing = missing_shards(plan, folder)
    state.wait_for_everyone()  # all have seen the same
    mine = missing[state.process_index :: state.num_processes]
    workshop = Workshop(maker, plan, folder, state.process_index)
    progress = Progress(plan, folder, missing, quiet=not state.is_main_process)
    progress.others = sorted({*missing} - {*mine})
    for index in mine:
        workshop.make(index, progress)
    state.wait_for_everyone()
    progress(0)
    progress.bar.close()


# --- Ray ---


class Actor:
    """A workshop in a process of a Ray cluster."""

    def __init__(self, settings: WriteSettings, number: int, place: str) -> None:
        os.chdir(place)  # paths in the settings may be relative
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        folder = Path(settings.output_dir)
        self.workshop = Workshop(make_maker(settings), read_plan(folder), folder, number)

    def ready(self) -> None:
        """Answers once the actor could be built."""

    def make(self, index: int) -> None:
        """Write a shard."""
        self.workshop.make(index)


class Cluster:
    """A Ray cluster, the one of RAY_ADDRESS or a new one of this machine.

    All nodes must reach the folder, the source and the checkpoint under the same paths.
    """

    def __init__(self, settings: WriteSettings) -> None:
        try:
            import ray
        except ImportError as error:
            raise InputError("--engine ray needs Ray: pip install 'diff2in1[ray]'") from error
        ray.init(include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
        self.ray, self.settings = ray, settings
        self.gpus = int(ray.cluster_resources().get("GPU", 0))
        self.device = "cuda" if self.gpus else "cpu"
        self.started = 0

    def make(self, plan: Plan, folder: Path) -> None:
        """Make what is missing: every worker a shard at a time.

        A worker that dies is replaced and its shard made by the next that is free. A shard that has
        cost `TRIES` workers their lives is left out, and told in the end.
        """
        missing = missing_shards(plan, folder)
        progress = Progress(plan, folder, missing, quiet=False)
        queue, lives, lost = deque(missing), Counter[int](), list[int]()
        progress.others = list(missing)
        threads = plan.facts.get("threads", 1)
        room = self.gpus or int(self.ray.cluster_resources()["CPU"]) // threads
        count = min(self.settings.workers or max(room, 1), len(missing))
        busy: dict[Any, tuple[Any, int | None]] = {}
        for _ in range(count):
            self._start(busy, threads)
        while busy:
            done, _ = self.ray.wait(list(busy), timeout=1.0)
            progress(0)
            for answer in done:
                actor, index = busy.pop(answer)
                if self._died(answer, index):
                    assert index is not None
                    lives[index] += 1
                    (lost if lives[index] == TRIES else queue).append(index)
                    self._start(busy, threads)
                elif queue:
                    index = queue.popleft()
                    busy[actor.make.remote(index)] = (actor, index)
                else:
                    self.ray.kill(actor)
        progress.bar.close()
        if lost:
            first = plan.shards[lost[0]][0].source_id
            raise InputError(
                f"{len(lost)} shards cost {TRIES} workers each their lives and are left out,"
                f" the first with the sample {first}; all others are complete"
            )

    def _start(self, busy: dict[Any, tuple[Any, int | None]], threads: int) -> None:
        """A new worker, first busy with getting ready."""
        needs = {"num_gpus": 1} if self.gpus else {"num_cpus": threads}
        environment = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
        settings = self.settings
        if isinstance(settings, LabelSettings):
            settings = replace(settings, threads=threads)
        kind = self.ray.remote(**needs, runtime_env={"env_vars": environment})(Actor)
        actor = kind.remote(settings, self.started, os.getcwd())
        self.started += 1
        busy[actor.ready.remote()] = (actor, None)

    def _died(self, answer: Any, index: int | None) -> bool:
        """Whether a worker died at a shard; what is wrong with the input is raised."""
        try:
            self.ray.get(answer)
        except InputError as error:
            raise InputError(str(getattr(error, "cause", error))) from error
        except self.ray.exceptions.RayActorError as error:
            if index is None:
                reason = str(error).strip().splitlines()[-1]
                raise InputError(f"a Ray worker could not start: {reason}") from error
            return True
        return False
