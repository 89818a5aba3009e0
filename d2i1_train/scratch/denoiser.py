"""Train the U-Net of a base together with its text encoder."""

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from d2i1_data.diff2in1 import Backbone

from .fit import Fit, fit
from .settings import BaseSettings
from .vae import PREVIEWS, save_grid


def fit_unet(
    base: StableDiffusionPipeline,
    latents: Tensor,
    captions: list[str],
    settings: BaseSettings,
    folder: Path,
) -> None:
    """Train U-Net and text encoder.

    Args:
        base: the base with both parts.
        latents: scaled latents `[N, C, h, w]`, or `[2N, C, h, w]` with mirrored images.
        captions: N captions.
        settings: how to train.
        folder: gets checkpoints and previews.
    """
    device = base.unet.device
    autocast = torch.autocast(
        device.type, torch.bfloat16, enabled=settings.mixed_precision == "bf16"
    )
    backbone = Backbone.of(base)
    tokens, empty = backbone.tokenize(captions), backbone.tokenize([""])
    abar = base.scheduler.alphas_cumprod

    def loss(generator: torch.Generator) -> Tensor:
        size = settings.unet_batch_size
        chosen = torch.randint(len(latents), (size,), generator=generator)
        t = torch.randint(len(abar), (size,), generator=generator)
        dropped = torch.rand(size, 1, generator=generator) < settings.caption_dropout
        ids = torch.where(dropped, empty, tokens[chosen % len(tokens)])
        noise = torch.randn(latents[chosen].shape, generator=generator)
        noisy = base.scheduler.add_noise(latents[chosen], noise, t)
        with autocast:
            arguments = backbone.encode_tokens(ids.to(device)).unet_arguments()
            output = base.unet(noisy.to(device), t.to(device), **arguments).sample
        target = backbone.training_target(latents[chosen], noise, t)
        error = (output.float() - target.to(device)).square().mean((1, 2, 3))  # [B]
        return (error * min_snr_weight(abar[t], settings.snr_gamma).to(device)).mean()

    def preview() -> None:
        images = base(
            captions[:PREVIEWS],
            height=latents.shape[-2] * base.vae_scale_factor,
            width=latents.shape[-1] * base.vae_scale_factor,
            num_inference_steps=25,
            guidance_scale=2.0,
            generator=torch.Generator().manual_seed(settings.seed),
            output_type="pt",
        ).images
        save_grid([images * 2 - 1], folder / "unet.png")

    recipe = Fit(
        settings.unet_steps,
        settings.unet_learning_rate,
        settings.ema_decay,
        settings.checkpointing_steps,
        settings.seed,
    )
    base.set_progress_bar_config(disable=True)
    fit("unet", nn.ModuleList([base.unet, base.text_encoder]), loss, recipe, folder, preview)


def min_snr_weight(abar: Tensor, gamma: float) -> Tensor:
    """Compute min(SNR, gamma) / SNR, the weight of a noise error at signal level abar."""
    snr = abar / (1 - abar)
    return snr.clamp(max=gamma) / snr if gamma else torch.ones_like(snr)
