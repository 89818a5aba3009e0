"""Denoising: the loop over the steps of a schedule.

Letters in shape comments: B batch, C channels, h w latent pixels.
"""

from collections.abc import Callable, Iterable

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from .conditioning import Conditioning
from .one_pass import one_pass
from .schedulers import Sampler

StepEnd = Callable[[int, Tensor, Tensor], Tensor]  # step, timesteps [B], latents -> latents


def denoise(
    unet: UNet2DConditionModel,
    sampler: Sampler,
    latents: Tensor,
    conditioning: Conditioning,
    guidance: float,
    *,
    return_pyramid: bool = False,
    progress: Callable[[Tensor], Iterable[Tensor]] = iter,
    on_step_end: StepEnd | None = None,
) -> tuple[Tensor, tuple[Tensor, ...] | None]:
    """Denoise latents from the first timestep of a schedule to 0.

    Args:
        unet: the U-Net to denoise with.
        sampler: the steps of this batch.
        latents: noisy scaled latents `[B, C, h, w]`. They are float32 between the calls.
        conditioning: conditioning of B prompts. With guidance, of 2 B prompts: the negative prompts
            come last.
        guidance: scale of classifier-free guidance; it has no effect with B prompts.
        return_pyramid: also return the pyramid of the last call.
        progress: wraps the schedule to show progress.
        on_step_end: called after each step; the latents that it returns are used from then on.

    Returns:
        Scaled latents `[B, C, h, w]`, and the pyramid or None.
    """
    pyramid, copies = None, conditioning.batch_size // len(latents)
    last = len(sampler.schedule) - 1
    for step, t in enumerate(progress(sampler.schedule)):
        doubled = torch.cat([sampler.scale(latents, step)] * copies).to(unet.dtype)
        times = torch.cat([t] * copies).to(latents.device)
        if step == last and return_pyramid:
            output, pyramid, _ = one_pass(unet, doubled, times, conditioning)
            pyramid = tuple(level[: len(latents)] for level in pyramid)
        else:
            output = unet(doubled, times, **conditioning.unet_arguments()).sample
        if copies > 1:
            conditional, unconditional = output.float().chunk(2)
            output = unconditional + guidance * (conditional - unconditional)
        latents = sampler.advance(output.float(), step, latents)
        if on_step_end is not None:
            latents = on_step_end(step, t, latents)
    return latents, pyramid
