"""Generation: score created images by sharpness, match with captions, and distance to real ones."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm, trange

from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.diff2in1.creation import CreateWith
from d2i1_data.diff2in1.images import pad_to_stride
from d2i1_data.sources import Source
from d2i1_data.sources.rooms import MAIN_OBJECTS, Rooms, main_object

from ..loop.batches import seeded
from .vae import reconstruct, to_unit

CALLS = 25
BATCH = 50
PROBE_SAMPLES, PROBE_STEPS, PROBE_BATCH = 6000, 2000, 64

Metrics = dict[str, float]


class Generation:
    """Scores images that pipelines create from held-out samples, always with the same noise.

    For rooms it also trains a probe. The probe tells whether a created image shows the object that
    its caption names first. Its features also give the distance to real rooms.

    Args:
        held_out: source of images and captions.
        count: largest number of samples.
        stride: images are padded to multiples of the stride.
        seed: seed of the probe.
        calls: number of U-Net calls for each image.
    """

    def __init__(
        self, held_out: Source, count: int, stride: int, seed: int = 0, calls: int = CALLS
    ) -> None:
        self.calls = calls
        count = min(count, len(held_out))
        samples = [held_out[i] for i in trange(count, desc="held out")]
        pixels = [torch.from_numpy(np.array(s.image)).permute(2, 0, 1) for s in samples]
        self.images = pad_to_stride(to_unit(torch.stack(pixels)), stride)  # [N, 3, H, W]
        self.captions = [sample.caption or "" for sample in samples]
        self.probe = None
        if isinstance(held_out, Rooms):
            self.probe = train_probe(Rooms("train"), seed)

    def vary(self, pipe: Diff2in1Pipeline, create_with: CreateWith) -> tuple[Metrics, Tensor]:
        """Create variations at strength 0.6 with the images' own captions, and score them.

        Returns:
            The metrics, and the created images.
        """
        varied = self._create(pipe, self.captions, 0.6, 1.0, create_with)
        again = [reconstruct(pipe.vae, p.to(pipe.device)).cpu() for p in self.images.split(BATCH)]
        sharpness = gradient(varied) / gradient(torch.cat(again))
        results = {"gradient_ratio_at_0.6": round(sharpness.item(), 3)}
        if self.probe:
            results["frechet_at_0.6"] = self._distance(self.probe, varied)
        return results, varied

    def invent(
        self, pipe: Diff2in1Pipeline, guidance: float, create_with: CreateWith
    ) -> tuple[Metrics, Tensor]:
        """Create images at strength 1, and score them.

        Each uses the caption of another image, because even at strength 1 a trace of the source
        image remains.

        Returns:
            The metrics, and the created images.
        """
        others = self.captions[1:] + self.captions[:1]
        invented = self._create(pipe, others, 1.0, guidance, create_with)
        if self.probe is None:
            return {}, invented
        key = f"at_1_guidance_{guidance:g}"
        accuracy = self._accuracy(self.probe, invented, others)
        distance = self._distance(self.probe, invented)
        return {f"probe_{key}": accuracy, f"frechet_{key}": distance}, invented

    def real(self) -> Metrics:
        """Measure the same metrics on real images that the probe was not trained on."""
        if self.probe is None:
            return {}
        return {
            "probe_on_rooms": self._accuracy(self.probe, self.images, self.captions),
            "chance": round(1 / len(MAIN_OBJECTS), 3),
            "frechet_halves": self._distance(self.probe, self.images),
        }

    @torch.no_grad()
    def _create(
        self,
        pipe: Diff2in1Pipeline,
        captions: Sequence[str],
        strength: float,
        guidance: float,
        create_with: CreateWith,
    ) -> Tensor:
        """Created images `[N, 3, H, W]` in [-1, 1]."""
        parts = []
        label = f"strength {strength:g}, guidance {guidance:g}"
        for start in trange(0, len(self.images), BATCH, desc=label):
            batch = (self.images[start : start + BATCH] + 1) / 2
            names = range(start, start + len(batch))
            output = pipe(
                batch,
                list(captions[start : start + BATCH]),
                strength=strength,
                num_inference_steps=self.calls,
                guidance_scale=guidance,
                generator=[seeded("evaluate", n) for n in names],
                create_with=create_with,
                output_type="pt",
            )
            parts.append(torch.stack(output.images) * 2 - 1)
        return torch.cat(parts)

    @torch.no_grad()
    def _accuracy(self, probe: "Probe", images: Tensor, captions: Sequence[str]) -> float:
        """Share of images in which the probe finds the object that the caption names first."""
        answers = torch.tensor([MAIN_OBJECTS.index(main_object(text)) for text in captions])
        return round((probe(images).argmax(1) == answers).float().mean().item(), 3)

    @torch.no_grad()
    def _distance(self, probe: "Probe", images: Tensor) -> float:
        """Fréchet distance of the first half of these images to the second half of real ones."""
        half = len(self.images) // 2
        one, other = probe.features(images[:half]), probe.features(self.images[half:])
        return round(frechet(one, other), 2)


def gradient(images: Tensor) -> Tensor:
    """Compute the mean absolute difference of neighbouring pixels, a measure of sharpness."""
    return images.diff(dim=-1).abs().mean() + images.diff(dim=-2).abs().mean()


class Probe(nn.Module):
    """A small classifier. It predicts the object that the caption of a room names first."""

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
        """Features `[B, width]` of images `[B, 3, H, W]` in [-1, 1]."""
        pooled: Tensor = self.body(images).amax((2, 3))
        return pooled

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits


def train_probe(rooms: Source, seed: int) -> Probe:
    """Train a probe on rendered rooms."""
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


def frechet(one: Tensor, other: Tensor) -> float:
    """Compute the Fréchet distance of two sets of features `[N, D]`, treated as Gaussian."""
    a, b = one.double(), other.double()
    shift = (a.mean(0) - b.mean(0)).square().sum()
    product = torch.linalg.eigvals(a.T.cov() @ b.T.cov()).real.clamp(min=0)
    return (shift + a.T.cov().trace() + b.T.cov().trace() - 2 * product.sqrt().sum()).item()
