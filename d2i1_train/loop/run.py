"""Run: what both stages share around their loop; processes, optimiser, logs, checkpoints."""

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    ProjectConfiguration,
)
from diffusers import UNet2DConditionModel
from PIL.Image import Image
from torch import Tensor, nn
from tqdm import tqdm

from d2i1_data.card import Links, write_model_card
from d2i1_data.checkpoints.training_record import write_training
from d2i1_data.dataset.preview import PREVIEW
from d2i1_data.dataset.shards import claim_run
from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.errors import InputError
from d2i1_data.sources import Rows, open_rows, write_report

from ..theta import Theta, trained_tensors
from .batches import Batch, Draws, Example, seeded, stack
from .checkpoint import (
    find_checkpoint,
    load_counters,
    load_tensors,
    load_thetas,
    prune_checkpoints,
    save_checkpoint,
)
from .facts import training_facts
from .lora import fuse, save_adapter
from .optimizer import carry_over, make_beta1, make_optimizer, make_schedule
from .pushing import Pusher
from .settings import TrainSettings
from .validation import Validation, log_picture

SUPPORTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
SHARDING = ("FSDP", "DEEPSPEED", "MEGATRON_LM")
DDP = "use DDP: scripts/accelerate/eight_gpus.yaml"


def open_training_rows(settings: TrainSettings) -> Rows:
    """The real labelled rows a stage learns from."""
    limit, on_bad_row = settings.max_train_samples, settings.on_bad_row
    return open_rows(settings.source, settings.resolution, limit, on_bad_row)


