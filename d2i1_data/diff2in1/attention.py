"""Cross-attention maps of one pass, for hosts that read them."""

from collections import defaultdict

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor


class AttentionRecorder:
    """Records the cross-attention that the processors of a U-Net compute in one pass."""

    def __init__(self) -> None:
        self.recording = False
        self.maps: dict[int, list[Tensor]] = defaultdict(list)

    def start(self) -> None:
        """Forget the last pass and record the next one."""
        self.recording = True
        self.maps.clear()

    def stop(self, pyramid: tuple[Tensor, ...]) -> dict[int, Tensor]:
        """Stop recording.

        Args:
            pyramid: pyramid of the same pass, for its sizes.

        Returns:
            Level of the pyramid -> attention of each pixel to each token, `[B, L, h_l, w_l]`.
        """
        self.recording = False
        attention = {}
        for level in sorted(self.maps):
            mean = torch.stack(self.maps[level]).mean(0)  # [B, h_l w_l, L]
            attention[level] = mean.transpose(1, 2).unflatten(2, pyramid[level].shape[2:])
        self.maps.clear()
        return attention


class RecordingProcessor:
    """Cross-attention in plain operations, because fused kernels do not return their weights.

    It uses the same operations while nothing is recorded, because gradient checkpointing repeats a
    pass and needs the same operations.
    """

    def __init__(self, recorder: AttentionRecorder, level: int) -> None:
        self.recorder, self.level = recorder, level

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Attention of pixels `[B, N, C]` to tokens `[B, L, D]`, as diffusers calls it."""
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
        value = attn.head_to_batch_dim(attn.to_v(encoder_hidden_states))
        weights = attn.get_attention_scores(query, key, attention_mask)  # [B * heads, N, L]
        mean = weights.unflatten(0, (-1, attn.heads)).mean(1)
        if self.recorder.recording:
            self.recorder.maps[self.level].append(mean)
        out = attn.batch_to_head_dim(torch.bmm(weights, value))
        out = attn.to_out[1](attn.to_out[0](out))
        return out / attn.rescale_output_factor


def record_attention(unet: UNet2DConditionModel) -> None:
    """Let `one_pass` return the cross-attention maps of this U-Net.

    These are the maps of the down and up blocks, averaged over heads and layers. The finest level
    is left out, as in VPD (at 512 px this leaves 16 x 16 and 32 x 32). Call this function again if
    other code replaces the processors, as `enable_attention_slicing` does.
    """
    processors = dict(unet.attn_processors)
    levels = {name: level for name in processors if (level := _level(unet, name))}
    if all(isinstance(processors[name], RecordingProcessor) for name in levels):
        return
    unet.recorder = AttentionRecorder()
    recording = {n: RecordingProcessor(unet.recorder, level) for n, level in levels.items()}
    unet.set_attn_processor(processors | recording)


def attention_levels(unet: UNet2DConditionModel) -> list[int]:
    """The levels of the pyramid that have cross-attention maps."""
    return sorted({_level(unet, name) for name in unet.attn_processors} - {0})


def _level(unet: UNet2DConditionModel, name: str) -> int:
    """Level of a processor like up_blocks.1.attentions.0.transformer_blocks.0.attn2.processor.

    It is 0 for processors that are not recorded.
    """
    side, place, *_, kind, _ = name.split(".")
    if kind != "attn2" or not place.isdigit():
        return 0
    down = side == "down_blocks"
    return int(place) if down else len(unet.up_blocks) - 1 - int(place)
