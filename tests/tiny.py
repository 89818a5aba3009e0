"""Tiny models: real ones made small, with random weights."""

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from d2i1_train.base.parts import (
    build_scheduler,
    build_text_encoder,
    build_unet,
    build_vae,
    train_tokenizer,
)
from d2i1_train.settings import BaseSettings

TINY = BaseSettings(
    output_dir="unused",
    vae_channels=[8, 16],
    unet_channels=[16, 32],
    text_width=32,
    text_layers=1,
    text_length=16,
)


def save_tiny_base(folder: Path, prediction_type: str = "epsilon") -> Path:
    """Write a base of about 0.3 M parameters whose stride is 4; the folder."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["a room with a blue sphere"], TINY, folder.parent / "tokenizer")
    scheduler = build_scheduler()
    scheduler.register_to_config(prediction_type=prediction_type)
    StableDiffusionPipeline(
        vae=build_vae(TINY, (32, 32)),
        text_encoder=build_text_encoder(tokenizer, TINY),
        tokenizer=tokenizer,
        unet=build_unet(TINY, (16, 16)),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder
