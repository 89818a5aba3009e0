"""Cross-attention maps that come with the one pass, for hosts that read them."""

from collections import defaultdict

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor


class Recorder:
    """What the processors of one U-Net saw in the pass that is being made."""

    def __init__(self) -> None:
        self.open = False
        self.seen: dict[int, list[Tensor]] = defaultdict(list)

    def begin(self) -> None:
        """Forget, and listen."""
        self.open = True
        self.seen.clear()

    def end(self, pyramid: tuple[Tensor, ...]) -> dict[int, Tensor]:
        """By level of the pyramid, how much each pixel attends to each token, [B, L, h_l, w_l]."""
        self.open = False
        maps = {}
        for level in sorted(self.seen):
            mean = torch.stack(self.seen[level]).mean(0)  # [B, h_l w_l, L]
            maps[level] = mean.transpose(1, 2).unflatten(2, pyramid[level].shape[2:])
        self.seen.clear()
        return maps


class RecordingProcessor:
    """Cross-attention written out, because fused kernels do not give their weights.

    Always written out, also where nobody listens: gradient checkpointing repeats a pass and must
    find the same operations.
    """

    def __init__(self, recorder: Recorder, level: int) -> None:
        self.recorder, self.level = recorder, level

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Pixels [B, N, C] that attended to tokens [B, L, D]."""
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
        value = attn.head_to_batch_dim(attn.to_v(encoder_hidden_states))
        weights = attn.get_attention_scores(query, key, attention_mask)  # [B * heads, N, L]
        mean = weights.unflatten(0, (-1, attn.heads)).mean(1)
        if self.recorder.open:
            self.recorder.seen[self.level].append(mean)
        out = attn.batch_to_head_dim(torch.bmm(weights, value))
        out = attn.to_out[1](attn.to_out[0](out))
        return out / attn.rescale_output_factor


def record_attention(unet: UNet2DConditionModel) -> None:
    """Let `one_pass` give this U-Net's cross-attention maps; again after others have replaced the
    processors, as `enable_attention_slicing` does.

    Those of the blocks on the way down and up, averaged over heads and layers; the finest level is
    left out, as in VPD (at 512 px: 16 x 16 and 32 x 32).
    """
    processors = dict(unet.attn_processors)
    levels = {name: level for name in processors if (level := _level(unet, name))}
    if all(isinstance(processors[name], RecordingProcessor) for name in levels):
        return
    unet.recorder = Recorder()
    recording = {n: RecordingProcessor(unet.recorder, level) for n, level in levels.items()}
    unet.set_attn_processor(processors | recording)


def attention_levels(unet: UNet2DConditionModel) -> list[int]:
    """The levels of the pyramid that have such maps."""
    return sorted({_level(unet, name) for name in unet.attn_processors} - {0})


def _level(unet: UNet2DConditionModel, name: str) -> int:
    """Level of a processor like up_blocks.1.attentions.0.transformer_blocks.0.attn2.processor; 0
    for all that are not recorded."""
    side, place, *_, kind, _ = name.split(".")
    if kind != "attn2" or not place.isdigit():
        return 0
    down = side == "down_blocks"
    return int(place) if down else len(unet.up_blocks) - 1 - int(place)
