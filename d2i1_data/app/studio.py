"""Studio: one pipeline that labels pictures and creates variations of them, one row at a time.

It makes rows as `d2i1 label` and `d2i1 create` do, with the same producers.
"""

import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..card import write_card
from ..creation.plan import Item
from ..creation.producers import Creator, Labeller, Skipped, prepare
from ..creation.settings import CreateSettings, LabelSettings
from ..dataset.sample import Provenance, Sample, image_sha256
from ..dataset.schema import read_tasks
from ..dataset.shards import shard_path, write_metadata, write_shard
from ..errors import InputError
from ..sources.source import fingerprint
from ..tasks import Task
from .settings import AppSettings

UPLOAD = "upload"  # name of the source
LONGEST_PROMPT = 1000  # characters


class Upload:
    """A source of one picture, called by its content; its caption is what is to be created."""

    name = UPLOAD
    has_images = True

    def __init__(self, image: NDArray[np.uint8], caption: str | None = None) -> None:
        sha256 = image_sha256(image)
        self.fingerprint = fingerprint(UPLOAD, sha256)
        self.notes: dict[str, int] = {}
        self.tasks: dict[str, Task] = {}
        identity = f"{UPLOAD}-{sha256[:12]}"
        origin = Provenance(source_dataset=UPLOAD, source_id=identity, source_sha256=sha256)
        self.sample = Sample(identity, image, {}, caption, origin)

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Sample]:
        yield self.sample

    def __getitem__(self, index: int) -> Sample:
        return self.sample

    def identity(self, index: int) -> str:
        return self.sample.id

    def picture(self, index: int) -> Sample:
        return self.sample


class Studio:
    """A pipeline at work for visitors. Not for several threads at once.

    tasks: what it perceives, by name. strength, steps: what it creates with by default.
    """

    def __init__(self, settings: AppSettings) -> None:
        self.settings = settings
        self.common: dict[str, Any] = {
            "source": UPLOAD,
            "output_dir": "",
            "pipeline": settings.pipeline,
            "precision": settings.precision,
            "threads": settings.threads,
            "confidence_maps": True,
            "on_bad_row": "skip",  # what cannot be made is told without advice on flags
        }
        self.labelling = LabelSettings(**self.common)
        self.pipe, self.known = prepare(self.labelling)
        here = Path(settings.pipeline).expanduser()
        self.name = here.resolve().name if here.is_dir() else settings.pipeline
        self.strength: float = self.pipe.config.default_strength
        steps = settings.num_inference_steps or self.pipe.config.default_num_inference_steps
        self.steps = min(steps, settings.max_inference_steps)
        families = self.pipe.perception.families
        self.tasks = read_tasks({name: f.config() for name, f in families.items()}, "pipeline")

    def label(self, image: NDArray[np.uint8]) -> Sample:
        """A picture [H, W, 3] with its labels, and how sure they are in `confidence`.

        Raises InputError for a picture that is too small.
        """
        return self._make(Labeller(self.pipe, Upload(image), self.labelling, self.known))

    def create(
        self,
        image: NDArray[np.uint8],
        prompt: str = "",
        strength: float | None = None,
        steps: int | None = None,
        seed: int = 0,
    ) -> Sample:
        """A labelled variation of a picture [H, W, 3]; None is the default of the checkpoint.

        Raises InputError for what is beyond the settings or cannot be created with.
        """
        steps = self.steps if steps is None else steps
        most = self.settings.max_inference_steps
        if not 1 <= steps <= most:
            raise InputError(f"{steps} calls of the U-Net: expected 1 to {most}")
        if not 0 <= seed < 2**32:
            raise InputError(f"seed {seed}: expected 0 to {2**32 - 1}")
        if len(prompt) > LONGEST_PROMPT:
            raise InputError(
                f"{len(prompt)} characters of prompt: expected at most {LONGEST_PROMPT}"
            )
        settings = CreateSettings(
            **self.common,
            strength=self.strength if strength is None else strength,
            num_inference_steps=steps,
            seed=seed,
        )
        return self._make(Creator(self.pipe, Upload(image, prompt), settings, self.known))

    def _make(self, producer: Labeller) -> Sample:
        """The one sample of a producer."""
        height, width = producer.source.picture(0).size
        if max(height, width) <= self.pipe.stride:  # too few latent pixels for a norm of groups
            raise InputError(
                f"this image has {width} x {height} pixels; this pipeline needs more than"
                f" {self.pipe.stride} on one side"
            )
        source, skipped = producer.source.identity(0), Skipped()
        made = list(producer.make([Item(source, 0)], skipped, lambda count: None))
        for why in skipped.values():
            raise InputError(why)
        # rows of one upload may be put together: what is made otherwise is called otherwise
        how = fingerprint(made[0].caption, asdict(made[0].provenance))
        return replace(made[0], id=f"{source}-{how[:8]}")

    def pack(self, sample: Sample, folder: Path) -> Path:
        """A zip in this folder, called by the row's id: a dataset of one row, which `load_dataset`
        and all of `d2i1` read once it is unpacked."""
        licence = self.known.base_licence
        said = {"skipped": {}, "notes": {}, **({"base_licence": licence} if licence else {})}
        with TemporaryDirectory(dir=folder) as place:
            dataset = Path(place) / sample.id
            write_shard(shard_path(dataset, 0), [sample], self.tasks, lambda: said)
            write_metadata(dataset, self.tasks)
            write_card(dataset)
            packed = Path(shutil.make_archive(str(dataset), "zip", place, sample.id))
            return packed.replace(folder / packed.name)  # perhaps one that is being downloaded
