"""Write a base with random weights and the exact size of Stable Diffusion v1-5.

python scripts/random_base.py runs/random-v1-5

Benchmarks use it if the real base is not available. It needs the same time and memory: 860 M
parameters in the U-Net, 123 M in the text encoder, 84 M in the autoencoder. Its images and labels
are noise. The tokenizer is small, because CLIP's vocabulary would have to be downloaded.
"""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from d2i1_train.scratch.parts import assemble, train_tokenizer
from d2i1_train.scratch.settings import BaseSettings


def main() -> None:
    """Write the base, in half precision, to a folder in diffusers layout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    torch.manual_seed(0)
    settings = BaseSettings(output_dir=str(folder), text_length=77)
    tokenizer = train_tokenizer(["a photograph of a room"], settings, folder / "tokenizer")
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            projection_dim=768,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)  # v1-5's defaults
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        sample_size=512,
    )
    for name, part in (("unet", unet), ("text_encoder", text_encoder), ("vae", vae)):
        print(f"{name}: {sum(p.numel() for p in part.parameters()) / 1e6:.1f} M parameters")
        part.to(torch.float16)
    assemble(vae, text_encoder, tokenizer, unet).save_pretrained(folder)


if __name__ == "__main__":
    main()
