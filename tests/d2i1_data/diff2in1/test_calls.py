"""Calls as users of diffusers make them: arguments, callbacks, FreeU, LoRAs, kinds of images."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.callbacks import PipelineCallback, SDCFGCutoffCallback
from diffusers.schedulers import EulerDiscreteScheduler
from PIL import Image

from d2i1_data import Diff2in1Pipeline

STEPS: dict[str, Any] = {"num_inference_steps": 2, "output_type": "pt"}


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def picture(seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (16, 24, 3), np.uint8))


# --- arguments ---


def test_several_images_for_each_prompt(tiny_pipe: Diff2in1Pipeline) -> None:
    prompts, strengths = ["a room", "a cone"], [0.4, 0.9]
    options = {**STEPS, "guidance_scale": 2, "negative_prompt": ["blue", "red"]}
    found = tiny_pipe(
        [picture(), picture(1)],
        prompts,
        strengths,
        generator=seeded(0, 1, 2, 3),
        num_images_per_prompt=2,
        **options,
    )
    assert len(found.images) == len(found.predictions["depth"]) == 4
    options["negative_prompt"] = "red"
    last = tiny_pipe(picture(1), "a cone", 0.9, generator=seeded(3), **options)
    torch.testing.assert_close(found.images[3], last.images[0], atol=1 / 255, rtol=0)
    assert not torch.equal(found.images[2], found.images[3])


def test_embeddings_instead_of_prompts(tiny_pipe: Diff2in1Pipeline) -> None:
    options = {**STEPS, "guidance_scale": 3}
    told = tiny_pipe(
        [picture()] * 2, "a room", negative_prompt="blue", generator=seeded(0, 1), **options
    )
    text, blue = (tiny_pipe.encode_prompt([prompt]).text for prompt in ("a room", "blue"))
    given = {"prompt_embeds": text, "negative_prompt_embeds": blue}
    found = tiny_pipe([picture()] * 2, generator=seeded(0, 1), **given, **options)
    assert torch.equal(told.images[1], found.images[1])
    new = tiny_pipe(prompt_embeds=text.repeat(2, 1, 1), **STEPS)
    assert len(new.images) == 2


def test_a_tuple_instead_of_an_output(tiny_pipe: Diff2in1Pipeline) -> None:
    output = tiny_pipe.predict(picture())
    images, predictions, *_ = tiny_pipe.predict(picture(), return_dict=False)
    assert images == output.images
    np.testing.assert_array_equal(predictions["depth"][0], output.predictions["depth"][0])
    for strength in (0, 0.5):
        images, predictions, *_ = tiny_pipe(
            picture(), strength=strength, return_dict=False, **STEPS
        )
        assert images[0].shape == (3, 16, 24) and predictions["depth"][0].shape == (1, 16, 24)


def test_arrays_and_latents(tiny_pipe: Diff2in1Pipeline) -> None:
    made = partial(tiny_pipe, picture(), num_inference_steps=2)
    tensor = made(generator=seeded(0), output_type="pt").images[0]
    array = made(generator=seeded(0), output_type="np").images[0]
    np.testing.assert_array_equal(array, tensor.movedim(0, -1).numpy())
    latent = made(generator=seeded(0), output_type="latent").images[0]
    decoded = (tiny_pipe.decode_latents(latent[None])[0].clamp(-1, 1) + 1) / 2
    torch.testing.assert_close(decoded, tensor)


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"num_images_per_prompt": 0}, "num_images_per_prompt 0"),
        ({"num_images_per_prompt": 2, "strength": 0}, "all would be equal"),
        ({"num_images_per_prompt": 2, "generator": seeded(0)}, "1 generators for 2 images"),
        ({"prompt": "a", "prompt_embeds": torch.zeros(1, 4, 32)}, "give one of the two"),
        ({"prompt_embeds": torch.zeros(1, 4, 7)}, r"\(1, 4, 7\): expected \[B, L"),
        ({"callback_on_step_end": SDCFGCutoffCallback()}, "'prompt_embeds'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_done_is_refused(
    tiny_pipe: Diff2in1Pipeline, options: dict[str, Any], wrong: str
) -> None:
    with pytest.raises(ValueError, match=wrong) as caught:
        tiny_pipe(picture(), **{**STEPS, **options})
    assert "\n" not in str(caught.value)


# --- callbacks ---


@pytest.mark.parametrize("euler", [False, True])
def test_a_callback_sees_and_changes_the_latents(tiny_pipe: Diff2in1Pipeline, euler: bool) -> None:
    if euler:
        tiny_pipe.scheduler = EulerDiscreteScheduler.from_config(tiny_pipe.scheduler.config)
    seen: list[tuple[int, int]] = []

    def look(pipe: Any, step: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        assert pipe is tiny_pipe and tensors["latents"].shape == (1, 4, 8, 12)
        seen.append((step, int(t)))
        return tensors

    def blank(pipe: Any, step: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        return {"latents": tensors["latents"] * 0}

    made = partial(tiny_pipe, picture(), strength=0.6, num_inference_steps=3, output_type="latent")
    plain = made(generator=seeded(0)).images[0]
    watched = made(generator=seeded(0), callback_on_step_end=look).images[0]
    assert torch.equal(plain, watched) and seen == [(0, 401), (1, 201), (2, 1)]
    assert not made(generator=seeded(0), callback_on_step_end=blank).images[0].any()


def test_a_callback_of_diffusers(tiny_pipe: Diff2in1Pipeline) -> None:
    class Count(PipelineCallback):
        calls = 0

        @property
        def tensor_inputs(self) -> list[str]:
            return ["latents"]

        def callback_fn(self, pipeline: Any, step: int, t: Any, tensors: Any) -> Any:
            self.calls += 1
            return tensors

    count = Count()
    tiny_pipe([picture()] * 2, strength=[0.3, 0.6], callback_on_step_end=count, **STEPS)
    assert count.calls == 2


# --- FreeU and LoRAs ---


def test_freeu_changes_images_and_no_predictions(tiny_pipe: Diff2in1Pipeline) -> None:
    made = partial(tiny_pipe, picture(), "a room", **STEPS)
    plain, predicted = made(generator=seeded(0)), tiny_pipe.predict(picture())
    tiny_pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
    assert not torch.equal(plain.images[0], made(generator=seeded(0)).images[0])
    with_freeu = tiny_pipe.predict(picture())
    np.testing.assert_array_equal(*(p.predictions["depth"][0] for p in (predicted, with_freeu)))
    with pytest.raises(ValueError, match="features without FreeU"):
        made(labels_from="last_step")
    tiny_pipe.disable_freeu()
    assert torch.equal(plain.images[0], made(generator=seeded(0)).images[0])


def test_freeu_of_the_other_unet_is_refused(tiny_pipe: Diff2in1Pipeline, tiny_base: Path) -> None:
    other = type(tiny_pipe.unet).from_pretrained(tiny_base, subfolder="unet")
    tiny_pipe.register_modules(base_unet=other)
    tiny_pipe.register_to_config(trained_unet="full")
    tiny_pipe.unet.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
    with pytest.raises(ValueError, match="ignores the FreeU of unet"):
        tiny_pipe(picture(), **STEPS)
    tiny_pipe.disable_freeu()
    plain = tiny_pipe(picture(), generator=seeded(0), **STEPS).images[0]
    tiny_pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
    found = tiny_pipe(picture(), generator=seeded(0), **STEPS).images[0]
    assert not torch.equal(plain, found)


def test_a_lora_of_the_user_creates_or_is_refused(
    tiny_pipe: Diff2in1Pipeline, tiny_base: Path, lora: Path
) -> None:
    made = partial(tiny_pipe, picture(), "a room", **STEPS)
    plain = made(generator=seeded(0)).images[0]
    tiny_pipe.load_lora_weights(lora, adapter_name="style")
    styled = made(generator=seeded(0)).images[0]
    assert not torch.equal(plain, styled)
    tiny_pipe.fuse_lora()
    torch.testing.assert_close(made(generator=seeded(0)).images[0], styled, atol=1e-3, rtol=0)
    other = type(tiny_pipe.unet).from_pretrained(tiny_base, subfolder="unet")
    tiny_pipe.register_modules(base_unet=other)
    tiny_pipe.register_to_config(trained_unet="full")
    tiny_pipe.unload_lora_weights()
    with pytest.raises(ValueError, match="ignores your LoRA style: create with 'theta'"):
        made()


@pytest.fixture
def lora(tiny_base: Path, tmp_path: Path) -> Path:
    """A LoRA for the U-Net, as a user of diffusers would have trained it."""
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    unet = UNet2DConditionModel.from_pretrained(tiny_base, subfolder="unet")
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers)
    return tmp_path


# --- kinds of images ---


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """An HTTP server of a folder."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def same(pipe: Diff2in1Pipeline, image: Any, other: Any) -> None:
    one, two = (pipe.predict(each).predictions["depth"] for each in (image, other))
    np.testing.assert_array_equal(one, two)


