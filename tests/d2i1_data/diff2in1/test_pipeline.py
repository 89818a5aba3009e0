"""The pipeline: what it creates, what it perceives, and how often it calls the U-Net."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import DDIMScheduler

from d2i1_data.dataset.schema import describe_tasks
from d2i1_data.diff2in1 import Diff2in1Output, Diff2in1Pipeline
from d2i1_data.diff2in1.ddim import ddim_step, timesteps
from d2i1_data.diff2in1.images import to_batches
from d2i1_data.diff2in1.prediction import predict_raw
from d2i1_data.sources.rooms import Rooms
from tests.tiny import save_tiny_base

TASKS = ("normals", "depth", "semseg")


@pytest.fixture(scope="module")
def bases(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    other = save_tiny_base(tmp_path_factory.mktemp("tiny-v") / "base", "v_prediction")
    return {"epsilon": tiny_base, "v_prediction": other}


@pytest.fixture(params=["epsilon", "v_prediction"])
def pipe(bases: dict[str, Path], request: pytest.FixtureRequest) -> Diff2in1Pipeline:
    """As `tiny_pipe`, for both things a U-Net may predict."""
    torch.manual_seed(0)
    tasks = describe_tasks({name: Rooms.tasks[name] for name in TASKS})
    pipe = Diff2in1Pipeline.from_base(str(bases[request.param]), "light", tasks, width=16)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.scheduler.config.prediction_type == request.param
    return pipe


def picture(height: int = 16, width: int = 24, seed: int = 0) -> PIL.Image.Image:
    rng = np.random.default_rng(seed)
    return PIL.Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def count_calls(pipe: Diff2in1Pipeline) -> list[torch.Size]:
    """A list that grows by the shape of the latents at each pass of the U-Net, however made."""
    shapes: list[torch.Size] = []
    pipe.unet.conv_in.register_forward_pre_hook(lambda module, args: shapes.append(args[0].shape))
    return shapes


def assert_same(
    one: Diff2in1Output, other: Diff2in1Output, atol: float = 0.0, images: bool = True
) -> None:
    if images:
        for a, b in zip(one.images, other.images, strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    for mine, its in ((one.predictions, other.predictions), (one.uncertainty, other.uncertainty)):
        assert mine.keys() == its.keys() == set(TASKS)
        for name in TASKS:
            for a, b in zip(mine[name], its[name], strict=True):
                np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=atol, err_msg=name)


def assert_physical(found: Diff2in1Output, sizes: list[tuple[int, int]]) -> None:
    """Each answer has its image's size and the units of its task."""
    assert len(found.images) == len(sizes)
    for i, (height, width) in enumerate(sizes):
        normals, depth, ids = (found.predictions[name][i] for name in TASKS)
        assert found.images[i].size == (width, height)
        assert normals.shape == (height, width, 3)
        np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-5)
        assert depth.shape == ids.shape == (height, width)
        assert np.isfinite(depth).all() and (depth > 0).all()
        assert ids.dtype == np.uint8 and ids.max() < len(Rooms.tasks["semseg"].family.names)
        for name in TASKS:
            unsure = found.uncertainty[name][i]
            assert unsure.shape == (height, width)
            assert ((unsure >= 0) & (unsure <= 1)).all()


# --- the schedule ---


def test_schedule_is_the_papers() -> None:
    paper = timesteps(0.6, 50)
    assert paper[:2] == [589, 577] and paper[-2:] == [13, 1]
    assert timesteps(0.6, 25)[0] == 577 and timesteps(0.6, 25)[-1] == 1


@pytest.mark.parametrize(
    ("strength", "steps"), [(0.6, 50), (0.6, 25), (1, 10), (0.003, 3), (0.6, 7)]
)
def test_schedule_has_its_count_and_spacing(strength: float, steps: int) -> None:
    found = timesteps(strength, steps)
    last = round(strength * 1000)
    assert len(found) == steps and found[-1] == 1 and found[0] <= last
    gaps = -np.diff(found)
    assert all(abs(gap - last / steps) < 1 for gap in gaps)


