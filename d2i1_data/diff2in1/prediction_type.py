"""What the U-Net of a base predicts, noise or velocity, found by its denoising error."""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler

from .backbone import PREDICTION_TYPES, Backbone

LEVELS = (0.5, 0.7, 0.9)  # noise levels T / 1000; the two targets differ most in the middle
IMAGES, COLOURS = 4, 4  # images of soft colours, with so many colours along each side
LATENT_SIZE = 32  # largest side of their latents
CLEAR = 0.5  # the right error is less than this share of the other one, and of its target


@torch.no_grad()
def find_prediction_type(parts: Any) -> str:
    """Decide whether a U-Net predicts noise or velocity, by which target its output is nearer to.

    Args:
        parts: a pipeline in Stable Diffusion's layout.

    Returns:
        One of `PREDICTION_TYPES`.

    Raises:
        ValueError: if neither error is clearly lower.
    """
    scheduler = DDIMScheduler.from_config(parts.scheduler.config)
    backbone = Backbone(parts.vae, parts.text_encoder, parts.tokenizer, scheduler)
    generator = torch.Generator().manual_seed(0)
    side = min(parts.unet.config.sample_size, LATENT_SIZE)
    side *= 2 ** (len(parts.vae.config.block_out_channels) - 1)
    colours = torch.rand(IMAGES, 3, COLOURS, COLOURS, generator=generator) * 2 - 1
    latents = backbone.encode_image(F.interpolate(colours, (side, side), mode="bilinear"))
    text = backbone.encode_text([""] * IMAGES, "cpu").unet_arguments()
    errors = torch.zeros(len(PREDICTION_TYPES))
    for level in LEVELS:
        t = torch.full((IMAGES,), round(level * scheduler.config.num_train_timesteps))
        noise = torch.randn(latents.shape, generator=generator)
        output = parts.unet(scheduler.add_noise(latents, noise, t), t, **text).sample
        targets = {"epsilon": noise, "v_prediction": scheduler.get_velocity(latents, noise, t)}
        shares = [
            F.mse_loss(output, targets[kind]) / targets[kind].square().mean()
            for kind in PREDICTION_TYPES
        ]
        errors += torch.stack(shares) / len(LEVELS)
    nothing = 1.0  # the error of a U-Net that gives zeros
    if float(errors.min()) > CLEAR * min(nothing, float(errors.max())):
        found = ", ".join(f"{e:.2f} as {k}" for k, e in zip(PREDICTION_TYPES, errors, strict=True))
        raise ValueError(
            "nothing says what its U-Net predicts, and its denoising error does not tell"
            f" ({found}): --prediction_type {' or '.join(PREDICTION_TYPES)}"
        )
    return PREDICTION_TYPES[int(errors.argmin())]
