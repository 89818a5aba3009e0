"""Conditioning: all its parts move together."""

import pytest
import torch
from torch import Tensor

from d2i1_data.diff2in1 import Conditioning


def make(count: int, *, whole: bool, seed: int = 0) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator)

    return Conditioning(draw(7, 16), draw(12), draw(6)) if whole else Conditioning(draw(7, 16))


@pytest.mark.parametrize("whole", [False, True])
def test_every_part_follows(whole: bool) -> None:
    one, three = make(1, whole=whole), make(3, whole=whole)
    names = ["text", "pooled", "ids"] if whole else ["text"]
    assert list(three.named()) == names and three.batch_size == 3
    assert three.nbytes == sum(part.nbytes for part in three.named().values())
    for name, part in one.named().items():
        assert torch.equal(one.expand(4).named()[name], torch.cat([part] * 4))
        assert one.to(torch.bfloat16).named()[name].dtype == torch.bfloat16
    for name, part in three.named().items():
        assert torch.equal(three.select(1).named()[name], part[1])
        assert torch.equal(three.select([2, 0]).named()[name], part[[2, 0]])
        assert torch.equal(Conditioning.cat([one, three]).named()[name][1:], part)
        stacked = Conditioning.stack([three.select(n) for n in range(3)])
        assert torch.equal(stacked.named()[name], part)


def test_a_unet_gets_what_there_is() -> None:
    plain, whole = make(2, whole=False), make(2, whole=True)
    assert plain.unet_arguments() == {"encoder_hidden_states": plain.text}
    added = whole.unet_arguments()["added_cond_kwargs"]
    assert added == {"text_embeds": whole.pooled, "time_ids": whole.ids}
