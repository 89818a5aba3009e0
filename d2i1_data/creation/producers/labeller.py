"""The producer that labels images in batches.

Threads read, decode and store images while the U-Net works on the next batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...dataset.prefetch import prefetch
from ...dataset.sample import Provenance, Quality, Sample, image_sha256
from ...dataset.schema import SCORES, Schema, read_tasks
from ...sources import Source
from ..plan import Item
from ..settings import LabelSettings
from .producer import NOT_FINITE, READERS, Producer, Progress, Skipped

if TYPE_CHECKING:
    from torch import Tensor

    from ...diff2in1 import Diff2in1Pipeline


class Job(NamedTuple):
    """An item, and the source sample that it is made from."""

    item: Item
    source: Sample


@dataclass
class JobBatch:
    """A batch of jobs whose images have one size, with the results so far.

    Attributes:
        jobs: the items with their source samples.
        images: `[B, 3, H, W]` in [-1, 1]. They are the source images; after `decode`, the images
            that are stored.
        latents: scaled latents of created images, `[B, C, h, w]`.
        pyramid: features of the last denoising call.
        finite: `[B]` bool, False for created images with NaN or infinite values.
    """

    jobs: list[Job]
    images: "Tensor"
    latents: "Tensor | None" = None
    pyramid: "tuple[Tensor, ...] | None" = None
    finite: "Tensor | None" = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.jobs[0].source.size


class CheckpointInfo(NamedTuple):
    """Facts about a checkpoint: its fingerprint (`checkpoints.files.fingerprint`), and the licence
    of its base, None if unknown."""

    fingerprint: str
    base_licence: str | None


class Labeller(Producer):
    """Labels the images of a source with one pipeline.

    Args:
        pipe: the pipeline, on its device.
        source: source of the images.
        settings: settings of the command.
        checkpoint: facts about the checkpoint of the pipeline.
    """

    act = "label"

    def __init__(
        self,
        pipe: "Diff2in1Pipeline",
        source: Source,
        settings: LabelSettings,
        checkpoint: CheckpointInfo,
    ) -> None:
        import torch

        super().__init__(source, settings)
        self.pipe, self.settings, self.threads = pipe, settings, torch.get_num_threads()
        self.families = pipe.perception.families
        self.tasks = read_tasks({n: f.config() for n, f in self.families.items()}, "pipeline")
        self.labels_from, self.base_licence = "image", checkpoint.base_licence
        # the part of the provenance that all samples of this run share
        self.origin = Provenance(
            kind="created",
            base=pipe.config.base,
            checkpoint=None if Path(settings.pipeline).exists() else settings.pipeline,
            fingerprint=checkpoint.fingerprint,
            host=pipe.perception.name,
            labels_from=self.labels_from,
            strength=0.0,
            steps=0,
            precision=settings.precision,
        )

    @property
    def schema(self) -> Schema:
        source = self.source.schema
        scores = {"none": (), "fast": SCORES[:2], "full": SCORES}[self.settings.quality]
        filled = {name for name, value in asdict(self.origin).items() if value is not None}
        filled |= {"source_dataset", "source_id", "variant"}
        filled |= {"source_sha256"} if self.source.has_images else set()
        filled |= {"licence"} & {*source.inner("provenance")}
        return Schema.of(
            self.tasks,
            captions="caption" in source.columns,
            scores=scores if self.labels_from != "image" else scores[:2],
            confidence=self.settings.confidence_maps,
            provenance=filled,
        )

    def facts(self) -> dict[str, Any]:
        given = asdict(self.origin) | {"base_licence": self.base_licence}
        own = {key: value for key, value in given.items() if value is not None}
        same = ("batch_size", "quality", "confidence_maps")
        return {
            **super().facts(),
            **own,
            **{name: getattr(self.settings, name) for name in same},
            "device": self.pipe.device.type,
            "threads": self.threads,
        }

    def make(self, items: Sequence[Item], skipped: Skipped, progress: Progress) -> Iterator[Sample]:
        denoised = map(self.denoise, self.batches(items, skipped))
        for batch in prefetch(self.decode, denoised, bound=1):
            yield from self.label(batch, skipped)
            progress(len(batch.jobs))

    def batches(self, items: Sequence[Item], skipped: Skipped) -> Iterator[list[Job]]:
        """Read the source samples of items, and group them by image size.

        Args:
            items: items of one shard.
            skipped: gets the ids of unreadable samples.
        """

        def read(item: Item) -> tuple[Item, Sample | None]:
            return item, self.read(item, skipped)

        size = self.settings.batch_size
        loaded = prefetch(read, items, bound=2 * size, threads=READERS)
        jobs = (Job(item, sample) for item, sample in loaded if sample is not None)
        waiting: dict[tuple[int, int], list[Job]] = {}
        for job in jobs:
            same = waiting.setdefault(job.source.size, [])
            same.append(job)
            if len(same) == size:
                yield waiting.pop(job.source.size)
        yield from waiting.values()

    def denoise(self, jobs: list[Job]) -> JobBatch:
        """Begin a batch, in the thread of the U-Net. A labeller only takes the source images."""
        import torch

        from ...diff2in1.images import to_batches

        images = torch.cat(to_batches([job.source.image for job in jobs]))
        return JobBatch(jobs, images.to(self.pipe.device))

    def decode(self, batch: JobBatch) -> JobBatch:
        """Add the images that are stored. This runs in a thread during the next `denoise`."""
        return batch

    def labels(self, batch: JobBatch, mirrored: bool = False) -> "dict[str, Tensor]":
        """Raw predictions of a batch, `[B, R, H, W]` by task.

        Args:
            batch: a batch after `decode`.
            mirrored: whether to predict on the mirrored input.
        """
        from ...diff2in1.prediction import predict_raw

        return predict_raw(self.pipe, batch.images.flip(-1) if mirrored else batch.images)

    def label(self, batch: JobBatch, skipped: Skipped) -> Iterator[Sample]:
        """Label a batch and score its labels.

        Args:
            batch: a batch after `decode`.
            skipped: gets the ids of samples with NaN.
        """
        import torch

        from ...diff2in1.images import to_uint8
        from ...diff2in1.prediction import predict_raw
        from ..quality import score

        with torch.no_grad():
            raw, scores = self.labels(batch), [dict[str, Quality]() for _ in batch.jobs]
            finite = torch.stack([finite_samples(maps) for maps in raw.values()]).all(0)
            finite = finite if batch.finite is None else finite & batch.finite
            if self.settings.quality != "none":
                again = self.settings.quality == "full" and self.labels_from != "image"
                stored = predict_raw(self.pipe, batch.images) if again else None
                scores = score(self.families, raw, self.labels(batch, mirrored=True), stored)
            images = to_uint8(batch.images)
            maps = {name: f.finish(raw[name]).cpu() for name, f in self.families.items()}
            confidence = {}
            if self.settings.confidence_maps:
                confidence = {n: 1 - f.uncertainty(raw[n]).cpu() for n, f in self.families.items()}
        for n, (job, usable) in enumerate(zip(batch.jobs, finite.tolist(), strict=True)):
            if not usable:
                name = job.item.source_id
                reason = f"sample {name}, variant {job.item.variant}: {NOT_FINITE}"
                self.refuse(job.item, reason, skipped)
                continue
            yield Sample(
                id=self.identity(job.item),
                image=images[n],
                targets={name: self.families[name].to_array(one[n]) for name, one in maps.items()},
                caption=self.caption(job),
                provenance=self.provenance(job),
                quality=scores[n],
                confidence={name: one[n, 0].numpy() for name, one in confidence.items()},
            )

    def caption(self, job: Job) -> str | None:
        """The caption of the sample of a job."""
        return job.source.caption

    def provenance(self, job: Job) -> Provenance:
        """The provenance of the sample of a job. A created image can also be a source."""
        source = job.source.provenance
        name, sha256 = source.source_dataset, source.source_sha256
        if source.kind == "created":
            name, sha256 = self.source.name, image_sha256(job.source.image)
        return replace(
            self.origin,
            source_dataset=name,
            source_id=job.source.id,
            source_sha256=sha256,
            licence=source.licence,
            variant=job.item.variant,
        )


def finite_samples(batch: "Tensor") -> "Tensor":
    """Which samples of `[B, ...]` have neither NaN nor infinite values, `[B]` bool."""
    return batch.isfinite().flatten(1).all(1)
