"""One pass: the U-Net's own noise to the last bit, and the paper's pyramid."""

from typing import Any

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from diffusers import UNet2DConditionModel
from torch import Tensor

from d2i1_data.diff2in1 import Conditioning, one_pass, pyramid_channels

TWO_LEVELS = {
    "block_out_channels": (16, 32),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
}
ALL_ATTENTION = {
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2,
    "layers_per_block": 1,
}
# runwayml/stable-diffusion-v1-5, unet/config.json, a tenth as wide
V1_5 = {
    "block_out_channels": (32, 64, 128, 128),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
}
LAYOUTS = {"two_levels": TWO_LEVELS, "all_attention": ALL_ATTENTION, "v1_5": V1_5}


def make_unet(layout: dict[str, Any], **more: Any) -> UNet2DConditionModel:
    torch.manual_seed(0)
    options = {"cross_attention_dim": 16, "attention_head_dim": 4, "norm_num_groups": 8}
    return UNet2DConditionModel(sample_size=16, **options, **layout, **more).eval()


def make_inputs(height: int = 16, width: int = 16) -> tuple[Tensor, Conditioning]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, height, width, generator=generator)
    return latents, Conditioning(torch.randn(2, 7, 16, generator=generator))


@pytest.fixture(scope="module", params=LAYOUTS)
def unet(request: pytest.FixtureRequest) -> UNet2DConditionModel:
    return make_unet(LAYOUTS[request.param])


@pytest.mark.parametrize("t", [0, torch.tensor(521), torch.tensor([7, 900])], ids=str)
@pytest.mark.parametrize("size", [(16, 16), (8, 24), (10, 14), (9, 13)], ids=str)
@torch.no_grad()
def test_noise_is_bit_equal(
    unet: UNet2DConditionModel, size: tuple[int, int], t: Tensor | int
) -> None:
    latents, conditioning = make_inputs(*size)
    expected = unet(latents, t, conditioning.text).sample
    assert torch.equal(one_pass(unet, latents, t, conditioning).noise, expected)


@torch.no_grad()
def test_noise_is_bit_equal_with_centred_input_and_linear_projections() -> None:
    unet = make_unet(ALL_ATTENTION, center_input_sample=True, use_linear_projection=True)
    latents, conditioning = make_inputs()
    expected = unet(latents, 3, conditioning.text).sample
    assert torch.equal(one_pass(unet, latents, 3, conditioning).noise, expected)


