"""Hosts: as large as published, losses from their formulas, and what each does in its own way."""

import copy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.deformable_detr.modeling_deformable_detr import (
    MultiScaleDeformableAttention,
)

from d2i1_data.diff2in1 import Diff2in1Output, Diff2in1Pipeline, Perception
from d2i1_data.diff2in1.decoders import PyramidDecoder
from d2i1_data.diff2in1.families import UnitVector
from d2i1_data.diff2in1.hosts import HOSTS, Bae, IDisc, Light, Vpd
from d2i1_data.diff2in1.hosts import bae as bae_module
from d2i1_data.diff2in1.hosts.idisc import CrossAttention, DeformableAttention, sine_positions
from d2i1_data.diff2in1.hosts.vpd import SCENES, TEMPLATES
from tests.tiny import MOUNTS, mount_tiny

# Stable Diffusion v1-5, finest first
PYRAMID, LAST, CONTEXT, LEVELS = [2560, 4160, 7040, 7680], [320, 640, 1280, 1280], 768, [1, 2]
NORMALS = {"normals": {"family": "unit_vector"}}
DEPTH = {"depth": {"family": "metric_map"}}
SEMSEG = {"semseg": {"family": "label_map", "names": [f"class {n}" for n in range(150)]}}
PUBLISHED: dict[str, Callable[[], Perception]] = {
    "light": lambda: Light({**NORMALS, **DEPTH, **SEMSEG}, PYRAMID),
    "bae": lambda: Bae(NORMALS, PYRAMID),
    "idisc": lambda: IDisc(NORMALS, PYRAMID),
    "idisc-depth": lambda: IDisc(DEPTH, PYRAMID),
    "vpd": lambda: Vpd(SEMSEG, LAST, CONTEXT, attention=LEVELS),
    "vpd-depth": lambda: Vpd(DEPTH, LAST, CONTEXT, attention=LEVELS),
}
RAW = {"normals": 4, "depth": 2, "semseg": 150}
SMALL = [8, 12, 20]  # a pyramid of three levels


def on_meta(name: str) -> Perception:
    with torch.device("meta"):
        return PUBLISHED[name]()


