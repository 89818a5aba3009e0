"""Tiny models: real architectures with few channels and random weights."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from d2i1_data import Diff2in1Pipeline
from d2i1_data.dataset.schema import describe_tasks
from d2i1_data.sources.rooms import Rooms
from d2i1_train.scratch.parts import (
    assemble,
    build_text_encoder,
    build_unet,
    build_vae,
    train_tokenizer,
)
from d2i1_train.scratch.settings import BaseSettings

TINY = BaseSettings(
    output_dir="unused",
    vae_channels=[8, 16],
    unet_channels=[16, 32],
    text_width=32,
    text_layers=1,
    text_length=16,
)

# every host with the tasks of rooms that it can perceive
MOUNTS = {
    "light": ("light", ("normals", "depth", "semseg")),
    "bae": ("bae", ("normals",)),
    "idisc": ("idisc", ("normals",)),
    "idisc-depth": ("idisc", ("depth",)),
    "vpd": ("vpd", ("semseg",)),
    "vpd-depth": ("vpd", ("depth",)),
}


def mount_tiny(base: Path, mount: str, **options: Any) -> Diff2in1Pipeline:
    """A new narrow host, one of `MOUNTS`, on a tiny base."""
    host, names = MOUNTS[mount]
    tasks = describe_tasks({name: Rooms.tasks[name] for name in names})
    torch.manual_seed(0)
    pipe = Diff2in1Pipeline.from_base(str(base), host, tasks, **{"width": 16, **options})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def save_tiny_base(
    folder: Path, prediction_type: str = "epsilon", settings: BaseSettings = TINY
) -> Path:
    """Write a base with random weights, by default of about 0.3 M and with stride 4; the folder."""
    torch.manual_seed(0)
    captions, vocabulary = ["a room with a blue sphere"], folder.parent / "tokenizer"
    tokenizer = train_tokenizer(captions, settings, vocabulary)
    text_encoder = build_text_encoder(tokenizer, settings)
    vae, unet = build_vae(settings, (32, 32)), build_unet(settings, (16, 16))
    assemble(vae, text_encoder, tokenizer, unet, prediction_type).save_pretrained(folder)
    return folder


# --- the layout of the original release: one file, blocks counted through all levels ---

UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_LAYERS = {
    "conv_shortcut": "nin_shortcut",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
BLOCK = re.compile(r"(down|mid|up)_blocks?\.(?:(\d+)\.)?(\w+)\.(\d+)\.(.+)\.(weight|bias)")


def save_single_file(base_folder: Path, file: Path) -> Path:
    """Write a base in diffusers layout as one file in Stable Diffusion's first layout; the file."""
    tensors: dict[str, Tensor] = {}
    unet, config = _read_part(base_folder / "unet")
    for name, tensor in unet.items():
        tensors["model.diffusion_model." + _unet_name(name, config)] = tensor
    vae, config = _read_part(base_folder / "vae")
    for name, tensor in vae.items():
        # in that layout a linear layer of the attention is a 1x1 convolution
        convolution = ".attentions." in name and tensor.ndim == 2
        stored = tensor[:, :, None, None].contiguous() if convolution else tensor
        tensors["first_stage_model." + _vae_name(name, len(config["up_block_types"]))] = stored
    for name, tensor in _read_part(base_folder / "text_encoder")[0].items():
        inner = name.removeprefix("text_model.")  # transformers 5.6 no longer has this level
        tensors["cond_stage_model.transformer.text_model." + inner] = tensor
    save_file(tensors, file)
    return file


def _read_part(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    (weights,) = folder.glob("*.safetensors")
    return load_file(weights), json.loads((folder / "config.json").read_text())


def _unet_name(name: str, config: dict[str, Any]) -> str:
    """A level has layers, then a sampler: a block of its own on the way down, not on the way up."""
    for ours, theirs in UNET_ENDS.items():
        if name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    side, level, kind, number, layer, end = _take_apart(name)
    layers = config["layers_per_block"]
    before = level * (layers + 1)
    if kind == "downsamplers":
        return f"input_blocks.{before + layers + 1}.0.op.{end}"
    if kind == "upsamplers":
        place = 2 if config["up_block_types"][level].startswith("CrossAttn") else 1
        return f"output_blocks.{before + layers}.{place}.{layer}.{end}"
    attends = kind == "attentions"
    inner = f"{layer if attends else UNET_RESNET[layer]}.{end}"
    if side == "mid":
        return f"middle_block.{2 * number + attends}.{inner}"
    if side == "down":
        return f"input_blocks.{1 + before + number}.{int(attends)}.{inner}"
    return f"output_blocks.{before + number}.{int(attends)}.{inner}"


def _vae_name(name: str, levels: int) -> str:
    """The levels of the decoder are counted from the pixels, like those of the encoder."""
    coder, _, rest = name.partition(".")
    if "_block" not in rest:
        return name.replace("conv_norm_out", "norm_out")
    side, level, kind, number, layer, end = _take_apart(rest)
    inner = f"{VAE_LAYERS.get(layer, layer)}.{end}"
    if side == "mid":
        place = f"attn_{number + 1}" if kind == "attentions" else f"block_{number + 1}"
        return f"{coder}.mid.{place}.{inner}"
    level = level if side == "down" else levels - 1 - level
    place = {"downsamplers": "downsample", "upsamplers": "upsample"}.get(kind, f"block.{number}")
    return f"{coder}.{side}.{level}.{place}.{inner}"


def _take_apart(name: str) -> tuple[str, int, str, int, str, str]:
    """Side (down, mid or up), level, kind of block, its number, layer, weight or bias."""
    match = BLOCK.fullmatch(name)
    assert match, name
    side, level, kind, number, layer, end = match.groups()
    return side, int(level or 0), kind, int(number), layer, end
