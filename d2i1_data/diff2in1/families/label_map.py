"""Class ids, such as a semantic segmentation."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .distribution import ClassShares, Distribution
from .family import Encoding, Family, Legend, encode_png, mean_over, precise


class LabelMap(Family):
    """Class ids, 0 to K - 1; unknown is 255. Raw: K logits. PNG: 8 bit, the ids, with the
    colours of the classes as its palette (mode P).

    Args:
        names: names of the classes, 1 to 255 of them.
        palette: red, green and blue of each class, 0 to 255; None chooses colours.
    """

    name = "label_map"
    unknown = 255.0
    unsure = "the probability of another class"
    dtype = torch.int64
    encoding = ("unknown", "values")
    own_encoding: ClassVar[Mapping[str, Any]] = {"unknown": 255}
    averages_logits = True  # as `slide_inference` of mmsegmentation

    def __init__(
        self, names: Sequence[str], palette: Sequence[Sequence[int]] | None = None
    ) -> None:
        if not 1 <= len(names) <= 255:
            raise ValueError(f"a label map needs 1 to 255 class names, got {len(names)}")
        if palette is not None and len(palette) != len(names):
            raise ValueError(f"{len(palette)} palette colours for {len(names)} class names")
        for colour in palette or ():
            if len(colour) != 3 or not all(0 <= part <= 255 for part in colour):
                raise ValueError(f"palette colour {list(colour)}: expected three numbers, 0 to 255")
        self.names = tuple(names)
        self.palette = tuple(
            (int(r), int(g), int(b)) for r, g, b in palette or _palette(len(names))
        )

    @property
    def raw_channels(self) -> int:
        return len(self.names)

    def config(self) -> dict[str, Any]:
        palette = [list(colour) for colour in self.palette]
        return {"family": self.name, "names": list(self.names), "palette": palette}

    def with_classes(
        self, names: Sequence[str], palette: Sequence[Sequence[int]] | None = None
    ) -> "LabelMap":
        return LabelMap(names, palette)

    def distribution(self) -> Distribution:
        return ClassShares(self.names)

    def to_tensor(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.array(array, np.int64))[None]

    def to_array(self, tensor: Tensor) -> NDArray[np.generic]:
        return tensor[0].cpu().numpy().astype(np.uint8)

    def valid(self, target: Tensor) -> Tensor:
        return target != 255

    def finish(self, raw: Tensor) -> Tensor:
        unknown = raw.amax(1, keepdim=True).isnan()
        return torch.where(unknown, 255, raw.argmax(1, keepdim=True))

    def to_linear(self, raw: Tensor) -> Tensor:
        """Probabilities, [B, K, H, W]."""
        return precise(raw).softmax(1)

    def from_linear(self, linear: Tensor) -> Tensor:
        return linear.clamp(min=1e-12).log()

    def uncertainty(self, raw: Tensor) -> Tensor:
        """One minus the probability of the predicted class."""
        return 1 - precise(raw).softmax(1).amax(1, keepdim=True)

    def uncertainty_about(self, raw: Tensor, answer: Tensor) -> Tensor:
        known = torch.where(self.valid(answer), answer, 0)
        return 1 - precise(raw).softmax(1).gather(1, known)

    def loss(self, raw: Tensor, target: Tensor) -> Tensor:
        error = F.cross_entropy(precise(raw), target[:, 0], ignore_index=255, reduction="none")
        return mean_over(error[:, None], self.valid(target))

    def agrees(self, one: Tensor, other: Tensor) -> Tensor:
        return one == other

    def average(self, targets: Tensor) -> Tensor:
        """The most frequent class. If several are equally frequent, the first of them."""
        counts = torch.stack([(targets == k).sum(0) for k in range(len(self.names))])
        return torch.where(counts.any(0), counts.argmax(0), 255)

    def present(self, array: NDArray[np.generic], at_least: float) -> list[int]:
        counts = np.bincount(array.ravel().astype(int), minlength=256)[:255]
        share = counts / max(counts.sum(), 1)
        return [
            int(label) for label in np.argsort(-share, kind="stable") if share[label] >= at_least
        ]

    def largest_share(self, target: Tensor) -> float:
        counts = target[self.valid(target)].bincount()
        return (counts.max() / counts.sum()).item() if len(counts) else 0.0

    def find_problem(self, array: NDArray[np.generic]) -> str | None:
        if array.ndim != 2:
            return f"has shape {array.shape}, expected height x width"
        if array.dtype.kind not in "iub":
            return f"holds {array.dtype} values, expected class ids"
        ids = np.unique(array)
        wrong = ids[(ids < 0) | ((ids >= len(self.names)) & (ids != 255))]
        allowed = f"0 to {len(self.names) - 1} and 255 (unknown)"
        return f"holds class id {wrong[0]}, allowed are {allowed}" if len(wrong) else None

    def to_png(self, array: NDArray[np.generic]) -> bytes:
        return encode_png(np.asarray(array, np.uint8), self._colours())

    def to_plain_png(self, array: NDArray[np.generic]) -> bytes:
        return encode_png(np.asarray(array, np.uint8))

    def from_pixels(self, pixels: NDArray[np.generic]) -> NDArray[np.generic]:
        return pixels

    def from_file(self, pixels: NDArray[np.generic], encoding: Encoding) -> NDArray[np.generic]:
        unknown = encoding.is_unknown(pixels)
        if pixels.ndim == 3:
            return np.where(unknown, 255, _ids_of_colours(pixels, unknown, encoding.palette))
        ids = encoding.meant(pixels)
        if encoding.values:
            ids = ids.astype(np.int64)
        elif len(self.names) == 2 and (ids == 255).any() and 255 not in encoding.unknown:
            others = np.unique(ids[ids != 255])
            if len(others) < 2:
                raise ValueError(
                    f"class ids 255 and {others.tolist()}: give `values: {{255: 1}}` if 255 means"
                    " class 1, or `unknown: 255` if it means unknown"
                )
        return np.where(unknown, 255, ids)

    def colorize(self, array: NDArray[np.generic]) -> NDArray[np.uint8]:
        return self._colours()[np.asarray(array, np.uint8)]

    def _colours(self) -> NDArray[np.uint8]:
        """The colour of each id, [256, 3]; black for ids without a class."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.palette)] = self.palette
        return table

    def legend(self, array: NDArray[np.generic]) -> Legend:
        """The classes of the array, largest first."""
        labels = self.present(np.asarray(array), 1e-9)
        return Legend([(self.palette[label], self.names[label]) for label in labels], [])


