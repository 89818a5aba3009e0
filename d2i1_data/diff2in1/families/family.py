"""Family: the base class of all kinds of dense maps, and the PNG files they are stored as."""

import io
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..pictures import open_picture, to_values
from .distribution import Distribution


def encode_png(pixels: NDArray[np.generic], palette: NDArray[np.uint8] | None = None) -> bytes:
    """Encode pixels as PNG.

    Args:
        pixels: uint8 or uint16, [H, W] or [H, W, 3].
        palette: colours [256, 3] in which viewers show uint8 pixels [H, W]. Their numbers stay.
    """
    file, image = io.BytesIO(), Image.fromarray(np.ascontiguousarray(pixels))
    if palette is not None:
        image.putpalette(palette.tobytes())
    # level 1 is three times as fast as the default
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def decode_png(data: bytes) -> NDArray[np.generic]:
    """Pixels of an image file as stored, without colour conversion."""
    return to_values(open_picture(data).image)


Colour = tuple[int, ...]  # red, green, blue, 0 to 255


class Legend(NamedTuple):
    """The meaning of the colours of a picture.

    entries: colours and their meanings, the most important first. ramp: the colours of a scale from
    one end to the other; the two entries then describe its ends. It is empty for separate colours.
    """

    entries: list[tuple[Colour, str]]
    ramp: list[Colour]


class Encoding(NamedTuple):
    """How another program stored a map. Nothing given is the form of `Family.to_png`.

    scale: the stored value of one unit. unknown: stored values, or colours (red, green, blue), that
    mean unknown. values: stored value -> what it means; other values mean themselves. palette: the
    colour of each class, if the file has colours instead of class ids.
    """

    scale: float | None = None
    unknown: Sequence[Any] = ()
    values: Mapping[int, float] = {}
    palette: Sequence[Colour] = ()

    @property
    def declared(self) -> bool:
        """Whether the meaning of the stored values is given, apart from colours."""
        return self.scale is not None or bool(self.unknown) or bool(self.values)

    def is_unknown(self, pixels: NDArray[np.generic]) -> NDArray[np.bool_]:
        """The pixels of [H, W] or [H, W, 3] that mean unknown, [H, W]."""
        if pixels.ndim == 2:
            return np.isin(pixels, np.array([one for one in self.unknown if np.isscalar(one)]))
        found = np.zeros(pixels.shape[:2], bool)
        for colour in self.unknown:
            found |= (pixels == np.asarray(colour)).all(-1)
        return found

    def meant(self, pixels: NDArray[np.generic]) -> NDArray[np.generic]:
        """The pixels with other meanings in place of the values that have them."""
        meant = pixels.astype(np.float32) if self.values else pixels
        for stored, meaning in self.values.items():
            meant = np.where(pixels == stored, np.float32(meaning), meant)
        return meant


