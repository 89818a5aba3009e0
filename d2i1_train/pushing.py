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
from d2i1_data.publish import check_model, publish
from d2i1_data.settings import PublishSettings

from .checkpoint import complete_checkpoints
from .settings import TrainSettings

STAGED = ".push"  # holds what is on its way, which pruning must not take from under it
NUMBERED = re.compile(r"checkpoint-(\d+)/")
COUNTERS = "counters.json"  # last: what resumes looks for it


class Pusher:
    """Sends a run's newest checkpoint from a thread, so that the loop never waits for the network.

    A checkpoint that is written while another is on its way goes next, in place of any that waited
    before it. What cannot be sent is logged, and training goes on.
    """

    def __init__(self, settings: TrainSettings) -> None:
        """Makes the repository: a token that may not write ends a run before it begins."""
        self.folder, self.limit = Path(settings.output_dir), settings.checkpoints_total_limit
        name = settings.hub_model_id or self.folder.resolve().name
        self.private, self.repository = settings.hub_private_repo, Repository(name, "model")
        self.repository.create(self.private)
        check_model(self.repository, self.repository.held(), whole=True)
        self.waiting: Path | None = None
        self.sending: threading.Thread | None = None
        self.lock = threading.Lock()

    def fetch_latest(self) -> None:
        """Bring the newest checkpoint of the repository to a machine that has none."""
        numbers = _numbers(self.repository.held())
        if not numbers or complete_checkpoints(self.folder):
            return
        name, staged = f"checkpoint-{max(numbers)}", self.folder / STAGED
        patiently(
            str(self.repository),
            lambda: snapshot_download(
                self.repository.id, allow_patterns=f"{name}/*", local_dir=staged
            ),
        )
        os.replace(staged / name, self.folder / name)
        shutil.rmtree(staged)

    def offer(self, checkpoint: Path) -> None:
        """Send a complete checkpoint when its turn comes; returns at once."""
        staged = self.folder / STAGED / checkpoint.name
        shutil.rmtree(staged, ignore_errors=True)
        shutil.copytree(checkpoint, staged, copy_function=_link)
        with self.lock:
            overtaken, self.waiting = self.waiting, staged
            if self.sending is None:
                self.sending = threading.Thread(target=self._send, daemon=True)
                self.sending.start()
        if overtaken is not None:
            shutil.rmtree(overtaken)

    def finish(self) -> None:
        """Wait for what is on its way, then publish all that the run left."""
        if self.sending is not None:
            self.sending.join()
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
            except InputError as error:
                logging.getLogger(__name__).warning("%s was not pushed: %s", staged.name, error)
            shutil.rmtree(staged)

    def _lacking(self, staged: Path, held: Held) -> Changes:
        """A checkpoint's files, and what the limit leaves no room for."""
        names = sorted((file.name for file in staged.iterdir()), key=lambda n: (n == COUNTERS, n))
        files: dict[str, Content] = {f"{staged.name}/{name}": staged / name for name in names}
        old = _numbers(held) - {int(staged.name.rpartition("-")[2])}
        spare = sorted(old)[: 1 - self.limit or None] if self.limit else []
        gone = [path for path in held.files if _number(path) in spare]
        return Changes({n: f for n, f in files.items() if not held.has(n, f)}, gone)


def _number(path: str) -> int | None:
    """The step of the checkpoint that a file in a repository is of."""
    match = NUMBERED.match(path)
    return int(match[1]) if match else None


def _numbers(held: Held) -> set[int]:
    return {number for number in map(_number, held.files) if number is not None}


def _link(source: str, target: str) -> None:
    """The same file under another name, or where there are no such links a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