@pytest.mark.parametrize("size", [(16, 16), (8, 24), (10, 14)], ids=str)
@torch.no_grad()
def test_pyramid_has_its_channels_and_halves_each_level(
    unet: UNet2DConditionModel, size: tuple[int, int]
) -> None:
    latents, conditioning = make_inputs(*size)
    pyramid = one_pass(unet, latents, 0, conditioning).pyramid
    assert [level.shape[1] for level in pyramid] == pyramid_channels(unet)
    for number, level in enumerate(pyramid):
        halved = tuple(-(-side // 2**number) for side in size)
        assert level.shape[2:] == halved
        assert level.is_contiguous()


@torch.no_grad()
def test_pyramid_is_contiguous_for_channels_last_features() -> None:
    unet = make_unet(TWO_LEVELS).to(memory_format=torch.channels_last)
    latents, conditioning = make_inputs()
    latents = latents.to(memory_format=torch.channels_last)
    assert all(level.is_contiguous() for level in one_pass(unet, latents, 0, conditioning).pyramid)


def test_pyramid_channels_are_the_papers() -> None:
    paper = (2560, 4160, 7040, 7680)
    assert pyramid_channels(make_unet(V1_5)) == [channels * 32 // 320 for channels in paper]


@torch.no_grad()
def test_pyramid_holds_the_maps_the_blocks_give() -> None:
    """Each map is found by its module's own output, at its place of the order told."""
    unet, seen = make_unet(TWO_LEVELS), {}
    down, up = unet.down_blocks, unet.up_blocks
    modules = {
        **{"conv_in": unet.conv_in, "down0": down[0].resnets[0], "shrunk": down[0].downsamplers[0]},
        **{"down1": down[1].attentions[0], "mid": unet.mid_block},
        **{"up0": up[0].attentions[0], "grown": up[0].upsamplers[0]},
        **{"up1a": up[1].resnets[0], "up1b": up[1].resnets[1]},
    }
    for name, module in modules.items():
        module.register_forward_hook(lambda m, i, out, name=name: seen.update({name: out}))
    latents, conditioning = make_inputs()
    unet(latents, 0, conditioning.text)
    maps = {name: out[0] if isinstance(out, tuple) else out for name, out in seen.items()}
    # the last map of up block 0 is the upsampled one, so only its first layer counts below
    finest = torch.cat([maps[n] for n in ("conv_in", "down0", "grown", "up1a", "up1b")], 1)
    coarse = torch.cat([maps[n] for n in ("shrunk", "down1", "mid", "up0")], 1)
    pyramid = one_pass(unet, latents, 0, conditioning).pyramid
    assert torch.equal(pyramid[0], finest)
    assert torch.equal(pyramid[1], coarse)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("class_embed_type", {"class_embed_type": "timestep"}),
        ("num_class_embeds", {"num_class_embeds": 5}),
        (
            "addition_embed_type",
            {
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 8,
                "projection_class_embeddings_input_dim": 64,
            },
        ),
        (
            "encoder_hid_dim_type",
            {"encoder_hid_dim_type": "text_proj", "encoder_hid_dim": 16},
        ),
    ],
)
def test_other_conditionings_are_refused_by_name(name: str, options: dict[str, Any]) -> None:
    latents, conditioning = make_inputs()
    with pytest.raises(ValueError, match=name):
        one_pass(make_unet(TWO_LEVELS, **options), latents, 0, conditioning)


def kept_for_backward(unet: UNet2DConditionModel) -> tuple[int, list[Tensor]]:
    """Bytes of activations that wait for the backward pass, and the gradients it gives."""
    latents, conditioning = make_inputs()
    weights = {p.untyped_storage().data_ptr() for p in unet.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    unet.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = one_pass(unet, latents, 5, conditioning)
    (sum(level.square().mean() for level in result.pyramid) + result.noise.mean()).backward()
    return sum(kept.values()), [p.grad.clone() for p in unet.parameters() if p.grad is not None]


def test_gradient_checkpointing_keeps_less_in_the_up_blocks_too() -> None:
    unet = make_unet(V1_5).train()
    plain, gradients = kept_for_backward(unet)
    unet.enable_gradient_checkpointing()
    everywhere, recomputed = kept_for_backward(unet)
    for block in unet.up_blocks:
        block.gradient_checkpointing = False
    only_diffusers_walk, _ = kept_for_backward(unet)
    assert everywhere < only_diffusers_walk < plain
    assert everywhere < 0.5 * plain
    assert len(gradients) == len(recomputed)
    for one, other in zip(gradients, recomputed, strict=True):
        torch.testing.assert_close(one, other)


class Counting(ModelHook):
    """An accelerate hook that counts, and whose inputs and outputs must be the ones used."""

    def __init__(self) -> None:
        self.before = self.after = 0

    def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        self.before += 1
        return args, kwargs

    def post_forward(self, module: Any, output: Any) -> Any:
        self.after += 1
        return output


@torch.no_grad()
def test_an_offload_hook_runs_once() -> None:
    unet = make_unet(TWO_LEVELS)
    latents, conditioning = make_inputs()
    expected = one_pass(unet, latents, 5, conditioning)
    hook = Counting()
    add_hook_to_module(unet, hook)
    found = one_pass(unet, latents, 5, conditioning)
    assert (hook.before, hook.after) == (1, 1)
    assert torch.equal(found.noise, expected.noise)
    assert all(map(torch.equal, found.pyramid, expected.pyramid))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@torch.no_grad()
def test_compiles_as_one_graph(backend: str) -> None:
    unet = make_unet(TWO_LEVELS)
    latents, conditioning = make_inputs()
    t = torch.tensor(5)
    expected = one_pass(unet, latents, t, conditioning)
    found = torch.compile(one_pass, fullgraph=True, backend=backend)(unet, latents, t, conditioning)
    torch.testing.assert_close(found.noise, expected.noise, atol=1e-5, rtol=1e-5)
    for one, other in zip(found.pyramid, expected.pyramid, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