def precise(x: Tensor) -> Tensor:
    """The tensor in float32, or unchanged if it is float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def mean_over(error: Tensor, valid: Tensor) -> Tensor:
    """Mean of an error over the valid pixels of each sample, [B]. It is 0 without valid pixels.

    Args:
        error: [B, 1, H, W].
        valid: [B, 1, H, W] bool.
    """
    total = torch.where(valid, error, 0.0).sum((1, 2, 3))
    return total / valid.sum((1, 2, 3)).clamp(min=1)


def pooled_over(error: Tensor, valid: Tensor) -> Tensor:
    """Mean of an error over the valid pixels of the batch, the same for every sample, [B].

    Many published programs train with this mean. Samples with more valid pixels have more weight.

    Args:
        error: [B, 1, H, W].
        valid: [B, 1, H, W] bool.
    """
    mean = torch.where(valid, error, 0.0).sum() / valid.sum().clamp(min=1)
    return mean.expand(len(error))


class Family(ABC):
    """The behaviour of all maps of one kind. Instances hold no tensors and may be shared.

    name: its name in configs and in `FAMILIES`. channels: C, the number of channels of a map.
    unknown: value of unknown pixels. unsure: the meaning of its uncertainty, as cards word it.
    dtype: dtype of a map as a tensor. in_metres: whether values are distances. axes: the directions
    that its channels point to; empty if its values are no directions. encoding: fields of
    `Encoding` that files of others may need (see `from_file`). own_encoding: those that a file of
    `to_png` needs there. averages_logits: whether overlapping windows average raw predictions, not
    those of `to_linear`. names, palette: names and colours of its classes; empty without classes.
    """

    name: ClassVar[str]
    channels: ClassVar[int] = 1
    unknown: ClassVar[float]
    unsure: ClassVar[str]
    dtype: ClassVar[torch.dtype] = torch.float32
    in_metres: ClassVar[bool] = False
    axes: ClassVar[tuple[str, ...]] = ()
    encoding: ClassVar[tuple[str, ...]] = ()
    own_encoding: ClassVar[Mapping[str, Any]] = {}
    averages_logits: ClassVar[bool] = False
    names: tuple[str, ...] = ()
    palette: tuple[Colour, ...] = ()

    @property
    @abstractmethod
    def raw_channels(self) -> int:
        """R, the number of channels that a host predicts for this family."""

    def config(self) -> dict[str, Any]:
        """The config that `make_family` builds this family from."""
        return {"family": self.name}

    def with_classes(
        self, names: Sequence[str], palette: Sequence[Sequence[int]] | None = None
    ) -> "Family":
        """The same family with other classes.

        Args:
            names: names of the classes, in the order of their ids.
            palette: red, green and blue of each class, 0 to 255; None chooses colours.

        Raises:
            ValueError: if the family has no classes, or these are not allowed.
        """
        raise ValueError(f"a {self.name} has no classes")

    def to_tensor(self, array: NDArray[np.generic]) -> Tensor:
        """Array to tensor, [C, H, W]."""
        return torch.from_numpy(np.array(array, np.float32))[None]

    def to_array(self, tensor: Tensor) -> NDArray[np.generic]:
        """Tensor [C, H, W] to array."""
        return tensor[0].float().cpu().numpy()

    def blank(self, size: tuple[int, int]) -> Tensor:
        """A map without known pixels, [C, H, W].

        Args:
            size: height and width.
        """
        return torch.full((self.channels, *size), self.unknown, dtype=self.dtype)

    @abstractmethod
    def valid(self, target: Tensor) -> Tensor:
        """The known pixels of a map [B, C, H, W], as [B, 1, H, W] bool."""

    @abstractmethod
    def finish(self, raw: Tensor) -> Tensor:
        """Turn a raw prediction [B, R, H, W] into a map [B, C, H, W] in physical units."""

    def to_linear(self, raw: Tensor) -> Tensor:
        """Turn a raw prediction into a form that may be averaged and resized, [B, R, H, W]."""
        return precise(raw)

    def from_linear(self, linear: Tensor) -> Tensor:
        """Undo `to_linear`."""
        return linear

    def expected_error(self, raw: Tensor) -> Tensor | None:
        """Expected error of a raw prediction, [B, 1, H, W]. Each family has its own unit.

        None if the family does not predict an error.
        """
        return None

    @abstractmethod
    def uncertainty(self, raw: Tensor) -> Tensor:
        """Uncertainty of a raw prediction, in [0, 1], [B, 1, H, W]; see `unsure`."""

    def uncertainty_about(self, raw: Tensor, answer: Tensor) -> Tensor:
        """Uncertainty that the answer of an ensemble has by the raw prediction of one member.

        The mean over all members is in [0, 1]. For the member's own answer it is `uncertainty`.

        Args:
            raw: [B, R, H, W].
            answer: a map [B, C, H, W].

        Returns:
            [B, 1, H, W].
        """
        return torch.where(self.agrees(self.finish(raw), answer), self.uncertainty(raw), 1.0)

    def expected_error_about(self, raw: Tensor, answer: Tensor) -> Tensor | None:
        """As `uncertainty_about`, for `expected_error`."""
        return None

    @abstractmethod
    def loss(self, raw: Tensor, target: Tensor) -> Tensor:
        """Loss of a raw prediction, the mean over the valid pixels of each sample, [B].

        It is the negative log-likelihood of the target. If the family predicts a spread, the loss
        of each pixel is weighted by that spread. Without this weight the gradients of a task with
        low uncertainty grow without bound, and the other tasks learn little: 600 steps on 24 rooms
        give a mean IoU of 0.22 without the weight and 0.56 with it, for normals of 10.4 and 10.8
        degrees.

        Args:
            raw: [B, R, H, W].
            target: [B, C, H, W].

        Source: beta-NLL with beta = 1, Seitzer et al. 2022, arXiv 2203.09168.
        """

    @abstractmethod
    def agrees(self, one: Tensor, other: Tensor) -> Tensor:
        """The pixels where two maps [B, C, H, W] count as equal, [B, 1, H, W] bool."""

    def agreement(self, one: Tensor, other: Tensor) -> Tensor:
        """Share of pixels where two maps agree, of the pixels that both maps know, [B].

        It is nan for a sample without such pixels.
        """
        both = self.valid(one) & self.valid(other)
        return (self.agrees(one, other) & both).sum((1, 2, 3)) / both.sum((1, 2, 3))

    @abstractmethod
    def average(self, targets: Tensor) -> Tensor:
        """The average of N maps over their known pixels; unknown where no map is known.

        Args:
            targets: [N, C, H, W].

        Returns:
            [C, H, W].
        """

    def within(self, prediction: Tensor, target: Tensor, metres: float) -> tuple[Tensor, Tensor]:
        """Limit maps to a distance. This has no effect on a family that is not in metres.

        Args:
            prediction: [B, C, H, W].
            target: [B, C, H, W].
            metres: the distance.

        Returns:
            The prediction, clipped to the distance, and the target, which is unknown beyond it.
        """
        return prediction, target

    def flip(self, tensor: Tensor) -> Tensor:
        """Mirror a map, or a raw prediction, left to right."""
        return tensor.flip(-1)

    def resize(self, target: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize a map [B, C, H, W] without mixing pixels (nearest)."""
        return F.interpolate(target.float(), size, mode="nearest-exact").to(target.dtype)

    def scaled(self, target: Tensor, factor: float) -> Tensor:
        """The values of a map whose image was enlarged by a factor. The map keeps its size.

        Enlarging an image has the same effect as bringing its objects nearer to the camera.
        """
        return target

    def largest_share(self, target: Tensor) -> float:
        """Share of the known pixels that the largest class covers, 0 without pixels or classes."""
        return 0.0

    def present(self, array: NDArray[np.generic], at_least: float) -> list[int]:
        """Classes that cover at least this share of the known pixels of an array, largest first."""
        return []

    @abstractmethod
    def distribution(self) -> Distribution:
        """A new distribution, with which reports count the values of many arrays."""

    @abstractmethod
    def find_problem(self, array: NDArray[np.generic]) -> str | None:
        """Describe the first wrong value of an array as the end of a sentence; None if all fit."""

    @abstractmethod
    def to_png(self, array: NDArray[np.generic]) -> bytes:
        """Encode an array as PNG bytes, as datasets store it."""

    def to_plain_png(self, array: NDArray[np.generic]) -> bytes:
        """Encode an array as the first version did, which stored no colours of classes."""
        return self.to_png(array)

    @abstractmethod
    def from_pixels(self, pixels: NDArray[np.generic]) -> NDArray[np.generic]:
        """Decode the pixels of the PNG file of `to_png`."""

    def from_png(self, data: bytes) -> NDArray[np.generic]:
        """Decode the PNG bytes of `to_png`."""
        return self.from_pixels(decode_png(data))

    def from_file(self, pixels: NDArray[np.generic], encoding: Encoding) -> NDArray[np.generic]:
        """Decode the pixels of an image file that another program wrote.

        Args:
            pixels: see `pictures.to_values`.
            encoding: how they are stored.

        Raises:
            ValueError: if the encoding does not fit, or must be given because the pixels could mean
                two things. The message says what to give.
        """
        if encoding.declared:
            raise ValueError(f"a {self.name} takes neither `scale` nor `unknown` nor `values`")
        return self.from_pixels(pixels)

    def count_too_large(self, array: NDArray[np.generic]) -> int:
        """Number of pixels that are too large for `to_png`, which stores them as unknown."""
        return 0

    @abstractmethod
    def colorize(self, array: NDArray[np.generic]) -> NDArray[np.uint8]:
        """A coloured picture of an array, [H, W, 3]; unknown pixels are black."""

    @abstractmethod
    def legend(self, array: NDArray[np.generic]) -> Legend:
        """The meaning of the colours of `colorize(array)`."""
