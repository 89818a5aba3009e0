"""Creation: theta_C writes a labelled dataset; labelling: it does the same for images as they are.

Both are a pure function of (checkpoint, source, settings, seed). The plan lists every sample and
shard before the first image is made, so an interrupted run continues where it stopped.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import InputError
from .sample import Provenance, Quality, Sample
from .settings import CreateSettings, ImportSettings, LabelSettings, WriteSettings
from .sources import Source, open_rows, write_report

if TYPE_CHECKING:
    from .diff2in1 import Diff2in1Output, Diff2in1Pipeline


class Item(NamedTuple):
    """One sample to make: which image of the source, which of its variants."""

    row: int
    variant: int


def import_source(settings: ImportSettings) -> Path:
    """Write a dataset of real samples with their labels; its folder."""
    return _write_dataset(settings)


def label(settings: LabelSettings) -> Path:
    """Write a dataset of the source's own images, labelled by theta_C; its folder."""
    return _write_dataset(settings)


def create(settings: CreateSettings) -> Path:
    """Write a dataset of created, labelled images; its folder."""
    return _write_dataset(settings)


def _write_dataset(settings: WriteSettings) -> Path:
    from accelerate import PartialState
    from tqdm import tqdm

    from .card import write_card
    from .write import claim_folder, library_versions, shard_path, write_metadata, write_shard

    limit, on_bad_row = settings.max_source_samples, settings.on_bad_row
    rows = open_rows(settings.source, settings.resolution, limit, on_bad_row)
    source = rows.source
    maker = _maker(settings, source)
    count = settings.num_samples if isinstance(settings, CreateSettings) else None
    shards = plan_shards(rows.usable, count, settings.shard_size)
    folder, state = Path(settings.output_dir), PartialState()
    if state.is_main_process:
        names = [[[source.identity(row), variant] for row, variant in shard] for shard in shards]
        plan = {"act": maker.act, "resolution": settings.resolution, **maker.plan()}
        plan |= {"shards": names, "versions": library_versions()}
        claim_folder(folder, plan, settings.overwrite)
        write_report(folder / "skipped.json", rows)
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
        write_card(folder, maker.act, maker.tasks, maker.facts() | source.notes)
    return folder


def _maker(settings: WriteSettings, source: Source) -> "Importer | Labeller":
    from accelerate import PartialState

    from .loading import fetch, fingerprint, open_pipeline

    if not isinstance(settings, LabelSettings):
        return Importer(source)
    creates = isinstance(settings, CreateSettings) and settings.create_with != "theta"
    parts = {} if creates else {"base_unet": None}  # gigabytes that labelling does not need
    pipe = open_pipeline(settings.pipeline, **parts).to(PartialState().device)
    checkpoint = fingerprint(fetch(settings.pipeline, "pipeline"))
    if isinstance(settings, CreateSettings):
        return Creator(pipe, source, settings, checkpoint)
    return Labeller(pipe, source, settings, checkpoint)


