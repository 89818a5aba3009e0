"""Backbone: how a base encodes text, scales latents, and what its U-Net predicts.

All that differs between kinds of bases is behind this record, so that loops need not know it.
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
TOKENIZING = threading.Lock()  # a fast tokenizer keeps padding and truncation as its state


@dataclass(frozen=True)
class Backbone:
    """The parts of a base around its U-Net.

    Args:
        vae: autoencoder between pixels and latents.
        text_encoder: of the prompts.
        tokenizer: of the prompts.
        scheduler: noise levels, and the kind of the U-Net's prediction.
    """

    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DDIMScheduler

    @classmethod
    def of(cls, pipe: Any) -> "Backbone":
        """The backbone of a pipeline in Stable Diffusion's layout."""
        return cls(pipe.vae, pipe.text_encoder, pipe.tokenizer, pipe.scheduler)

    # --- text ---

    def tokenize(self, prompts: list[str]) -> Tensor:
        """Token ids `[B, L]`. Several threads may call it."""
        with TOKENIZING:
            found = self.tokenizer(
                prompts, padding="max_length", truncation=True, return_tensors="pt"
            )
        return found.input_ids

    def encode_text(self, prompts: list[str], device: torch.device | str) -> Conditioning:
        """Conditioning of a batch of prompts. A logged warning names what the tokenizer cuts."""
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
        # a prompt that is cut still ends with the end token
        return [self.tokenizer.decode(ids[most - 1 : -1]) for ids in whole if len(ids) > most]

    def encode_tokens(self, ids: Tensor) -> Conditioning:
        """Conditioning of token ids `[B, L]`, with gradients where they are enabled."""
        return Conditioning(self.text_encoder(ids).last_hidden_state)

    def pool_text(self, prompts: list[str]) -> Tensor:
        """One vector per prompt, `[B, D]`."""
        ids = self.tokenize(prompts).to(self.text_encoder.device)
        return self.text_encoder(ids).pooler_output

    # --- latents ---

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Scaled latents `[B, C, h, w]`, the posterior's mode, of `[B, 3, H, W]` in [-1, 1]."""
        latents = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.mode()
        return latents * self.vae.config.scaling_factor

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Images `[B, 3, H, W]`, about in [-1, 1], of scaled latents `[B, C, h, w]`."""
        scaled = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
        return self.vae.decode(scaled).sample.float()

    # --- the U-Net's prediction ---

    def training_target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the U-Net should predict for latents with this noise at timesteps t `[B]`."""
        if self.prediction_type == "epsilon":
            return noise
        return self.scheduler.get_velocity(latents, noise, t)

    def split_output(self, output: Tensor, latents: Tensor, abar: Tensor) -> tuple[Tensor, Tensor]:
        """The noise and the clean latents that the U-Net's output means.

        Args:
            output: of the U-Net, `[B, C, h, w]`.
            latents: its input.
            abar: `alphas_cumprod` at its timestep, `[B, 1, 1, 1]`.
        """
        if self.prediction_type == "epsilon":
            return output, (latents - (1 - abar).sqrt() * output) / abar.sqrt()
        noise = abar.sqrt() * output + (1 - abar).sqrt() * latents
        return noise, abar.sqrt() * latents - (1 - abar).sqrt() * output

    @property
    def prediction_type(self) -> str:
        """The kind of the U-Net's prediction, one of `PREDICTION_TYPES`."""
        kind: str = self.scheduler.config.prediction_type
        if kind not in PREDICTION_TYPES:
            raise ValueError(f"prediction type {kind!r}: expected {' or '.join(PREDICTION_TYPES)}")
        return kind
