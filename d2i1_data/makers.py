"""Makers: what turns the items of a shard into samples, for each act that writes a dataset.

A maker is built from the settings by every process; what it makes of an item depends on the plan
alone. Reading, decoding and storing go on in threads beside the next batch of the U-Net.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .conveyor import ahead
from .errors import InputError
from .plan import Item, draw, noise_seed
from .sample import Provenance, Quality, Sample, image_sha256
from .settings import CreateSettings, LabelSettings, WriteSettings
from .sources import Source, open_source

if TYPE_CHECKING:
    from torch import Tensor

    from .diff2in1 import Diff2in1Pipeline

Progress = Callable[[int], Any]  # is told how many more samples are made
Skipped = dict[str, str]  # ids of samples that cannot be made, and why
READERS = 2  # threads
UNMADE = "the checkpoint gives NaN"
UNREAD = "the source cannot be read there"


def make_maker(settings: WriteSettings) -> "Maker":
    """The maker of an act, with its pipeline on this process's device."""
    source = open_source(settings.source, settings.resolution)
    if not isinstance(settings, LabelSettings):
        return Importer(source, settings)
    import torch
    from accelerate import PartialState

    from .loading import fetch, fingerprint, open_pipeline

    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    creates = isinstance(settings, CreateSettings) and settings.create_with != "theta"
    parts = {} if creates else {"base_unet": None}  # gigabytes that labelling does not need
    pipe = open_pipeline(settings.pipeline, **parts)
    pipe.to(PartialState().device)
    if settings.precision != "float32":
        pipe.to(getattr(torch, settings.precision))
    checkpoint = fingerprint(fetch(settings.pipeline, "pipeline"))
    if isinstance(settings, CreateSettings):
        return Creator(pipe, source, settings, checkpoint)
    require_images(source)
    return Labeller(pipe, source, settings, checkpoint)


class Maker:
    """What all acts share: the source's rows by id, and what becomes of unusable ones."""

    act: str

    def __init__(self, source: Source, settings: WriteSettings) -> None:
        self.source, self.tasks = source, source.tasks
        self.rows = range(len(source))[: settings.max_source_samples]
        self.skips = settings.on_bad_row == "skip"

    def facts(self) -> dict[str, Any]:
        """All that decides the bytes of a shard, beside what is in it."""
        return {"source": self.source.name, "source_fingerprint": self.source.fingerprint}

    def notes(self) -> dict[str, int]:
        """Counts so far of what was done to the source's data, as far as it is kept."""
        return {}

    def identity(self, item: Item) -> str:
        """The id of what is made."""
        return f"{item.source_id}-{item.variant:03d}"

    def make(self, items: Sequence[Item], skipped: Skipped, progress: Progress) -> Iterator[Sample]:
        """The samples of a shard; what is left out is added to `skipped`."""
        raise NotImplementedError

    def read(self, item: Item, skipped: Skipped) -> Sample | None:
        """The image of the source behind an item, None if it cannot be read."""
        try:
            return self.fetch(self._row[item.source_id])
        except InputError as error:
            self.refuse(item, str(error), skipped)
            return None

    def fetch(self, row: int) -> Sample:
        """What is wanted of a row of the source."""
        return self.source.picture(row)

    def refuse(self, item: Item, why: str, skipped: Skipped) -> None:
        """Stop at an unusable sample, or leave it out, as the settings say."""
        if not self.skips:
            raise InputError(f"{why}; --on_bad_row skip leaves it out")
        skipped[self.identity(item)] = why

    @cached_property
    def _row(self) -> dict[str, int]:
        return {self.source.identity(row): row for row in self.rows}


class Importer(Maker):
    """Takes the samples of a source as they are."""

    act = "import"

    def __init__(self, source: Source, settings: WriteSettings) -> None:
        super().__init__(source, settings)
        require_images(source)

    def notes(self) -> dict[str, int]:
        return dict(self.source.notes)

    def identity(self, item: Item) -> str:
        return item.source_id

    def fetch(self, row: int) -> Sample:
        return self.source[row]

    def make(self, items: Sequence[Item], skipped: Skipped, progress: Progress) -> Iterator[Sample]:
        for sample in ahead(lambda item: self.read(item, skipped), items, 8, READERS):
            if sample is not None:
                yield sample
            progress(1)


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


class Labeller(Maker):
    """Labels the images of a source with one pipeline."""

    act = "label"

    def __init__(
        self, pipe: "Diff2in1Pipeline", source: Source, settings: LabelSettings, checkpoint: str
    ) -> None:
        import torch

        from .schema import read_tasks

        super().__init__(source, settings)
        self.pipe, self.settings, self.threads = pipe, settings, torch.get_num_threads()
        self.families = pipe.perception.families
        self.tasks = read_tasks({n: f.config() for n, f in self.families.items()}, "pipeline")
        self.labels_from = "image"
        # what every sample of this run has in common
        self.origin = Provenance(
            kind="created",
            base=pipe.config.base,
            checkpoint=None if Path(settings.pipeline).exists() else settings.pipeline,
            fingerprint=checkpoint,
            host=type(pipe.perception).__name__.lower(),
            labels_from=self.labels_from,
            strength=0.0,
            steps=0,
            precision=settings.precision,
        )

    def facts(self) -> dict[str, Any]:
        own = {key: value for key, value in asdict(self.origin).items() if value is not None}
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

        from .diff2in1.images import to_batches

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

        from .diff2in1.images import to_uint8
        from .quality import score

        with torch.no_grad():
            raw, scores = self.labels(batch), [dict[str, Quality]() for _ in batch.orders]
            sound = torch.stack([_finite(one) for one in raw.values()]).all(0)
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
        for n, (order, finite) in enumerate(zip(batch.orders, sound.tolist(), strict=True)):
            if not finite:
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