def _ids_of_colours(
    pixels: NDArray[np.generic], unknown: NDArray[np.bool_], palette: Sequence[Sequence[int]]
) -> NDArray[np.generic]:
    """Class ids of the colours of a palette; 0 where `unknown`.

    Raises:
        ValueError: if there is no palette, or a colour is not in it.
    """
    if not palette or pixels.shape[2] != 3:
        raise ValueError(
            f"shape {pixels.shape}, expected height x width; if its colours are classes, give"
            " `palette` beside their `names`"
        )
    weights = np.array([1 << 16, 1 << 8, 1])
    codes, stored = np.asarray(palette) @ weights, pixels.astype(np.int64) @ weights
    order = codes.argsort(kind="stable")
    place = order[np.searchsorted(codes[order], stored).clip(max=len(codes) - 1)]
    wrong = (codes[place] != stored) & ~unknown
    if wrong.any():
        colour = pixels[wrong][0].tolist()
        raise ValueError(
            f"colour {colour}, which is not in the `palette`: add it, or give `unknown: [{colour}]`"
        )
    return np.where(unknown, 0, place)


def _palette(count: int) -> list[tuple[int, int, int]]:
    """Distinct colours, as in PASCAL VOC: the bits of the class number, spread over 3 channels."""
    return [
        tuple(sum((i >> (3 * b + c) & 1) << (7 - b) for b in range(3)) for c in range(3))  # type: ignore[misc]
        for i in range(1, count + 1)
    ]
