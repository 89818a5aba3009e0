"""Creation: theta_C writes a labelled dataset; labelling: it does the same for images as they are.

Both are a pure function of (checkpoint, source, settings, seed). The plan lists every sample and
shard before the first image is made, so an interrupted run continues where it stopped.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import InputError
from .sample import Provenance, Sample, image_sha256
from .settings import CreateSettings, ImportSettings, LabelSettings, WriteSettings
from .sources import Source, open_source, usable_rows

if TYPE_CHECKING:
    from .diff2in1 import Diff2in1Pipeline


class Item(NamedTuple):
    """One sample to make: which image of the source, which of its variants."""

    row: int
    variant: int


def import_source(settings: ImportSettings) -> Path:
    """Write a dataset of real samples with their labels; its folder."""
    return _write_dataset(settings)


def create(settings: CreateSettings) -> Path:
    """Write a dataset of created, labelled images; its folder."""
    if not 0 < settings.strength <= 1:
        raise InputError(f"--strength {settings.strength}: expected more than 0, at most 1")
    return _write_dataset(settings)


def label(settings: LabelSettings) -> Path:
    """Write a dataset of the source's own images, labelled by theta_C; its folder."""
    return _write_dataset(settings)


def _open(settings: LabelSettings, source: Source) -> "Creator":
    from accelerate import PartialState

    from .loading import fetch, fingerprint, open_pipeline

    pipe = open_pipeline(settings.pipeline).to(PartialState().device)
    return Creator(pipe, source, settings, fingerprint(fetch(settings.pipeline, "pipeline")))


def _write_dataset(settings: WriteSettings) -> Path:
    from accelerate import PartialState
    from tqdm import tqdm

    from .card import write_card
    from .write import claim_folder, library_versions, shard_path, write_metadata, write_shard

    source = open_source(settings.source, settings.resolution)
    rows = usable_rows(source, settings.max_source_samples, settings.on_bad_row)
    shards = plan_shards(rows.usable, settings)
    maker = (
        _open(settings, source)
        if isinstance(settings, LabelSettings)
        else Importer(source, settings)
    )
    folder, state = Path(settings.output_dir), PartialState()
    if state.is_main_process:
        plan = maker.plan() | {"source": source.name, "resolution": settings.resolution}
        names = [[[source.identity(row), variant] for row, variant in shard] for shard in shards]
        plan |= {"shards": names, "versions": library_versions()}
        claim_folder(folder, plan, settings.overwrite)
        rows.write_report(folder / "skipped.json")
        write_metadata(folder, maker.tasks)
    state.wait_for_everyone()
    mine = range(state.process_index, len(shards), state.num_processes)
    missing = [k for k in mine if not shard_path(folder, k).exists()]
    total = sum(len(shards[k]) for k in mine)
    done = total - sum(len(shards[k]) for k in missing)
    quiet = not state.is_main_process
    with tqdm(total=total, initial=done, desc="samples", unit="sample", disable=quiet) as bar:
        for k in missing:
            write_shard(shard_path(folder, k), maker.make(shards[k], bar.update), maker.tasks)
    state.wait_for_everyone()
    if state.is_main_process:
        write_card(folder, maker.tasks, maker.facts() | source.notes)
    return folder