@pytest.mark.parametrize(
    ("strength", "steps", "wrong"),
    [
        (0, 5, "strength 0"),
        (-0.1, 5, "strength -0.1"),
        (1.2, 5, "strength 1.2"),
        (0.6, 601, "601 steps"),
        (0.6, 0, "0 steps"),
    ],
)
def test_schedule_refuses(strength: float, steps: int, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        timesteps(strength, steps)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("t", [561, 41, 1])
@pytest.mark.parametrize("one", [False, True])
def test_ddim_step_is_diffusers(tiny_pipe: Diff2in1Pipeline, kind: str, t: int, one: bool) -> None:
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=one,
        prediction_type=kind,
    )
    scheduler.set_timesteps(25)  # 40 apart
    latents, output = torch.randn(2, 1, 4, 6, 6, generator=seeded(0)[0])
    expected = scheduler.step(output, t, latents).prev_sample
    following = torch.tensor([t - 40]) if t > 40 else None
    backbone = replace(tiny_pipe.backbone, scheduler=scheduler)
    found = ddim_step(backbone, output, torch.tensor([t]), following, latents)
    torch.testing.assert_close(found, expected)


def test_ddim_step_refuses_other_predictions(tiny_pipe: Diff2in1Pipeline) -> None:
    other = DDIMScheduler(prediction_type="sample")
    backbone = replace(tiny_pipe.backbone, scheduler=other)
    x = torch.zeros(1, 4, 2, 2)
    with pytest.raises(ValueError, match="'sample'"):
        ddim_step(backbone, x, torch.tensor([41]), None, x)


# --- perceiving ---


def test_predict_repeats_itself(tiny_pipe: Diff2in1Pipeline) -> None:
    first = tiny_pipe.predict(picture())
    torch.manual_seed(123)
    assert_same(first, tiny_pipe.predict(picture()))
    other = tiny_pipe.predict(picture(seed=1)).predictions["depth"][0]
    assert not np.array_equal(first.predictions["depth"][0], other)


@pytest.mark.parametrize("size", [(16, 24), (17, 23), (5, 9), (1, 5), (3, 40)], ids=str)
def test_predict_answers_at_the_images_size(pipe: Diff2in1Pipeline, size: tuple[int, int]) -> None:
    assert_physical(pipe.predict(picture(*size)), [size])


def test_predict_takes_images_of_different_sizes(tiny_pipe: Diff2in1Pipeline) -> None:
    sizes = [(16, 24), (16, 24), (13, 9), (16, 24)]
    pictures = [picture(*size, seed=i) for i, size in enumerate(sizes)]
    together = tiny_pipe.predict(pictures, batch_size=2)
    assert_physical(together, sizes)
    for i, one in enumerate(pictures):
        alone = tiny_pipe.predict(one)
        for name in ("normals", "depth"):
            np.testing.assert_allclose(
                together.predictions[name][i], alone.predictions[name][0], atol=1e-3, rtol=1e-3
            )
        np.testing.assert_array_equal(np.asarray(together.images[i]), np.asarray(one))


def test_predict_takes_pictures_arrays_and_tensors(tiny_pipe: Diff2in1Pipeline) -> None:
    pictures = [picture(), picture(seed=1)]
    arrays = np.stack([np.asarray(one) for one in pictures])
    floats = (arrays / 255).astype(np.float32)
    tensors = torch.from_numpy(floats).movedim(-1, 1)
    expected = tiny_pipe.predict(pictures)
    for images in (arrays, list(arrays), floats, tensors, list(tensors), tuple(pictures)):
        assert_same(expected, tiny_pipe.predict(images))
    single = tiny_pipe.predict(pictures[0])
    for image in (arrays[0], tensors[0], tensors[:1]):
        assert_same(single, tiny_pipe.predict(image))


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (np.zeros((3, 8, 8), np.uint8), ValueError),
        (np.full((8, 8), 4095, np.uint16), ValueError),
        (torch.zeros(8, 8, 3), ValueError),
        (torch.full((3, 8, 8), 255.0), ValueError),
        (torch.full((3, 8, 8), -1.0), ValueError),
        ("photo.png", ValueError),
        (7, TypeError),
    ],
    ids=["channels_first", "12_bits", "channels_last_tensor", "bytes", "signed", "path", "number"],
)
def test_predict_refuses_other_images(
    tiny_pipe: Diff2in1Pipeline, image: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"expected|white is 65535"):
        tiny_pipe.predict(image)


