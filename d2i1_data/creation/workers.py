"""Workers: the processes that make the shards of a plan.

A shard is complete or absent, and it depends only on the plan. So if a worker dies, any other can
continue. Only an unfinished shard is lost.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..dataset.record import LogEntry
from ..dataset.shards import LOGS, ShardRecord, library_versions, write_shard
from ..dataset.typed_json import to_json
from .plan import Plan, missing_shards, plan_sha256
from .producers import NOT_FINITE, UNREADABLE, Producer, Skipped

REFRESH = 1.0  # seconds between two counts of the shards of other workers


class Worker:
    """Makes shards of a plan in this process.

    Args:
        producer: makes the samples.
        plan: the plan of the dataset.
        folder: folder of the dataset.
        number: number of the worker, for its log.

    Raises:
        InputError: if the producer would make another dataset than the plan describes.
    """

    def __init__(self, producer: Producer, plan: Plan, folder: Path, number: int) -> None:
        now = {**plan.facts, **producer.facts(), "versions": library_versions()}
        plan.check(now, producer.schema, f"process {number}")
        self.producer, self.plan, self.folder, self.number = producer, plan, folder, number
        self.plan_sha256 = plan_sha256(folder)

    def make(self, index: int, progress: Callable[[int], Any] = lambda count: None) -> None:
        """Make and write a shard, and add an entry to the log.

        Args:
            index: index of the shard.
            progress: called with the number of finished samples.
        """
        start, skipped, before = time.perf_counter(), Skipped(), self.producer.notes()

        def record() -> ShardRecord:
            notes = {k: count - before.get(k, 0) for k, count in self.producer.notes().items()}
            return ShardRecord(
                {name: _without_place(skipped[name]) for name in sorted(skipped)},
                {k: count for k, count in notes.items() if count},
                self.producer.base_licence,
                self.plan_sha256,
                index,
            )

        samples = self.producer.make(self.plan.shards[index], skipped, progress)
        path = self.plan.shard_paths(self.folder)[index]
        count = write_shard(path, samples, self.plan.schema, record)
        seconds = round(time.perf_counter() - start, 3)
        device = self.plan.facts.get("device", "cpu")
        self._log(LogEntry(index, count, seconds, self.number, device, skipped))

    def _log(self, entry: LogEntry) -> None:
        (self.folder / LOGS).mkdir(exist_ok=True)
        with (self.folder / LOGS / f"{self.number:05d}.jsonl").open("a") as log:
            # begin a new line, because the last one may be incomplete
            log.write("\n" * (log.tell() > 0) + json.dumps(to_json(entry)))


def _without_place(reason: str) -> str:
    """Shorten a reason to its kind. Shards are published and must not contain paths."""
    return NOT_FINITE if reason.endswith(NOT_FINITE) else UNREADABLE


class Progress:
    """A progress bar over the samples of all workers.

    Args:
        plan: the plan of the dataset.
        folder: folder of the dataset.
        missing: indices of the shards that are not written yet.
        quiet: show nothing.
    """

    def __init__(self, plan: Plan, folder: Path, missing: Sequence[int], quiet: bool) -> None:
        from tqdm import tqdm

        self.sizes, self.folder, self.plan = [len(s) for s in plan.shards], folder, plan
        self.of_others: set[int] = set()  # shards that other workers make
        self.refreshed = time.monotonic()
        total = sum(self.sizes)
        done = total - sum(self.sizes[k] for k in missing)
        self.bar = tqdm(total=total, initial=done, desc="samples", unit="sample", disable=quiet)

    def __call__(self, count: int) -> None:
        """Count samples of this worker, and at times the shards of other workers."""
        self.bar.update(count)
        due = time.monotonic() - self.refreshed > REFRESH
        if self.of_others and not self.bar.disable and due:
            self.refresh()

    def refresh(self) -> None:
        """Count the shards that other workers have finished since the last time."""
        finished = self.of_others - {*missing_shards(self.plan, self.folder)}
        self.of_others -= finished
        self.bar.update(sum(self.sizes[k] for k in finished))
        self.refreshed = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()  # so that an error message begins on a new line


def make_in_processes(producer: Producer, plan: Plan, folder: Path) -> None:
    """Make the missing shards. Each process of the launcher makes its share.

    Args:
        producer: the producer of this process.
        plan: the plan, the same in every process.
        folder: folder of the dataset.
    """
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    state = PartialState()
    # all use one list, because processes may see different states of a network file system
    (missing,) = broadcast_object_list([missing_shards(plan, folder)])
    own = missing[state.process_index :: state.num_processes]
    worker = Worker(producer, plan, folder, state.process_index)
    with Progress(plan, folder, missing, quiet=not state.is_main_process) as progress:
        progress.of_others = {*missing} - {*own}
        for index in own:
            worker.make(index, progress)
        state.wait_for_everyone()
        progress.refresh()