def test_paths_and_addresses(tiny_pipe: Diff2in1Pipeline, tmp_path: Path, address: str) -> None:
    file = tmp_path / "one.png"
    picture().save(file)
    same(tiny_pipe, picture(), file)
    same(tiny_pipe, [picture()] * 2, [str(file), f"{address}/one.png"])
    (tmp_path / "text.png").write_text("no image")
    places = {f"{address}/none.png": "404", f"{address}/text.png": "not a readable image"}
    places |= {str(tmp_path / "none.png"): "no such file", "http://[": "cannot be downloaded"}
    for place, why in places.items():
        with pytest.raises(ValueError, match=why) as caught:
            tiny_pipe.predict(place)
        assert str(caught.value).startswith(place) and "\n" not in str(caught.value)


def test_files_are_turned_upright(tiny_pipe: Diff2in1Pipeline, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    picture().save(tmp_path / "turned.png", exif=exif)
    same(tiny_pipe, picture().transpose(Image.Transpose.ROTATE_270), tmp_path / "turned.png")


GRAY = np.random.default_rng(0).integers(0, 256, (16, 24), np.uint8)


@pytest.mark.parametrize(
    "image",
    [
        GRAY,
        GRAY[..., None],
        GRAY[None, ..., None],
        Image.fromarray(GRAY),
        GRAY.astype(np.uint16) * 257,
        np.stack([GRAY] * 3, -1).astype(np.uint16) * 257,
        Image.fromarray(GRAY.astype(np.uint16) * 257),
        torch.from_numpy(GRAY),
        torch.from_numpy(GRAY)[None],
        torch.from_numpy(np.stack([GRAY] * 3)),
        torch.from_numpy(GRAY.astype(np.uint16) * 257),
        torch.from_numpy(GRAY) / 255,
    ],
    ids=lambda image: f"{type(image).__name__}-{getattr(image, 'dtype', image)}"[:24],
)
def test_gray_uint8_and_16_bits(tiny_pipe: Diff2in1Pipeline, image: Any) -> None:
    same(tiny_pipe, np.stack([GRAY] * 3, -1), image)
