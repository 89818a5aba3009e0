"""Run: one stage of training, with its processes, optimiser, logs and checkpoints."""

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType, broadcast_object_list
from torch import Tensor, nn
from tqdm import tqdm

from d2i1_data.card.command import changed_flags
from d2i1_data.dataset.files import as_os_error, explain_full_disk
from d2i1_data.dataset.record import RunRecord, claimed_run, write_run
from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.errors import InputError
from d2i1_data.sources import Rows, open_rows, write_report

from ..theta import make_theta, trained_tensors, twin
from .accelerator import open_accelerator
from .batches import TrainingBatch, seeded, stack
from .checkpoint import (
    BEST,
    Counters,
    find_checkpoint,
    load_checkpoint,
    prune_checkpoints,
    read_counters,
    save_checkpoint,
    set_aside,
)
from .loader import Loader
from .manifest import check_facts, deciding_facts
from .mix import Mix
from .optimizer import load_optimizer, make_beta1, make_optimizer, make_schedule
from .pushing import Pusher
from .settings import TrainSettings
from .validation import Scores, Validation, log_picture, remove_stale_best

# called at the end of a step with its number, from 1, and the pipelines by name of their theta
Observer = Callable[[int, Mapping[str, Diff2in1Pipeline]], None]


def open_training_rows(settings: TrainSettings) -> Rows:
    """Open the real labelled rows that a stage learns from."""
    return open_rows(
        settings.source,
        settings.resolution,
        settings.max_train_samples,
        settings.on_bad_row,
        subset_seed=settings.subset_seed,
        max_pixels=settings.max_pixels,
        captions=settings.captions,
    )