def pyramid_of(
    channels: list[int], size: tuple[int, int], seed: int = 0, **options: Any
) -> tuple[Tensor, ...]:
    """Random features [2, C, h, w], finest first, of a latent of this size."""
    generator = None if options.get("device") == "meta" else torch.Generator().manual_seed(seed)
    sides = [[-(-side // 2**level) for side in size] for level in range(len(channels))]
    shapes = [(2, c, *side) for c, side in zip(channels, sides, strict=True)]
    return tuple(torch.randn(shape, generator=generator, **options) for shape in shapes)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# --- as large as published, on tensors without values ---


@pytest.mark.parametrize("latent", [(64, 64), (64, 80)], ids=str)  # 480 x 640 padded is 512 x 640
@pytest.mark.parametrize("name", PUBLISHED)
def test_answers_have_their_size(name: str, latent: tuple[int, int]) -> None:
    host, size = on_meta(name), (latent[0] * 8, latent[1] * 8)
    pyramid = pyramid_of(PYRAMID, latent, device="meta")
    names = len(SEMSEG["semseg"]["names"])
    maps = {n: torch.empty(2, names, *pyramid[n].shape[2:], device="meta") for n in LEVELS}
    raw = host(pyramid, size, maps)
    assert {task: tuple(one.shape) for task, one in raw.items()} == {
        task: (2, RAW[task], *size) for task in host.families
    }
    targets = {
        task: torch.empty(2, family.channels, *size, dtype=family.dtype, device="meta")
        for task, family in host.families.items()
    }
    losses = host.losses(pyramid, size, targets, maps)
    assert {task: one.shape for task, one in losses.items()} == dict.fromkeys(targets, (2,))


def test_adapters_give_the_pyramids_of_the_hosts_encoders() -> None:
    expected = {
        "bae": [(2048, 16), (176, 32), (64, 64), (40, 128), (24, 256)],
        "idisc": [(1536, 16), (768, 32), (384, 64), (192, 128)],
    }
    for name, shapes in expected.items():
        host = on_meta(name)
        for width in (64, 80):
            maps = host.decoder(pyramid_of(PYRAMID, (64, width), device="meta"))
            sides = [(c, side, side * width // 64) for c, side in shapes]
            assert [tuple(one.shape[1:]) for one in maps] == sides


def conv(inputs: int, outputs: int, kernel: int = 1, *, bias: bool = True) -> int:
    return inputs * outputs * kernel**2 + bias * outputs


def adapter_parts(made: list[int], finer: list[int]) -> int:
    """1x1 convolutions, residual blocks and transposed convolutions, with their norms."""
    narrow = [*made, *[made[-1]] * (len(PYRAMID) - len(made))]
    total = sum(c * own for c, own in zip(reversed(PYRAMID), narrow, strict=True))
    for below, own in pairwise(narrow):
        both = below + own
        total += 2 * both + conv(both, own, 3) + 2 * own + conv(own, own, 3) + conv(both, own)
    total, inputs = total + 2 * made[-1], made[-1]
    for own in finer:
        total += conv(inputs, own, 2) + 2 * own
        inputs = own + made[-1]
    return total


def test_bae_has_the_parameters_of_the_released_codes() -> None:
    """Diff-2-in-1's adapter in use, 21.9 M; the authors' decoder with group norm, 44.1 M."""
    host = on_meta("bae")
    adapter, decoder = count(host.decoder), count(host) - count(host.decoder)
    assert adapter == adapter_parts([2048, 176, 64], [40, 24])
    assert adapter == pytest.approx(21.9e6, rel=0.01)
    expected = conv(2048, 2048)
    for inputs, own in ((2048 + 176, 1024), (1024 + 64, 512), (512 + 40, 256), (256 + 24, 128)):
        expected += conv(inputs, own, 3) + 2 * own + conv(own, own, 3) + 2 * own
    expected += conv(512, 4, 3)
    for inputs in (512, 256, 128):
        expected += conv(inputs + 4, 128) + 2 * conv(128, 128) + conv(128, 4)
    assert decoder == expected
    assert decoder == pytest.approx(44.1e6, rel=0.01)


@pytest.mark.parametrize(("name", "answers"), [("idisc", 4), ("idisc-depth", 1)])
def test_idisc_has_the_parameters_of_the_released_code(name: str, answers: int) -> None:
    """Less what learns nothing there: biases before a batch norm, or equal within a softmax."""
    host, encoder, c, q, wide = on_meta(name), [1536, 768, 384, 192], 256, 128, 4
    assert count(host.decoder) == adapter_parts(encoder[:-1], encoder[-1:])

    def network(own: int) -> int:
        return 2 * own + conv(own, wide * own) + conv(wide * own, own)

    def attention(sink: int, source: int) -> int:
        norms = 2 * sink + 2 * source
        return norms + conv(sink, sink) + 2 * conv(source, sink) + conv(sink, sink)

    heads, levels, points = 4, 4, 4
    looking = heads * levels * points
    layer = 2 * c + conv(c, 2 * looking) + conv(c, looking) + 2 * conv(c, c) + network(c)
    decoder = sum(conv(own, c) + 2 * c for own in encoder) + levels * c + 4 * layer
    for own in encoder:  # convolutions with batch norm: after attention, beside it, after both
        decoder += conv(c, c, bias=False) + conv(own, c, bias=False) + conv(c, c, 3, bias=False)
        decoder += 3 * 2 * c
    partition = 32 * q + attention(q, c) + network(q)
    reader = 2 * (attention(c, q) + network(c)) + 2 * c + conv(c, c) + 2 * c + conv(c, answers)
    released = decoder + 3 * partition + 3 * reader
    idle = c + 3 * (q + q) + 3 * 2 * c  # of the last layer; norms, queries; keys
    spread = 3 * conv(c, 1) if name == "idisc-depth" else 0
    assert count(host) - count(host.decoder) == released - idle + spread
    assert count(host) - count(host.decoder) == pytest.approx(released, rel=0.01)


def test_vpd_has_the_parameters_of_the_released_code() -> None:
    context = 2 * conv(768, 768) + 768
    channels = [320, 640 + 150, 1280 + 150, 1280]
    pyramid_network = sum(conv(c, 256) for c in channels) + 4 * conv(256, 256, 3)
    steps = 1 + 1 + 2 + 3  # convolutions with batch norm of the levels
    head = steps * (conv(256, 256, 3, bias=False) + 2 * 256) + conv(256, 150)
    assert count(on_meta("vpd")) == context + pyramid_network + head == 8_692_118

    shrink = 2 * conv(320, 320, 3) + 2 * 320 + conv(640, 640, 3)
    join = conv(320 + 640 + 1280 + 1280, 1536) + 2 * 1536
    enlarge = sum(conv(inputs, 32, 2, bias=False) + 2 * 32 for inputs in (1536, 32, 32))
    enlarge += conv(32, 192, 3, bias=False) + 2 * 192  # there with a bias before its norm
    last = conv(192, 192, 3) + 2 * conv(192, 1, 3)  # the second tells the spread
    assert count(on_meta("vpd-depth")) == context + shrink + join + enlarge + last


# --- Bae et al. ---


def small_bae(**options: Any) -> Bae:
    torch.manual_seed(0)
    return Bae(NORMALS, SMALL, width=16, **options).double()


def draw_normals(size: tuple[int, int]) -> Tensor:
    """[2, 3, H, W] in float64, unknown along the left."""
    generator = torch.Generator().manual_seed(1)
    shape = (2, 3, *size)
    vectors = F.normalize(torch.randn(shape, generator=generator, dtype=torch.float64), dim=1)
    vectors[..., :5] = 0
    return vectors


def said(raw: Tensor) -> Tensor:
    kappa = torch.where(raw[:, 3:] > 0, raw[:, 3:], raw[:, 3:].clamp(max=0).exp() - 1) + 1.01
    return torch.cat([raw[:, :3] / raw[:, :3].norm(dim=1, keepdim=True), kappa], 1)


def nll(said: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Of directions of any length with kappa; and the cosine; both [B, ...]."""
    cosine = (said[:, :3] * truth).sum(1) / said[:, :3].norm(dim=1)
    kappa = said[:, 3]
    error = -(kappa**2 + 1).log() + kappa * cosine.clamp(-1, 1).acos()
    return error + (1 + (-kappa * np.pi).exp()).log(), cosine


def mean_nll(said: Tensor, truth: Tensor, protocol: str) -> Tensor:
    error, cosine = nll(said, truth)
    known = truth.norm(dim=1) > 0
    if protocol == "host":
        return error[known & (cosine.abs() < 0.999)].mean().expand(len(error))
    return torch.stack([e[k].mean() for e, k in zip(error, known, strict=True)])


def corners(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with corners on corners, as two matrices."""

    def matrix(have: int, want: int) -> Tensor:
        place = torch.arange(want, dtype=torch.float64) * (have - 1) / (want - 1)
        distance = (place[:, None] - torch.arange(have, dtype=torch.float64)).abs()
        return (1 - distance).clamp(min=0)

    return matrix(x.shape[-2], size[0]) @ x @ matrix(x.shape[-1], size[1]).T


def spread_out(truth: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixel of the truth that lies nearest to each, corners on corners."""
    rows, columns = (
        (torch.arange(want) * (have - 1) / (want - 1)).round().long()
        for have, want in zip(truth.shape[-2:], size, strict=True)
    )
    return truth[..., rows, :][..., columns]


@pytest.mark.parametrize("protocol", ["ours", "host"])
def test_bae_learns_at_four_scales(protocol: Any) -> None:
    """The released training loss where every pixel is refined."""
    host = small_bae(sampling_ratio=1.0, protocol=protocol)
    size, truth = (32, 48), draw_normals((32, 48))
    pyramid = pyramid_of(SMALL, (4, 6), dtype=torch.float64)
    found = host.losses(pyramid, size, {"normals": truth})["normals"]

    features: list[Tensor] = []
    for merge in host.merge[1:]:
        merge.register_forward_hook(lambda module, inputs, output: features.append(output))
    whole = host(pyramid, size)["normals"]
    answer = said(host.coarse(features[0]))
    expected = mean_nll(corners(answer, size), truth, protocol)
    for x, refine, scale in zip(features, host.refine, [(8, 12), (16, 24), size], strict=True):
        seen = torch.cat([corners(x, scale), corners(answer, scale)], 1)
        answer = said(refine(seen.flatten(2)).unflatten(2, scale))
        expected = expected + mean_nll(answer, spread_out(truth, scale), protocol)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(said(whole), answer, atol=1e-9, rtol=0)  # what it perceives


def test_bae_gradients_are_those_of_its_loss() -> None:
    host, truth = small_bae(sampling_ratio=1.0), draw_normals((16, 16))
    pyramid = pyramid_of(SMALL, (4, 4), dtype=torch.float64)
    torch.autograd.gradcheck(
        lambda x: host.losses((x, *pyramid[1:]), (16, 16), {"normals": truth})["normals"].sum(),
        pyramid[0].requires_grad_(),
        fast_mode=True,
    )


def test_bae_perceives_through_its_point_networks_everywhere() -> None:
    host, pyramid = small_bae(), pyramid_of(SMALL, (4, 6), dtype=torch.float64)
    host.eval()
    with torch.no_grad():
        before = host(pyramid, (32, 48))["normals"]
        torch.manual_seed(3)
        assert torch.equal(host(pyramid, (32, 48))["normals"], before)  # nothing is drawn
        for network in host.refine:
            kept = network[0].weight.clone()
            network[0].weight += 0.1 * torch.randn_like(kept)
            changed = (host(pyramid, (32, 48))["normals"] - before).abs().amax(1)
            assert changed.min() > 0
            network[0].weight.copy_(kept)


def test_bae_learns_at_the_least_certain_known_points_and_some_drawn() -> None:
    host = small_bae(sampling_ratio=0.4, importance_ratio=0.7)
    height, width = 10, 12
    answer = torch.rand(2, 4, height, width, generator=torch.Generator().manual_seed(0))
    known = torch.ones(2, 1, 20, 24)
    known[..., :6] = 0  # a quarter
    torch.manual_seed(5)
    index = host._points(answer, known)
    total, important = int(0.4 * height * width), int(0.7 * int(0.4 * height * width))
    assert index.shape == (2, total)
    for sample, chosen in enumerate(index):
        assert len(set(chosen.tolist())) == total
        kappa = answer[sample, 3].clone()
        kappa[:, :3] = np.inf
        least = set(kappa.flatten().argsort()[:important].tolist())
        assert set(chosen[:important].tolist()) == least
        assert (chosen % width >= 3).all()  # enough are known
    torch.manual_seed(5)
    assert torch.equal(host._points(answer, known), index)
    other = host._points(answer, known)
    assert torch.equal(other[:, :important], index[:, :important])
    assert set(other[0].tolist()) != set(index[0].tolist())
    unknown = torch.zeros_like(known)
    unknown[..., -2:] = 1  # fewer known ones than points
    for chosen in host._points(answer, unknown):
        assert set(range(width - 1, height * width, width)) <= set(chosen.tolist())


@pytest.mark.parametrize("ratio", [0.1, 0.4])
def test_bae_refines_as_many_points_as_told(ratio: float) -> None:
    host, pyramid = small_bae(sampling_ratio=ratio), pyramid_of(SMALL, (4, 6), dtype=torch.float64)
    refined: list[int] = []
    for network in host.refine:
        network.register_forward_pre_hook(lambda m, inputs: refined.append(inputs[0].shape[2]))
    targets, losses = {"normals": draw_normals((32, 48))}, []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(host.losses(pyramid, (32, 48), targets)["normals"])
    assert refined[:3] == [int(ratio * 8 * 12), int(ratio * 16 * 24), int(ratio * 32 * 48)]
    assert torch.equal(losses[0], losses[1]) and not torch.equal(losses[0], losses[2])


def test_points_are_looked_up_at_their_places_in_half_precision() -> None:
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    index = torch.arange(128 * 128)[None]
    grid = bae_module._coordinates(index, (128, 128), torch.float32)
    half = x.bfloat16()
    found = bae_module._sample(half, grid)
    expected = corners(half.double(), (128, 128)).flatten(2)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, atol=1e-2, rtol=1e-2)


# --- iDisc ---

SHAPES = [(2, 3), (4, 6), (8, 12), (16, 24)]


def deformable() -> tuple[DeformableAttention, Tensor, Tensor, Tensor]:
    """With weights that are not at their beginning; queries, values and places."""
    torch.manual_seed(0)
    attention = DeformableAttention(32, len(SHAPES))
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    total = sum(h * w for h, w in SHAPES)
    places = [
        torch.tensor([[(c + 0.5) / w, (r + 0.5) / h] for r in range(h) for c in range(w)])
        for h, w in SHAPES
    ]
    return attention, torch.randn(2, total, 32), torch.randn(2, total, 32), torch.cat(places)


@torch.no_grad()
def test_deformable_attention_is_that_of_transformers() -> None:
    attention, query, x, places = deformable()
    each = (*query.shape[:2], 4, len(SHAPES), 4)
    weights = attention.weights(query).reshape(*each[:3], -1).softmax(-1).reshape(each)
    sizes = torch.tensor([[w, h] for h, w in SHAPES])[None, None, None, :, None]
    shift = attention.offsets(query).reshape(*each, 2) / sizes
    locations = places[None, :, None, None, None] + shift
    values = attention.value(x).reshape(*x.shape[:2], 4, -1)
    kernel = MultiScaleDeformableAttention()
    shapes = torch.tensor(SHAPES)
    starts = torch.cat([torch.zeros(1).long(), shapes.prod(1).cumsum(0)[:-1]])
    expected = kernel(values, shapes, SHAPES, starts, locations, weights, 64)
    found = attention(query, x, places, SHAPES)
    torch.testing.assert_close(found, attention.out(expected), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_deformable_attention_looks_at_the_same_places_in_half_precision() -> None:
    torch.manual_seed(0)
    half, shapes = DeformableAttention(16, 1).bfloat16(), [(64, 96)]
    x = torch.randn(1, 64 * 96, 16).bfloat16()
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(96), indexing="ij")
    places = torch.stack([(columns + 0.5) / 96, (rows + 0.5) / 64], -1).flatten(0, 1)
    found = half(x, x, places, shapes).float()
    expected = copy.deepcopy(half).float()(x.float(), x.float(), places, shapes)
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0.03)


@torch.no_grad()
def test_deformable_attention_begins_by_looking_around_itself() -> None:
    """Zhu et al. 2021: every head into its own direction, by 1 to 4 pixels, equally."""
    attention = DeformableAttention(32, 2)
    offsets = attention.offsets(torch.randn(1, 1, 32)).reshape(4, 2, 4, 2)
    direction = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    expected = direction[:, None, None] * torch.arange(1.0, 5)[:, None]
    torch.testing.assert_close(offsets, expected.expand(4, 2, 4, 2), atol=1e-6, rtol=0)
    assert not attention.weights(torch.randn(1, 1, 32)).any()


@torch.no_grad()
def test_queries_compete_for_every_pixel() -> None:
    """Shares of a source sum to one over the sinks, then those of a sink over the sources."""
    torch.manual_seed(0)
    attention = CrossAttention(16, 24, compete=True)
    sink, source = torch.randn(2, 5, 16), 3 * torch.randn(2, 30, 24)
    query = attention.query(attention.norm(sink))
    key, value = (
        layer(attention.norm_source(source)) for layer in (attention.key, attention.value)
    )
    scores = (query[:, :, None] * key[:, None]).sum(-1) / 4
    share = scores.exp() / scores.exp().sum(1, keepdim=True)
    torch.testing.assert_close(share.sum(1), torch.ones(2, 30))
    taken = (share + 1e-6) / (share + 1e-6).sum(2, keepdim=True)
    expected = attention.out((taken[..., None] * value[:, None]).sum(2))
    torch.testing.assert_close(attention(sink, source), expected, atol=1e-5, rtol=1e-5)
    chooses = CrossAttention(16, 24)
    query = chooses.query(chooses.norm(sink))
    key, value = (layer(chooses.norm_source(source)) for layer in (chooses.key, chooses.value))
    weights = ((query[:, :, None] * key[:, None]).sum(-1) / 4).exp()
    weights = weights / weights.sum(2, keepdim=True)
    expected = chooses.out((weights[..., None] * value[:, None]).sum(2))
    torch.testing.assert_close(chooses(sink, source), expected, atol=1e-5, rtol=1e-5)


def test_positions_are_sines_over_one_period() -> None:
    found = sine_positions(torch.zeros(1, 16, 3, 5))
    for channel in range(4):
        rate = 10_000 ** (channel / 4)
        y, x = np.arange(1, 4) / 3 * 2 * np.pi / rate, np.arange(1, 6) / 5 * 2 * np.pi / rate
        waves = {channel: np.sin(y), 4 + channel: np.cos(y)}
        for place, wave in waves.items():
            np.testing.assert_allclose(found[place], np.tile(wave[:, None], (1, 5)), atol=1e-6)
        for place, wave in {8 + channel: np.sin(x), 12 + channel: np.cos(x)}.items():
            np.testing.assert_allclose(found[place], np.tile(wave, (3, 1)), atol=1e-6)


@pytest.mark.parametrize("protocol", ["ours", "host"])
def test_idisc_learns_from_the_mean_of_three_answers(protocol: Any) -> None:
    torch.manual_seed(0)
    host = IDisc(NORMALS, SMALL, width=16, norm="group", protocol=protocol).double()
    size, truth = (32, 48), draw_normals((32, 48))
    pyramid = pyramid_of(SMALL, (4, 6), dtype=torch.float64)
    answers: list[Tensor] = []
    for reader in host.readers:
        reader.register_forward_hook(lambda module, inputs, output: answers.append(output))
    found = host.losses(pyramid, size, {"normals": truth})["normals"]
    assert [tuple(one.shape[2:]) for one in answers] == [(2, 3), (4, 6), (8, 12)]

    def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(x, size, mode="bilinear", align_corners=True)

    mean = sum(resized(said(one), (8, 12)) for one in answers) / 3
    whole = resized(mean, size)
    torch.testing.assert_close(found, mean_nll(whole, truth, protocol), atol=1e-6, rtol=0)
    perceived = host(pyramid, size)["normals"]
    normals = whole[:, :3] / whole[:, :3].norm(dim=1, keepdim=True)
    torch.testing.assert_close(UnitVector().finish(perceived), normals)
    torch.testing.assert_close(UnitVector().kappa(perceived), whole[:, 3:])


@torch.no_grad()
def test_idisc_parts_come_from_mixed_maps_and_are_read_by_merged_ones() -> None:
    torch.manual_seed(0)
    host = IDisc(NORMALS, SMALL, width=16, norm="group")
    mix, seen = host.mix, {}
    stages = {"out": mix.out, "lateral": mix.lateral, "merge": mix.merge}
    stages |= {"divide": host.partitions, "read": host.readers}
    for name, modules in stages.items():
        for place, module in enumerate(modules):
            module.register_forward_hook(
                lambda m, inputs, out, key=(name, place): seen.update({key: (inputs, out)})
            )
    host(pyramid_of(SMALL, (8, 12)), (64, 96))
    for place in range(4):
        joined = seen["lateral", place][1] + seen["out", place][1]
        if place:
            below = seen["merge", place - 1][1]
            joined = joined + below.repeat_interleave(2, 2).repeat_interleave(2, 3)
            ((divided,), parts), ((read, given), _) = (
                seen[stage, place - 1] for stage in ("divide", "read")
            )
            assert torch.equal(divided, seen["out", place][1])
            assert torch.equal(read, seen["merge", place][1])
            assert torch.equal(given, parts)
        torch.testing.assert_close(seen["merge", place][0][0], joined)


def draw_metres(size: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    metres = 0.5 + 9 * torch.rand(2, 1, *size, generator=generator, dtype=torch.float64)
    metres[0, ..., :5] = 0
    return metres


def distance_loss(raw: Tensor, metres: Tensor, weight: float, keep: float, protocol: str) -> Tensor:
    """weight * SILog of the distance, and the likelihood of its error under the spread."""
    log_scale = 5 * torch.tanh(raw[:, 1] / 5)
    known = metres[:, 0] > 0
    ratio = raw[:, 0] - metres[:, 0].clamp(min=1e-9).log()
    spread = ratio.abs() / log_scale.exp() + log_scale
    losses = []
    for sample, seen in enumerate(known):
        error = ratio[known] if protocol == "host" else ratio[sample][seen]
        square = error.square().mean() - (1 - keep) * error.mean() ** 2
        silog = (square + 1e-6).sqrt() - 1e-3
        losses.append(weight * silog + spread[sample][seen].mean())
    return torch.stack(losses)


@pytest.mark.parametrize("protocol", ["ours", "host"])
@pytest.mark.parametrize("name", ["idisc", "vpd"])
def test_distances_learn_by_silog_beside_a_spread(name: str, protocol: Any) -> None:
    torch.manual_seed(0)
    host: Perception
    options = {"width": 16, "norm": "group", "protocol": protocol}
    if name == "idisc":
        host = IDisc(DEPTH, SMALL, **options).double()
    else:
        host = Vpd(DEPTH, SMALL, 24, **options).double()
    size, metres = (32, 48), draw_metres((32, 48))
    pyramid = tuple(x.requires_grad_() for x in pyramid_of(SMALL, (4, 6), dtype=torch.float64))
    raw = host(pyramid, size)["depth"]
    found = host.losses(pyramid, size, {"depth": metres})["depth"]
    weight, keep = (10, 0.15) if name == "idisc" else (1, 0.5)
    expected = distance_loss(raw, metres, weight, keep, protocol)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    # the spread reads the features and does not teach them
    names = [n for n, _ in host.named_parameters() if "spread" in n]
    assert names
    grads = torch.autograd.grad(raw[:, 1].sum(), list(host.parameters()), allow_unused=True)
    for (other, _), grad in zip(host.named_parameters(), grads, strict=True):
        assert (grad is not None and grad.abs().sum() > 0) == (other in names), other


# --- VPD ---


def small_vpd(base: Path, **options: Any) -> Diff2in1Pipeline:
    return mount_tiny(base, "vpd", **options)


def test_vpd_says_the_names_in_the_words_of_the_base(tiny_base: Path) -> None:
    pipe = small_vpd(tiny_base)
    host, names = pipe.perception, pipe.perception.families["semseg"].names
    base = StableDiffusionPipeline.from_pretrained(tiny_base)
    for place in (0, len(names) - 1):
        texts = [template.replace("{}", names[place]) for template in TEMPLATES]
        ids = [base.tokenizer(t, padding="max_length", truncation=True).input_ids for t in texts]
        with torch.no_grad():
            pooled = base.text_encoder(torch.tensor(ids)).pooler_output
        torch.testing.assert_close(host.embeddings[place], pooled.mean(0))
    assert len({tuple(row.tolist()) for row in host.embeddings}) == len(names)
    with torch.no_grad():
        host.gamma += 0.5
        one, _, other = host.text_residual
        hidden = F.gelu(host.embeddings @ one.weight.T + one.bias)
        expected = host.embeddings + host.gamma * (hidden @ other.weight.T + other.bias)
        torch.testing.assert_close(host.own_conditioning().text[0], expected)
    given = mount_tiny(tiny_base, "vpd-depth", prompts=["a blue sphere", "a room"]).perception
    assert given.own_conditioning().text.shape[1] == 2
    assert (
        mount_tiny(tiny_base, "vpd-depth").perception.own_conditioning().text.shape[1]
        == len(SCENES)
        == 27
    )


@pytest.mark.parametrize("protocol", ["ours", "host"])
def test_vpd_reads_last_maps_and_attention(tiny_base: Path, protocol: str) -> None:
    """Each level's last map, beside it on coarser ones how much pixels attend to names."""
    pipe = small_vpd(tiny_base, protocol=protocol)
    host, latents = pipe.perception, torch.randn(2, 4, 8, 12)
    told: list[Tensor] = []
    for module in (pipe.unet.time_proj, pipe.unet.conv_in):
        module.register_forward_pre_hook(lambda m, inputs: told.append(inputs[0]))
    read: list[list[Tensor]] = []
    host.read.register_forward_pre_hook(lambda m, inputs: read.append(inputs[0]))
    with torch.no_grad():
        seen = host.run_unet(pipe.unet, latents, pipe.perception_conditioning())
        host(seen.pyramid, (32, 48), seen.attention_maps)
        timesteps, x = told
        factor = 1 if protocol == "ours" else 1 / pipe.vae.config.scaling_factor
        assert timesteps.tolist() == [0 if protocol == "ours" else 1] * 2
        torch.testing.assert_close(x, latents * factor)
        assert list(seen.attention_maps) == [1]
        own = [level[:, -c:] for level, c in zip(seen.pyramid, (16, 32), strict=True)]
        assert torch.equal(read[0][0], own[0])
        assert torch.equal(read[0][1], torch.cat([own[1], seen.attention_maps[1]], 1))
        with pytest.raises(ValueError, match="no attention map of level 1: see record_attention"):
            host(seen.pyramid, (32, 48), {})


@pytest.mark.parametrize("protocol", ["ours", "host"])
def test_vpd_learns_classes_by_cross_entropy(protocol: Any) -> None:
    torch.manual_seed(0)
    tasks = {"semseg": {"family": "label_map", "names": ["sky", "road", "tree"]}}
    host = Vpd(tasks, SMALL, 24, width=16, norm="group", protocol=protocol).double().eval()
    ids = torch.randint(0, 3, (2, 1, 32, 48))
    ids[0, ..., :9] = 255
    pyramid = pyramid_of(SMALL, (4, 6), dtype=torch.float64)
    raw = host(pyramid, (32, 48))["semseg"]
    picked = raw.gather(1, ids.clamp(max=2))
    error = (raw.exp().sum(1, keepdim=True).log() - picked) * (ids != 255)
    sums, known = error.sum((1, 2, 3)), (ids != 255).sum((1, 2, 3))
    expected = sums / known if protocol == "ours" else (sums.sum() / ids.numel()).expand(2)
    found = host.losses(pyramid, (32, 48), {"semseg": ids})["semseg"]
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


def test_vpd_distances_end_at_the_farthest() -> None:
    torch.manual_seed(0)
    host = Vpd(DEPTH, SMALL, 24, width=16, farthest=3.0)
    pyramid = tuple(100 * x for x in pyramid_of(SMALL, (4, 6)))
    with torch.no_grad():
        metres = host.families["depth"].finish(host(pyramid, (32, 48))["depth"])
        assert metres.min() > 0 and metres.max() <= 3
        host.read.distance.bias += 50
        metres = host.families["depth"].finish(host(pyramid, (32, 48))["depth"])
    assert metres.max() == pytest.approx(3)


# --- what all have in common ---


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 5])
def test_adapters_read_bases_of_any_depth(levels: int) -> None:
    channels = [8, 12, 16, 20, 24][:levels]
    for scales in ([0.25, 0.5, 1.0, 2.0, 4.0], [0.25, 0.5, 1.0, 2.0]):
        made = [24, 16, 8, 8, 4][: len(scales)]
        adapter = PyramidDecoder(channels, made, scales)
        for size in ((16, 16), (16, 24), (5, 9)):
            maps = adapter(pyramid_of(channels, size))
            sides = [[max(1, round(side * scale)) for side in size] for scale in scales]
            shapes = [(2, c, *side) for c, side in zip(made, sides, strict=True)]
            assert [tuple(one.shape) for one in maps] == shapes
            used = [x.requires_grad_() for x in pyramid_of(channels, size)]
            grads = torch.autograd.grad(adapter(tuple(used))[-1].square().sum(), used)
            assert all(grad.abs().sum() > 0 for grad in grads)


@pytest.mark.parametrize("levels", [2, 3, 4])
@pytest.mark.parametrize("name", [name for name in MOUNTS if name != "light"])
def test_hosts_answer_on_bases_of_any_depth_and_size(name: str, levels: int) -> None:
    channels, tasks = (
        [8, 12, 16, 20][:levels],
        {"semseg": {**SEMSEG["semseg"], "names": ["a", "b"]}},
    )
    torch.manual_seed(0)
    host: Perception
    if name.startswith("vpd"):
        recorded = list(range(1, levels))
        task = DEPTH if name == "vpd-depth" else tasks
        host = Vpd(task, channels, 24, attention=recorded, width=16, norm="group")
    else:
        kind = Bae if name == "bae" else IDisc
        host = kind(DEPTH if name == "idisc-depth" else NORMALS, channels, width=16)
    (task_name, family), stride = host.single_task, 2 ** (levels - 1)
    for size in ((stride, stride), (2 * stride, 3 * stride), (5, 9)):
        pyramid = pyramid_of(channels, size)
        maps = {n: torch.rand(2, 2, *pyramid[n].shape[2:]) for n in range(1, levels)}
        pixels = (size[0] * 8, size[1] * 8)
        raw = host(pyramid, pixels, maps)[task_name]
        assert raw.shape == (2, family.raw_channels, *pixels) and raw.isfinite().all()
        target = family.blank(pixels).expand(2, -1, -1, -1)
        loss = host.losses(pyramid, pixels, {task_name: target}, maps)[task_name]
        assert torch.equal(loss.detach(), torch.zeros(2))  # nothing is known
        loss.sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in host.parameters())


@pytest.mark.parametrize("name", ["idisc", "idisc-depth", "vpd", "vpd-depth"])
def test_group_norm_knows_one_sample_at_a_time(tiny_base: Path, name: str) -> None:
    """Batch norm, as published, mixes the samples of a batch while training."""
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    differs = {}
    for norm in ("group", "batch"):
        pipe = mount_tiny(tiny_base, name, norm=norm)
        host = pipe.perception.train()
        batch_norms = [m for m in host.modules() if isinstance(m, nn.BatchNorm2d)]
        assert bool(batch_norms) == (norm == "batch")
        for dropout in (m for m in host.modules() if isinstance(m, nn.Dropout2d)):
            dropout.p = 0.0
        (task,) = host.families
        with torch.no_grad():
            seen = host.run_unet(pipe.unet, latents, pipe.perception_conditioning())
            whole = host(seen.pyramid, (32, 32), seen.attention_maps)[task]
            maps = {level: one[:1] for level, one in seen.attention_maps.items()}
            alone = host(tuple(x[:1] for x in seen.pyramid), (32, 32), maps)[task]
        differs[norm] = (whole[:1] - alone).abs().max() / whole.std()
    assert differs["group"] < 1e-4 < 1e-2 < differs["batch"]


@pytest.mark.parametrize("name", ["bae", "idisc", "vpd"])
def test_pooled_losses_are_one_figure_of_the_batch(tiny_base: Path, name: str) -> None:
    """protocol "host": a sample with more known pixels weighs more."""
    for protocol in ("ours", "host"):
        pipe = mount_tiny(tiny_base, name, protocol=protocol)
        host = pipe.perception.eval()
        (task,), family = host.families, host.single_task[1]
        raw = torch.randn(2, family.raw_channels, 32, 32)
        finished = family.finish(raw)
        target = torch.where(torch.rand(2, 1, 32, 32) < 0.7, finished, family.unknown)
        target[1, ..., :24] = family.unknown
        with torch.no_grad():
            latents = torch.randn(2, 4, 8, 8)
            seen = host.run_unet(pipe.unet, latents, pipe.perception_conditioning())
            loss = host.losses(
                seen.pyramid, (32, 32), {task: target.to(family.dtype)}, seen.attention_maps
            )
        one, other = loss[task].tolist()
        assert (one == other) == (protocol == "host")


@pytest.mark.parametrize("name", MOUNTS)
def test_hosts_perceive_in_half_precision(tiny_base: Path, name: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 28, 3), np.uint8)
    pipe = mount_tiny(tiny_base, name)
    whole = pipe.predict(image, output_type="pt").uncertainty
    half = pipe.to(torch.bfloat16).predict(image, output_type="pt").uncertainty
    for task, (expected,) in whole.items():
        (found,) = half[task]
        assert (found - expected).abs().mean() < 0.05


# --- through the pipeline ---


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def assert_physical(pipe: Diff2in1Pipeline, found: Diff2in1Output, size: tuple[int, int]) -> None:
    """CheckpointInfo everywhere, in the units of the family, at this size."""
    assert found.images[0].size == size[::-1]
    for name, family in pipe.perception.families.items():
        (array,), (unsure,) = found.predictions[name], found.uncertainty[name]
        assert array.shape[:2] == unsure.shape == size
        assert family.find_problem(array) is None
        assert family.valid(family.to_tensor(array)[None]).all()
        assert unsure.min() >= 0 and unsure.max() <= 1


@pytest.mark.parametrize("mount", MOUNTS)
def test_predictions_are_physical_at_any_size(tiny_base: Path, mount: str) -> None:
    pipe = mount_tiny(tiny_base, mount)
    for size in ((17, 23), (1, 5), (32, 48)):
        found = pipe.predict(picture(*size))
        assert_physical(pipe, found, size)
    assert_physical(pipe, pipe.predict(picture(17, 40), window=16), (17, 40))
    small = pipe.predict(picture(32, 48), processing_resolution=24)
    assert_physical(pipe, small, (32, 48))
    for name, (map_,) in found.uncertainty.items():
        assert not np.array_equal(map_, small.uncertainty[name][0])


@pytest.mark.parametrize("mount", MOUNTS)
def test_flip_ensembles_are_equivariant(tiny_base: Path, mount: str) -> None:
    pipe, image = mount_tiny(tiny_base, mount), picture(13, 26)
    mirrored = np.ascontiguousarray(image[:, ::-1])
    one, other = (pipe.predict(x, flip=True, output_type="pt") for x in (image, mirrored))
    for name, family in pipe.perception.families.items():
        back = family.flip(other.predictions[name][0][None])[0]
        if family.dtype == torch.int64:
            assert (back == one.predictions[name][0]).float().mean() > 0.99
        else:
            torch.testing.assert_close(back, one.predictions[name][0], atol=1e-4, rtol=1e-4)
        back = other.uncertainty[name][0].flip(-1)
        torch.testing.assert_close(back, one.uncertainty[name][0], atol=1e-4, rtol=1e-4)
        plain = pipe.predict(image, output_type="pt").uncertainty[name][0]
        assert not torch.allclose(plain, back, atol=1e-6)


@pytest.mark.parametrize("mount", MOUNTS)
def test_creations_are_labelled(tiny_base: Path, mount: str) -> None:
    pipe, unsure = mount_tiny(tiny_base, mount), {}
    for labels_from in ("latent", "image"):
        generator = torch.Generator().manual_seed(0)
        options = {"num_inference_steps": 2, "generator": generator, "labels_from": labels_from}
        created = pipe(picture(18, 22), "a room", **options)
        assert_physical(pipe, created, (18, 22))
        unsure[labels_from] = created.uncertainty
    seen = pipe.predict(created.images[0])
    for name in pipe.perception.families:
        np.testing.assert_array_equal(seen.predictions[name][0], created.predictions[name][0])
        assert not np.array_equal(unsure["latent"][name][0], unsure["image"][name][0])


# --- what is refused ---


@pytest.mark.parametrize(
    ("host", "tasks", "options", "told"),
    [
        ("bae", NORMALS, {"width": 12}, "width 12: expected a multiple of 8"),
        ("bae", NORMALS, {"width": 0}, "width 0: expected a multiple of 8"),
        ("idisc", NORMALS, {"width": 24}, "width 24: expected a multiple of 16"),
        ("vpd", SEMSEG, {"width": -16}, "width -16: expected a multiple of 16"),
        ("idisc", DEPTH, {"width": 16, "norm": "layer"}, "norm 'layer': expected batch or group"),
        ("vpd", SEMSEG, {"width": 16, "norm": "layer"}, "norm 'layer': expected batch or group"),
        ("vpd", DEPTH, {"width": 16, "norm": "layer"}, "norm 'layer': expected batch or group"),
        ("bae", NORMALS, {"protocol": "theirs"}, "protocol 'theirs': expected ours or host"),
        ("vpd", DEPTH, {"protocol": "theirs"}, "protocol 'theirs': expected ours or host"),
        ("bae", NORMALS, {"sampling_ratio": 0}, "sampling_ratio 0, importance_ratio 0.7"),
        ("bae", NORMALS, {"sampling_ratio": 1.5}, "expected shares of 1"),
        ("bae", NORMALS, {"importance_ratio": 2}, "expected shares of 1"),
        (
            "bae",
            NORMALS,
            {"norm": "group"},
            "Bae has no setting norm; it has width, sampling_ratio",
        ),
        ("light", NORMALS, {"protocol": "host", "norm": "group"}, "no setting norm, protocol"),
        ("bae", DEPTH, {}, r"Bae perceives one task of unit_vector, got depth \(metric_map\)"),
        ("bae", {}, {}, "a host needs at least one task"),
        ("idisc", SEMSEG, {}, "IDisc perceives one task of unit_vector or metric_map, got semseg"),
        ("idisc", {**NORMALS, **DEPTH}, {}, "perceives one task"),
        ("vpd", NORMALS, {}, "Vpd perceives one task of label_map or metric_map, got normals"),
    ],
)
def test_what_a_host_cannot_be(
    tiny_base: Path, host: str, tasks: dict[str, Any], options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        Diff2in1Pipeline.from_base(str(tiny_base), host, tasks, **options)


def test_hosts_choose_what_suits_them_best() -> None:
    with torch.device("meta"):
        families = Light({**DEPTH, **SEMSEG, **NORMALS}, PYRAMID).families
    chosen = {name: host.choose_tasks(families) for name, host in HOSTS.items()}
    assert chosen == {
        "light": ["depth", "normals", "semseg"],
        "bae": ["normals"],
        "idisc": ["normals"],
        "vpd": ["semseg"],
    }
    del families["normals"], families["semseg"]
    assert [host.choose_tasks(families) for host in HOSTS.values()] == [
        ["depth"],
        [],
        ["depth"],
        ["depth"],
    ]


def test_attention_slicing_does_not_stop_a_host_that_reads_attention(tiny_base: Path) -> None:
    pipe, image = mount_tiny(tiny_base, "vpd"), picture(16, 24)
    expected = pipe.predict(image, output_type="pt").uncertainty["semseg"][0]
    pipe.enable_attention_slicing()
    found = pipe.predict(image, output_type="pt").uncertainty["semseg"][0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
