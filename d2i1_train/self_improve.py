"""Stage 2, self-improving: theta_E learns from real and created samples, theta_C follows it."""

from collections.abc import Mapping
from pathlib import Path

import torch

from d2i1_data.diff2in1 import Conditioning, Diff2in1Pipeline
from d2i1_data.errors import InputError
from d2i1_data.inspection.evaluation.measure import common_tasks
from d2i1_data.sources import Rows, open_rows
from d2i1_data.tasks import TASKS

from .loop.augment import make_augmentation
from .loop.batches import SampleOrder, TrainingBatch
from .loop.cache import Cache
from .loop.checkpoint import complete_checkpoints
from .loop.examples import Examples, Use
from .loop.finish import finish
from .loop.leak import check_leaks
from .loop.mix import Mix
from .loop.optimizer import optimizer_file
from .loop.reopen import open_trainable
from .loop.run import Observer, Run, open_training_rows
from .loop.trained_size import register_size
from .objective import DENOISE, objective
from .pseudo_labels import predict_labels, with_pseudo_labels
from .settings import SelfImproveSettings
from .theta import Follower, Theta, with_theta


def self_improve(settings: SelfImproveSettings, observer: Observer | None = None) -> Path:
    """Improve a warmed-up pipeline with created samples.

    Each time created samples are drawn, theta_C labels them with its current weights.
    `created="none"` is the real-only baseline. It has the same real samples in the same order, the
    same steps, optimiser state and updates of theta_C, but no created samples.

    Args:
        settings: pipeline, real source, created dataset, and how to train.
        observer: called at the end of each step, see `Run`.

    Returns:
        The folder of theta_C's pipeline.

    Raises:
        InputError: if the settings, the pipeline or the data cannot be used.

    Source: paper Sec. 3 and Fig. 2, second stage.
    """
    rows = open_training_rows(settings)
    created = open_created_rows(settings)
    held_out = check_leaks(settings, rows, created)
    pipe, load_base_unet = open_trainable(settings.pipeline, settings.base)
    common_tasks(pipe, rows.source)
    register_size(pipe, settings, rows)
    if settings.denoise_weight and pipe.config.trained_unet == "none":
        raise InputError(f"--denoise_weight: the U-Net of {settings.pipeline} is not trained")
    started = settings.resume_from_checkpoint and complete_checkpoints(Path(settings.output_dir))
    state = None if settings.fresh_optimizer or started else optimizer_file(settings.pipeline)
    # after all checks, because `Run` claims the folder
    sources = [rows, *created]
    with Run(
        settings,
        "self-improve",
        pipe,
        sources,
        follows=True,
        optimizer_file=state,
        observer=observer,
    ) as run:
        theta_e, theta_c = run.exploitation, run.creation
        counters = run.counters
        # the baseline also counts the created samples that it leaves out: theta_C follows as often
        consumed = run.samples_per_step(settings.real_batch_size + settings.created_size)
        alpha = settings.choose_alpha(consumed)
        follower = Follower(
            alpha,
            settings.follow_every,
            counters.consumed,
            counters.followed,
            buffers=settings.follow_buffers,
        )
        conditioning = pipe.perception_conditioning()
        weights = {name: TASKS[name].weight for name in pipe.perception.families}
        weights[DENOISE] = settings.denoise_weight
        mix = mix_samples(settings, rows, created, pipe, theta_e, conditioning)
        pipes = {"theta_E": pipe, "theta_C": with_theta(pipe, theta_c)}

        for _ in run.steps():
            for batch in run.batches(mix):
                learn(run, batch, conditioning, weights)
            follower.follow(theta_c, theta_e, consumed)
            run.end_step(pipes, follower.consumed, follower.followed)
        return finish(run, pipes["theta_C"], load_base_unet, held_out)


def learn(
    run: Run, batch: TrainingBatch, conditioning: Conditioning, weights: Mapping[str, float]
) -> None:
    """Learn from one micro-batch: theta_C labels its created samples, theta_E learns from all.

    Args:
        run: has theta_E, its optimiser, and theta_C.
        batch: real samples, created samples, or both.
        conditioning: the empty prompt, a batch of one.
        weights: weight of each task and of the denoising loss, by name.
    """
    theta_e, theta_c = run.exploitation, run.creation
    with torch.no_grad(), run.accelerator.autocast():
        # a frozen U-Net needs one pass for both thetas, a trained one needs a pass for each
        pyramid = batch.pyramid
        if theta_e.frozen and pyramid is None:
            pyramid = theta_c.compute_pyramid(batch.latents, conditioning)
        # truth for real samples, theta_C's prediction for created ones
        targets = batch.targets
        if views := batch.inputs_of_theta_c(pyramid):
            factor = batch.pixels_per_latent
            raw = predict_labels(theta_c, views, conditioning, batch.inside, factor)
            families = theta_c.perception.families
            targets = with_pseudo_labels(families, raw, targets, batch.created, batch.inside)
    # objective
    inputs = (batch.latents, conditioning, batch.size, pyramid)
    output = run.model(*inputs, targets, batch.noised, batch.perturbation)
    loss, losses = objective(weights, output, batch.noised, batch.weights)
    # step
    run.learn(loss, losses)


def open_created_rows(settings: SelfImproveSettings) -> list[Rows]:
    """Open the created samples. The list is empty for the real-only baseline."""
    if settings.created == "none":
        return []
    spec, limit = f"dataset:{settings.created}", settings.max_created_samples
    return [
        open_rows(
            spec,
            settings.resolution,
            limit,
            settings.on_bad_row,
            settings.min_quality,
            settings.subset_seed,
            settings.max_pixels,
        )
    ]


def mix_samples(
    settings: SelfImproveSettings,
    rows: Rows,
    created_rows: list[Rows],
    pipe: Diff2in1Pipeline,
    theta: Theta,
    conditioning: Conditioning,
) -> Mix:
    """Make the mix of samples that steps draw from.

    Args:
        settings: batch sizes, and whether real and created samples are shuffled together.
        rows: the real rows.
        created_rows: the created rows, if there are any.
        pipe: encodes images and captions.
        theta: theta_E.
        conditioning: the empty prompt, a batch of one.
    """
    shared, augment = (
        (pipe, theta, conditioning, Cache(settings.cache_dir)),
        make_augmentation(settings),
    )
    real_use = Use(
        denoise=settings.denoise_weight > 0,
        dropout=settings.real_feature_dropout,
        cutmix=settings.real_cutmix,
    )
    created_use = Use(
        created=True,
        belief_views=settings.belief_views if settings.predicts_labels else (),
        dropout=settings.feature_dropout,
        cutmix=settings.cutmix,
        weight=settings.created_weight,
    )
    real = Examples(rows, *shared, augment=augment, use=real_use)
    created = [Examples(more, *shared, augment=augment, use=created_use) for more in created_rows]
    real_size, created_size, seed = settings.real_batch_size, settings.created_size, settings.seed
    if settings.mix == "union" and created:
        return Mix([(SampleOrder([real, *created], seed), real_size + created_size)])
    separate = [(real, real_size), *((one, created_size) for one in created)]
    return Mix([(SampleOrder([one], seed), size) for one, size in separate if size])
