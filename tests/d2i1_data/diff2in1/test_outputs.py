"""What a call returns for each `output_type`, and what it refuses or warns of."""

import logging
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.utils import logging as diffusers_logging

from d2i1_data.diff2in1 import Diff2in1Output, Diff2in1Pipeline
from tests.d2i1_data.diff2in1.test_pipeline import picture, seeded

SIZE = (18, 22)  # is extended to (20, 24): the tiny base's stride is 4


def create(pipe: Diff2in1Pipeline, output_type: str, **options: Any) -> Diff2in1Output:
    settings = {"num_inference_steps": 2, "generator": seeded(0), **options}
    return pipe(picture(*SIZE), "a room", output_type=output_type, **settings)


@pytest.mark.parametrize("act", ["create", "label", "predict"])
def test_arrays_and_tensors_are_the_same_images(tiny_pipe: Diff2in1Pipeline, act: str) -> None:
    found = {}
    for kind in ("pil", "np", "pt"):
        if act == "predict":
            found[kind] = tiny_pipe.predict(picture(*SIZE), output_type=kind)
        else:
            found[kind] = create(tiny_pipe, kind, strength=0.6 if act == "create" else 0)
    array, tensor = found["np"].images[0], found["pt"].images[0]
    assert array.shape == (*SIZE, 3) and array.dtype == np.float32
    assert array.min() >= 0 and array.max() <= 1
    np.testing.assert_array_equal(array, tensor.permute(1, 2, 0).numpy())
    np.testing.assert_array_equal(np.asarray(found["pil"].images[0]), np.round(array * 255))
    for task, maps in found["pil"].predictions.items():
        np.testing.assert_array_equal(maps[0], found["np"].predictions[task][0])
        assert isinstance(found["pt"].predictions[task][0], torch.Tensor)


@pytest.mark.parametrize("labels_from", ["latent", "last_step", "image"])
def test_latents_are_what_the_images_are_decoded_from(
    tiny_pipe: Diff2in1Pipeline, labels_from: str
) -> None:
    images, latents = (create(tiny_pipe, t, labels_from=labels_from) for t in ("pt", "latent"))
    stride, scale = tiny_pipe.stride, tiny_pipe.vae_scale_factor
    padded = [-(-side // stride) * stride // scale for side in SIZE]
    assert latents.images[0].shape == (tiny_pipe.unet.config.in_channels, *padded)
    with torch.no_grad():
        decoded = tiny_pipe.decode_latents(latents.images[0][None])[0, :, : SIZE[0], : SIZE[1]]
    torch.testing.assert_close((decoded.clamp(-1, 1) + 1) / 2, images.images[0])
    for task, maps in images.predictions.items():
        torch.testing.assert_close(latents.predictions[task][0], maps[0])


def test_latents_at_strength_0_are_those_of_the_image(tiny_pipe: Diff2in1Pipeline) -> None:
    kept = create(tiny_pipe, "latent", strength=0)
    assert kept.images[0].shape[1:] == (10, 12)
    (whole,) = tiny_pipe(picture(16, 24), strength=0, output_type="latent").images
    pixels = torch.from_numpy(np.array(picture(16, 24))).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        torch.testing.assert_close(whole, tiny_pipe.encode_image(pixels)[0])
    predicted = tiny_pipe.predict(picture(*SIZE), output_type="pt").predictions
    for task, maps in predicted.items():
        assert torch.equal(kept.predictions[task][0], maps[0])


@pytest.mark.parametrize("word", ["PIL", "tensor", "", None])
def test_other_output_types_are_refused(tiny_pipe: Diff2in1Pipeline, word: str | None) -> None:
    with pytest.raises(ValueError, match=f"output_type {word!r}: .* pil, np, pt, latent$"):
        create(tiny_pipe, word)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"output_type {word!r}: .* pil, np, pt$"):
        tiny_pipe.predict(picture(), output_type=word)  # type: ignore[arg-type]


def test_predicting_has_no_latents_to_return(tiny_pipe: Diff2in1Pipeline) -> None:
    with pytest.raises(ValueError, match=r"output_type 'latent': expected one of pil, np, pt$"):
        tiny_pipe.predict(picture(), output_type="latent")


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The messages of the library that pipelines log with."""
    diffusers_logging.enable_propagation()
    logging.getLogger("d2i1_data").setLevel(logging.WARNING)
    yield caplog  # type: ignore[misc]
    diffusers_logging.disable_propagation()


def test_a_prompt_that_is_cut_is_reported(
    tiny_pipe: Diff2in1Pipeline, logged: pytest.LogCaptureFixture
) -> None:
    words = "a room with a blue sphere a room with a blue sphere a room with a blue sphere"
    create(tiny_pipe, "pil")
    assert "truncated" not in logged.text
    long = tiny_pipe(picture(), f"{words} and more", num_inference_steps=2, generator=seeded(0))
    assert "truncated" in logged.text and "16 tokens" in logged.text
    kept = tiny_pipe.tokenizer.decode(tiny_pipe.backbone.tokenize([words])[0][1:-1])
    removed = tiny_pipe.backbone._removed_text([f"{words} and more"])[0]
    assert removed.split()[-1] == "more" and removed in logged.text
    whole = "".join(f"{kept} {removed}".split())
    assert whole == "".join(f"{words} and more".split())
    again = tiny_pipe(picture(), words, num_inference_steps=2, generator=seeded(0))
    np.testing.assert_array_equal(np.asarray(long.images[0]), np.asarray(again.images[0]))
