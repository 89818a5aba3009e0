"""A loaded pipeline that labels images and creates variations of them, one row at a time.

It makes rows with the same producers as `d2i1 label` and `d2i1 create`.
"""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..card import write_card
from ..creation.plan import Item
from ..creation.producers import Creator, Labeller, Skipped, open_checkpoint
from ..creation.settings import CreateSettings, LabelSettings
from ..creation.ways import read_strength
from ..dataset.sample import Provenance, Sample, image_sha256
from ..dataset.schema import PROVENANCE, Schema, read_tasks
from ..dataset.shards import ShardRecord, shard_path, write_metadata, write_shard
from ..errors import InputError
from ..sources.source import Source, fingerprint
from ..tasks import Task
from .settings import AppSettings

UPLOAD = "upload"  # name of the source
MAX_PROMPT = 1000  # characters


class UploadSource(Source):
    """A source of one image. Its id is a hash of the image; its caption is the prompt."""

    name = UPLOAD
    tasks: Mapping[str, Task] = {}

    def __init__(self, image: NDArray[np.uint8], caption: str | None = None) -> None:
        """Make a sample of an image.

        Args:
            image: RGB, `[H, W, 3]`.
            caption: the prompt, None for labelling.
        """
        super().__init__()
        sha256 = image_sha256(image)
        self.fingerprint = fingerprint(UPLOAD, sha256)
        identity = f"{UPLOAD}-{sha256[:12]}"
        origin = Provenance(source_dataset=UPLOAD, source_id=identity, source_sha256=sha256)
        self.sample = Sample(identity, image, {}, caption, origin)

    def __len__(self) -> int:
        return 1

    @property
    def schema(self) -> Schema:
        """The columns of an image without a licence, with a caption if there is a prompt."""
        return Schema.real({}, captions=self.sample.caption is not None, licence=False)

    def identity(self, index: int) -> str:
        """The id of the sample."""
        return self.sample.id

    def read(self, index: int, tasks: Iterable[str]) -> Sample:
        """The sample; it has no targets."""
        return self.sample


class PipelineSession:
    """One pipeline that serves visitors. Must not be used by several threads at once.

    Attributes:
        name: name of the pipeline for the page.
        tasks: the tasks that it predicts, by name.
        strength, steps: defaults for creating.
    """

    def __init__(self, settings: AppSettings) -> None:
        """Load the pipeline.

        Raises:
            InputError: if there is no such pipeline.
        """
        self.settings = settings
        self.common: dict[str, Any] = {
            "source": UPLOAD,
            "output_dir": "",
            "pipeline": settings.pipeline,
            "precision": settings.precision,
            "threads": settings.threads,
            "confidence_maps": True,
            "on_bad_row": "skip",  # the error of "stop" advises flags, which a visitor cannot set
        }
        self.label_settings = LabelSettings(**self.common)
        self.pipe, self.info = open_checkpoint(self.label_settings)
        folder = Path(settings.pipeline).expanduser()
        self.name = folder.resolve().name if folder.is_dir() else settings.pipeline
        self.strength: float = self.pipe.config.default_strength
        steps = settings.num_inference_steps or self.pipe.config.default_num_inference_steps
        self.steps = min(steps, settings.max_inference_steps)
        families = self.pipe.perception.families
        self.tasks = read_tasks({name: f.config() for name, f in families.items()}, "pipeline")

    def label(self, image: NDArray[np.uint8]) -> Sample:
        """An image with predicted labels and their maps of confidence.

        Args:
            image: RGB, `[H, W, 3]`.

        Raises:
            InputError: if the image is too small.
        """
        source = UploadSource(image)
        return self._make(Labeller(self.pipe, source, self.label_settings, self.info))

    def create(
        self,
        image: NDArray[np.uint8],
        prompt: str = "",
        strength: float | None = None,
        steps: int | None = None,
        seed: int = 0,
    ) -> Sample:
        """A labelled variation of an image.

        Args:
            image: RGB, `[H, W, 3]`.
            prompt: what the new image should show.
            strength: noise level T / 1000, in (0, 1]. None uses the checkpoint's default.
            steps: U-Net calls. None uses the default of the session.
            seed: seed of the noise.

        Raises:
            InputError: if a value is out of range, or the image is too small.
        """
        steps = self.steps if steps is None else steps
        most = self.settings.max_inference_steps
        if not 1 <= steps <= most:
            raise InputError(f"{steps} calls of the U-Net: expected 1 to {most}")
        strength = self.strength if strength is None else strength
        read_strength(strength, "strength")  # a visitor gave no flag --strength
        if not 0 <= seed < 2**32:
            raise InputError(f"seed {seed}: expected 0 to {2**32 - 1}")
        if len(prompt) > MAX_PROMPT:
            raise InputError(f"{len(prompt)} characters of prompt: expected at most {MAX_PROMPT}")
        settings = CreateSettings(
            **self.common,
            strength=strength,
            num_inference_steps=steps,
            seed=seed,
        )
        return self._make(Creator(self.pipe, UploadSource(image, prompt), settings, self.info))

    def _make(self, producer: Labeller) -> Sample:
        """Make the single sample of a producer."""
        height, width = producer.source.picture(0).size
        if max(height, width) <= self.pipe.stride:  # one latent pixel has no variance to normalise
            raise InputError(
                f"this image has {width} x {height} pixels; this pipeline needs more than"
                f" {self.pipe.stride} on one side"
            )
        source, skipped = producer.source.identity(0), Skipped()
        made = list(producer.make([Item(source, 0)], skipped, lambda count: None))
        for reason in skipped.values():
            raise InputError(reason)
        # users may join rows of one upload to a dataset, so their ids must differ
        made_by = fingerprint(made[0].caption, asdict(made[0].provenance))
        return replace(made[0], id=f"{source}-{made_by[:8]}")

    def pack(self, sample: Sample, folder: Path) -> Path:
        """Write a zip with a dataset of one row, which `load_dataset` and `d2i1` read.

        Args:
            sample: the row.
            folder: the zip is written here. Its name is the id of the row.
        """
        record = ShardRecord(base_licence=self.info.base_licence)
        schema = Schema.of(
            self.tasks,
            captions=sample.caption is not None,
            scores=("confidence", "flip"),
            confidence=True,
            provenance=[n for n in PROVENANCE if getattr(sample.provenance, n) is not None],
        )
        with TemporaryDirectory(dir=folder) as place:
            dataset = Path(place) / sample.id
            write_shard(shard_path(dataset, 0), [sample], schema, lambda: record)
            write_metadata(dataset, schema)
            write_card(dataset)
            packed = Path(shutil.make_archive(str(dataset), "zip", place, sample.id))
            return packed.replace(folder / packed.name)  # somebody may just download the old zip
