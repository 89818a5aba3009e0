"""Scoring of a study: what does not depend on theta is computed once for all scores."""

from collections.abc import Iterator
from functools import cache
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from d2i1_data.dataset.sample import Sample
from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.diff2in1.images import fit_longer_side, pad_to_stride, to_batches
from d2i1_data.diff2in1.outputs import finish_maps
from d2i1_data.diff2in1.prediction import perceive, raw_at_size
from d2i1_data.inspection.evaluation.measure import (
    Outputs,
    Sums,
    batched,
    common_tasks,
    measure,
    measure_outputs,
)
from d2i1_data.inspection.evaluation.sparsification import Sparsification
from d2i1_data.sources import open_rows
from d2i1_data.tasks import Task

from ..loop.cache import fingerprint
from ..loop.examples import MEMORY, SMALL_BASE
from ..loop.validation import evaluating

BATCH = 8  # images in a pass, as in `Diff2in1Pipeline.predict`


class Walked(NamedTuple):
    """Images of one size that a frozen base has read.

    latents, pyramid: on the CPU. size: (H, W) at which the model works.
    """

    samples: list[Sample]
    latents: Tensor
    pyramid: tuple[Tensor, ...]
    size: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        maps = [one for sample in self.samples for one in (sample.image, *sample.targets.values())]
        tensors = (self.latents, *self.pyramid)
        return sum(one.nbytes for one in maps) + sum(one.nbytes for one in tensors)


class HeldOut:
    """Labelled samples on which many thetas are scored.

    If the U-Net is frozen and small, and memory allows, samples and pyramids are kept. A score then
    costs only the host.

    Args:
        spec: a labelled source.
        count: largest number of samples, chosen at random.
        subset_seed: decides which samples are chosen.
    """

    def __init__(self, spec: str, count: int, subset_seed: int | None = 0) -> None:
        self.rows = open_rows(spec, None, count, subset_seed=subset_seed)
        self.walked: dict[tuple[str, ...], list[Walked]] = {}

    def tasks(self, pipe: Diff2in1Pipeline) -> dict[str, Task]:
        """The tasks that are scored."""
        return common_tasks(pipe, self.rows.source)

    @torch.no_grad()
    def measure(self, pipe: Diff2in1Pipeline, sparsification: Sparsification | None = None) -> Sums:
        """The sums of each sample for each task, [N, S], as `measure` gives them."""
        tasks = self.tasks(pipe)
        with evaluating(pipe):
            if self._keeps(pipe):
                outputs = self._outputs(pipe)
                return measure_outputs(outputs, tasks, sparsification=sparsification)
            samples = self.rows.samples()
            return measure(pipe, samples, tasks, sparsification=sparsification, quiet=True)

    def _keeps(self, pipe: Diff2in1Pipeline) -> bool:
        """Whether all thetas read the same pyramids, and whether these fit in memory."""
        small = sum(p.numel() for p in pipe.unet.parameters()) < SMALL_BASE
        frozen = pipe.config.trained_unet == "none" and not pipe.perception.has_own_conditioning
        if not (small and frozen):
            return False
        if _key(pipe) in self.walked:
            return True
        first = _walk(pipe, [next(self.rows.samples())])
        return len(self.rows.usable) * first.nbytes <= MEMORY

    def _outputs(self, pipe: Diff2in1Pipeline) -> Outputs:
        key = _key(pipe)
        if key not in self.walked:
            self.walked[key] = [_walk(pipe, some) for some in self._same_size()]
        families, device = pipe.perception.families, pipe.device  # slow to find
        for one in self.walked[key]:
            pyramid = tuple(level.to(device) for level in one.pyramid)
            raw = perceive(pipe, one.latents, one.size, pyramid)
            linear = {name: families[name].to_linear(maps) for name, maps in raw.items()}
            raw = raw_at_size(families, linear, one.samples[0].size)
            maps = finish_maps(families, raw, "pt")
            yield one.samples, maps["predictions"], maps["uncertainty"]

    def _same_size(self) -> Iterator[list[Sample]]:
        for _, same in groupby(self.rows.samples(), lambda sample: sample.size):
            yield from batched(same, BATCH)


def _key(pipe: Diff2in1Pipeline) -> tuple[str, ...]:
    """What decides the pyramids of a pipeline."""
    resolution = str(pipe.config.default_processing_resolution)
    return fingerprint(pipe.vae), fingerprint(pipe.unet), fingerprint(pipe.text_encoder), resolution


def _walk(pipe: Diff2in1Pipeline, samples: list[Sample]) -> Walked:
    """Read images of one size as `pipe.predict` does."""
    pixels = torch.cat([to_batches(sample.image)[0] for sample in samples]).to(pipe.device)
    pixels = fit_longer_side(pixels, pipe.config.default_processing_resolution)
    latents = pipe.encode_image(pad_to_stride(pixels, pipe.stride))
    conditioning = pipe.perception_conditioning()
    pyramid = pipe.perception.run_unet(pipe.unet, latents, conditioning).pyramid
    size = pixels.shape[2], pixels.shape[3]
    return Walked(samples, latents.cpu(), tuple(level.cpu() for level in pyramid), size)


@cache
def open_test(spec: str, count: int, subset_seed: int | None) -> HeldOut:
    """Open test samples once per process."""
    return HeldOut(spec, count, subset_seed)