def plan_shards(usable: Sequence[int], count: int | None, size: int) -> list[list[Item]]:
    """Which samples go into which shard: all images once, then their next variant."""
    count = len(usable) if count is None else count
    items = [Item(usable[n % len(usable)], n // len(usable)) for n in range(count)]
    return [items[start : start + size] for start in range(0, count, size)]


def noise_seed(source_id: str, variant: int, seed: int) -> int:
    """The first 63 bits of BLAKE2b over what identifies a sample."""
    name = f"{source_id}\0{variant}\0{seed}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1


class Importer:
    """Takes the samples of a source as they are."""

    act = "import"

    def __init__(self, source: Source) -> None:
        self.source, self.tasks = source, source.tasks

    def plan(self) -> dict[str, Any]:
        """All that decides the bytes of a shard, beside what is in it."""
        return self.facts()

    def facts(self) -> dict[str, Any]:
        """How the dataset is made, as the card says it."""
        return {"source": self.source.name}

    def make(self, items: Sequence[Item], progress: Callable[[int], Any]) -> Iterator[Sample]:
        """The samples of a shard."""
        for item in items:
            yield self.source[item.row]
            progress(1)


class Labeller:
    """Labels the images of a source with one pipeline."""

    act = "label"

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

    def plan(self) -> dict[str, Any]:
        """All that decides the bytes of a shard, beside what is in it."""
        import torch

        place = {"device": self.pipe.device.type, "threads": torch.get_num_threads()}
        return {**self.facts(), "batch_size": self.settings.batch_size, **place}

    def facts(self) -> dict[str, Any]:
        """How the dataset is made, as the card says it."""
        own = {key: value for key, value in asdict(self.origin).items() if value is not None}
        return {"source": self.source.name, **own}

    def make(self, items: Sequence[Item], progress: Callable[[int], Any]) -> Iterator[Sample]:
        """The samples of a shard, batch by batch; images of another size begin a new batch."""
        from .quality import score_labels

        loaded = ((self.source[item.row], item.variant) for item in items)
        for _, same in groupby(loaded, lambda pair: pair[0].size):
            while batch := list(islice(same, self.settings.batch_size)):
                output = self.look([source for source, _ in batch], [v for _, v in batch])
                scores = score_labels(self.pipe, output)
                for n, (source, variant) in enumerate(batch):
                    yield self._sample(source, variant, output, n, scores[n])
                progress(len(batch))

    def look(self, sources: Sequence[Sample], variants: Sequence[int]) -> "Diff2in1Output":
        """Images and labels of a batch."""
        return self.pipe.predict([source.image for source in sources])

    def caption(self, source: Sample) -> str | None:
        """The caption of what is made from a sample."""
        return source.caption

    def noise_seed(self, source: Sample, variant: int) -> int | None:
        """The seed of the noise a sample is created with."""
        return None

    def _sample(
        self,
        source: Sample,
        variant: int,
        output: "Diff2in1Output",
        n: int,
        quality: dict[str, Quality],
    ) -> Sample:
        import numpy as np

        return Sample(
            id=f"{source.id}-{variant:03d}",
            image=np.asarray(output.images[n]),
            targets={name: maps[n] for name, maps in output.predictions.items()},
            caption=self.caption(source),
            provenance=replace(
                self.origin,
                source_dataset=source.provenance.source_dataset,
                source_id=source.id,
                source_sha256=source.provenance.source_sha256,
                licence=source.provenance.licence,
                variant=variant,
                noise_seed=self.noise_seed(source, variant),
            ),
            quality=quality,
        )


class Creator(Labeller):
    """Creates variations of the images of a source, and labels them."""

    act = "create"
    settings: CreateSettings

    def __init__(
        self, pipe: "Diff2in1Pipeline", source: Source, settings: CreateSettings, checkpoint: str
    ) -> None:
        from .diff2in1.ddim import timesteps

        super().__init__(pipe, source, settings, checkpoint)
        given, config = asdict(settings), pipe.config
        for name in ("strength", "num_inference_steps", "guidance_scale", "create_with"):
            if given[name] is None:
                given[name] = config[f"default_{name}"]
        try:
            timesteps(given["strength"], given["num_inference_steps"])
            pipe.check_creation(settings.labels_from, given["create_with"])
        except ValueError as error:
            raise InputError(str(error)) from error
        self.origin = replace(
            self.origin,
            labels_from=settings.labels_from,
            create_with=given["create_with"],
            strength=given["strength"],
            steps=given["num_inference_steps"],
            guidance=given["guidance_scale"],
            negative_prompt=settings.negative_prompt,
            scheduler=type(pipe.scheduler).__name__,
        )

    def plan(self) -> dict[str, Any]:
        """All that decides the bytes of a shard, beside what is in it."""
        return {**super().plan(), "prompt": self.settings.prompt}

    def caption(self, source: Sample) -> str | None:
        """The prompt."""
        prompt = self.settings.prompt
        return (source.caption or "") if prompt is None else prompt

    def noise_seed(self, source: Sample, variant: int) -> int:
        """The seed of the noise a sample is created with."""
        return noise_seed(source.id, variant, self.settings.seed)

    def look(self, sources: Sequence[Sample], variants: Sequence[int]) -> "Diff2in1Output":
        """Created images and their labels."""
        import torch

        seeds = map(self.noise_seed, sources, variants)
        return self.pipe(
            [source.image for source in sources],
            [str(self.caption(source)) for source in sources],
            strength=self.origin.strength,
            num_inference_steps=self.origin.steps,
            guidance_scale=self.origin.guidance,
            negative_prompt=self.settings.negative_prompt,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            labels_from=self.settings.labels_from,
            create_with=self.origin.create_with,
        )
