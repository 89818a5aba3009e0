"""The paper's schedule, and the deterministic step of DDIM.

Song et al. 2021 (arXiv 2010.02502), eq. 12 with eta = 0; Diff-2-in-1, Sec. 3: T = 600, 50 calls.
"""

from torch import Tensor

from .backbone import Backbone


def timesteps(
    strength: float, steps: int, train_steps: int = 1000, zero_snr: bool = False
) -> list[int]:
    """The timesteps of all U-Net calls between T = strength * train_steps and 0.

    They are T / steps apart and end at 1. So (0.6, 50) gives 589, 577, ..., 13, 1, as in the code
    of the paper. The image-to-image pipeline of diffusers would make only 30 of these 50 calls.
    With `zero_snr` they begin at T - 1, "trailing" in diffusers: there, and only there, is pure
    noise what the U-Net expects.

    Args:
        strength: noise level T / train_steps, in (0, 1].
        steps: number of U-Net calls, 1 to T.
        train_steps: timesteps that the base was trained with.
        zero_snr: whether the last timestep of the base is pure noise.

    Raises:
        ValueError: if strength or steps are out of range.
    """
    last = round(strength * train_steps)
    if not 0 < strength <= 1:
        raise ValueError(f"strength {strength}: expected more than 0, at most 1")
    if not 1 <= steps <= last:
        raise ValueError(f"{steps} steps: expected 1 to {last} at strength {strength}")
    if zero_snr:
        return [last - 1 - i * last // steps for i in range(steps)]
    return [min(train_steps - 1, 1 + i * last // steps) for i in reversed(range(steps))]


def ddim_step(
    backbone: Backbone, output: Tensor, t: Tensor, t_next: Tensor | None, latents: Tensor
) -> Tensor:
    """One DDIM step from x_t to x_(t_next).

    Args:
        backbone: its scheduler has the noise levels.
        output: output of the U-Net at t, `[B, C, h, w]`.
        t: timesteps `[B]`.
        t_next: next timesteps `[B]`, or None for the last level of the scheduler.
        latents: x_t, `[B, C, h, w]`.

    Returns:
        x_(t_next), `[B, C, h, w]`.
    """
    scheduler = backbone.scheduler
    abar = _as_scale(scheduler.alphas_cumprod[t], latents)
    last = scheduler.final_alpha_cumprod
    abar_next = _as_scale(last if t_next is None else scheduler.alphas_cumprod[t_next], latents)
    eps, x0 = backbone.split_output(output, latents, abar)
    return abar_next.sqrt() * x0 + (1 - abar_next).sqrt() * eps


def _as_scale(abar: Tensor, latents: Tensor) -> Tensor:
    return abar.to(latents).view(-1, 1, 1, 1)
