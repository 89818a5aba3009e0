"""Train the autoencoder of a base, and encode the training images."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from d2i1_data.dataset.files import write_png

from .fit import Fit, fit
from .settings import BaseSettings

KL_WEIGHT = 1e-6  # as in Stable Diffusion: it bounds latents but keeps reconstructions
PREVIEWS = 8


def fit_vae(vae: AutoencoderKL, images: Tensor, settings: BaseSettings, folder: Path) -> None:
    """Train the autoencoder on images `[N, 3, H, W]` uint8 and set its scaling factor."""
    device, bf16 = vae.device, settings.mixed_precision == "bf16"
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=bf16)

    def loss(generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(images), (settings.vae_batch_size,), generator=generator)
        batch = to_unit(images[chosen]).to(device)  # [B, 3, H, W]
        if settings.random_flip:
            mirrored = torch.rand(len(batch), 1, 1, 1, generator=generator) < 0.5
            batch = torch.where(mirrored.to(device), batch.flip(-1), batch)
        with autocast:
            posterior = vae.encode(batch).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
            output = vae.decode(posterior.mean + posterior.std * noise).sample
        return reconstruction_loss(output.float(), batch) + KL_WEIGHT * posterior.kl().mean()

    def preview() -> None:
        batch = to_unit(images[:PREVIEWS]).to(device)
        save_grid([batch, reconstruct(vae, batch)], folder / "vae.png")

    recipe = Fit(
        settings.vae_steps,
        settings.vae_learning_rate,
        settings.ema_decay,
        settings.checkpointing_steps,
        settings.seed,
    )
    fit("vae", vae, loss, recipe, folder, preview)
    sample = torch.cat(
        [_encode(vae, images[i : i + 64]) for i in range(0, min(len(images), 1024), 64)]
    )
    vae.register_to_config(scaling_factor=round(1 / sample.std().item(), 5))


def reconstruction_loss(output: Tensor, image: Tensor) -> Tensor:
    """Compute L1 of pixels, plus L1 of differences between neighbours, which keeps edges sharp."""
    rows = F.l1_loss(output.diff(dim=-2), image.diff(dim=-2))
    columns = F.l1_loss(output.diff(dim=-1), image.diff(dim=-1))
    return F.l1_loss(output, image) + rows + columns


def encode_all(vae: AutoencoderKL, images: Tensor, settings: BaseSettings) -> Tensor:
    """Encode all images, and with random_flip then all mirrored images, as scaled latents."""
    views = [images, images.flip(-1)] if settings.random_flip else [images]
    parts = [_encode(vae, view[i : i + 64]) for view in views for i in range(0, len(view), 64)]
    return torch.cat(parts) * vae.config.scaling_factor


@torch.no_grad()
def _encode(vae: AutoencoderKL, images: Tensor) -> Tensor:
    return vae.encode(to_unit(images).to(vae.device)).latent_dist.mode().cpu()


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, batch: Tensor) -> Tensor:
    """Encode images and decode the mode of the posterior, `[B, 3, H, W]` in [-1, 1]."""
    return vae.decode(vae.encode(batch).latent_dist.mode()).sample.clamp(-1, 1)


def to_unit(images: Tensor) -> Tensor:
    """Convert uint8 to float in [-1, 1]."""
    return images.float() / 127.5 - 1


def save_grid(rows: list[Tensor], file: Path) -> None:
    """Save a picture with one row for each batch of images in [-1, 1]."""
    grid = torch.cat([torch.cat(list(row.cpu()), -1) for row in rows], -2)
    pixels = ((grid + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    file.parent.mkdir(parents=True, exist_ok=True)
    write_png(file, Image.fromarray(np.ascontiguousarray(pixels)))