def plan_shards(usable: Sequence[int], settings: WriteSettings) -> list[list[Item]]:
    """Which samples go into which shard: all images once, then their next variant."""
    count = settings.num_samples or len(usable)
    items = [Item(usable[n % len(usable)], n // len(usable)) for n in range(count)]
    size = settings.shard_size
    return [items[start : start + size] for start in range(0, count, size)]


def noise_seed(source_id: str, variant: int, seed: int) -> int:
    """The first 63 bits of BLAKE2b over what identifies a sample."""
    name = f"{source_id}\0{variant}\0{seed}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1


class Importer:
    """Takes the samples of a source as they are."""

    def __init__(self, source: Source, settings: WriteSettings) -> None:
        self.source, self.settings, self.tasks = source, settings, source.tasks

    def plan(self) -> dict[str, Any]:
        """All that decides the bytes of a shard, beside what is in it."""
        return {"act": "import"}

    def facts(self) -> dict[str, Any]:
        """What the card says of the origin."""
        return {"source": self.source.name}

    def make(self, items: Sequence[Item], progress: Callable[[int], Any]) -> Iterator[Sample]:
        """The samples of a shard."""
        for item in items:
            yield self.source[item.row]
            progress(1)


class Creator:
    """Makes the samples of a plan with one pipeline from one source."""

    def __init__(
        self, pipe: "Diff2in1Pipeline", source: Source, settings: LabelSettings, checkpoint: str
    ) -> None:
        from .schema import read_tasks

        self.pipe, self.source, self.settings = pipe, source, settings
        families = pipe.perception.families
        self.tasks = read_tasks({n: f.config() for n, f in families.items()}, settings.pipeline)
        # what every sample of this run has in common
        self.origin = Provenance(
            kind="created",
            base=pipe.config.base,
            checkpoint=None if Path(settings.pipeline).exists() else settings.pipeline,
            fingerprint=checkpoint,
            host=type(pipe.perception).__name__.lower(),
            labels_from="image",
            strength=0.0,
            steps=0,
            precision=str(pipe.unet.dtype).removeprefix("torch."),
            seed=settings.seed,
        )
        self.prompt: str | None = None
        if isinstance(settings, CreateSettings):
            self.prompt = settings.prompt
            config, guidance = pipe.config, settings.guidance_scale
            self.origin = replace(
                self.origin,
                labels_from=settings.labels_from,
                strength=settings.strength,
                steps=settings.num_inference_steps or config.default_num_inference_steps,
                guidance=config.default_guidance_scale if guidance is None else guidance,
                negative_prompt=settings.negative_prompt,
                scheduler=type(pipe.scheduler).__name__,
            )

    def plan(self) -> dict[str, Any]:
        """All that decides the bytes of a shard, beside what is in it."""
        import torch

        return {
            "act": "create" if self.origin.strength else "label",
            "made_with": self.facts(),
            "prompt": self.prompt,
            "batch_size": self.settings.batch_size,
            "device": self.pipe.device.type,
            "threads": torch.get_num_threads(),
        }

    def facts(self) -> dict[str, Any]:
        """How the dataset is made, for the plan and the card."""
        own = asdict(self.origin)
        return {key: value for key, value in own.items() if value is not None and key != "kind"}

    def make(self, items: Sequence[Item], progress: Callable[[int], Any]) -> Iterator[Sample]:
        """The samples of a shard, batch by batch; images of another size begin a new batch."""
        loaded = ((self.source[item.row], item.variant) for item in items)
        for _, same in groupby(loaded, lambda pair: pair[0].size):
            batch = []
            for pair in same:
                batch.append(pair)
                if len(batch) == self.settings.batch_size:
                    yield from self._batch(batch)
                    progress(len(batch))
                    batch = []
            if batch:
                yield from self._batch(batch)
                progress(len(batch))

    def _batch(self, batch: list[tuple[Sample, int]]) -> Iterator[Sample]:
        import numpy as np
        import torch

        from .quality import score_labels

        seeds = [noise_seed(s.id, variant, self.settings.seed) for s, variant in batch]
        prompts = [self.prompt or s.caption or "" for s, _ in batch]
        images = [s.image for s, _ in batch]
        if self.origin.strength:
            output = self.pipe(
                images,
                prompts,
                strength=self.origin.strength,
                num_inference_steps=self.origin.steps,
                guidance_scale=self.origin.guidance,
                negative_prompt=self.origin.negative_prompt or "",
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                labels_from=self.origin.labels_from,  # type: ignore[arg-type]
            )
        else:
            output = self.pipe.predict(images)
        scores = score_labels(self.pipe, output)
        for n, (source, variant) in enumerate(batch):
            creating = self.origin.strength
            yield Sample(
                id=f"{source.id}-{variant:03d}",
                image=np.asarray(output.images[n]),
                targets={name: maps[n] for name, maps in output.predictions.items()},
                caption=prompts[n] if creating else source.caption,
                provenance=replace(
                    self.origin,
                    source_dataset=source.provenance.source_dataset,
                    source_id=source.id,
                    source_sha256=image_sha256(source.image),
                    licence=source.provenance.licence,
                    variant=variant,
                    noise_seed=seeds[n] if creating else None,
                ),
                quality=scores[n],
            )
