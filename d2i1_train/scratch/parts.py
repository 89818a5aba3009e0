"""The parts of a small base, untrained: tokenizer, text encoder, autoencoder, U-Net, scheduler."""

from collections.abc import Iterable
from pathlib import Path

from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .settings import BaseSettings

START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(captions: Iterable[str], settings: BaseSettings, folder: Path) -> CLIPTokenizer:
    """Train a CLIP byte-pair tokenizer on captions. It splits unknown text into bytes.

    Args:
        captions: the captions.
        settings: size of the vocabulary and length of texts.
        folder: gets the files of the tokenizer.
    """
    model = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    model.normalizer = normalizers.Lowercase()
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    model.train_from_iterator(
        (word for caption in captions for word in caption.split()),
        trainers.BpeTrainer(
            vocab_size=settings.vocabulary,
            initial_alphabet=sorted(alphabet),
            end_of_word_suffix="</w>",
            special_tokens=[*sorted(f"{letter}</w>" for letter in alphabet), START, END],
            show_progress=False,
        ),
    )
    folder.mkdir(parents=True, exist_ok=True)
    model.model.save(str(folder))
    return CLIPTokenizer(
        vocab=str(folder / "vocab.json"),
        merges=str(folder / "merges.txt"),
        model_max_length=settings.text_length,
    )


def build_text_encoder(tokenizer: CLIPTokenizer, settings: BaseSettings) -> CLIPTextModel:
    """Build a small CLIP text encoder for the vocabulary and special tokens of a tokenizer."""
    width = settings.text_width
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=settings.text_layers,
        num_attention_heads=width // 32,
        max_position_embeddings=settings.text_length,
        # the defaults are ids of OpenAI's vocabulary, which our vocabulary does not have
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def build_vae(settings: BaseSettings, size: tuple[int, int]) -> AutoencoderKL:
    """Build an autoencoder with four latent channels. Every level but the last halves the sides."""
    channels = settings.vae_channels
    return AutoencoderKL(
        block_out_channels=tuple(channels),
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=settings.vae_layers,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=max(size),
    )


def build_unet(settings: BaseSettings, latent_size: tuple[int, int]) -> UNet2DConditionModel:
    """Build a U-Net with cross-attention at every level except the first, which has the largest
    maps."""
    channels = settings.unet_channels
    down = ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (len(channels) - 1)
    up = ("CrossAttnUpBlock2D",) * (len(channels) - 1) + ("UpBlock2D",)
    return UNet2DConditionModel(
        sample_size=max(latent_size),
        block_out_channels=tuple(channels),
        down_block_types=down,
        up_block_types=up,
        layers_per_block=settings.unet_layers,
        cross_attention_dim=settings.text_width,
        attention_head_dim=4,  # in Stable Diffusion's configs this is the number of heads
        norm_num_groups=16,
    )


def assemble(
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
    prediction_type: str = "epsilon",
) -> StableDiffusionPipeline:
    """Join the parts to a base."""
    scheduler = build_scheduler()
    scheduler.register_to_config(prediction_type=prediction_type)
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def build_scheduler() -> DDIMScheduler:
    """Build Stable Diffusion's noise schedule."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
