"""What a base is worth: reconstruction, sharpness, obedience, distance to real images."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm, trange

from d2i1_data.diff2in1 import HOSTS, Diff2in1Pipeline
from d2i1_data.diff2in1.images import pad_to_stride
from d2i1_data.loading import find_base
from d2i1_data.sources import Source, open_source
from d2i1_data.sources.rooms import MAIN_OBJECTS, Rooms, main_object

from ..batches import seeded
from ..settings import BaseSettings
from .vae import reconstruct, save_grid, to_unit

HELD_OUT = 500
CALLS = 25
GUIDANCE = 3.0
PROBE_SAMPLES, PROBE_STEPS, PROBE_BATCH = 6000, 2000, 64


class Probe(nn.Module):
    """A small classifier of the object a room's caption names first; its features are pooled."""

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, width)
        layers: list[nn.Module] = []
        for slim, wide in pairwise(widths):
            layers += [
                nn.Conv2d(slim, wide, 3, stride=2, padding=1),
                nn.GroupNorm(8, wide),
                nn.SiLU(),
            ]
            layers += [nn.Conv2d(wide, wide, 3, padding=1), nn.GroupNorm(8, wide), nn.SiLU()]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(width, classes)

    def features(self, images: Tensor) -> Tensor:
        """[B, width] of images [B, 3, H, W] in [-1, 1]."""
        pooled: Tensor = self.body(images).amax((2, 3))
        return pooled

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits


def evaluate_base(settings: BaseSettings) -> dict[str, Any]:
    """Score the base `settings.evaluate` on held-out samples of the source; writes quality.json.

    Strength 1 uses another image's caption, because a trace of the source image survives it.
    """
    pipe = _mount(str(settings.evaluate))
    held_out = open_source(settings.source, settings.resolution)
    samples = [held_out[i] for i in trange(min(HELD_OUT, len(held_out)), desc="held out")]
    pixels = torch.stack([torch.from_numpy(np.array(s.image)).permute(2, 0, 1) for s in samples])
    images = pad_to_stride(to_unit(pixels), pipe.stride)
    captions = [sample.caption or "" for sample in samples]
    again = torch.cat([reconstruct(pipe.vae, p.to(pipe.device)).cpu() for p in images.split(50)])
    varied = _created(pipe, images, captions, 0.6, 1.0)
    others = captions[1:] + captions[:1]
    results: dict[str, Any] = {
        "held_out": len(samples),
        "psnr_db": round(psnr(again, images).mean().item(), 2),
        "gradient_ratio_at_0.6": round((gradient(varied) / gradient(again)).item(), 3),
    }
    rows = [images[:10], again[:10], varied[:10]]
    if isinstance(held_out, Rooms):
        probe = train_probe(Rooms("train"), settings.seed)
        wanted = [main_object(caption) for caption in captions]
        results["probe_on_rooms"] = _found(probe, images, wanted)
        results["chance"] = round(1 / len(MAIN_OBJECTS), 3)
        for guidance in (1.0, GUIDANCE):
            free = _created(pipe, images, others, 1.0, guidance)
            key = f"at_1_guidance_{guidance:g}"
            results[f"probe_{key}"] = _found(probe, free, [main_object(text) for text in others])
            results[f"frechet_{key}"] = _distance(probe, free, images)
            rows.append(free[:10])
        results["frechet_at_0.6"] = _distance(probe, varied, images)
        results["frechet_halves"] = _distance(probe, images, images)
    folder = Path(settings.output_dir)
    save_grid(rows, folder / "quality.png")
    (folder / "quality.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))
    return results


def _mount(name: str) -> Diff2in1Pipeline:
    """The creation path as users have it; the labels of its untrained host are not looked at."""
    task = {"unused": {"family": "probability_map"}}
    pipe = Diff2in1Pipeline.from_base(find_base(name), next(iter(HOSTS)), task, width=16)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to("cuda" if torch.cuda.is_available() else "cpu")


@torch.no_grad()
def _created(
    pipe: Diff2in1Pipeline, images: Tensor, captions: list[str], strength: float, guidance: float
) -> Tensor:
    parts = []
    for start in trange(0, len(images), 50, desc=f"strength {strength:g}, guidance {guidance:g}"):
        batch = (images[start : start + 50] + 1) / 2
        names = range(start, start + len(batch))
        output = pipe(
            batch,
            captions[start : start + 50],
            strength=strength,
            num_inference_steps=CALLS,
            guidance_scale=guidance,
            generator=[seeded("evaluate", n) for n in names],
            output_type="pt",
        )
        parts.append(torch.stack(output.images) * 2 - 1)
    return torch.cat(parts)


def psnr(one: Tensor, other: Tensor) -> Tensor:
    """Decibels of each pair of images in [-1, 1]."""
    return -10 * ((one - other) / 2).square().mean((1, 2, 3)).log10()


def gradient(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels."""
    return images.diff(dim=-1).abs().mean() + images.diff(dim=-2).abs().mean()


def train_probe(rooms: Source, seed: int) -> Probe:
    """Fit a probe to rendered rooms."""
    torch.manual_seed(seed)
    probe = Probe(len(MAIN_OBJECTS))
    samples = [rooms[i] for i in trange(PROBE_SAMPLES, desc="rooms for the probe")]
    images = torch.stack([torch.from_numpy(s.image).permute(2, 0, 1) for s in samples])
    answers = torch.tensor([MAIN_OBJECTS.index(main_object(s.caption)) for s in samples])
    optimizer = torch.optim.AdamW(probe.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, PROBE_STEPS)
    for step in tqdm(range(PROBE_STEPS), "probe"):
        generator = seeded(seed, "probe", step)
        chosen = torch.randint(len(images), (PROBE_BATCH,), generator=generator)
        batch = to_unit(images[chosen])
        batch = batch.flip(-1) if step % 2 else batch
        F.cross_entropy(probe(batch), answers[chosen]).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return probe.eval()


@torch.no_grad()
def _found(probe: Probe, images: Tensor, wanted: Sequence[str]) -> float:
    """How often the probe finds the colour and the shape of the caption's first object."""
    answers = torch.tensor([MAIN_OBJECTS.index(one) for one in wanted])
    return round((probe(images).argmax(1) == answers).float().mean().item(), 3)


@torch.no_grad()
def _distance(probe: Probe, images: Tensor, held_out: Tensor) -> float:
    """Fréchet distance between the first half of the images and the second half of the held-out."""
    half = len(held_out) // 2
    return round(frechet(probe.features(images[:half]), probe.features(held_out[half:])), 2)


def frechet(one: Tensor, other: Tensor) -> float:
    """Fréchet distance of two sets of features [N, D] taken as Gaussian."""
    a, b = one.double(), other.double()
    shift = (a.mean(0) - b.mean(0)).square().sum()
    product = torch.linalg.eigvals(a.T.cov() @ b.T.cov()).real.clamp(min=0)
    return (shift + a.T.cov().trace() + b.T.cov().trace() - 2 * product.sqrt().sum()).item()
