"""Pushing: checkpoints go to the Hub while the training that wrote them goes on."""

import logging
import os
import re
import shutil
import threading
from functools import partial
from pathlib import Path

from huggingface_hub import snapshot_download

from d2i1_data.errors import InputError
from d2i1_data.hub import Changes, Content, Held, Repository, patiently
from d2i1_data.publish.checkpoint import check_model
from d2i1_data.publish.publish import publish
from d2i1_data.publish.settings import PublishSettings

from .checkpoint import complete_checkpoints
from .settings import TrainSettings

STAGED = ".push"  # holds what is on its way, which pruning must not take from under it
FILE = re.compile(r"checkpoint-(0|[1-9]\d*)/(.*)")
COUNTERS = "counters.json"  # the last file of a checkpoint: with it, it is complete

logger = logging.getLogger(__name__)


class Pusher:
    """Sends a run's newest checkpoint from a thread, so that the loop never waits for the network.

    A checkpoint that is written while another is on its way goes next, in place of any that waited
    before it. What cannot be sent is logged, and training goes on.
    """

    def __init__(self, settings: TrainSettings) -> None:
        """Makes the repository: a token that may not write, or what others have there, ends a run
        before it begins."""
        self.folder, self.limit = Path(settings.output_dir), settings.checkpoints_total_limit
        name = settings.hub_model_id or self.folder.resolve().name
        self.private, self.repository = settings.hub_private_repo, Repository(name, "model")
        held = self.repository.create(self.private)
        check_model(self.repository, held, whole=True)
        if _numbers(held) and settings.resume_from_checkpoint is None:
            raise InputError(
                f"{self.repository} holds checkpoints of another run: continue it with"
                " --resume_from_checkpoint latest, or choose another --hub_model_id"
            )
        self.waiting: Path | None = None
        self.sending: threading.Thread | None = None
        self.lock = threading.Lock()

    def fetch_latest(self) -> None:
        """Bring the newest checkpoint of the repository to a machine that has none."""
        held = self.repository.held()
        complete = [n for n in _numbers(held) if f"checkpoint-{n}/{COUNTERS}" in held.files]
        if not complete or complete_checkpoints(self.folder):
            return
        name, staged = f"checkpoint-{max(complete)}", self.folder / STAGED
        fetch = partial(
            snapshot_download,
            self.repository.id,
            revision=held.commit,
            allow_patterns=f"{name}/*",
            local_dir=staged,
        )
        patiently(str(self.repository), fetch)
        os.replace(staged / name, self.folder / name)
        shutil.rmtree(staged)

    def offer(self, checkpoint: Path) -> None:
        """Send a complete checkpoint when its turn comes; returns at once."""
        staged = self.folder / STAGED / checkpoint.name
        try:
            shutil.rmtree(staged, ignore_errors=True)
            shutil.copytree(checkpoint, staged, copy_function=_link)
        except OSError as error:
            logger.warning("%s is not pushed: %s", checkpoint.name, error)
            return
        with self.lock:
            overtaken, self.waiting = self.waiting, staged
            if self.sending is None:
                self.sending = threading.Thread(target=self._send, daemon=True)
                self.sending.start()
        if overtaken is not None:
            shutil.rmtree(overtaken)

    def finish(self) -> None:
        """Wait for what is on its way, then publish all that the run left."""
        if sending := self.sending:
            sending.join()
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
                staged, self.waiting = self.waiting, None
                if staged is None:
                    self.sending = None
                    return
            try:
                self.repository.bring(partial(self._lacking, staged), staged.name, quiet=True)
            except Exception as error:  # training does not end for it, nor the next one's turn
                logger.warning("%s was not pushed: %s", staged.name, error)
            shutil.rmtree(staged, ignore_errors=True)

    def _lacking(self, staged: Path, held: Held) -> Changes:
        """A checkpoint's files, and what the limit leaves no room for of those before it."""
        names = sorted((file.name for file in staged.iterdir()), key=lambda n: (n == COUNTERS, n))
        files: dict[str, Content] = {f"{staged.name}/{name}": staged / name for name in names}
        own = int(staged.name.rpartition("-")[2])
        before = sorted(number for number in _numbers(held) if number < own)
        spare = before[: 1 - self.limit or None] if self.limit else []
        gone = [path for path in held.files if _number(path) in spare]
        return Changes({n: f for n, f in files.items() if not held.has(n, f)}, gone)


def _number(path: str) -> int | None:
    """The step of the checkpoint that a file in a repository is of."""
    match = FILE.fullmatch(path)
    return int(match[1]) if match else None


def _numbers(held: Held) -> set[int]:
    return {number for number in map(_number, held.files) if number is not None}


def _link(source: str, target: str) -> None:
    """The same file under another name, or where there are no such links a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
