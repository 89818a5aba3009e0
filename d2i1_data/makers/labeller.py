"""The maker that labels images, batch by batch.

Reading, decoding and storing go on in threads beside the next batch of the U-Net.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..conveyor import ahead
from ..plan import Item
from ..sample import Provenance, Quality, Sample, image_sha256
from ..settings import LabelSettings
from ..sources import Source
from .base import READERS, UNMADE, Maker, Progress, Skipped

if TYPE_CHECKING:
    from torch import Tensor

    from ..diff2in1 import Diff2in1Pipeline


class Order(NamedTuple):
    """An item and the sample of the source it is made from."""

    item: Item
    source: Sample


@dataclass
class Batch:
    """Samples in the making: images of one size."""

    orders: list[Order]
    images: "Tensor"  # [B, 3, H, W] in [-1, 1]: the source's, then what is stored
    latents: "Tensor | None" = None  # [B, C, h, w], scaled, of created images
    pyramid: "tuple[Tensor, ...] | None" = None  # of the last denoising call
    sound: "Tensor | None" = None  # [B] bool: which created images are finite

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.orders[0].source.size


class Known(NamedTuple):
    """What is known of a checkpoint: see `loading.fingerprint`; the licence of its base, if any."""

    fingerprint: str
    base_licence: str | None


class Labeller(Maker):
    """Labels the images of a source with one pipeline."""

    act = "label"

    def __init__(
        self, pipe: "Diff2in1Pipeline", source: Source, settings: LabelSettings, known: Known
    ) -> None:
        import torch

        from ..schema import read_tasks

        super().__init__(source, settings)
        self.pipe, self.settings, self.threads = pipe, settings, torch.get_num_threads()
        self.families = pipe.perception.families
        self.tasks = read_tasks({n: f.config() for n, f in self.families.items()}, "pipeline")
        self.labels_from, self.base_licence = "image", known.base_licence
        # what every sample of this run has in common
        self.origin = Provenance(
            kind="created",
            base=pipe.config.base,
            checkpoint=None if Path(settings.pipeline).exists() else settings.pipeline,
            fingerprint=known.fingerprint,
            host=type(pipe.perception).__name__.lower(),
            labels_from=self.labels_from,
            strength=0.0,
            steps=0,
            precision=settings.precision,
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
        begun = map(self.begin, self.batches(items, skipped))
        for batch in ahead(self.develop, begun, bound=1):
            yield from self.look(batch, skipped)
            progress(len(batch.orders))

    def batches(self, items: Sequence[Item], skipped: Skipped) -> Iterator[list[Order]]:
        """Items with what they are made from, images of one size together."""

        def read(item: Item) -> tuple[Item, Sample | None]:
            return item, self.read(item, skipped)

        size = self.settings.batch_size
        loaded = ahead(read, items, bound=2 * size, threads=READERS)
        orders = (Order(item, sample) for item, sample in loaded if sample is not None)
        waiting: dict[tuple[int, int], list[Order]] = {}
        for order in orders:
            same = waiting.setdefault(order.source.size, [])
            same.append(order)
            if len(same) == size:
                yield waiting.pop(order.source.size)
        yield from waiting.values()

    def begin(self, orders: list[Order]) -> Batch:
        """A batch as far as the U-Net takes it before there are images."""
        import torch

        from ..diff2in1.images import to_batches

        images = torch.cat(to_batches([order.source.image for order in orders]))
        return Batch(orders, images.to(self.pipe.device))

    def develop(self, batch: Batch) -> Batch:
        """A batch with the images that are stored; in a thread, beside the next one's beginning."""
        return batch

    def labels(self, batch: Batch, mirrored: bool = False) -> "dict[str, Tensor]":
        """Raw labels [B, R, H, W] of a batch, or those of its mirrored input."""
        return self.pipe.raw_maps(batch.images.flip(-1) if mirrored else batch.images)

    def look(self, batch: Batch, skipped: Skipped) -> Iterator[Sample]:
        """Labels and their quality: the samples of a batch."""
        import torch

        from ..diff2in1.images import to_uint8
        from ..quality import score

        with torch.no_grad():
            raw, scores = self.labels(batch), [dict[str, Quality]() for _ in batch.orders]
            sound = torch.stack([finite(one) for one in raw.values()]).all(0)
            sound = sound if batch.sound is None else sound & batch.sound
            if self.settings.quality != "none":
                again = self.settings.quality == "full" and self.labels_from != "image"
                stored = self.pipe.raw_maps(batch.images) if again else None
                scores = score(self.families, raw, self.labels(batch, mirrored=True), stored)
            images = to_uint8(batch.images)
            maps = {name: f.finish(raw[name]).cpu() for name, f in self.families.items()}
            sure = {}
            if self.settings.confidence_maps:
                sure = {n: 1 - f.uncertainty(raw[n]).cpu() for n, f in self.families.items()}
        for n, (order, made) in enumerate(zip(batch.orders, sound.tolist(), strict=True)):
            if not made:
                name = order.item.source_id
                why = f"sample {name}, variant {order.item.variant}: {UNMADE}"
                self.refuse(order.item, why, skipped)
                continue
            yield Sample(
                id=self.identity(order.item),
                image=images[n],
                targets={name: self.families[name].to_array(one[n]) for name, one in maps.items()},
                caption=self.caption(order),
                provenance=self.provenance(order),
                quality=scores[n],
                confidence={name: one[n, 0].numpy() for name, one in sure.items()},
            )

    def caption(self, order: Order) -> str | None:
        """The caption of what is made."""
        return order.source.caption

    def provenance(self, order: Order) -> Provenance:
        """Where what is made comes from; of an image that was created itself, from that image."""
        source = order.source.provenance
        name, sha256 = source.source_dataset, source.source_sha256
        if source.kind == "created":
            name, sha256 = self.source.name, image_sha256(order.source.image)
        return replace(
            self.origin,
            source_dataset=name,
            source_id=order.source.id,
            source_sha256=sha256,
            licence=source.licence,
            variant=order.item.variant,
        )


def finite(batch: "Tensor") -> "Tensor":
    """Which samples of [B, ...] hold no NaN and nothing infinite, [B] bool."""
    return batch.isfinite().flatten(1).all(1)