def test_predict_gives_tensors(tiny_pipe: Diff2in1Pipeline) -> None:
    found = tiny_pipe.predict(picture(10, 14), output_type="pt")
    shapes = {name: tuple(maps[0].shape) for name, maps in found.predictions.items()}
    assert shapes == {"normals": (3, 10, 14), "depth": (1, 10, 14), "semseg": (1, 10, 14)}
    assert found.images[0].shape == (3, 10, 14)
    assert found.uncertainty["depth"][0].shape == (1, 10, 14)
    arrays = tiny_pipe.predict(picture(10, 14))
    families = tiny_pipe.perception.families
    for name in TASKS:
        array = families[name].to_array(found.predictions[name][0])
        np.testing.assert_array_equal(array, arrays.predictions[name][0])
    np.testing.assert_allclose(
        found.images[0].movedim(0, -1) * 255, np.asarray(arrays.images[0]), atol=1e-4
    )


@pytest.mark.parametrize("window", [None, 16])
def test_flip_ensemble_is_equivariant(tiny_pipe: Diff2in1Pipeline, window: int | None) -> None:
    image = np.asarray(picture(13, 26))
    mirrored = np.ascontiguousarray(image[:, ::-1])
    one = tiny_pipe.predict(image, flip=True, window=window).predictions
    other = tiny_pipe.predict(mirrored, flip=True, window=window).predictions
    back = {name: other[name][0][:, ::-1] for name in TASKS}
    back["normals"] = back["normals"] * np.float32([-1, 1, 1])
    np.testing.assert_allclose(back["normals"], one["normals"][0], atol=1e-4)
    np.testing.assert_allclose(back["depth"], one["depth"][0], rtol=1e-4)
    assert (back["semseg"] == one["semseg"][0]).mean() > 0.99
    plain = tiny_pipe.predict(image, window=window).predictions["depth"][0]
    assert not np.allclose(plain, one["depth"][0], rtol=1e-4)  # the ensemble does something


@pytest.mark.parametrize("size", [(16, 24), (40, 17), (50, 50), (7, 33), (16, 17)], ids=str)
def test_windows_cover_everything(tiny_pipe: Diff2in1Pipeline, size: tuple[int, int]) -> None:
    calls = count_calls(tiny_pipe)
    assert_physical(tiny_pipe.predict(picture(*size), window=16), [size])
    assert len(calls) > 1
    assert max(max(shape[2:]) for shape in calls) <= 16 // tiny_pipe.vae_scale_factor


def test_a_pixel_in_one_window_is_labelled_by_it(tiny_pipe: Diff2in1Pipeline) -> None:
    image = np.asarray(picture(16, 24))  # windows begin at columns 0 and 8
    whole = tiny_pipe.predict(image, window=16).predictions["depth"][0]
    left = tiny_pipe.predict(image[:, :16]).predictions["depth"][0]
    right = tiny_pipe.predict(image[:, 8:]).predictions["depth"][0]
    np.testing.assert_allclose(whole[:, :8], left[:, :8], rtol=1e-5)
    np.testing.assert_allclose(whole[:, 16:], right[:, 8:], rtol=1e-5)
    between = (left[:, 8:] + right[:, :8]) / 2
    np.testing.assert_allclose(whole[:, 8:16], between, rtol=1e-5)


def test_windows_average_the_logits_of_classes(tiny_pipe: Diff2in1Pipeline) -> None:
    for parameter in tiny_pipe.perception.parameters():
        parameter.data *= 3  # clear differences between classes
    pixels = to_batches(picture(16, 24))[0]
    whole, left, right = (
        predict_raw(tiny_pipe, part, window=16)["semseg"]
        for part in (pixels, pixels[..., :16], pixels[..., 8:])
    )
    parts = torch.stack([left[..., 8:], right[..., :8]])
    found = whole[..., 8:16].softmax(1)
    torch.testing.assert_close(found, parts.mean(0).softmax(1), atol=1e-5, rtol=1e-4)
    mean = parts.softmax(2).mean(0)
    assert (found - mean).abs().max() > 1e-3  # the mean of probabilities is another


