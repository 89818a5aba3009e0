"""What a pipeline returns, and the types that a call can ask for.

Letters in shape comments: B batch, C R channels, H W pixels, h w latent pixels.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

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
        images: by `output_type`: "pil" PIL images; "np" float arrays `[H, W, 3]` in [0, 1]; "pt"
            tensors `[3, H, W]` in [0, 1]; "latent" scaled latents `[C, h, w]`, of the image
            extended to a multiple of the base's stride, as `pipe.decode_latents` takes them.
        predictions: by task, maps in the physical units of the task's family: unit vectors
            `[H, W, 3]`, metres `[H, W]`, class ids `[H, W]` uint8, probabilities `[H, W]`. These
            are arrays; for "pt" and "latent" they are tensors `[C, H, W]`.
        uncertainty: by task, in [0, 1], `[H, W]`; tensors `[1, H, W]` for "pt" and "latent".
        expected_error: by task, how far off a prediction is expected to be, in the same form; only
            for tasks whose family predicts it. Degrees for unit vectors, the absolute log of
            prediction over truth for distances.
    """

    images: list[Any]
    predictions: dict[str, list[Any]]
    uncertainty: dict[str, list[Any]]
    expected_error: dict[str, list[Any]]


def check_output_type(output_type: str, allowed: Iterable[str]) -> None:
    """Check the `output_type` of a call.

    Raises:
        ValueError: if it is not allowed.
    """
    if output_type not in (known := tuple(allowed)):
        raise ValueError(f"output_type {output_type!r}: expected one of {', '.join(known)}")


def finish_maps(
    families: Mapping[str, Any], raw: Mapping[str, Tensor], output_type: str
) -> Finished:
    """The maps of an output.

    Args:
        families: the `Family` of each task.
        raw: raw maps `[B, R, H, W]` of each task.
        output_type: "pt" gives tensors, all others arrays.

    Returns:
        The fields of an output beside `images`.
    """
    found: Finished = {"predictions": {}, "uncertainty": {}, "expected_error": {}}
    for name, family in families.items():
        own = (family.finish, family.uncertainty, family.expected_error)
        for kind, make in zip(found, own, strict=True):
            maps = make(raw[name])
            if maps is None:
                continue
            to_array = family.to_array if kind == "predictions" else _to_array
            found[kind][name] = [m if output_type == "pt" else to_array(m) for m in maps]
    return found


def finish_images(batches: Iterable[Tensor], output_type: str) -> list[Any]:
    """Images `[B, 3, H, W]` in [-1, 1] in the form that was asked for, one by one."""
    if output_type == "pil":
        return [PIL.Image.fromarray(one) for batch in batches for one in to_uint8(batch)]
    images = [(one.clamp(-1, 1).cpu() + 1) / 2 for batch in batches for one in batch]
    if output_type == "np":
        return [image.movedim(0, -1).contiguous().numpy() for image in images]
    return images


def _to_array(one: Tensor) -> NDArray[np.float32]:
    """A map `[1, H, W]` as an array `[H, W]`."""
    return one[0].float().cpu().numpy()
