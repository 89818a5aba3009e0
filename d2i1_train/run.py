"""Run: what both stages share around their loop; processes, optimiser, logs, checkpoints."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, ProjectConfiguration
from diffusers.optimization import get_scheduler
from torch import Tensor
from tqdm import tqdm

from d2i1_data.card import write_model_card
from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.errors import InputError
from d2i1_data.preview import coloured, grid
from d2i1_data.schema import read_tasks
from d2i1_data.sources import Rows, open_rows, write_report
from d2i1_data.write import claim_run

from .batches import Batch, Draws, seeded, stack
from .checkpoint import (
    find_checkpoint,
    load_counters,
    load_optimizer,
    load_thetas,
    prune_checkpoints,
    save_checkpoint,
)
from .evaluate import common_tasks, figures, measure
from .settings import TrainSettings
from .theta import Theta

SUPPORTED = (
    DistributedType.NO,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_GPU,
)

# paths, and what a resumed run need not share with an uninterrupted one
PRIVATE = ("output_dir", "pipeline", "base", "validation_source", "resume_from_checkpoint")


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
        self.validation: Rows | None = None
        if settings.validation_source:
            spec, limit = settings.validation_source, settings.num_validation_samples
            self.validation = open_rows(spec, settings.resolution, limit, settings.on_bad_row)
            common_tasks(pipe, self.validation.source)
        log = None if settings.report_to == "none" else settings.report_to
        self.accelerator = Accelerator(
            mixed_precision=settings.mixed_precision,
            gradient_accumulation_steps=settings.gradient_accumulation_steps,
            log_with=log,
            project_config=ProjectConfiguration(str(self.folder), str(self.folder / "logs")),
        )
        if self.accelerator.distributed_type not in SUPPORTED:
            kind = self.accelerator.distributed_type.value
            raise InputError(f"distributed type {kind} is not supported: use DDP (MULTI_GPU)")
        if self.accelerator.is_main_process:
            claim_run(self.folder, asdict(settings), resume=settings.resume_from_checkpoint)
            write_report(self.folder / "skipped.json", *rows)
        self.accelerator.wait_for_everyone()
        self.device = self.accelerator.device
        self.counters: dict[str, int] = {}
        self.step = 0

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
        self.trained = [p for p in exploitation.parameters() if p.requires_grad]
        decay = settings.adam_weight_decay
        self.optimizer = torch.optim.AdamW(
            self.trained, settings.learning_rate, weight_decay=decay, fused=True
        )
        schedule = get_scheduler(
            settings.lr_scheduler,
            self.optimizer,
            num_warmup_steps=settings.lr_warmup_steps,
            num_training_steps=settings.max_train_steps,
        )
        # a pure function of the step: nothing to save, and nothing to prepare for processes
        self.rate = schedule.lr_lambdas[0]
        self.model, self.optimizer = self.accelerator.prepare(exploitation, self.optimizer)
        # weights are kept by name in our own files, so that no model is unpickled or stored twice
        self.accelerator.register_save_state_pre_hook(
            lambda models, weights, folder: weights.clear()
        )
        self.accelerator.register_load_state_pre_hook(lambda models, folder: models.clear())
        if settings.resume_from_checkpoint:
            self._resume(settings.resume_from_checkpoint)
        if carried and self.step == 0:
            load_optimizer(self.optimizer, carried)
        if settings.report_to != "none":
            config = {k: v for k, v in asdict(settings).items() if isinstance(v, int | float | str)}
            self.accelerator.init_trackers(self.name, config)

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
                    group["lr"] = self.settings.learning_rate * self.rate(self.step)
                # what a host draws at random (dropout) follows from seed, step and rank alone
                rank = self.accelerator.process_index
                torch.manual_seed(seeded(self.settings.seed, self.step, rank).initial_seed())
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
            examples = [draws.at(turn * size + n) for draws, size in mix for n in range(size)]
            with self.accelerator.accumulate(self.model):
                yield stack(examples, self.device)

    def samples_a_step(self, size: int) -> int:
        """Samples in one optimiser step of all processes, `size` a micro-batch."""
        return size * self.settings.gradient_accumulation_steps * self.accelerator.num_processes

    def learn(self, loss: Tensor) -> None:
        """Backward; after the last micro-batch of a step also clip, step and clear."""
        self.accelerator.backward(loss)
        if self.accelerator.sync_gradients:
            self.accelerator.clip_grad_norm_(self.trained, self.settings.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def after(
        self,
        losses: Mapping[str, Tensor],
        pipes: Mapping[str, Diff2in1Pipeline],
        counters: dict[str, int],
    ) -> None:
        """Log, validate and save where it is due. pipes: by theta's name, to validate with."""
        step, settings = self.step + 1, self.settings
        last = step == settings.max_train_steps
        if step % settings.logging_steps == 0 or last:
            values = {f"loss/{name}": loss.item() for name, loss in losses.items()}
            shown = {name: f"{loss.item():.3f}" for name, loss in losses.items()}
            self.bar.set_postfix(shown, refresh=False)
            self.accelerator.log(values | {"lr": self.optimizer.param_groups[0]["lr"]}, step)
        if self.validation and (step % settings.validation_steps == 0 or last):
            for name, pipe in pipes.items():
                self._validate(self.validation, name, pipe, step)
        if step % settings.checkpointing_steps == 0 or last:
            save_checkpoint(self.accelerator, self.folder, step, self.thetas, counters)
            if self.accelerator.is_main_process:
                prune_checkpoints(self.folder, settings.checkpoints_total_limit)

    def _validate(self, rows: Rows, name: str, pipe: Diff2in1Pipeline, step: int) -> None:
        """Scores and pictures (RGB, then truth, prediction and uncertainty of each task)."""
        if not self.accelerator.is_main_process:
            return
        tasks, training = common_tasks(pipe, rows.source), pipe.perception.training
        pipe.perception.eval()
        sums = measure(pipe, rows.samples(), tasks, quiet=True)
        scores = figures(tasks, {key: value.sum(0) for key, value in sums.items()})
        shown = list(islice(rows.samples(), 4))
        output = pipe.predict([sample.image for sample in shown])
        pipe.perception.train(training)
        pictures = []
        for n, sample in enumerate(shown):
            row = [sample.image]
            for key, task in tasks.items():
                unsure = np.round(output.uncertainty[key][n] * 255).astype(np.uint8)
                row += [coloured(sample, key, task)]
                row += [task.family.colorize(output.predictions[key][n])]
                row += [np.repeat(unsure[..., None], 3, -1)]
            pictures.append(row)
        flat = {f"{name}/{key}/{m}": v for key, values in scores.items() for m, v in values.items()}
        self.accelerator.log(flat, step)
        picture = {f"{name}/validation": np.asarray(grid(pictures))[None]}  # [1, H, W, 3]
        for tracker in self.accelerator.trackers:
            layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images(picture, step, **layout)

    def finish(self, pipe: Diff2in1Pipeline) -> Path:
        """Write the trained pipeline and end the run; its folder."""
        folder = self.folder / "pipeline"
        if self.accelerator.is_main_process:
            pipe.save_pretrained(folder)
            configs = {name: family.config() for name, family in pipe.perception.families.items()}
            facts = {"stage": self.name, **asdict(self.settings)}
            facts |= {"source": self.rows[0].source.name, "created": len(self.rows) > 1}
            facts = {k: v for k, v in facts.items() if k not in PRIVATE and v is not None}
            write_model_card(folder, read_tasks(configs, self.name), pipe.config, facts)
        for source in (rows.source for rows in self.rows):
            for what, count in source.notes.items():
                self.accelerator.print(f"{source.name}: {what}: {count}")
        self.accelerator.end_training()
        return folder