class Run:
    """One stage of training.

    Every training forward of theta_E must go through `model`, the object that accelerate prepared.
    Otherwise several processes would not average their gradients, and no error would show it.

    Args:
        settings: settings of the stage.
        name: name of the stage, such as `warm-up`.
        pipe: the pipeline to train. Its modules become theta_E.
        rows: the real rows, then the created rows if there are any.
        follows: whether theta_C is a twin of theta_E. Otherwise both are the same module.
        optimizer_file: optimiser state of another run to start with; None starts with an empty one.
        observer: called at the end of each step.

    Raises:
        InputError: if the settings cannot be used. Nothing is written then.
    """

    def __init__(
        self,
        settings: TrainSettings,
        name: str,
        pipe: Diff2in1Pipeline,
        rows: Sequence[Rows],
        *,
        follows: bool = False,
        optimizer_file: Path | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.settings, self.name, self.rows, self.observer = settings, name, rows, observer
        self.folder = Path(settings.output_dir)
        self.validation = Validation(settings, pipe) if settings.validation_source else None
        if settings.gradient_checkpointing:
            pipe.unet.enable_gradient_checkpointing()
        self.accelerator = open_accelerator(settings)
        self.processes = self.accelerator.num_processes
        precision = self.accelerator.mixed_precision
        self.facts = deciding_facts(settings, rows, self.processes, precision)
        self.loader = Loader(settings.dataloader_num_workers, self.processes)
        self.losses: list[Tensor] = []  # losses of all micro-batches since the last log entry
        self.loss_names: list[str] = []
        self.gradient_norm: Tensor | None = None  # of the last step, if gradients are clipped
        self.bar: Any = None  # the progress bar of `steps`
        with ExitStack() as held:  # a run that cannot begin releases what it holds
            held.enter_context(explain_full_disk(self.folder))
            held.enter_context(as_os_error())
            self._claim_folder(held)
            self._prepare(pipe, follows)
            self.counters = self._resume()
            self.step = self.counters.step
            if optimizer_file and self.step == 0:
                load_optimizer(self.optimizer, optimizer_file)
            held.enter_context(_silent_writers())
            self._open_trackers()
            self.held = held.pop_all()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self.held.__exit__(*error)

    def _claim_folder(self, held: ExitStack) -> None:
        """Claim and lock the folder of the run, and the repository that it is pushed to."""
        settings, self.pusher = self.settings, None
        if self.accelerator.is_main_process:
            self.pusher = Pusher(settings) if settings.push_to_hub else None
            record = _run_record(self.name, settings)
            resume = settings.resume_from_checkpoint
            self.begins = held.enter_context(claimed_run(self.folder, record, resume))
            if self.pusher and resume == "latest":
                self.pusher.fetch_latest()
        self.accelerator.wait_for_everyone()

    def _prepare(self, pipe: Diff2in1Pipeline, follows: bool) -> None:
        """Make both thetas, the optimiser of theta_E and its schedule."""
        settings, self.device = self.settings, self.accelerator.device
        self.exploitation = make_theta(pipe.to(self.device), denoises=settings.denoise_weight > 0)
        self.creation = twin(self.exploitation) if follows else self.exploitation
        self.thetas = {"exploitation": self.exploitation}
        if follows:
            self.thetas["creation"] = self.creation
        if self.accelerator.distributed_type == DistributedType.MULTI_GPU:
            # batch norm uses the samples of all processes, as in the published hosts
            nn.SyncBatchNorm.convert_sync_batchnorm(self.exploitation.perception)
        self.trained = [p for p in self.exploitation.parameters() if p.requires_grad]
        optimizer = make_optimizer(self.exploitation, settings)
        self.rate, self.beta1 = make_schedule(optimizer, settings), make_beta1(settings)
        self.model, self.optimizer = self.accelerator.prepare(self.exploitation, optimizer)

    def _resume(self) -> Counters:
        """Load the checkpoint that the settings name. Return its counters, or new ones."""
        # checkpoint.py stores weights by name, so that no model is unpickled or stored twice
        self.accelerator.register_save_state_pre_hook(
            lambda models, weights, folder: weights.clear()
        )
        self.accelerator.register_load_state_pre_hook(lambda models, folder: models.clear())
        found = broadcast_object_list([self._find_checkpoint()])
        path, damaged = found[0]
        counters = Counters() if path is None else self._load(path)
        if self.accelerator.is_main_process:
            for other, what in damaged.items():
                kept = set_aside(other)
                tqdm.write(f"{other} is damaged ({what}) and now {kept}: continuing from {path}")
            if not self.begins:
                write_run(self.folder, _run_record(self.name, self.settings))
            write_report(self.folder / "skipped.json", *self.rows)
            remove_stale_best(self.folder, self.validation.best if self.validation else None)
        return counters

    def _find_checkpoint(self) -> tuple[Path | None, dict[Path, str]]:
        wanted = self.settings.resume_from_checkpoint
        if wanted is None or not self.accelerator.is_main_process:
            return None, {}
        return find_checkpoint(self.folder, wanted)

    def _load(self, path: Path) -> Counters:
        """Load a checkpoint of this run. Return its counters."""
        counters, settings = read_counters(path), self.settings
        check_facts(path, self.facts, settings, self.processes)
        if counters.step > settings.max_train_steps:
            raise InputError(
                f"--max_train_steps {settings.max_train_steps}: {path} has {counters.step} already"
            )
        load_checkpoint(self.accelerator, path, self.thetas)
        return counters

    def _open_trackers(self) -> None:
        if not self.accelerator.log_with:
            return
        given = asdict(self.settings)
        config = {key: one for key, one in given.items() if isinstance(one, int | float | str)}
        self.accelerator.init_trackers(self.name, config, {"wandb": {"dir": str(self.folder)}})

    def steps(self) -> Iterator[int]:
        """Yield the number of each remaining optimiser step, with a progress bar."""
        total = self.settings.max_train_steps
        # only what differs from the default is passed, so that TQDM_DISABLE works
        hidden = {} if self.accelerator.is_local_main_process else {"disable": True}
        with tqdm(
            total=total,
            initial=self.step,
            desc=self.name,
            unit="step",
            mininterval=1,
            **hidden,
        ) as self.bar:
            while self.step < total:
                for group in self.optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * self.rate(self.step)
                    if self.beta1:
                        group["betas"] = (self.beta1(self.step), group["betas"][1])
                yield self.step
                self.step += 1
                self.bar.update()

    def batches(self, mix: Mix) -> Iterator[TrainingBatch]:
        """Yield the micro-batches of this step and process.

        Processes and micro-batches take turns along an order of samples. So a step takes the same
        samples, however its batch is divided among them.

        Args:
            mix: the samples of each micro-batch.
        """
        accumulation = self.settings.gradient_accumulation_steps
        ranks = self.accelerator.num_processes
        for micro in range(accumulation):
            turn = (self.step * accumulation + micro) * ranks + self.accelerator.process_index
            examples = self.loader.load(mix, turn)
            # the turn decides dropout, so that the process does not matter
            torch.manual_seed(seeded(self.settings.seed, "dropout", turn).initial_seed())
            with self.accelerator.accumulate(self.model):
                yield stack(examples, self.device)

    def samples_per_step(self, size: int) -> int:
        """Count the samples of one optimiser step of all processes.

        Args:
            size: samples in a micro-batch.
        """
        return size * self.settings.gradient_accumulation_steps * self.accelerator.num_processes

    def learn(self, loss: Tensor, losses: Mapping[str, Tensor]) -> None:
        """Run the backward pass of a micro-batch. After the last one of a step, update the weights.

        Args:
            loss: the loss to minimise.
            losses: losses to log, averaged over the micro-batches since the last log entry.
        """
        self.losses.append(torch.stack(list(losses.values())))
        self.loss_names = list(losses)
        self.accelerator.backward(loss)
        if self.accelerator.sync_gradients and self.settings.max_grad_norm:
            norm = self.accelerator.clip_grad_norm_(self.trained, self.settings.max_grad_norm)
            # the gradient scaler of float16 leaves out steps with infinite gradients
            self.gradient_norm = None if self.accelerator.scaler else norm
        self.optimizer.step()
        self.optimizer.zero_grad()

    def end_step(
        self, pipes: Mapping[str, Diff2in1Pipeline], consumed: int = 0, followed: int = 0
    ) -> None:
        """Log, save a checkpoint and validate, if the settings say so. Then call the observer.

        Args:
            pipes: pipelines to validate, by the name of their theta. The last one is published.
            consumed: number of samples that theta_E has consumed so far.
            followed: number of updates of theta_C so far.
        """
        step, settings = self.step + 1, self.settings
        self._require_finite(step)
        last, counters = step == settings.max_train_steps, Counters(step, consumed, followed)
        if step % settings.logging_steps == 0 or last:
            self._log(step)
        # before the checkpoint: a run that resumes at this step has validated it
        if self.validation and (step % settings.validation_steps == 0 or last):
            self._validate(self.validation, pipes, counters)
        if step % settings.checkpointing_steps == 0 or last:
            self._save(f"checkpoint-{step}", counters)
            if self.accelerator.is_main_process:
                prune_checkpoints(self.folder, settings.checkpoints_total_limit)
        if self.observer:
            self.observer(step, pipes)

    def _require_finite(self, step: int) -> None:
        """Stop a run that diverged. One check for a whole step waits for a GPU only once.

        Raises:
            InputError: if a loss or the gradient norm of this step is not finite.
        """
        losses = torch.stack(self.losses[-self.settings.gradient_accumulation_steps :]).sum(0)
        norm = losses.new_zeros(1) if self.gradient_norm is None else self.gradient_norm.view(1)
        values = torch.cat([losses, norm.to(losses)]).tolist()
        names = [*(f"the loss of {name}" for name in self.loss_names), "the norm of the gradients"]
        wrong = [n for n, value in zip(names, values, strict=True) if not math.isfinite(value)]
        if wrong:
            raise InputError(self._diverged(step, f"{' and '.join(wrong)} is not finite"))

    def _diverged(self, step: int, what: str) -> str:
        rates = ", ".join(f"{g['part']} {g['lr']:g}" for g in self.optimizer.param_groups)
        return (
            f"{self.name} diverged: in step {step} {what}; nothing of it was saved. Learning rates"
            f" were {rates}: lower them, then continue from an older checkpoint or start anew"
        )

    def _save(self, name: str, counters: Counters, best: Mapping[str, Any] | None = None) -> None:
        """Write a checkpoint, and push it if the settings say so.

        Raises:
            InputError: if a weight is not finite.
        """
        for theta in self.thetas.values():
            tensors = trained_tensors(theta, self.exploitation)
            wrong = [n for n, tensor in tensors.items() if not tensor.isfinite().all()]
            if wrong:
                raise InputError(
                    self._diverged(counters.step, f"weights of {wrong[0]} are not finite")
                )
        path = self.folder / name
        save_checkpoint(self.accelerator, path, counters, self.thetas, self.facts, best)
        if self.pusher:
            self.pusher.offer(path)

    def _log(self, step: int) -> None:
        mean = self.accelerator.reduce(torch.stack(self.losses).mean(0), "mean").tolist()
        self.losses.clear()
        means = dict(zip(self.loss_names, mean, strict=True))
        self.bar.set_postfix({k: f"{v:.3f}" for k, v in means.items()}, refresh=False)
        rates = {f"lr/{g['part']}": g["lr"] for g in self.optimizer.param_groups}
        losses = {f"loss/{name}": value for name, value in means.items()}
        self.accelerator.log(losses | rates, step)

    def _validate(
        self, validation: Validation, pipes: Mapping[str, Diff2in1Pipeline], counters: Counters
    ) -> None:
        """Score every theta and log its pictures. Save a checkpoint if the last theta is best."""
        scores: Scores = {}
        if self.accelerator.is_main_process:
            scores = self._score(validation, pipes, counters.step)
        if validation.best:
            # one process scores, all save
            decision = [validation.best.better(scores) if scores else None]
            (better,) = broadcast_object_list(decision)
            if better:
                self._save(BEST, counters, {**better, "step": counters.step})

    def _score(
        self, validation: Validation, pipes: Mapping[str, Diff2in1Pipeline], step: int
    ) -> Scores:
        """Score every theta and log its pictures. Return the scores of the last one."""
        for name, pipe in pipes.items():
            scores = validation.score(pipe)
            flat = {
                f"{name}/{task}/{metric}": value
                for task, values in scores.items()
                for metric, value in values.items()
            }
            self.accelerator.log(flat, step)
            picture = validation.picture(pipe)
            log_picture(self.accelerator, f"{name}/validation", picture, step)
        return scores

    def close(self) -> None:
        """Stop the threads and close the trackers."""
        self.loader.close()
        for tracker in self.accelerator.trackers:
            tracker.finish()


@contextmanager
def _silent_writers() -> Iterator[None]:
    """Hide the tracebacks of threads that cannot write. TensorBoard raises the error again here."""
    before = threading.excepthook

    def hook(error: Any) -> None:
        if not issubclass(error.exc_type, OSError):
            before(error)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def _run_record(name: str, settings: TrainSettings) -> RunRecord:
    given = asdict(settings)
    return RunRecord(name, changed_flags(given, type(settings)), given)
