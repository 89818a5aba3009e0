"""One pass of the U-Net that gives its output and all its feature maps.

Letters in shape comments: B batch, C channels, h w latent pixels, L tokens, D width of the text.
"""

from typing import NamedTuple

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from .conditioning import Conditioning

UNSUPPORTED = (
    "class_embed_type",
    "addition_embed_type",
    "encoder_hid_dim_type",
    "num_class_embeds",
)


class OnePass(NamedTuple):
    """The result of `one_pass`.

    Args:
        noise: the result of `unet(...)`, `[B, C, h, w]`.
        pyramid: for each resolution all feature maps, concatenated over channels, finest first.
            Level l is `[B, C_l, h / 2^l, w / 2^l]`.
        attention_maps: level -> attention of each pixel to each token, `[B, L, h / 2^l, w / 2^l]`.
            It is empty unless `record_attention` was called.
    """

    noise: Tensor
    pyramid: tuple[Tensor, ...]
    attention_maps: dict[int, Tensor]


def one_pass(
    unet: UNet2DConditionModel, latents: Tensor, t: Tensor | int, conditioning: Conditioning
) -> OnePass:
    """Run the U-Net part by part. The noise is bit-equal to `unet(latents, t, ...)`.

    The pyramid has the maps that the paper's head reads: the outputs of the first convolution, of
    every resnet with its attention, of every down- and upsampler, and of the middle block. There
    are no forward hooks, so the pass can be compiled. Gradient checkpointing and offloading work.

    Args:
        unet: a U-Net of Stable Diffusion 1.x or 2.x.
        latents: scaled latents `[B, C, h, w]`.
        t: timestep, a number or `[B]`.
        conditioning: conditioning of B prompts.

    Raises:
        ValueError: if the U-Net has inputs that are not supported.

    Source: paper Fig. 2; released code: all input, middle and output blocks.
    """
    check_supported(unet)
    hook = getattr(unet, "_hf_hook", None)  # accelerate's offloading replaces `unet.forward`
    if hook is not None:
        (latents, t, conditioning), _ = hook.pre_forward(unet, latents, t, conditioning)
    text, recorder = conditioning.text, getattr(unet, "recorder", None)
    if recorder is not None:
        recorder.start()

    # 1. Time embedding and first convolution
    emb = unet.time_embedding(unet.get_time_embed(sample=latents, timestep=t))
    if unet.time_embed_act is not None:
        emb = unet.time_embed_act(emb)
    x = unet.conv_in(2 * latents - 1.0 if unet.config.center_input_sample else latents)
    pyramid: list[list[Tensor]] = [[] for _ in unet.down_blocks]
    pyramid[0].append(x)

    # 2. Down: each block gives the output of its layers, then of its downsampler
    residuals = [x]
    for level, block in enumerate(unet.down_blocks):
        x, outputs = block(hidden_states=x, temb=emb, **_text_of(block, text))
        residuals += outputs
        layers = len(block.resnets)
        pyramid[level] += outputs[:layers]
        if block.downsamplers is not None:
            pyramid[level + 1] += outputs[layers:]

    # 3. Middle
    if unet.mid_block is not None:
        x = unet.mid_block(x, emb, **_text_of(unet.mid_block, text))
        pyramid[-1].append(x)

    # 4. Up: layer by layer, because a block gives only its last output
    for below, block in enumerate(unet.up_blocks):
        level = len(unet.down_blocks) - 1 - below
        attentions = getattr(block, "attentions", [None] * len(block.resnets))
        for resnet, attention in zip(block.resnets, attentions, strict=True):
            x = torch.cat([x, residuals.pop()], dim=1)
            x = _layer(block, resnet, attention, x, emb, text)
            pyramid[level].append(x)
        if block.upsamplers is not None:
            pyramid[level].pop()  # in the paper the upsampled map replaces the last one of a block
            size = residuals[-1].shape[2:]
            doubled = size == (2 * x.shape[2], 2 * x.shape[3])
            for upsampler in block.upsamplers:
                x = upsampler(x, None if doubled else size)
            pyramid[level - 1].append(x)

    # 5. Noise
    noise = x
    if unet.conv_norm_out is not None:
        noise = unet.conv_act(unet.conv_norm_out(noise))
    noise = unet.conv_out(noise)
    # on the CPU, the backward of GroupNorm crashes for channels-last input without gradient
    levels = tuple(torch.cat(level, dim=1).contiguous() for level in pyramid)
    result = OnePass(noise, levels, {} if recorder is None else recorder.stop(levels))
    return result if hook is None else hook.post_forward(unet, result)


def check_supported(unet: UNet2DConditionModel) -> None:
    """Refuse a U-Net with inputs that Stable Diffusion 1.x and 2.x do not have.

    Raises:
        ValueError: if it has such an input; the message names it.
    """
    for name in UNSUPPORTED:
        if unet.config.get(name) is not None:
            raise ValueError(f"one_pass does not support a U-Net with {name}={unet.config[name]!r}")


def _text_of(block: torch.nn.Module, text: Tensor) -> dict[str, Tensor]:
    """The text as a keyword argument, if a block has cross-attention."""
    return {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}


def _layer(
    block: torch.nn.Module,
    resnet: torch.nn.Module,
    attention: torch.nn.Module | None,
    x: Tensor,
    emb: Tensor,
    text: Tensor,
) -> Tensor:
    """Run a resnet and its attention. The backward pass repeats them if the block checkpoints."""

    def run(x: Tensor, emb: Tensor, text: Tensor) -> Tensor:
        x = resnet(x, emb)
        if attention is not None:
            x = attention(x, encoder_hidden_states=text, return_dict=False)[0]
        return x

    if torch.is_grad_enabled() and getattr(block, "gradient_checkpointing", False):
        return torch.utils.checkpoint.checkpoint(run, x, emb, text, use_reentrant=False)  # type: ignore[no-any-return]
    return run(x, emb, text)


def pyramid_channels(unet: UNet2DConditionModel) -> list[int]:
    """C_l of every level of the pyramid, finest first."""
    down = [block.resnets[0].out_channels for block in unet.down_blocks]
    channels = [0] * len(down)
    channels[0] += unet.conv_in.out_channels
    for level, block in enumerate(unet.down_blocks):
        channels[level] += sum(resnet.out_channels for resnet in block.resnets)
        if block.downsamplers is not None:
            channels[level + 1] += down[level]
    if unet.mid_block is not None:
        channels[-1] += down[-1]
    for below, block in enumerate(unet.up_blocks):
        level = len(down) - 1 - below
        outputs = [resnet.out_channels for resnet in block.resnets]
        channels[level] += sum(outputs[:-1] if block.upsamplers is not None else outputs)
        if block.upsamplers is not None:
            channels[level - 1] += outputs[-1]
    return channels


def last_channels(unet: UNet2DConditionModel) -> list[int]:
    """For each level, the channels of its last map on the way to the noise.

    They are the last of the C_l channels.
    """
    finest, *coarser = reversed(unet.up_blocks)  # coarser blocks end with an upsampler
    return [finest.resnets[-1].out_channels, *(b.resnets[-2].out_channels for b in coarser)]
