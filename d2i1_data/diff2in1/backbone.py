"""Backbone: how a base encodes text, scales latents, and what its U-Net predicts.

This record hides all differences between kinds of bases from the loops.
"""

import threading
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from diffusers.utils import logging
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from .conditioning import Conditioning

PREDICTION_TYPES = ("epsilon", "v_prediction")
TOKENIZING = threading.Lock()  # because padding and truncation are a state of fast tokenizers


def has_zero_snr(scheduler: Any) -> bool:
    """Whether the last timestep is pure noise (Lin et al. 2023, arXiv 2305.08891)."""
    return float(scheduler.alphas_cumprod[-1]) < 1e-6  # Stable Diffusion 1.x: 0.0047


@dataclass(frozen=True)
class Backbone:
    """The parts of a base around its U-Net.

    Args:
        vae: autoencoder between pixels and latents.
        text_encoder: text encoder for prompts.
        tokenizer: tokenizer for prompts.
        scheduler: noise levels, and what the U-Net predicts.
    """

    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: Any

    @classmethod
    def of(cls, pipe: Any) -> "Backbone":
        """The backbone of a pipeline in Stable Diffusion's layout."""
        return cls(pipe.vae, pipe.text_encoder, pipe.tokenizer, pipe.scheduler)

    # --- text ---

    def tokenize(self, prompts: list[str]) -> Tensor:
        """Token ids `[B, L]`. Several threads may call it."""
        with TOKENIZING:
            tokens = self.tokenizer(
                prompts, padding="max_length", truncation=True, return_tensors="pt"
            )
        return tokens.input_ids

    def encode_text(self, prompts: list[str], device: torch.device | str) -> Conditioning:
        """Conditioning of a batch of prompts. A warning names text that the tokenizer cuts off."""
        if removed := self._removed_text(prompts):
            logging.get_logger(__name__).warning(
                "The following part of your input was truncated because the text encoder takes at"
                f" most {self.tokenizer.model_max_length} tokens: {removed}"
            )
        return self.encode_tokens(self.tokenize(prompts).to(device))

    def _removed_text(self, prompts: list[str]) -> list[str]:
        """The ends of prompts that are too long for the text encoder."""
        most = self.tokenizer.model_max_length
        with TOKENIZING:
            whole = self.tokenizer(
                prompts, padding=False, truncation=False, verbose=False
            ).input_ids
        # the last token of a cut prompt is the end token
        return [self.tokenizer.decode(ids[most - 1 : -1]) for ids in whole if len(ids) > most]

    def encode_tokens(self, ids: Tensor) -> Conditioning:
        """Conditioning of token ids `[B, L]`, with gradients if they are enabled."""
        return Conditioning(self.text_encoder(ids).last_hidden_state)

    def pool_text(self, prompts: list[str]) -> Tensor:
        """One vector per prompt, `[B, D]`."""
        ids = self.tokenize(prompts).to(self.text_encoder.device)
        return self.text_encoder(ids).pooler_output

    # --- latents ---

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Encode images `[B, 3, H, W]` in [-1, 1] as scaled latents `[B, C, h, w]`, the mode."""
        latents = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.mode()
        return latents * self.vae.config.scaling_factor

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Decode scaled latents `[B, C, h, w]` to images `[B, 3, H, W]`, roughly in [-1, 1]."""
        scaled = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
        return self.vae.decode(scaled).sample.float()

    # --- the U-Net's prediction ---

    def training_target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The right prediction of the U-Net for noisy latents.

        Args:
            latents: clean scaled latents `[B, C, h, w]`.
            noise: the noise that was added, `[B, C, h, w]`.
            t: timesteps `[B]`.
        """
        if self.prediction_type == "epsilon":
            return noise
        return self.noise_levels.get_velocity(latents, noise, t)

    @property
    def noise_levels(self) -> DDIMScheduler:
        """The scheduler as one of DDIM, which adds noise at any timestep; others remember steps."""
        if isinstance(self.scheduler, DDIMScheduler):
            return self.scheduler
        return DDIMScheduler.from_config(self.scheduler.config)

    def split_output(self, output: Tensor, latents: Tensor, abar: Tensor) -> tuple[Tensor, Tensor]:
        """Turn the output of the U-Net into noise and clean latents.

        Args:
            output: output of the U-Net, `[B, C, h, w]`.
            latents: input of the U-Net, `[B, C, h, w]`.
            abar: `alphas_cumprod` at its timestep, `[B, 1, 1, 1]`.
        """
        if self.prediction_type == "epsilon":
            return output, (latents - (1 - abar).sqrt() * output) / abar.sqrt()
        noise = abar.sqrt() * output + (1 - abar).sqrt() * latents
        return noise, abar.sqrt() * latents - (1 - abar).sqrt() * output

    @property
    def prediction_type(self) -> str:
        """What the U-Net predicts, one of `PREDICTION_TYPES`."""
        kind: str = self.scheduler.config.prediction_type
        if kind not in PREDICTION_TYPES:
            raise ValueError(f"prediction type {kind!r}: expected {' or '.join(PREDICTION_TYPES)}")
        return kind
