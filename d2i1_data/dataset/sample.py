"""Sample and Provenance: the noun that sources make, creation writes and training reads."""

import hashlib
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Provenance:
    """Where a sample comes from; real samples fill the first five fields, created ones all."""

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
    """Three scores in [0, 1] of one task of one sample, higher is better, None if not measured."""

    confidence: float | None = None
    flip: float | None = None
    reencode: float | None = None


@dataclass
class Sample:
    """One image with its targets.

    image: [H, W, 3] uint8. targets: task name -> map of the task's family at the image's size, in
    physical units, its unknown pixels holding the family's unknown value (see `diff2in1.families`).
    quality and confidence: of created targets, by task; confidence is [H, W] in [0, 1], one minus
    the predicted uncertainty, and is there if it was asked for.
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
    """Hash of the pixels and their shape: the same picture in another file is the same image."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()
