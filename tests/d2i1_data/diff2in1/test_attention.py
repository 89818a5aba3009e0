"""Attention maps that come with the one pass: what they are, and that asking changes nothing."""

import copy
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from d2i1_data.diff2in1 import Conditioning, one_pass
from d2i1_data.diff2in1.attention import RecordingProcessor, attention_levels, record_attention
from d2i1_data.diff2in1.one_pass import last_channels, pyramid_channels
from tests.d2i1_data.diff2in1.test_one_pass import ALL_ATTENTION, V1_5, make_inputs, make_unet

THREE_LEVELS = {
    "block_out_channels": (16, 24, 32),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
}
LAYOUTS = {"all_attention": ALL_ATTENTION, "three_levels": THREE_LEVELS, "v1_5": V1_5}
SIZES = [(16, 16), (8, 24), (10, 14)]


@pytest.fixture(params=LAYOUTS)
def unet(request: pytest.FixtureRequest) -> UNet2DConditionModel:
    return make_unet(LAYOUTS[request.param])


def test_levels_and_channels_of_stable_diffusion() -> None:
    """v1-5's blocks, a tenth as wide."""
    unet = make_unet(V1_5)
    assert pyramid_channels(unet) == [256, 416, 704, 768]
    assert last_channels(unet) == [32, 64, 128, 128]
    assert attention_levels(unet) == [1, 2]


@torch.no_grad()
def test_last_channels_are_those_of_the_last_layer_before_upsampling() -> None:
    """VPD's released code reads output blocks 1, 4, 7 and the last one."""
    unet, seen = make_unet(V1_5), {}
    up = unet.up_blocks
    last = {0: up[3].attentions[2], 1: up[2].attentions[1], 2: up[1].attentions[1]}
    modules = {**last, 3: up[0].resnets[1]}
    for level, module in modules.items():
        module.register_forward_hook(lambda m, i, out, level=level: seen.update({level: out}))
    latents, conditioning = make_inputs()
    pyramid = one_pass(unet, latents, 0, conditioning).pyramid
    for level, channels in enumerate(last_channels(unet)):
        expected = seen[level][0] if isinstance(seen[level], tuple) else seen[level]
        assert torch.equal(pyramid[level][:, -channels:], expected)


def by_hand(
    unet: UNet2DConditionModel, latents: Tensor, conditioning: Conditioning
) -> dict[int, Tensor]:
    """softmax(Q K^T / sqrt(d)) from what the projections gave, averaged over heads and layers."""
    projected: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda m, i, out, n=name: projected.update({n: out}))
        for name, module in unet.named_modules()
        if name.endswith(("attn2.to_q", "attn2.to_k"))
    ]
    pyramid = one_pass(unet, latents, 0, conditioning).pyramid
    for hook in hooks:
        hook.remove()
    found: dict[int, list[Tensor]] = {}
    for name, query in projected.items():
        side, place, *_ = name.split(".")
        if not name.endswith("to_q") or side == "mid_block":
            continue
        level = int(place) if side == "down_blocks" else len(unet.up_blocks) - 1 - int(place)
        if level == 0:
            continue
        heads = unet.get_submodule(name.removesuffix(".to_q")).heads
        key = projected[name.removesuffix("q") + "k"]
        means = []
        for one, other in zip(query, key, strict=True):  # of a sample, [N, C] and [L, C]
            parts = zip(one.chunk(heads, 1), other.chunk(heads, 1), strict=True)
            scores = [q @ k.T / q.shape[1] ** 0.5 for q, k in parts]
            means.append(sum(s.exp() / s.exp().sum(1, keepdim=True) for s in scores) / heads)
        height, width = pyramid[level].shape[2:]
        maps = torch.stack(means).transpose(1, 2).reshape(len(means), -1, height, width)
        found.setdefault(level, []).append(maps)
    return {level: sum(maps) / len(maps) for level, maps in found.items()}


