"""Requests: what the arguments of a call of the pipeline mean.

Letters in shape comments: B batch, C channels, H W pixels, h w latent pixels, L tokens, D width.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from .conditioning import Conditioning
from .denoising import StepEnd
from .images import pad_to_stride, to_batches


class Request(NamedTuple):
    """The rows of a call, after repeating.

    Args:
        size: (H, W) of the created images.
        start: images `[B, 3, H, W]` in [-1, 1], or the size to create without images.
        prompts: B prompts, or their conditioning.
        negative: B negative prompts, or their conditioning.
        strengths: B strengths.
    """

    size: tuple[int, int]
    start: Tensor | tuple[int, int]
    prompts: list[str] | Conditioning
    negative: list[str] | Conditioning
    strengths: list[float]


Prompt = tuple[str | list[str], Tensor | None]  # text, or the output of the text encoder


def read_request(
    pipe: DiffusionPipeline,
    image: Any,
    sides: tuple[int | None, int | None],
    prompt: Prompt,
    negative: Prompt,
    strength: float | list[float],
    copies: int,
) -> Request:
    """What a call creates; see `Diff2in1Pipeline.__call__`.

    Args:
        pipe: the pipeline.
        image: see `images.to_batches`; None to create from prompts alone.
        sides: height and width, only without an image.
        prompt: text and embeddings, one of them.
        negative: the same for the negative prompts.
        strength: one strength, or one for each image.
        copies: number of variations of each image.

    Raises:
        ValueError: if a value is wrong.
    """
    size, pixels = read_canvas(pipe, image, *sides)
    prompts = read_prompts(pipe, *prompt, None if pixels is None else len(pixels))
    count = prompts.batch_size if isinstance(prompts, Conditioning) else len(prompts)
    strengths = [strength] * count if isinstance(strength, int | float) else strength
    others = (prompts, read_prompts(pipe, *negative, count), strengths)
    start = size if pixels is None else repeat(pixels, copies)
    return Request(size, start, *(repeat(each, copies) for each in others))


def read_canvas(
    pipe: DiffusionPipeline, image: Any, height: int | None, width: int | None
) -> tuple[tuple[int, int], Tensor | None]:
    """The size of the created images, and the images that they start from.

    Args:
        pipe: the pipeline.
        image: see `images.to_batches`; None to create from prompts alone.
        height: height of the created images in pixels, only without an image.
        width: width of the created images in pixels, only without an image.

    Returns:
        (H, W), and images `[B, 3, H, W]` in [-1, 1] or None.
    """
    if image is None:
        own = pipe.unet.config.sample_size
        own = (own, own) if isinstance(own, int) else own
        height, width = (
            wanted or side * pipe.vae_scale_factor
            for wanted, side in zip((height, width), own, strict=True)
        )
        return (height, width), None
    if height is not None or width is not None:
        raise ValueError("height and width have no effect with an image, which has its own size")
    batches = to_batches(image)
    sizes = sorted({(batch.shape[2], batch.shape[3]) for batch in batches})
    if len(sizes) != 1:
        raise ValueError(
            f"images of sizes {sizes}: expected one size in a call that creates images"
        )
    return sizes[0], torch.cat(batches).to(pipe._execution_device)


def encode_images(pipe: DiffusionPipeline, image: Any) -> list[Tensor]:
    """Encode images of any sizes as scaled latents `[C, h, w]`. Images are extended to the stride.

    Args:
        pipe: the pipeline.
        image: see `images.to_batches`.
    """
    batches = [pad_to_stride(batch, pipe.stride) for batch in to_batches(image)]
    return [pipe.encode_image(batch.to(pipe._execution_device))[0] for batch in batches]


def read_prompts(
    pipe: DiffusionPipeline, prompt: str | list[str], embeds: Tensor | None, count: int | None
) -> list[str] | Conditioning:
    """The prompts of a call.

    Args:
        pipe: the pipeline.
        prompt: one prompt, or one for each image.
        embeds: what the text encoder would give, `[1 or B, L, D]`, instead of a prompt; or None.
        count: number of images; None if the prompts decide it.

    Raises:
        ValueError: if there are both, or the shape is wrong.
    """
    if embeds is None:
        return [prompt] * (count or 1) if isinstance(prompt, str) else list(prompt)
    if prompt != "":
        raise ValueError("prompt and prompt_embeds, also the negative ones: give one of the two")
    width = pipe.text_encoder.config.hidden_size
    if embeds.ndim != 3 or embeds.shape[2] != width:
        raise ValueError(
            f"prompt embeddings of shape {tuple(embeds.shape)}: expected [B, L, {width}]"
        )
    found = Conditioning(embeds.to(pipe._execution_device, pipe.text_encoder.dtype))
    return found.expand(count) if found.batch_size == 1 and count else found


def repeat(values: Any, copies: int) -> Any:
    """Repeat each entry of a list, tensor or conditioning, so that equal ones are neighbours."""
    if isinstance(values, Conditioning):
        return values.apply(lambda part: part.repeat_interleave(copies, 0))
    if isinstance(values, Tensor):
        return values.repeat_interleave(copies, 0)
    return [value for value in values for _ in range(copies)]


def check_copies(copies: int, strength: float | list[float]) -> None:
    """Check `num_images_per_prompt`.

    Raises:
        ValueError: if it is not 1 or more, or all images would be equal.
    """
    if not isinstance(copies, int) or copies < 1:
        raise ValueError(f"num_images_per_prompt {copies}: expected 1 or more")
    if copies > 1 and strength == 0:
        raise ValueError(f"num_images_per_prompt {copies} at strength 0: all would be equal")


def read_callback(
    pipe: DiffusionPipeline, callback: Any, tensor_inputs: Sequence[str]
) -> StepEnd | None:
    """The `callback_on_step_end` of diffusers as a function of step, timesteps and latents.

    Args:
        pipe: passed to the callback.
        callback: gets the pipeline, the step, its timestep (`[B]` if the images differ in
            strength) and a dict of tensors. It returns the dict. None is no callback.
        tensor_inputs: names of the tensors in the dict.

    Raises:
        ValueError: if it asks for other tensors than the latents.
    """
    if callback is None:
        return None
    names = getattr(callback, "tensor_inputs", tensor_inputs)  # diffusers' own callbacks have them
    if unknown := set(names) - {"latents"}:
        raise ValueError(f"callback_on_step_end_tensor_inputs {sorted(unknown)}: expected latents")

    def on_step_end(step: int, t: Tensor, latents: Tensor) -> Tensor:
        at = t[0] if (t == t[0]).all() else t
        given = callback(pipe, step, at, {"latents": latents} if names else {}) or {}
        changed: Tensor = given.get("latents", latents)
        return changed

    return on_step_end
