"""Conditioning: the inputs of a U-Net besides latents and t.

Letters in shape comments: B batch, L tokens, D width.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Conditioning(NamedTuple):
    """The inputs of a U-Net besides latents and t.

    Args:
        text: states of the text encoder, `[B, L, D]`, or `[L, D]` for a single prompt.
        pooled: pooled text `[B, P]`, for bases whose U-Net takes it; None for Stable Diffusion 1.x
            and 2.x.
        ids: extra numbers `[B, N]`, such as the sizes that Stable Diffusion XL takes; None
            otherwise.
    """

    text: Tensor
    pooled: Tensor | None = None
    ids: Tensor | None = None

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self.text)

    @property
    def nbytes(self) -> int:
        """Memory of all tensors in bytes."""
        return sum(part.nbytes for part in self if part is not None)

    def apply(self, change: Callable[[Tensor], Tensor]) -> "Conditioning":
        """Apply a function to each tensor that is not None."""
        return Conditioning(**{name: change(part) for name, part in self.named().items()})

    def expand(self, count: int) -> "Conditioning":
        """Repeat a batch of one to `count`, without copying."""
        return self.apply(lambda part: part.expand(count, *part.shape[1:]))

    def to(self, *target: Any) -> "Conditioning":
        """Move to a device, to a dtype, or to those of another tensor, as `Tensor.to` does."""
        return self.apply(lambda part: part.to(*target))

    def select(self, index: Any) -> "Conditioning":
        """Index along the batch. An integer gives the conditioning of one prompt."""
        return self.apply(lambda part: part[index])

    def named(self) -> dict[str, Tensor]:
        """The tensors that are not None, by field."""
        return {name: part for name, part in self._asdict().items() if part is not None}

    def unet_arguments(self) -> dict[str, Any]:
        """Keyword arguments for a diffusers U-Net."""
        arguments: dict[str, Any] = {"encoder_hidden_states": self.text}
        if self.pooled is not None:
            arguments["added_cond_kwargs"] = {"text_embeds": self.pooled, "time_ids": self.ids}
        return arguments

    @staticmethod
    def cat(parts: Sequence["Conditioning"]) -> "Conditioning":
        """Concatenate along the batch."""
        return _combine(torch.cat, parts)

    @staticmethod
    def stack(parts: Sequence["Conditioning"]) -> "Conditioning":
        """A batch of the conditionings of single prompts."""
        return _combine(torch.stack, parts)


def _combine(
    combine: Callable[[list[Tensor]], Tensor], parts: Sequence[Conditioning]
) -> Conditioning:
    names = parts[0].named()
    return Conditioning(**{name: combine([part.named()[name] for part in parts]) for name in names})
