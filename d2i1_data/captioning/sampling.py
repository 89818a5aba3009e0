"""Sampling whose draws do not depend on the batch."""

import hashlib
from collections.abc import Sequence

import torch
from torch import FloatTensor, LongTensor
from transformers import LogitsProcessorList
from transformers.generation.logits_process import TemperatureLogitsWarper, TopPLogitsWarper


class SeededDraw:
    """Adds Gumbel noise to logits, with a seed of its own for each row.

    The token with the largest sum is a draw from the softmax of the logits. So a greedy search
    samples. `generate(do_sample=True)` draws from one state for the whole batch instead.

    Args:
        names: a name for each row. It and the seed decide the draws.
        seed: seed of the command.

    Source: Gumbel 1954; Maddison et al. 2014, "A* sampling", Sec. 2.
    """

    def __init__(self, names: Sequence[str], seed: int) -> None:
        self.generators = []
        for name in names:
            digest = hashlib.blake2b(f"{name}\0{seed}".encode(), digest_size=8).digest()
            seeded = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
            self.generators.append(seeded)

    def __call__(self, input_ids: LongTensor, scores: FloatTensor) -> FloatTensor:
        size = scores.shape[1]
        uniform = [torch.rand(size, generator=g, dtype=torch.float64) for g in self.generators]
        drawn = torch.stack(uniform).clamp(min=1e-300)
        noise = -(-drawn.log()).log()
        return (scores.double() + noise.to(scores.device)).float()  # type: ignore[return-value]


def seeded_sampling(
    names: Sequence[str], seed: int, temperature: float, top_p: float
) -> LogitsProcessorList:
    """Logits processors that make a greedy search sample.

    Args:
        names: a name for each row of the batch.
        seed: seed of the command.
        temperature: divides the logits.
        top_p: the likeliest tokens that together have this probability can be drawn.
    """
    return LogitsProcessorList(
        [TemperatureLogitsWarper(temperature), TopPLogitsWarper(top_p), SeededDraw(names, seed)]
    )
