"""Outputs: the results of a pipeline, and the types that a call can choose.

Letters in shape comments: B batch, C R channels, H W pixels, h w latent pixels.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import PIL.Image
from diffusers.utils import BaseOutput
from numpy.typing import NDArray
from torch import Tensor

from .images import to_uint8

OutputType = Literal["pil", "np", "pt", "latent"]
PREDICTED_TYPES = ("pil", "np", "pt")
CREATED_TYPES = (*PREDICTED_TYPES, "latent")
Finished = dict[str, dict[str, list[Any]]]  # kind -> task -> one entry per image


@dataclass
class Diff2in1Output(BaseOutput):  # type: ignore[misc]
    """The result of a pipeline, one entry per image. Images of one call may differ in size.

    Args:
        images: depends on `output_type`. "pil": PIL images. "np": float arrays `[H, W, 3]` in
            [0, 1]. "pt": tensors `[3, H, W]` in [0, 1]. "latent": scaled latents `[C, h, w]` for
            `pipe.decode_latents`, of the image extended to a multiple of the base's stride.
        predictions: task -> maps in the physical units of the task's family: unit vectors
            `[H, W, 3]`, metres `[H, W]`, class ids `[H, W]` uint8, probabilities `[H, W]`. These
            are arrays; for "pt" and "latent" they are tensors `[C, H, W]`.
        uncertainty: task -> maps in [0, 1], `[H, W]`; tensors `[1, H, W]` for "pt" and "latent".
        expected_error: task -> maps of the expected error, shaped like uncertainty. Only tasks
            whose family predicts the error have them. The unit is degrees for unit vectors, and the
            absolute log of prediction over truth for distances.
    """

    images: list[Any]
    predictions: dict[str, list[Any]]
    uncertainty: dict[str, list[Any]]
    expected_error: dict[str, list[Any]]


def as_returned(output: Diff2in1Output, return_dict: bool) -> Any:
    """An output, or the tuple of its fields if `return_dict` is False."""
    return output if return_dict else output.to_tuple()


def check_output_type(output_type: str, allowed: Iterable[str]) -> None:
    """Check the `output_type` of a call.

    Raises:
        ValueError: if it is not allowed.
    """
    if output_type not in (types := tuple(allowed)):
        raise ValueError(f"output_type {output_type!r}: expected one of {', '.join(types)}")


class Maps(NamedTuple):
    """The finished maps of a batch for one task: `[B, C, H, W]`, and twice `[B, 1, H, W]`."""

    predictions: Tensor
    uncertainty: Tensor
    expected_error: Tensor | None


def finish_maps(
    families: Mapping[str, Any], raw: Mapping[str, Tensor], output_type: str
) -> Finished:
    """Turn raw maps into the maps of an output.

    Args:
        families: the `Family` of each task.
        raw: raw maps `[B, R, H, W]` of each task.
        output_type: "pt" gives tensors, all others arrays.

    Returns:
        All fields of an output except `images`.
    """
    maps = {}
    for name, family in families.items():
        own = (family.finish, family.uncertainty, family.expected_error)
        maps[name] = Maps(*(make(raw[name]) for make in own))
    return collect_maps(families, maps, output_type)


def collect_maps(
    families: Mapping[str, Any], maps: Mapping[str, Maps], output_type: str
) -> Finished:
    """The fields of an output for the maps of each task; see `finish_maps`."""
    finished: Finished = {kind: {} for kind in Maps._fields}
    for name, family in families.items():
        for kind, batch in maps[name]._asdict().items():
            to_array = family.to_array if kind == "predictions" else _to_array
            if batch is not None:
                finished[kind][name] = [m if output_type == "pt" else to_array(m) for m in batch]
    return finished


def finish_images(batches: Iterable[Tensor], output_type: str) -> list[Any]:
    """Turn images `[B, 3, H, W]` in [-1, 1] into a list of single images of an output type."""
    if output_type == "pil":
        return [PIL.Image.fromarray(image) for batch in batches for image in to_uint8(batch)]
    images = [(image.clamp(-1, 1).cpu() + 1) / 2 for batch in batches for image in batch]
    if output_type == "np":
        return [image.movedim(0, -1).contiguous().numpy() for image in images]
    return images


def _to_array(tensor: Tensor) -> NDArray[np.float32]:
    """A map `[1, H, W]` as an array `[H, W]`."""
    return tensor[0].float().cpu().numpy()
