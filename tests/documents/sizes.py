"""All that a test changes in the commands and snippets of a document: names and sizes."""

from dataclasses import fields
from pathlib import Path

from d2i1_train.acts import ACTS

WORDS = {  # in every block
    "user/": "alice/",  # who is logged in at the Hub of the tests
    "/data/streets": "data/streets",
    "/where/they/are": "$FOLDER/data",
    "num_inference_steps=50": "num_inference_steps=2",
    "flip: 0.9,": "flip: 0,",
    "flip: 0.9}": "flip: 0}",
    "flip: 0.8994": "flip: 0",
    "confidence: 0.8": "confidence: 0",
}
SIZES: dict[str, object] = {  # flags that a command gets where its act has them
    "max_train_steps": 1,
    "max_train_samples": 2,
    "max_source_samples": 3,
    "max_samples": 2,
    "num_inference_steps": 2,
    "resolution": 32,
    "real_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "mixed_precision": "no",
    "dataloader_num_workers": 0,
    "use_8bit_adam": "false",
    "validation_steps": 1,
    "num_validation_samples": 1,
    "checkpointing_steps": 1,
    "width": 16,
    "vae_steps": 1,
    "vae_batch_size": 2,
    "vae_channels": "[8, 16]",
    "unet_steps": 1,
    "unet_batch_size": 2,
    "unet_channels": "[16, 32]",
    "text_width": 32,
    "text_layers": 1,
    "rounds": 10,
}
IF_GIVEN: dict[str, object] = {"num_samples": 2, "random_crop": "32x32"}
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
TINY_SD15 = "alice/stable-diffusion-v1-5"  # where the Hub of the tests has a tiny base


def replaced(text: str) -> str:
    """A block with the names that a test has."""
    for old, new in WORDS.items():
        text = text.replace(old, new)
    return text


def small(act: str, flags: list[str], tiny_base: Path) -> list[str]:
    """The flags with sizes that a test can afford."""
    settings = ACTS[act].read(flags)
    known = {field.name for field in fields(settings)}
    sizes = {name: value for name, value in SIZES.items() if name in known}
    sizes |= {name: value for name, value in IF_GIVEN.items() if getattr(settings, name, None)}
    bases = {"rooms": tiny_base, SD15: TINY_SD15}
    if getattr(settings, "base", None) in bases:
        sizes["base"] = bases[settings.base]
    return flags + [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
