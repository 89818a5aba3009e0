"""Sample and Provenance: sources give samples, creation writes them, training reads them."""

import hashlib
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Provenance:
    """Where a sample comes from. Real samples fill the first five fields.

    Attributes:
        kind: `created` if a model made the labels, otherwise `real`.
        source_dataset: name of the source.
        source_id: id of the sample of the source.
        source_sha256: hash of its pixels, see `image_sha256`.
        licence: licence of the source image.
        base: Hub id or name of the base.
        checkpoint: Hub id of the pipeline, None for a folder.
        fingerprint: hash of the weights and configs of the pipeline.
        host: name of the host.
        labels_from: `latent`, `last_step` or `image`.
        create_with: the U-Net that denoised, `base` or `theta`.
        strength: noise level T / 1000, 0 for a labelled real image.
        steps: calls of the U-Net.
        guidance: scale of classifier-free guidance; 1 is no guidance.
        negative_prompt: prompt that guidance leads away from.
        scheduler: class of the scheduler.
        precision: precision of the weights.
        seed: seed of the command.
        variant: number of the variation of the source image, from 0.
        noise_seed: seed of the noise of this sample.
    """

    kind: Literal["real", "created"] = "real"
    source_dataset: str | None = None
    source_id: str | None = None
    source_sha256: str | None = None
    licence: str | None = None
    base: str | None = None
    checkpoint: str | None = None
    fingerprint: str | None = None
    host: str | None = None
    labels_from: str | None = None
    create_with: Literal["base", "theta"] | None = None
    strength: float | None = None
    steps: int | None = None
    guidance: float | None = None
    negative_prompt: str | None = None
    scheduler: str | None = None
    precision: str | None = None
    seed: int | None = None
    variant: int | None = None
    noise_seed: int | None = None


@dataclass(frozen=True)
class Quality:
    """Scores of the labels of a sample for one task, in [0, 1]. Higher is better, None is unknown.

    Attributes:
        confidence: one minus the predicted uncertainty, averaged over the pixels.
        flip: agreement with the labels of the mirrored input.
        reencode: agreement with the labels of the stored image.
    """

    confidence: float | None = None
    flip: float | None = None
    reencode: float | None = None


@dataclass
class Sample:
    """One image with its targets.

    Attributes:
        id: a name that is unique in its dataset.
        image: `[H, W, 3]` uint8.
        targets: maps by task, at the size of the image and in physical units. Unknown pixels have
            the unknown value of the family of the task.
        caption: a description of the image, or the prompt of a created image.
        provenance: where the sample comes from.
        quality: scores of created targets, by task.
        confidence: maps `[H, W]` in [0, 1] by task, one minus the predicted uncertainty. Empty
            unless the settings ask for them.
    """

    id: str
    image: NDArray[np.uint8]
    targets: dict[str, NDArray[np.generic]]
    caption: str | None = None
    provenance: Provenance = field(default_factory=Provenance)
    quality: dict[str, Quality] = field(default_factory=dict)
    confidence: dict[str, NDArray[np.generic]] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]


def image_sha256(image: NDArray[np.uint8]) -> str:
    """Hash of the pixels and their shape. The same picture in another file has the same hash."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()