class Run:
    """One stage of training. Every forward of theta_E goes through `model`, see `prepare`."""

    def __init__(
        self, settings: TrainSettings, name: str, pipe: Diff2in1Pipeline, *rows: Rows
    ) -> None:
        self.settings, self.name, self.rows = settings, name, rows
        self.folder = Path(settings.output_dir)
        self.validation = Validation(settings, pipe) if settings.validation_source else None
        log = None if settings.report_to == "none" else settings.report_to
        if log and importlib.util.find_spec(log) is None:
            raise InputError(f"--report_to {log}: not installed, pip install 'diff2in1[{log}]'")
        for kind in SHARDING:
            if os.environ.get(f"ACCELERATE_USE_{kind}", "false").lower() in ("true", "1"):
                raise InputError(
                    f"{kind} is not supported: theta_C and theta_E share tensors; {DDP}"
                )
        if settings.gradient_checkpointing:
            pipe.unet.enable_gradient_checkpointing()
        self.accelerator = Accelerator(
            mixed_precision=settings.mixed_precision,
            gradient_accumulation_steps=settings.gradient_accumulation_steps,
            log_with=log,
            kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
            project_config=ProjectConfiguration(str(self.folder), str(self.folder / "logs")),
        )
        if self.accelerator.distributed_type not in SUPPORTED:
            kind = self.accelerator.distributed_type.value
            raise InputError(f"distributed type {kind} is not supported; {DDP}")
        self.pusher: Pusher | None = None
        if self.accelerator.is_main_process:
            self.pusher = Pusher(settings) if settings.push_to_hub else None
            claim_run(self.folder, asdict(settings), resume=settings.resume_from_checkpoint)
            write_report(self.folder / "skipped.json", *rows)
            if self.pusher and settings.resume_from_checkpoint == "latest":
                self.pusher.fetch_latest()
        self.accelerator.wait_for_everyone()
        self.device = self.accelerator.device
        self.counters: dict[str, int] = {}
        self.step = 0
        self.validated: dict[str, Any] | None = None  # figures of what is published
        self.picture: Image | None = None
        self.seen: list[Tensor] = []  # losses since they were last logged
        threads = settings.dataloader_num_workers
        self.loader = ThreadPoolExecutor(threads) if threads else None
        self.loading: dict[int, list[Future[Example]]] = {}  # by turn

    def prepare(
        self, exploitation: Theta, creation: Theta | None = None, carried: Path | None = None
    ) -> None:
        """Make optimiser and schedule for theta_E, wrap it, load what to resume from.

        carried: an optimiser state to begin with.
        """
        settings = self.settings
        self.thetas = {"exploitation": exploitation}
        if creation is not None:
            self.thetas["creation"] = creation
        if self.accelerator.distributed_type == DistributedType.MULTI_GPU:
            # a host with batch norm sees the samples of all processes, as published
            nn.SyncBatchNorm.convert_sync_batchnorm(exploitation.perception)
        self.trained = [p for p in exploitation.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(exploitation, settings)
        self.rate, self.beta1 = make_schedule(self.optimizer, settings), make_beta1(settings)
        self.model, self.optimizer = self.accelerator.prepare(exploitation, self.optimizer)
        # weights are kept by name in our own files, so that no model is unpickled or stored twice
        self.accelerator.register_save_state_pre_hook(
            lambda models, weights, folder: weights.clear()
        )
        self.accelerator.register_load_state_pre_hook(lambda models, folder: models.clear())
        if settings.resume_from_checkpoint:
            self._resume(settings.resume_from_checkpoint)
        if carried and self.step == 0:
            carry_over(self.optimizer, carried)
        if settings.report_to != "none":
            config = {k: v for k, v in asdict(settings).items() if isinstance(v, int | float | str)}
            own = {"wandb": {"dir": str(self.folder)}}
            self.accelerator.init_trackers(self.name, config, own)

    def _resume(self, wanted: str) -> None:
        path = find_checkpoint(self.folder, wanted)
        if path is None:
            return
        self.accelerator.load_state(str(path))
        load_thetas(path, self.thetas)
        self.counters = load_counters(path)
        self.step = self.counters.pop("step")

    def steps(self) -> Iterator[int]:
        """The optimiser steps still to make, with a progress bar."""
        total = self.settings.max_train_steps
        quiet = not self.accelerator.is_local_main_process
        with tqdm(
            total=total,
            initial=self.step,
            desc=self.name,
            unit="step",
            mininterval=1,
            disable=quiet,
        ) as bar:
            self.bar = bar
            while self.step < total:
                for group in self.optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * self.rate(self.step)
                    if self.beta1:
                        group["betas"] = (self.beta1(self.step), group["betas"][1])
                yield self.step
                self.step += 1
                bar.update()

    def batches(self, mix: Sequence[tuple[Draws, int]]) -> Iterator[Batch]:
        """The micro-batches of this step, each of so many examples of each order of draws.

        Processes and micro-batches take turns along an order, so how a batch is divided among them
        does not change which samples a step sees.
        """
        accumulation = self.settings.gradient_accumulation_steps
        ranks = self.accelerator.num_processes
        for micro in range(accumulation):
            turn = (self.step * accumulation + micro) * ranks + self.accelerator.process_index
            examples = self._load(mix, turn)
            # dropout follows from the micro-batch's turn, whichever process takes it
            torch.manual_seed(seeded(self.settings.seed, "dropout", turn).initial_seed())
            with self.accelerator.accumulate(self.model):
                yield stack(examples, self.device)

    def _load(self, mix: Sequence[tuple[Draws, int]], turn: int) -> list[Example]:
        """The examples of a turn; threads meanwhile go on to this process's next one."""
        if self.loader is None:
            return [draws.at(turn * size + n) for draws, size in mix for n in range(size)]
        for ahead in (turn, turn + self.accelerator.num_processes):
            if ahead not in self.loading:
                places = [(d, ahead * size + n) for d, size in mix for n in range(size)]
                self.loading[ahead] = [self.loader.submit(d.at, place) for d, place in places]
        return [future.result() for future in self.loading.pop(turn)]

    def samples_a_step(self, size: int) -> int:
        """Samples in one optimiser step of all processes, `size` a micro-batch."""
        return size * self.settings.gradient_accumulation_steps * self.accelerator.num_processes

    def learn(self, loss: Tensor, losses: Mapping[str, Tensor]) -> None:
        """Backward; after the last micro-batch of a step also clip, step and clear.

        losses: what is logged, averaged over the micro-batches since the last time.
        """
        self.seen.append(torch.stack(list(losses.values())))
        self.names = list(losses)
        self.accelerator.backward(loss)
        if self.accelerator.sync_gradients and self.settings.max_grad_norm:
            self.accelerator.clip_grad_norm_(self.trained, self.settings.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def after(
        self,
        pipes: Mapping[str, Diff2in1Pipeline],
        counters: dict[str, int],
    ) -> None:
        """Log, save and validate where it is due. pipes: by theta's name, to validate with."""
        step, settings = self.step + 1, self.settings
        last = step == settings.max_train_steps
        if step % settings.logging_steps == 0 or last:
            mean = self.accelerator.reduce(torch.stack(self.seen).mean(0), "mean").tolist()
            self.seen.clear()
            found = dict(zip(self.names, mean, strict=True))
            self.bar.set_postfix({k: f"{v:.3f}" for k, v in found.items()}, refresh=False)
            rates = {f"lr/{g['part']}": g["lr"] for g in self.optimizer.param_groups}
            losses = {f"loss/{name}": value for name, value in found.items()}
            self.accelerator.log(losses | rates, step)
        if step % settings.checkpointing_steps == 0 or last:
            save_checkpoint(self.accelerator, self.folder, step, self.thetas, counters)
            if self.accelerator.is_main_process:
                prune_checkpoints(self.folder, settings.checkpoints_total_limit)
            if self.pusher:
                self.pusher.offer(self.folder / f"checkpoint-{step}")
        if self.validation and (step % settings.validation_steps == 0 or last):
            self._validate(self.validation, pipes, step)

    def _validate(
        self, validation: Validation, pipes: Mapping[str, Diff2in1Pipeline], step: int
    ) -> None:
        """Score and show every theta; the last is the one that is published."""
        if not self.accelerator.is_main_process:
            return
        for name, pipe in pipes.items():
            scores = validation.score(pipe)
            flat = {
                f"{t}/{figure}": v for t, values in scores.items() for figure, v in values.items()
            }
            self.accelerator.log({f"{name}/{key}": value for key, value in flat.items()}, step)
            picture = validation.picture(pipe)
            log_picture(self.accelerator, f"{name}/validation", picture, step)
        if validation.best:
            rises = validation.tasks[validation.best.task].meter.higher_is_better(
                validation.best.figure
            )
            tensors = trained_tensors(self.published, self.thetas["exploitation"])
            validation.best.keep(scores, rises, step, tensors)

    @property
    def published(self) -> Theta:
        """theta_C, or before there are two, theta."""
        return self.thetas.get("creation", self.thetas["exploitation"])

    def finish(
        self, pipe: Diff2in1Pipeline, load_base_unet: Callable[[], UNet2DConditionModel]
    ) -> Path:
        """Write the trained pipeline, push it where that is asked for, and end the run; the
        pipeline's folder."""
        folder = self.folder / "pipeline"
        if self.accelerator.is_main_process:
            self._write(folder, pipe, load_base_unet)
        if self.loader:
            self.loader.shutdown(cancel_futures=True)
        for source in (rows.source for rows in self.rows):
            for what, count in source.notes.items():
                self.accelerator.print(f"{source.name}: {what}: {count}")
        for tracker in self.accelerator.trackers:
            tracker.finish()
        self.accelerator.wait_for_everyone()
        if self.pusher:
            self.pusher.finish()
        return folder

    def _write(
        self,
        folder: Path,
        pipe: Diff2in1Pipeline,
        load_base_unet: Callable[[], UNet2DConditionModel],
    ) -> None:
        """Write what the run gives: with a LoRA the adapter alone, then the pipeline beside it."""
        best = self.validation and self.validation.best
        if best and best.file.is_file():  # a run may stop before it is validated
            load_tensors(best.file, self.published, self.thetas["exploitation"])
        if self.validation:
            self.validated = self.validation.report(pipe)
            self.picture = self.validation.picture(pipe)
        if pipe.config.trained_unet == "lora":
            self._publish(pipe, self.folder / "adapter", partial(save_adapter, pipe))
            fuse(pipe)
        if pipe.config.trained_unet != "none" and pipe.config.default_create_with == "base":
            pipe.register_modules(base_unet=load_base_unet())
        self._publish(pipe, folder, pipe.save_pretrained)

    def _publish(self, pipe: Diff2in1Pipeline, folder: Path, save: Callable[[Path], None]) -> None:
        """Write a pipeline or adapter with its card beside its place, and move it there."""
        temporary = folder.with_name(f".{folder.name}.tmp")
        for old in (temporary, folder):  # of a run that was stopped here, or is resumed
            shutil.rmtree(old, ignore_errors=True)
        save(temporary)
        if self.picture:
            self.picture.save(temporary / PREVIEW)
        write_training(temporary, training_facts(self, pipe))
        write_model_card(temporary, Links(name=folder.name))
        os.replace(temporary, folder)
