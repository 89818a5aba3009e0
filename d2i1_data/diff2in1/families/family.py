"""What is common to all families of dense maps, and their stored form."""

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .distribution import Distribution


def encode_png(pixels: NDArray[np.generic]) -> bytes:
    """PNG bytes of uint8 or uint16 pixels; level 1 is three times as fast as the default."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def decode_png(data: bytes) -> NDArray[np.generic]:
    """Pixels of an image file as stored, without colour conversion."""
    return np.asarray(Image.open(io.BytesIO(data)))


Colour = tuple[int, ...]  # red, green, blue, 0 to 255


class Legend(NamedTuple):
    """What the colours of a picture stand for.

    entries: colours and what each means, the most important first. ramp: colours from one end of a
    scale to the other, whose ends are then the two entries.
    """

    entries: list[tuple[Colour, str]]
    ramp: list[Colour]


def precise(x: Tensor) -> Tensor:
    """In float32, or in float64 if it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def mean_over(error: Tensor, valid: Tensor) -> Tensor:
    """Mean of error [B, 1, H, W] over each sample's valid pixels, 0 where there are none, [B]."""
    total = torch.where(valid, error, 0.0).sum((1, 2, 3))
    return total / valid.sum((1, 2, 3)).clamp(min=1)


def pooled_over(error: Tensor, valid: Tensor) -> Tensor:
    """Mean of error [B, 1, H, W] over the batch's valid pixels, said of every sample, [B].

    What many released codes train with; samples with more valid pixels weigh more.
    """
    mean = torch.where(valid, error, 0.0).sum() / valid.sum().clamp(min=1)
    return mean.expand(len(error))