@pytest.mark.parametrize("size", SIZES, ids=str)
@torch.no_grad()
def test_maps_are_the_mean_softmax_of_queries_and_keys(
    unet: UNet2DConditionModel, size: tuple[int, int]
) -> None:
    latents, conditioning = make_inputs(*size)
    expected = by_hand(unet, latents, conditioning)
    record_attention(unet)
    seen = one_pass(unet, latents, 0, conditioning)
    assert (
        list(seen.attention_maps) == sorted(expected) == attention_levels(unet)
        and 0 not in seen.attention_maps
    )
    for level, maps in seen.attention_maps.items():
        assert maps.shape == (2, 7, *seen.pyramid[level].shape[2:])
        torch.testing.assert_close(maps, expected[level], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(maps.sum(1), torch.ones_like(maps[:, 0]))
        assert maps.std(1).min() > 1e-7  # they tell tokens apart


@pytest.mark.parametrize("size", SIZES, ids=str)
@torch.no_grad()
def test_recording_changes_only_rounding(unet: UNet2DConditionModel, size: tuple[int, int]) -> None:
    latents, conditioning = make_inputs(*size)
    processors = {name: type(one) for name, one in unet.attn_processors.items()}
    expected = unet(latents, 3, conditioning.text).sample
    plain = one_pass(unet, latents, 3, conditioning)
    assert plain.attention_maps == {} and torch.equal(plain.noise, expected)
    assert {name: type(one) for name, one in unet.attn_processors.items()} == processors

    record_attention(unet)
    recorded = one_pass(unet, latents, 3, conditioning)
    torch.testing.assert_close(recorded.noise, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(recorded.noise, unet(latents, 3, conditioning.text).sample)
    for one, other in zip(recorded.pyramid, plain.pyramid, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    changed = {n for n, p in unet.attn_processors.items() if isinstance(p, RecordingProcessor)}
    assert changed and all(".attn2." in name and "mid_block" not in name for name in changed)
    finest = ("down_blocks.0.", f"up_blocks.{len(unet.up_blocks) - 1}.")
    assert not any(name.startswith(finest) for name in changed)


@torch.no_grad()
def test_recording_twice_is_once() -> None:
    unet = make_unet(THREE_LEVELS)
    record_attention(unet)
    recorder, processors = unet.recorder, dict(unet.attn_processors)
    record_attention(unet)
    assert unet.recorder is recorder
    assert all(unet.attn_processors[name] is one for name, one in processors.items())


@torch.no_grad()
def test_every_pass_has_its_own_maps() -> None:
    unet = make_unet(THREE_LEVELS)
    record_attention(unet)
    latents, conditioning = make_inputs()
    first = one_pass(unet, latents, 0, conditioning).attention_maps
    kept = {level: maps.clone() for level, maps in first.items()}
    unet(latents * 2, 7, conditioning.text)  # nothing is recorded
    other = one_pass(unet, latents * 2, 0, Conditioning(conditioning.text[:, :5])).attention_maps
    again = one_pass(unet, latents, 0, conditioning).attention_maps
    for level, maps in kept.items():
        assert torch.equal(first[level], maps) and torch.equal(again[level], maps)
        assert other[level].shape[1] == 5
    assert not unet.recorder.maps and not unet.recorder.recording


def gradients(unet: UNet2DConditionModel, conditioning: Conditioning) -> list[Tensor]:
    """Of a loss on features and maps, by the U-Net's parameters and the text."""
    latents, _ = make_inputs()
    text = conditioning.text.clone().requires_grad_()
    unet.zero_grad()
    seen = one_pass(unet, latents, 0, Conditioning(text))
    loss = sum(level.square().mean() for level in seen.pyramid)
    (loss + sum(100 * maps.square().mean() for maps in seen.attention_maps.values())).backward()
    assert text.grad is not None
    return [text.grad, *(p.grad.clone() for p in unet.parameters() if p.grad is not None)]


def test_checkpointed_maps_have_the_same_gradients() -> None:
    unet = make_unet(V1_5).train()
    record_attention(unet)
    _, conditioning = make_inputs()
    plain = gradients(unet, conditioning)
    unet.enable_gradient_checkpointing()
    recomputed = gradients(unet, conditioning)
    assert len(plain) == len(recomputed) > 100
    for one, other in zip(plain, recomputed, strict=True):
        torch.testing.assert_close(one, other)
    assert not unet.recorder.maps  # the repeated passes were not recorded


@torch.no_grad()
def test_a_copy_records_by_itself() -> None:
    unet: Any = make_unet(THREE_LEVELS)
    record_attention(unet)
    other = copy.deepcopy(unet)
    assert other.recorder is not unet.recorder
    recorders = {id(p.recorder) for p in other.attn_processors.values() if hasattr(p, "recorder")}
    assert recorders == {id(other.recorder)}
    latents, conditioning = make_inputs()
    assert one_pass(other, latents, 0, conditioning).attention_maps and not unet.recorder.maps


@torch.no_grad()
def test_a_recorded_pass_compiles_as_one_graph() -> None:
    unet = make_unet(THREE_LEVELS)
    record_attention(unet)
    latents, conditioning = make_inputs()
    expected = one_pass(unet, latents, 0, conditioning)
    found = torch.compile(one_pass, fullgraph=True, backend="aot_eager")(
        unet, latents, 0, conditioning
    )
    torch.testing.assert_close(found.noise, expected.noise)
    assert found.attention_maps.keys() == expected.attention_maps.keys() == {1, 2}
    for level, maps in expected.attention_maps.items():
        torch.testing.assert_close(found.attention_maps[level], maps)


@torch.no_grad()
def test_recording_is_put_back_after_others_have_replaced_it() -> None:
    unet = make_unet(THREE_LEVELS)
    record_attention(unet)
    latents, conditioning = make_inputs()
    expected = one_pass(unet, latents, 0, conditioning).attention_maps[1]
    unet.set_attention_slice("auto")
    assert one_pass(unet, latents, 0, conditioning).attention_maps == {}
    record_attention(unet)
    torch.testing.assert_close(one_pass(unet, latents, 0, conditioning).attention_maps[1], expected)