@pytest.mark.parametrize("window", [24, 100])
def test_a_window_as_large_as_the_image_changes_nothing(
    tiny_pipe: Diff2in1Pipeline, window: int
) -> None:
    assert_same(tiny_pipe.predict(picture()), tiny_pipe.predict(picture(), window=window))


def test_processing_resolution(tiny_pipe: Diff2in1Pipeline) -> None:
    calls = count_calls(tiny_pipe)
    image = picture(32, 48)
    small = tiny_pipe.predict(image, processing_resolution=24)
    assert [tuple(shape[2:]) for shape in calls] == [(8, 12)]  # 16 x 24 pixels
    assert_physical(small, [(32, 48)])
    plain = tiny_pipe.predict(image)
    assert calls[1][2:] == (16, 24)
    assert not np.allclose(small.predictions["depth"][0], plain.predictions["depth"][0])
    tiny_pipe.register_to_config(default_processing_resolution=24)
    assert_same(small, tiny_pipe.predict(image))


# --- creating ---


def test_creation_from_the_image_labels_what_it_returns(pipe: Diff2in1Pipeline) -> None:
    created = pipe(
        picture(18, 22),
        "a room",
        num_inference_steps=3,
        generator=seeded(0),
        labels_from="image",
    )
    assert_physical(created, [(18, 22)])
    assert_same(created, pipe.predict(created.images[0]))


def test_creation_from_the_image_works_at_the_checkpoints_resolution(
    tiny_pipe: Diff2in1Pipeline,
) -> None:
    options = {"num_inference_steps": 2, "labels_from": "image"}
    plain = tiny_pipe(picture(18, 22), generator=seeded(0), **options)
    tiny_pipe.register_to_config(default_processing_resolution=12)
    small = tiny_pipe(picture(18, 22), generator=seeded(0), **options)
    np.testing.assert_array_equal(np.asarray(plain.images[0]), np.asarray(small.images[0]))
    assert not np.allclose(plain.predictions["depth"][0], small.predictions["depth"][0])
    assert_same(small, tiny_pipe.predict(small.images[0]))
    assert_physical(small, [(18, 22)])
    tensors = tiny_pipe(picture(18, 22), generator=seeded(0), output_type="pt", **options)
    depth = small.predictions["depth"][0]
    np.testing.assert_array_equal(tensors.predictions["depth"][0][0].numpy(), depth)


@pytest.mark.parametrize("guidance", [1, 3])
@pytest.mark.parametrize(("labels_from", "more"), [("last_step", 0), ("latent", 1), ("image", 1)])
def test_creation_calls_the_unet_as_often_as_told(
    pipe: Diff2in1Pipeline, labels_from: Any, more: int, guidance: float
) -> None:
    calls = count_calls(pipe)
    options = {"num_inference_steps": 4, "guidance_scale": guidance, "strength": 0.5}
    found = pipe(picture(), "a room", labels_from=labels_from, generator=seeded(0), **options)
    assert len(calls) == 4 + more
    assert_physical(found, [(16, 24)])


def test_labels_come_from_where_they_were_asked(tiny_pipe: Diff2in1Pipeline) -> None:
    options = {"num_inference_steps": 3, "generator": seeded(0)}
    found = {}
    for labels_from in ("latent", "last_step", "image"):
        options["generator"] = seeded(0)
        found[labels_from] = tiny_pipe(picture(), "a room", labels_from=labels_from, **options)
    images = [np.asarray(one.images[0]) for one in found.values()]
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_array_equal(images[0], images[2])
    depths = [one.predictions["depth"][0] for one in found.values()]
    assert not np.array_equal(depths[0], depths[1])
    assert not np.array_equal(depths[0], depths[2])