class Family(ABC):
    """What is common to all maps of one kind. Instances hold no tensors and may be shared.

    name: in configs and in `FAMILIES`. channels: C of a map. unknown: value of unknown pixels.
    unsure: the meaning of its uncertainty, in the words of cards. dtype: of a map as a tensor.
    in_metres: whether values are distances. has_scale: whether files of others may store its
    values in another unit (see `from_file`). names, palette: of its classes and their colours;
    empty for a family without classes.
    """

    name: ClassVar[str]
    channels: ClassVar[int] = 1
    unknown: ClassVar[float]
    unsure: ClassVar[str]
    dtype: ClassVar[torch.dtype] = torch.float32
    in_metres: ClassVar[bool] = False
    has_scale: ClassVar[bool] = False
    names: tuple[str, ...] = ()
    palette: tuple[Colour, ...] = ()

    @property
    @abstractmethod
    def raw_channels(self) -> int:
        """R: how many channels a host predicts for this family."""

    def config(self) -> dict[str, Any]:
        """What `make_family` needs to build this family again."""
        return {"family": self.name}

    def with_classes(
        self, names: Sequence[str], palette: Sequence[Sequence[int]] | None = None
    ) -> "Family":
        """The same family over other classes.

        Raises:
            ValueError: if the family has no classes, or cannot have these.
        """
        raise ValueError(f"a {self.name} has no classes")

    def to_tensor(self, array: NDArray[np.generic]) -> Tensor:
        """Array to tensor, [C, H, W]."""
        return torch.from_numpy(np.array(array, np.float32))[None]

    def to_array(self, tensor: Tensor) -> NDArray[np.generic]:
        """Tensor [C, H, W] to array."""
        return tensor[0].float().cpu().numpy()

    def blank(self, size: tuple[int, int]) -> Tensor:
        """A map of which nothing is known, [C, H, W]."""
        return torch.full((self.channels, *size), self.unknown, dtype=self.dtype)

    @abstractmethod
    def valid(self, target: Tensor) -> Tensor:
        """Where the truth is known, [B, 1, H, W] bool."""

    @abstractmethod
    def finish(self, raw: Tensor) -> Tensor:
        """Raw prediction [B, R, H, W] to a map [B, C, H, W] in physical units."""

    def to_linear(self, raw: Tensor) -> Tensor:
        """What of a raw prediction may be averaged or enlarged, [B, R, H, W]."""
        return precise(raw)

    def from_linear(self, settled: Tensor) -> Tensor:
        """The raw prediction that an average of settled ones stands for."""
        return settled

    def expected_error(self, raw: Tensor) -> Tensor | None:
        """How far off the prediction is expected to be, in a unit of the family, [B, 1, H, W]; None
        where it says nothing of that."""
        return None

    @abstractmethod
    def uncertainty(self, raw: Tensor) -> Tensor:
        """How unsure the prediction is, in [0, 1], [B, 1, H, W]."""

    @abstractmethod
    def loss(self, raw: Tensor, target: Tensor) -> Tensor:
        """Loss of a raw prediction, mean over the valid pixels of each sample, [B].

        The negative log-likelihood of the target; where the family predicts a spread, each pixel's
        is weighted by that spread (beta-NLL, beta = 1; Seitzer et al. 2022, arXiv 2203.09168).
        Else the gradients of a sure task grow without bound and starve the others: 600 steps on 24
        rooms give a mean IoU of 0.22 without the weight and 0.56 with it, for normals of 10.4 and
        10.8 degrees.
        """

    @abstractmethod
    def agrees(self, one: Tensor, other: Tensor) -> Tensor:
        """Where two maps count as equal, [B, 1, H, W] bool."""

    def agreement(self, one: Tensor, other: Tensor) -> Tensor:
        """Share of the pixels known in both maps on which they agree, nan without such, [B]."""
        both = self.valid(one) & self.valid(other)
        return (self.agrees(one, other) & both).sum((1, 2, 3)) / both.sum((1, 2, 3))

    @abstractmethod
    def average(self, targets: Tensor) -> Tensor:
        """What is best said of each pixel of N maps [N, C, H, W], unknown where none is known."""

    def within(self, prediction: Tensor, target: Tensor, metres: float) -> tuple[Tensor, Tensor]:
        """The prediction clipped to a distance, the truth unknown beyond; else both as they are."""
        return prediction, target

    def flip(self, tensor: Tensor) -> Tensor:
        """Mirror a map, or a raw prediction, left to right."""
        return tensor.flip(-1)

    def resize(self, target: Tensor, size: tuple[int, int]) -> Tensor:
        """Bring a map to another size without mixing pixels (nearest)."""
        return F.interpolate(target.float(), size, mode="nearest-exact").to(target.dtype)

    def scaled(self, target: Tensor, factor: float) -> Tensor:
        """What a map says of the same image with its sides times `factor`, at the map's size."""
        return target

    def largest_share(self, target: Tensor) -> float:
        """Share of the known pixels that the largest class covers, 0 without pixels or classes."""
        return 0.0

    def present(self, array: NDArray[np.generic], at_least: float) -> list[int]:
        """Classes that cover at least this share of the known pixels of an array, largest first."""
        return []

    @abstractmethod
    def distribution(self) -> Distribution:
        """Empty counts of what reports show of many arrays."""

    @abstractmethod
    def complaint(self, array: NDArray[np.generic]) -> str | None:
        """What is wrong with the values of an array, None if nothing is."""

    @abstractmethod
    def to_png(self, array: NDArray[np.generic]) -> bytes:
        """The stored form."""

    @abstractmethod
    def from_png(self, data: bytes) -> NDArray[np.generic]:
        """The array of a stored form."""

    def from_file(
        self, data: bytes, scale: float | None = None, ignore: Sequence[int] = ()
    ) -> NDArray[np.generic]:
        """The array of an image file that others wrote.

        Args:
            data: the file.
            scale: stored value of one unit; None reads the family's own stored form.
            ignore: stored values that mean unknown, of a family with classes.

        Raises:
            ValueError: if there is a scale and the family has none, see `has_scale`.
        """
        if scale is None:
            return self.from_png(data)
        if not self.has_scale:
            raise ValueError(f"a {self.name} has no scale")
        return (decode_png(data).astype(np.float32) / scale).astype(np.float32)

    def count_too_large(self, array: NDArray[np.generic]) -> int:
        """How many pixels the stored form cannot represent; they become unknown in it."""
        return 0

    @abstractmethod
    def colorize(self, array: NDArray[np.generic]) -> NDArray[np.uint8]:
        """A picture for people, unknown pixels black, [H, W, 3]."""

    @abstractmethod
    def legend(self, array: NDArray[np.generic]) -> Legend:
        """What the colours of `colorize(array)` stand for."""
