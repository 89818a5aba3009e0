"""The producer that creates images and labels them."""

from bisect import bisect
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from ...dataset.prefetch import prefetch
from ...dataset.sample import Provenance
from ...dataset.schema import Schema
from ...errors import InputError
from ...sources import Source
from ..plan import Item, draw, noise_seed
from ..recombination import Recombination
from ..settings import CreateSettings
from ..ways import Way, has_word, read_strength
from .labeller import CheckpointInfo, Job, JobBatch, Labeller, finite_samples
from .producer import READERS

if TYPE_CHECKING:
    from torch import Tensor

    from ...diff2in1 import Diff2in1Pipeline


class Creator(Labeller):
    """Creates variations of the images of a source, or images of its captions, and labels them.

    Args:
        pipe: the pipeline, on its device.
        source: source of images or captions.
        settings: settings of the command.
        checkpoint: facts about the checkpoint of the pipeline.

    Raises:
        InputError: if the source or the checkpoint does not allow these settings.
    """

    act = "create"
    settings: CreateSettings

    def __init__(
        self,
        pipe: "Diff2in1Pipeline",
        source: Source,
        settings: CreateSettings,
        checkpoint: CheckpointInfo,
    ) -> None:
        from ...diff2in1.creation import Denoising, check_creation
        from ...diff2in1.ddim import timesteps
        from ...diff2in1.schedulers import choose_scheduler

        super().__init__(pipe, source, settings, checkpoint)

        def chosen(name: str) -> Any:
            value = getattr(settings, name)
            return pipe.config[f"default_{name}"] if value is None else value

        choose_scheduler(pipe, settings.scheduler)
        strength, steps = chosen("strength"), chosen("num_inference_steps")
        guidance, create_with = chosen("guidance_scale"), chosen("create_with")
        if not source.has_images and settings.strength is None:
            strength = 1.0
        self.own_strength = read_strength(strength, "--strength")
        self.ways = settings.read_ways()
        strengths = [end for way in self.ways for end in way.strength or self.own_strength]
        try:
            for end in strengths:
                timesteps(end, steps)
            check_creation(pipe, settings.labels_from, create_with)
        except ValueError as error:
            raise InputError(str(error)) from error
        if not source.has_images and min(strengths) < 1:
            flag = "--strength" if settings.ways is None else "strength"
            raise InputError(f"source {source.name} has no images to keep: use {flag} 1")
        if settings.negative_prompt and guidance == 1:
            raise InputError("--negative_prompt has no effect at --guidance_scale 1")
        self.labels_from = settings.labels_from
        self.denoising = Denoising(steps, guidance, settings.negative_prompt, create_with)
        self.origin = replace(
            self.origin,
            labels_from=settings.labels_from,
            create_with=create_with,
            strength=None,
            steps=steps,
            guidance=guidance,
            negative_prompt=settings.negative_prompt,
            scheduler=type(pipe.scheduler).__name__,
            seed=settings.seed,
        )
        if settings.compile:
            for unet in (pipe.unet, pipe.base_unet):
                if unet is not None:
                    unet.compile()

    @property
    def schema(self) -> Schema:
        return super().schema.with_columns(captions=True, provenance=("strength", "noise_seed"))

    def facts(self) -> dict[str, Any]:
        settings, (low, high) = self.settings, self.own_strength
        facts = super().facts()
        if settings.uses_own("strength"):
            facts["strength"] = [low, high] if low < high else low
        facts["prompt"] = settings.prompt
        if settings.ways is not None:
            facts["ways"] = settings.ways
        if any(has_word(prompt, "recombined") for way in self.ways for prompt in way.prompts):
            facts["captions"] = self.recombination.fingerprint
            facts["max_source_samples"] = settings.max_source_samples
        return {**facts, "balance": settings.balance, "compile": settings.compile}

    @cached_property
    def recombination(self) -> Recombination:
        """New captions from those of all rows that are used. It reads every row once.

        Raises:
            InputError: if no row has a caption.
        """
        from tqdm import tqdm

        found: list[str | None] = []
        if "caption" in self.source.schema.columns:
            rows = prefetch(self._read_caption, self.rows, bound=2 * READERS, threads=READERS)
            found = list(tqdm(rows, "captions", len(self.rows), unit="row"))
        if not any(found):
            raise InputError(
                f"{{recombined}} in a prompt: source {self.source.name} has no caption in the"
                f" {len(self.rows)} rows that are used"
            )
        return Recombination(filter(None, found))

    def _read_caption(self, row: int) -> str | None:
        try:
            return self.source.picture(row).caption
        except InputError as error:
            if self.skips:
                return None
            raise InputError(f"{error}; --on_bad_row skip leaves it out") from error

    def way(self, item: Item) -> Way:
        """The way in which a sample is created."""
        *ends, total = accumulate(way.share for way in self.ways)
        return self.ways[bisect(ends, draw(item, self.settings.seed, "way") * total)]

    def caption(self, job: Job) -> str:
        """The prompt of a job."""
        prompts, seed = self.way(job.item).prompts, self.settings.seed
        chosen = prompts[int(draw(job.item, seed, "prompt") * len(prompts))]
        words = {"caption": job.source.caption or ""}
        if has_word(chosen, "recombined"):
            words["recombined"] = self.recombination.caption(job.item, seed)
        return chosen.format(**words)

    def strength(self, item: Item) -> float:
        """The strength of a sample, rounded to a timestep."""
        low, high = self.way(item).strength or self.own_strength
        return round(low + draw(item, self.settings.seed, "strength") * (high - low), 3)

    def provenance(self, job: Job) -> Provenance:
        seed = noise_seed(*job.item, self.settings.seed)
        return replace(super().provenance(job), strength=self.strength(job.item), noise_seed=seed)

    def denoise(self, jobs: list[Job]) -> JobBatch:
        import torch

        from ...diff2in1.creation import create_latents

        batch = super().denoise(jobs)
        seeds = [noise_seed(*job.item, self.settings.seed) for job in jobs]
        batch.latents, batch.pyramid = create_latents(
            self.pipe,
            batch.images if self.source.has_images else batch.size,
            [self.caption(job) for job in jobs],
            [self.strength(job.item) for job in jobs],
            [torch.Generator().manual_seed(seed) for seed in seeds],
            self.denoising,
            return_pyramid=self.labels_from == "last_step",
        )
        return batch

    def decode(self, batch: JobBatch) -> JobBatch:
        """Decode the latents, and round the images as they are stored."""
        import torch

        from ...diff2in1.images import as_stored

        assert batch.latents is not None
        height, width = batch.size
        with torch.no_grad():  # because this setting does not pass to other threads
            images = self.pipe.decode_latents(batch.latents)[..., :height, :width]
            batch.finite, batch.images = finite_samples(images), as_stored(images)
        return batch

    def labels(self, batch: JobBatch, mirrored: bool = False) -> "dict[str, Tensor]":
        if self.labels_from == "image" or batch.latents is None:
            return super().labels(batch, mirrored)
        from ...diff2in1.prediction import perceive

        height, width = batch.size
        if not mirrored:
            return perceive(self.pipe, batch.latents, (height, width), batch.pyramid)
        factor = self.pipe.vae_scale_factor
        padded = (batch.latents.shape[2] * factor, batch.latents.shape[3] * factor)
        # mirrored images have their padding on the left
        raw = perceive(self.pipe, batch.latents.flip(-1), padded)
        return {name: one[..., :height, padded[1] - width :] for name, one in raw.items()}
