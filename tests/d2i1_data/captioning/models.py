"""Tiny models with the classes of transformers: random weights, a token for each letter."""

from pathlib import Path
from string import ascii_lowercase

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "initializer_range": 0.2}
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
LETTERS = ["Ġ", *ascii_lowercase]  # the first is a space
OPT = {
    **{"vocab_size": 40, "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "word_embed_proj_dim": 32, "init_std": 0.2},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 256},
}
VISION = {**SMALL, **HEADS, "image_size": 32, "patch_size": 8}


def tokenizer(form: str = "<s> $A") -> PreTrainedTokenizerFast:
    """A token for a space and each letter, and four special ones."""
    words = {token: n for n, token in enumerate([*SPECIAL, *LETTERS])}
    made = Tokenizer(models.BPE(words, [], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    ids = [("<s>", 1), ("</s>", 2)]
    made.post_processor = processors.TemplateProcessing(form, special_tokens=ids)
    names = zip(("pad_token", "bos_token", "eos_token", "unk_token"), SPECIAL, strict=True)
    return PreTrainedTokenizerFast(tokenizer_object=made, **dict(names))


def save_blip2(folder: Path) -> Path:
    """BLIP-2 with OPT, as early checkpoints are saved: they do not name the token of an image."""
    torch.manual_seed(0)
    qformer = {**SMALL, **HEADS, "encoder_hidden_size": 32, "vocab_size": 8}
    parts = {"vision_config": VISION, "qformer_config": qformer}
    text = {"model_type": "opt", **OPT}
    config = Blip2Config(**parts, text_config=text, num_query_tokens=4)
    model = Blip2ForConditionalGeneration(config)
    torch.nn.init.normal_(model.query_tokens)
    model.save_pretrained(folder)
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    Blip2Processor(images, tokenizer()).save_pretrained(folder)
    return folder


def save_blip(folder: Path) -> Path:
    """BLIP."""
    torch.manual_seed(0)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
    text = {**SMALL, **HEADS, **ids, "vocab_size": 40, "encoder_hidden_size": 32}
    config = BlipConfig(vision_config=VISION, text_config=text, projection_dim=32)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(images, tokenizer("<s> $A </s>")).save_pretrained(folder)
    return folder


def save_opt(folder: Path) -> Path:
    """A text generator."""
    torch.manual_seed(0)
    OPTForCausalLM(OPTConfig(**OPT)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