@pytest.mark.parametrize(
    "change",
    [
        {"guidance_scale": 3},
        {"strength": 0.3},
        {"num_inference_steps": 5},
        {"generator": seeded(1)},
        {"prompt": "blue"},
        {"guidance_scale": 3, "negative_prompt": "blue"},
    ],
    ids=lambda change: "-".join(change),
)
def test_creation_listens_to(tiny_pipe: Diff2in1Pipeline, change: dict[str, Any]) -> None:
    usual = {"prompt": "a room", "strength": 0.9, "num_inference_steps": 3, "output_type": "pt"}
    if "negative_prompt" in change:
        usual["guidance_scale"] = 3
    one = tiny_pipe(picture(), generator=seeded(0), **usual).images[0]
    again = tiny_pipe(picture(), generator=seeded(0), **usual).images[0]
    other = tiny_pipe(picture(), **{"generator": seeded(0), **usual, **change}).images[0]
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_creation_uses_the_settings_of_the_checkpoint(tiny_pipe: Diff2in1Pipeline) -> None:
    settings = {"strength": 0.3, "num_inference_steps": 2, "guidance_scale": 2.0}
    told = tiny_pipe(picture(), "a room", generator=seeded(0), **settings)
    tiny_pipe.register_to_config(**{f"default_{name}": value for name, value in settings.items()})
    assert_same(told, tiny_pipe(picture(), "a room", generator=seeded(0)))


def test_an_image_of_a_batch_is_the_one_created_alone(pipe: Diff2in1Pipeline) -> None:
    pictures, prompts = [picture(seed=i) for i in range(3)], ["a room", "a blue sphere", ""]
    options = {"num_inference_steps": 4, "guidance_scale": 2}
    batch = pipe(pictures, prompts, generator=seeded(5, 6, 7), **options)
    for i in range(3):
        alone = pipe(pictures[i], prompts[i], generator=seeded(5 + i), **options)
        one, other = (np.asarray(images, np.int16) for images in (batch.images[i], alone.images[0]))
        assert (abs(one - other) <= 1).mean() >= 0.999
        ids = batch.predictions["semseg"][i] == alone.predictions["semseg"][0]
        assert ids.mean() >= 0.999


def test_every_image_has_a_strength_of_its_own(tiny_pipe: Diff2in1Pipeline) -> None:
    pictures, strengths = [picture(seed=i) for i in range(3)], [0.1, 0.6, 1.0]
    options = {"num_inference_steps": 4, "output_type": "pt"}
    for labels_from in ("latent", "last_step"):
        options["labels_from"] = labels_from
        batch = tiny_pipe(pictures, strength=strengths, generator=seeded(5, 6, 7), **options)
        for i in range(3):
            alone = tiny_pipe(
                pictures[i], strength=strengths[i], generator=seeded(5 + i), **options
            )
            torch.testing.assert_close(batch.images[i], alone.images[0], atol=1 / 255, rtol=0)
            depth = [one.predictions["depth"][n] for one, n in ((batch, i), (alone, 0))]
            torch.testing.assert_close(*depth, atol=1e-3, rtol=1e-3)


def test_creation_without_an_image(tiny_pipe: Diff2in1Pipeline) -> None:
    options = {"num_inference_steps": 3, "output_type": "pt"}
    found = tiny_pipe(None, ["a room", "a sphere"], generator=seeded(1, 2), **options)
    assert [tuple(one.shape) for one in found.images] == [(3, 32, 32)] * 2  # the base's size
    sized = {"height": 10, "width": 18, **options}
    one = tiny_pipe(None, "a room", generator=seeded(1), **sized)
    assert one.images[0].shape == (3, 10, 18) == (3, *one.predictions["depth"][0].shape[1:])
    assert torch.equal(
        one.images[0], tiny_pipe(None, "a room", generator=seeded(1), **sized).images[0]
    )
    other = tiny_pipe(None, "a sphere", generator=seeded(1), **sized).images[0]
    assert not torch.equal(one.images[0], other)  # the prompt is all there is


