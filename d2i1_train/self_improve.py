"""Stage 2, self-improving: theta_E learns from real and created samples, theta_C follows."""

from pathlib import Path

import torch
from torch import Tensor

from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.errors import InputError
from d2i1_data.inspection.evaluation.measure import common_tasks
from d2i1_data.sources import Rows, open_rows
from d2i1_data.tasks import TASKS

from .loop.augment import make_augmentation
from .loop.batches import Draws, Examples
from .loop.cache import Cache
from .loop.checkpoint import complete_checkpoints
from .loop.optimizer import optimizer_file
from .loop.reopen import open_trainable
from .loop.run import Run, open_training_rows
from .objective import DENOISE, believe, objective
from .settings import SelfImproveSettings
from .theta import Follower, Theta, make_theta, twin, with_theta


def self_improve(settings: SelfImproveSettings) -> Path:
    """Improve a warmed-up pipeline; the folder of theta_C's pipeline.

    Paper Sec. 3 and Fig. 2, second stage; theta_C labels the created samples anew with its current
    weights each time they are drawn. `created="none"` is the real-only baseline: the same real
    draws, steps, optimiser state and following, without created samples.
    """
    rows = open_training_rows(settings)
    created = open_created_rows(settings)
    pipe, load_base_unet = open_trainable(settings.pipeline, settings.base)
    common_tasks(pipe, rows.source)
    if settings.denoise_weight and pipe.config.trained_unet == "none":
        raise InputError(f"--denoise_weight: the U-Net of {settings.pipeline} is not trained")
    begun = settings.resume_from_checkpoint and complete_checkpoints(Path(settings.output_dir))
    carried = None if settings.fresh_optimizer or begun else optimizer_file(settings.pipeline)
    run = Run(settings, "self-improve", pipe, rows, *created)  # claims the folder, so after those
    exploitation = make_theta(pipe.to(run.device), denoises=settings.denoise_weight > 0)
    creation = twin(exploitation)
    run.prepare(exploitation, creation, carried)
    follower = Follower(settings.alpha, settings.follow_every, **run.counters)
    context = pipe.perception_context()
    families = pipe.perception.families
    weights = {name: TASKS[name].weight for name in families} | {DENOISE: settings.denoise_weight}
    mix = mix_samples(settings, rows, created, pipe, exploitation, context)
    # the baseline follows at the same steps, so it counts the created samples it does without
    consumed = run.samples_a_step(settings.real_batch_size + settings.created_size)
    pipes = {"theta_E": pipe, "theta_C": with_theta(pipe, creation)}

    for _ in run.steps():
        for batch in run.batches(mix):
            with torch.no_grad(), run.accelerator.autocast():
                # see: a frozen U-Net's one pyramid feeds both, else each theta sees for itself
                pyramid = batch.pyramid
                if exploitation.frozen and pyramid is None:
                    pyramid = creation.see(batch.latents, context)
                # truth for real samples, theta_C's belief for created ones
                targets, made = batch.targets, batch.created
                if len(made):
                    seen = pyramid and tuple(level[made] for level in pyramid)
                    clean = batch.latents[made]
                    if batch.clean is not None:  # theta_E's colours are changed, theta_C's are not
                        seen, clean = None, batch.clean
                    belief = creation(clean, context, batch.size, seen).raw
                    targets = believe(families, belief, targets, made, batch.believed)
            # objective
            answer = run.model(batch.latents, context, batch.size, pyramid, targets, batch.noised)
            loss, losses = objective(weights, answer, batch.noised)
            # step
            run.learn(loss, losses)
        # follow
        follower.follow(creation, exploitation, consumed)
        run.after(pipes, {"consumed": follower.consumed, "followed": follower.followed})
    return run.finish(pipes["theta_C"], load_base_unet)


def open_created_rows(settings: SelfImproveSettings) -> list[Rows]:
    """The created samples, if there are any."""
    if settings.created == "none":
        return []
    spec, limit = f"dataset:{settings.created}", settings.max_created_samples
    on_bad_row, least = settings.on_bad_row, settings.min_quality
    return [open_rows(spec, settings.resolution, limit, on_bad_row, least)]


def mix_samples(
    settings: SelfImproveSettings,
    rows: Rows,
    created_rows: list[Rows],
    pipe: Diff2in1Pipeline,
    theta: Theta,
    context: Tensor,
) -> list[tuple[Draws, int]]:
    """Which orders of draws a step takes how many samples from."""
    shared = (pipe, theta, context, Cache(settings.cache_dir))
    augment, denoise = make_augmentation(settings), settings.denoise_weight > 0
    real = Examples(rows, *shared, augment=augment, denoise=denoise)
    created = [Examples(more, *shared, augment=augment, created=True) for more in created_rows]
    size, more = settings.real_batch_size, settings.created_size
    if settings.mix == "union" and created:
        return [(Draws([real, *created], settings.seed), size + more)]
    return [
        (Draws([real], settings.seed), size),
        *((Draws([c], settings.seed), more) for c in created),
    ]
