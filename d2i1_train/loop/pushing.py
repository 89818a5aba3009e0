"""Push checkpoints to the Hub while training continues."""

import logging
import os
import re
import shutil
import threading
from functools import partial
from pathlib import Path

from huggingface_hub import snapshot_download

from d2i1_data.dataset.files import move_into_place
from d2i1_data.errors import InputError
from d2i1_data.hub import Changes, Content, RemoteState, Repository, with_retries
from d2i1_data.publish.checkpoint import check_model
from d2i1_data.publish.publish import publish
from d2i1_data.publish.settings import PublishSettings

from .checkpoint import BEST, BEST_FACTS, complete_checkpoints, read_counters
from .manifest import COUNTERS
from .settings import TrainSettings

STAGED = ".push"  # has links to the files that are being sent, so that pruning cannot delete them
FILE = re.compile(r"checkpoint-(0|[1-9]\d*)/(.*)")

logger = logging.getLogger(__name__)


class Pusher:
    """Sends the newest and the best checkpoint of a run in a thread, so the loop never waits.

    A checkpoint that is written while another is being sent must wait. It replaces an older one
    that is still waiting. A failure is logged, and training continues.
    """

    def __init__(self, settings: TrainSettings) -> None:
        """Create the repository, or check it, before the run begins.

        Raises:
            InputError: if the token may not write, or the repository holds something else.
        """
        self.folder, self.limit = Path(settings.output_dir), settings.checkpoints_total_limit
        self.keeps_best = settings.best_metric is not None
        name = settings.hub_model_id or self.folder.resolve().name
        self.private, self.repository = settings.hub_private_repo, Repository(name, "model")
        state = self.repository.create(self.private)
        check_model(self.repository, state, whole=True)
        if (_steps(state) or _best_files(state)) and settings.resume_from_checkpoint is None:
            raise InputError(
                f"{self.repository} holds checkpoints of another run: continue it with"
                " --resume_from_checkpoint latest, or choose another --hub_model_id"
            )
        self.waiting: dict[str, Path] = {}  # the newest checkpoint, and the best one
        self.thread: threading.Thread | None = None
        self.lock = threading.Lock()

    def fetch_latest(self) -> None:
        """Download the newest complete checkpoint and the best one, if this machine has none."""
        state = self.repository.state()
        complete = [n for n in _steps(state) if f"checkpoint-{n}/{COUNTERS}" in state.files]
        if not complete or complete_checkpoints(self.folder):
            return
        names, staged = [f"checkpoint-{max(complete)}"], self.folder / STAGED
        if self.keeps_best and f"{BEST}/{COUNTERS}" in state.files:
            names.append(BEST)
        fetch = partial(
            snapshot_download,
            self.repository.id,
            revision=state.commit,
            allow_patterns=[f"{name}/*" for name in names],
            local_dir=staged,
        )
        with_retries(str(self.repository), fetch)
        for name in names:
            move_into_place(staged / name, self.folder / name, replace=True)
        shutil.rmtree(staged)

    def offer(self, checkpoint: Path) -> None:
        """Send a complete checkpoint as soon as possible. This method returns at once."""
        kind = BEST if checkpoint.name == BEST else "checkpoint"
        # while one is being sent, the next one needs another name
        staged = self.folder / STAGED / f"{kind}-{read_counters(checkpoint).step}"
        try:
            shutil.rmtree(staged, ignore_errors=True)
            shutil.copytree(checkpoint, staged, copy_function=_link)
        except OSError as error:
            logger.warning("%s is not pushed: %s", checkpoint.name, error)
            return
        with self.lock:
            replaced = self.waiting.pop(kind, None)
            self.waiting[kind] = staged
            if self.thread is None:
                self.thread = threading.Thread(target=self._send, daemon=True)
                self.thread.start()
        if replaced is not None and replaced != staged:
            shutil.rmtree(replaced)

    def finish(self) -> None:
        """Wait for the checkpoints, then publish the pipeline and everything else of the run.

        Raises:
            InputError: if the Hub fails; the message says how to publish later.
        """
        if thread := self.thread:
            thread.join()
        shutil.rmtree(self.folder / STAGED, ignore_errors=True)
        own = self.repository.id
        try:
            publish(PublishSettings(repo_id=own, run=str(self.folder), private=self.private))
        except InputError as error:
            raise InputError(
                f"{self.folder} is complete, but not on the Hub: {error};"
                f" d2i1 publish --run {self.folder} --repo_id {own} tries again"
            ) from error

    def _send(self) -> None:
        while True:
            with self.lock:
                if not self.waiting:
                    self.thread = None
                    return
                staged = self.waiting.pop(next(iter(self.waiting)))
            try:
                self.repository.sync(partial(self._changes, staged), staged.name, quiet=True)
            except Exception as error:  # training and the next checkpoint must not fail
                logger.warning("%s was not pushed: %s", staged.name, error)
            shutil.rmtree(staged, ignore_errors=True)

    def _changes(self, staged: Path, state: RemoteState) -> Changes:
        """Changes that add a checkpoint, and delete older checkpoints beyond the limit.

        The best checkpoint replaces the older one and does not count.
        """
        names = sorted((file.name for file in staged.iterdir()), key=lambda n: (n == COUNTERS, n))
        kind, _, step = staged.name.partition("-")
        folder, own = BEST if kind == BEST else staged.name, int(step)
        files: dict[str, Content] = {f"{folder}/{name}": staged / name for name in names}
        bests = _best_files(state)
        if kind == BEST:
            changed = {n: f for n, f in files.items() if not state.has(n, f)}
            return Changes(changed, [path for path in bests if path not in files])
        older = sorted(step for step in _steps(state) if step < own)
        excess = older[: 1 - self.limit or None] if self.limit else []
        deleted = [path for path in state.files if _step(path) in excess]
        deleted += [] if self.keeps_best else bests  # of an earlier part of this run
        return Changes({n: f for n, f in files.items() if not state.has(n, f)}, deleted)


def _step(path: str) -> int | None:
    """The step of the checkpoint that a file of a repository belongs to."""
    match = FILE.fullmatch(path)
    return int(match[1]) if match else None


def _best_files(state: RemoteState) -> list[str]:
    """The files of the best checkpoint."""
    ours = f"{BEST}/{BEST_FACTS}" in state.files
    return [path for path in state.files if ours and path.startswith(f"{BEST}/")]


def _steps(state: RemoteState) -> set[int]:
    return {step for step in map(_step, state.files) if step is not None}


def _link(source: str, target: str) -> None:
    """Make a hard link to a file, or a copy if links are not possible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