class Creator(Labeller):
    """Creates variations of the images of a source, or images of its captions, and labels them."""

    act = "create"
    settings: CreateSettings

    def __init__(
        self, pipe: "Diff2in1Pipeline", source: Source, settings: CreateSettings, checkpoint: str
    ) -> None:
        from .diff2in1.ddim import timesteps

        super().__init__(pipe, source, settings, checkpoint)
        config = pipe.config
        given = {
            name: value if (value := getattr(settings, name)) is not None else config[key]
            for name in ("strength", "num_inference_steps", "guidance_scale", "create_with")
            for key in [f"default_{name}"]
        }
        strength = given["strength"]
        if not self.source.has_images and settings.strength is None:
            strength = 1.0
        self.lowest, self.highest = strength if isinstance(strength, list) else [strength] * 2
        try:
            timesteps(self.lowest, given["num_inference_steps"])
            timesteps(self.highest, given["num_inference_steps"])
            self.pipe.check_creation(settings.labels_from, given["create_with"])
        except ValueError as error:
            raise InputError(str(error)) from error
        if not self.source.has_images and self.lowest < 1:
            raise InputError(f"source {self.source.name} has no images to keep: use --strength 1")
        if settings.negative_prompt and given["guidance_scale"] == 1:
            raise InputError("--negative_prompt says nothing at --guidance_scale 1")
        self.labels_from = settings.labels_from
        self.origin = replace(
            self.origin,
            labels_from=settings.labels_from,
            create_with=given["create_with"],
            strength=None,
            steps=given["num_inference_steps"],
            guidance=given["guidance_scale"],
            negative_prompt=settings.negative_prompt,
            scheduler=type(self.pipe.scheduler).__name__,
            seed=settings.seed,
        )
        if settings.compile:
            for unet in (self.pipe.unet, self.pipe.base_unet):
                if unet is not None:
                    unet.compile()

    def facts(self) -> dict[str, Any]:
        ranged = self.lowest < self.highest
        return {
            **super().facts(),
            "strength": [self.lowest, self.highest] if ranged else self.lowest,
            "prompt": self.settings.prompt,
            "balance": self.settings.balance,
            "compile": self.settings.compile,
        }

    def caption(self, order: Order) -> str:
        """The prompt."""
        prompts = self.settings.prompts
        chosen = prompts[int(draw(order.item, self.settings.seed, "prompt") * len(prompts))]
        return chosen.format(caption=order.source.caption or "")

    def strength(self, item: Item) -> float:
        """The strength a sample is created with, to a timestep."""
        share = draw(item, self.settings.seed, "strength")
        return round(self.lowest + share * (self.highest - self.lowest), 3)

    def provenance(self, order: Order) -> Provenance:
        seed = noise_seed(*order.item, self.settings.seed)
        return replace(
            super().provenance(order), strength=self.strength(order.item), noise_seed=seed
        )

    def begin(self, orders: list[Order]) -> Batch:
        import torch

        batch = super().begin(orders)
        seeds = [noise_seed(*order.item, self.settings.seed) for order in orders]
        batch.latents, batch.pyramid = self.pipe.create_latents(
            batch.images if self.source.has_images else batch.size,
            [self.caption(order) for order in orders],
            [self.strength(order.item) for order in orders],
            self.origin.steps,
            self.origin.guidance,
            self.settings.negative_prompt,
            [torch.Generator().manual_seed(seed) for seed in seeds],
            self.origin.create_with or "base",
            see=self.labels_from == "last_step",
        )
        return batch

    def develop(self, batch: Batch) -> Batch:
        """Decode, and round as the stored image is."""
        import torch

        from .diff2in1.images import as_stored

        assert batch.latents is not None
        height, width = batch.size
        with torch.no_grad():  # which every thread has for itself
            images = self.pipe.decode_latents(batch.latents)[..., :height, :width]
            batch.sound, batch.images = _finite(images), as_stored(images)
        return batch

    def labels(self, batch: Batch, mirrored: bool = False) -> "dict[str, Tensor]":
        if self.labels_from == "image" or batch.latents is None:
            return super().labels(batch, mirrored)
        height, width = batch.size
        if not mirrored:
            return self.pipe.perceive(batch.latents, (height, width), batch.pyramid)
        factor = self.pipe.vae_scale_factor
        padded = (batch.latents.shape[2] * factor, batch.latents.shape[3] * factor)
        raw = self.pipe.perceive(batch.latents.flip(-1), padded)  # what was padded comes first
        return {name: one[..., :height, padded[1] - width :] for name, one in raw.items()}


def require_images(source: Source) -> None:
    """Refuse a source of captions alone."""
    if not source.has_images:
        raise InputError(f"source {source.name} has no images; d2i1 create makes them")


def _finite(batch: "Tensor") -> "Tensor":
    """Which samples of [B, ...] hold no NaN and nothing infinite, [B] bool."""
    return batch.isfinite().flatten(1).all(1)
