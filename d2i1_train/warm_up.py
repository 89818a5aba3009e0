"""Stage 1, warm-up: theta learns from real labels. theta_C and theta_E both start from it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from d2i1_data.checkpoints.bases import explained, find_base
from d2i1_data.dataset.schema import describe_tasks
from d2i1_data.diff2in1 import HOSTS, Base, Conditioning, Diff2in1Pipeline
from d2i1_data.errors import InputError
from d2i1_data.sources import Source
from d2i1_data.tasks import TASKS, Task

from .loop.augment import make_augmentation
from .loop.batches import SampleOrder, TrainingBatch
from .loop.cache import Cache
from .loop.examples import Examples, Use
from .loop.finish import finish
from .loop.lora import add_lora
from .loop.mix import Mix
from .loop.run import Run, open_training_rows
from .loop.trained_size import register_size
from .objective import DENOISE, objective
from .settings import HOST_SETTINGS, WarmUpSettings


def warm_up(settings: WarmUpSettings) -> Path:
    """Train a new host on the real labels of a source.

    The host reads one pass of the U-Net at t = 0 with the empty prompt. In the paper the U-Net is
    frozen.

    Args:
        settings: source, base, host, and how to train.

    Returns:
        The folder of the trained pipeline.

    Raises:
        InputError: if the settings, the source or the base cannot be used.

    Source: paper Sec. 3, first stage.
    """
    rows = open_training_rows(settings)
    tasks = choose_tasks(settings.host, settings.tasks, rows.source)
    torch.manual_seed(settings.seed)
    base = find_base(settings.base, settings.revision, settings.variant, settings.base_config)
    base = replace(base, prediction_type=settings.prediction_type)
    pipe = mount(settings, base, tasks)
    register_size(pipe, settings, rows)
    # after all checks, because it claims the folder
    with Run(settings, "warm-up", pipe, [rows]) as run:
        conditioning = pipe.perception_conditioning()
        weights = {name: task.weight for name, task in tasks.items()}
        weights[DENOISE] = settings.denoise_weight
        augment, use = make_augmentation(settings), Use(denoise=settings.denoise_weight > 0)
        cache = Cache(settings.cache_dir)
        real = Examples(rows, pipe, run.exploitation, conditioning, cache, augment=augment, use=use)
        mix = Mix([(SampleOrder([real], settings.seed), settings.real_batch_size)])

        for _ in run.steps():
            for batch in run.batches(mix):
                learn(run, batch, conditioning, weights)
            run.end_step({"theta": pipe})
        return finish(run, pipe, base.load_unet)


def learn(
    run: Run, batch: TrainingBatch, conditioning: Conditioning, weights: Mapping[str, float]
) -> None:
    """Learn from one micro-batch.

    Args:
        run: has theta and its optimiser.
        batch: real samples.
        conditioning: the empty prompt, a batch of one.
        weights: weight of each task and of the denoising loss, by name.
    """
    # one pass
    inputs = (batch.latents, conditioning, batch.size, batch.pyramid)
    output = run.model(*inputs, batch.targets, batch.noised)
    # objective
    loss, losses = objective(weights, output, batch.noised)
    # step
    run.learn(loss, losses)


def choose_tasks(host: str, names: str | None, source: Source) -> dict[str, Task]:
    """Choose the tasks that a host learns from a source.

    Args:
        host: name of the host.
        names: comma-separated tasks; None takes all tasks that the host can learn.
        source: the source of the labels.

    Raises:
        InputError: if the host is unknown, the source lacks a task, or the host cannot learn it.
    """
    if host not in HOSTS:
        raise InputError(f"--host: unknown host {host!r}: choose from {', '.join(HOSTS)}")
    families = {name: task.family for name, task in source.tasks.items()}
    wanted = HOSTS[host].choose_tasks(families)
    if names is not None:
        wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in TASKS:
            raise InputError(f"--tasks: unknown task {name!r}, choose from {', '.join(TASKS)}")
        if name not in source.tasks:
            has = ", ".join(source.tasks) or "none"
            raise InputError(f"--tasks: source {source.name} has no labels of {name}, it has {has}")
    if not wanted:
        has = ", ".join(source.tasks) or "none"
        raise InputError(f"source {source.name} has labels of {has}: {host} cannot learn them")
    try:
        HOSTS[host].check_tasks({name: families[name] for name in wanted})
    except ValueError as error:
        raise InputError(f"--tasks: {error}") from error
    return {name: source.tasks[name] for name in wanted}


def mount(settings: WarmUpSettings, base: Base, tasks: dict[str, Task]) -> Diff2in1Pipeline:
    """Mount a new host on a base, and add a new LoRA to its U-Net if a LoRA is trained.

    Args:
        settings: host, its options, and the trained part of the U-Net.
        base: the base, as `find_base` gives it.
        tasks: the tasks that the host learns.

    Raises:
        InputError: if the host has no such option, or the base cannot be loaded.
    """
    given = {name: getattr(settings, name) for name in HOST_SETTINGS}
    options = {name: value for name, value in given.items() if value is not None}
    options |= settings.host_options or {}
    try:
        HOSTS[settings.host].check_options(**options)
    except ValueError as error:
        raise InputError(f"--host {settings.host}: {error}") from error
    with explained(base):
        pipe = Diff2in1Pipeline.from_base(base, settings.host, describe_tasks(tasks), **options)
    if settings.train_unet == "lora":
        add_lora(pipe.unet, settings)
    pipe.register_to_config(
        trained_unet=settings.train_unet, default_create_with=settings.create_with
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