def test_strength_0_keeps_the_image_and_labels_it(tiny_pipe: Diff2in1Pipeline) -> None:
    pictures = [picture(10, 14), picture(9, 8)]
    kept = tiny_pipe(pictures, "a room", strength=0)
    for one, other in zip(kept.images, pictures, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert_same(kept, tiny_pipe.predict(pictures))


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"labels_from": "pixels"}, "labels_from 'pixels'"),
        ({"prompt": ["a room", "a room"]}, "2 prompts for 1 images"),
        ({"strength": 1.2}, "strength 1.2"),
        ({"strength": [0.5, 0.6]}, "2 strengths for 1 images"),
        ({"height": 16}, "height and width"),
        ({"image": None, "strength": 0.5}, "strength 0.5 without an image"),
        ({"strength": 0.1, "num_inference_steps": 101}, "101 steps"),
        ({"num_inference_steps": 0}, "0 steps"),
        ({"image": [picture(), picture(8, 8)]}, "one size"),
        ({"image": [picture()] * 3, "generator": seeded(0, 1)}, "2 generators for 3 images"),
        ({"generator": seeded(0, 1)}, "2 generators for 1 images"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_creation_refuses(tiny_pipe: Diff2in1Pipeline, options: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        tiny_pipe(**{"image": picture(), "num_inference_steps": 2, **options})


def test_last_step_is_refused_for_a_host_with_its_own_context(tiny_base: Path) -> None:
    tasks = describe_tasks({"semseg": Rooms.tasks["semseg"]})
    pipe = Diff2in1Pipeline.from_base(str(tiny_base), "vpd", tasks, width=16)
    pipe.set_progress_bar_config(disable=True)
    with pytest.raises(ValueError, match="last_step"):
        pipe(picture(), num_inference_steps=2, labels_from="last_step")
    with_own = pipe.predict(picture(), output_type="pt").uncertainty["semseg"][0]
    pipe.perception.embeddings += 1
    other = pipe.predict(picture(), output_type="pt").uncertainty["semseg"][0]
    assert not torch.equal(with_own, other)


def test_created_tensors_are_in_0_1(tiny_pipe: Diff2in1Pipeline) -> None:
    options = {"num_inference_steps": 2, "labels_from": "last_step"}
    found = tiny_pipe(picture(10, 14), generator=seeded(0), output_type="pt", **options)
    array = np.asarray(tiny_pipe(picture(10, 14), generator=seeded(0), **options).images[0])
    image = found.images[0]
    assert image.shape == (3, 10, 14) and image.min() >= 0 and image.max() <= 1
    np.testing.assert_array_equal((image * 255).round().byte().movedim(0, -1).numpy(), array)


# --- mounting ---


def test_unknown_host_names_the_allowed(tiny_base: Path) -> None:
    with pytest.raises(ValueError, match="unknown host 'lite': choose from light"):
        Diff2in1Pipeline.from_base(str(tiny_base), "lite", {"depth": {"family": "metric_map"}})


@pytest.mark.parametrize("width", [16, 48, 80])
def test_light_of_any_multiple_of_16(tiny_base: Path, width: int) -> None:
    tasks = describe_tasks({name: Rooms.tasks[name] for name in TASKS})
    pipe = Diff2in1Pipeline.from_base(str(tiny_base), "light", tasks, width=width)
    assert pipe.perception.config.width == width
    assert_physical(pipe.predict(picture()), [(16, 24)])


@pytest.mark.parametrize("width", [20, 24, 8, 0, -16])
def test_light_of_another_width_is_refused(tiny_base: Path, width: int) -> None:
    tasks = describe_tasks({"depth": Rooms.tasks["depth"]})
    with pytest.raises(ValueError, match=f"width {width}: expected a multiple of 16"):
        Diff2in1Pipeline.from_base(str(tiny_base), "light", tasks, width=width)


def test_offloading_changes_nothing(tiny_pipe: Diff2in1Pipeline) -> None:
    options = {"num_inference_steps": 2, "labels_from": "last_step"}
    predicted = tiny_pipe.predict(picture())
    created = tiny_pipe(picture(), "a room", generator=seeded(0), **options)
    tiny_pipe.enable_model_cpu_offload(device="cpu")
    assert hasattr(tiny_pipe.unet, "_hf_hook")
    for _ in range(2):
        assert_same(predicted, tiny_pipe.predict(picture()))
        assert_same(created, tiny_pipe(picture(), "a room", generator=seeded(0), **options))
