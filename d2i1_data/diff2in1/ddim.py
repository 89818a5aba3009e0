"""Partial noising and deterministic DDIM denoising, on the paper's schedule.

Song et al. 2021 (arXiv 2010.02502), eq. 12 with eta = 0; Diff-2-in-1, Sec. 3: T = 600, 50 calls.
"""

from collections.abc import Callable, Iterable

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from .one_pass import one_pass


def timesteps(strength: float, steps: int, train_steps: int = 1000) -> list[int]:
    """The timesteps of all U-Net calls between T = strength * train_steps and 0, T / steps apart.

    They end at 1, so (0.6, 50) gives 589, 577, ..., 13, 1 as the paper's code does; diffusers'
    image-to-image would make only 30 of these 50 calls.
    """
    last = round(strength * train_steps)
    if not 0 < strength <= 1:
        raise ValueError(f"strength {strength}: expected more than 0, at most 1")
    if not 1 <= steps <= last:
        raise ValueError(f"{steps} steps: expected 1 to {last} at strength {strength}")
    return [min(train_steps - 1, 1 + i * last // steps) for i in reversed(range(steps))]


def denoise(
    unet: UNet2DConditionModel,
    scheduler: DDIMScheduler,
    latents: Tensor,
    schedule: Tensor,
    context: Tensor,
    guidance: float,
    *,
    see: bool = False,
    progress: Callable[[Tensor], Iterable[Tensor]] = iter,
) -> tuple[Tensor, tuple[Tensor, ...] | None]:
    """Latents [B, C, h, w] from the first timestep of the schedule to 0; float32 between the calls.

    schedule: [S, B], every sample's own `timesteps`. context: [B, L, D], or with guidance
    [2 B, L, D], the unwanted behind the wanted. see: also give the pyramid of the last call.
    progress: shows how far the schedule has come.
    """
    pyramid, copies = None, len(context) // len(latents)
    for t, t_next in zip(progress(schedule), [*schedule[1:], None], strict=False):
        doubled = torch.cat([latents] * copies).to(unet.dtype)
        times = torch.cat([t] * copies).to(latents.device)
        if t_next is None and see:
            output, pyramid, _ = one_pass(unet, doubled, times, context)
            pyramid = tuple(level[: len(latents)] for level in pyramid)
        else:
            output = unet(doubled, times, context).sample
        if copies > 1:
            wanted, unwanted = output.float().chunk(2)
            output = unwanted + guidance * (wanted - unwanted)
        latents = ddim_step(scheduler, output.float(), t, t_next, latents)
    return latents, pyramid


def ddim_step(
    scheduler: DDIMScheduler, output: Tensor, t: Tensor, t_next: Tensor | None, latents: Tensor
) -> Tensor:
    """From x_t to x_(t_next), timesteps [B], with the U-Net's output at t; None is the scheduler's
    last level."""
    abar = _as_scale(scheduler.alphas_cumprod[t], latents)
    last = scheduler.final_alpha_cumprod
    abar_next = _as_scale(last if t_next is None else scheduler.alphas_cumprod[t_next], latents)
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        eps, x0 = output, (latents - (1 - abar).sqrt() * output) / abar.sqrt()
    elif kind == "v_prediction":
        eps = abar.sqrt() * output + (1 - abar).sqrt() * latents
        x0 = abar.sqrt() * latents - (1 - abar).sqrt() * output
    else:
        raise ValueError(f"prediction type {kind!r}: expected epsilon or v_prediction")
    return abar_next.sqrt() * x0 + (1 - abar_next).sqrt() * eps


def _as_scale(abar: Tensor, latents: Tensor) -> Tensor:
    return abar.to(latents).view(-1, 1, 1, 1)
