"""Stage 1, warm-up: theta learns from real labels what theta_C and theta_E will begin with."""

from pathlib import Path

import torch

from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.errors import InputError
from d2i1_data.loading import find_base
from d2i1_data.schema import describe_tasks
from d2i1_data.sources import Source, parse_resolution
from d2i1_data.tasks import TASKS, Task

from .batches import Draws, Examples
from .objective import objective
from .run import Run, open_training_rows
from .settings import WarmUpSettings
from .theta import make_theta


def warm_up(settings: WarmUpSettings) -> Path:
    """Train a fresh host on the real labels of a source; the folder of its pipeline.

    Paper Sec. 3, first stage: one pass at t = 0 under the empty prompt, the U-Net frozen.
    """
    rows = open_training_rows(settings)
    tasks = choose_tasks(settings.tasks, rows.source)
    torch.manual_seed(settings.seed)
    pipe = mount(settings, tasks)
    run = Run(settings, "warm-up", pipe, rows)  # claims the folder, so after what can be wrong
    theta = make_theta(pipe.to(run.device))
    run.prepare(theta)
    context = pipe.perception_context()
    families, weights = pipe.perception.families, {n: t.weight for n, t in tasks.items()}
    real = Examples(rows, pipe, theta, context, flip=settings.random_flip)
    mix = [(Draws([real], settings.seed), settings.real_batch_size)]

    for _ in run.steps():
        for batch in run.batches(mix):
            # see
            raw = run.model(batch.latents, context, batch.size, batch.pyramid)
            # objective
            loss, losses = objective(families, weights, raw, batch.targets)
            # step
            run.learn(loss)
        run.after(losses, {"theta": pipe}, {})
    return run.finish(pipe)


def choose_tasks(names: str | None, source: Source) -> dict[str, Task]:
    """The source's tasks of these comma-separated names; None is all of them."""
    wanted = list(source.tasks) if names is None else [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in TASKS:
            raise InputError(f"--tasks: unknown task {name!r}, choose from {', '.join(TASKS)}")
        if name not in source.tasks:
            has = ", ".join(source.tasks) or "none"
            raise InputError(f"--tasks: source {source.name} has no labels of {name}, it has {has}")
    if not wanted:
        raise InputError(f"source {source.name} has no labels to learn from")
    return {name: source.tasks[name] for name in wanted}


def mount(settings: WarmUpSettings, tasks: dict[str, Task]) -> Diff2in1Pipeline:
    """A fresh host on the base."""
    folder = find_base(settings.base)
    try:
        pipe = Diff2in1Pipeline.from_base(
            folder, settings.host, describe_tasks(tasks), width=settings.width
        )
    except ValueError as error:
        raise InputError(f"base {settings.base}: {error}") from error
    local = Path(settings.base).exists()
    pipe.register_to_config(base=Path(settings.base).name if local else settings.base)
    if isinstance(resolution := parse_resolution(settings.resolution), int):
        pipe.register_to_config(default_processing_resolution=resolution)
    pipe.set_progress_bar_config(disable=True)
    return pipe
