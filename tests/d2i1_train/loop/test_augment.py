"""Augmentation: what a view makes of image and labels, and which of the two thetas sees what."""

import colorsys
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from d2i1_data.checkpoints.pipelines import open_pipeline
from d2i1_data.diff2in1 import Diff2in1Pipeline, make_family
from d2i1_data.errors import InputError
from d2i1_data.sources import open_rows
from d2i1_train import self_improve as stage
from d2i1_train.loop import run as runs
from d2i1_train.loop.augment import REDRAWS, Augmentation, Colours, View, make_augmentation
from d2i1_train.loop.batches import SampleOrder, TrainingBatch, seeded, stack
from d2i1_train.loop.cache import Cache
from d2i1_train.loop.examples import Example, Examples, Use
from d2i1_train.settings import WarmUpSettings
from d2i1_train.theta import make_theta
from tests.made import run

FAMILIES = {
    "labels": make_family({"family": "label_map", "names": ["a", "b", "c", "d"]}),
    "distances": make_family({"family": "metric_map"}),
    "directions": make_family({"family": "unit_vector"}),
}
JITTER = {"brightness": 0.3, "contrast": 0.3, "saturation": 0.5, "hue": 0.2, "gamma": 0.3}
JITTER |= {"tint": 0.2}
ALL = Augmentation(flip=True, scale=(0.5, 2.0), crop=(24, 40), max_share=0.75, jitter=JITTER)

SMALL = ("--source", "rooms:train", "--max_train_samples", 4, "--resolution", 32)
SMALL += ("--real_batch_size", 2, "--report_to", "none")
HOST = ("--host", "light", "--width", 16, "--tasks", "normals,depth,semseg")
STEPS = ("--max_train_steps", 4, "--checkpointing_steps", 2)
VIEWS = ("--random_scale", "[0.5,2.0]", "--random_crop", "24x40", "--crop_max_share", 0.75)
COLOURS = ("--color_jitter", "{brightness: 0.3, hue: 0.2, probability: 0.75}")
FULL = ("--train_unet", "full")


def quadrants(height: int = 32, width: int = 48) -> tuple[Tensor, dict[str, Tensor]]:
    """An image of four grey quarters, and maps that say of each pixel which quarter it is in."""
    rows, columns = torch.arange(height) >= height // 2, torch.arange(width) >= width // 2
    labels = (2 * rows[:, None] + columns[None])[None, None]
    image = (labels / 2 - 0.75).expand(1, 3, -1, -1)
    directions = torch.zeros(1, 3, height, width)
    directions[:, 0], directions[:, 2] = 0.6 * (1 - 2 * columns.float()), 0.8
    return image, {"labels": labels, "distances": labels + 1.0, "directions": directions}


def views(augment: Augmentation, number: int = 64) -> list[View]:
    return [augment.draw(seeded(n)) for n in range(number)]


def of_rooms(
    pipe: Diff2in1Pipeline,
    augment: Augmentation,
    *,
    created: bool = False,
    denoise: bool = False,
    resolution: str = "32",
) -> Examples:
    shared = (pipe, make_theta(pipe), pipe.perception_conditioning(), Cache(None))
    rows = open_rows("rooms:train", resolution, 4)
    return Examples(rows, *shared, augment=augment, use=Use(created=created, denoise=denoise))


# --- geometry ---


@pytest.mark.parametrize("crop", [None, (20, 30)])
@pytest.mark.parametrize("scale", [None, (0.7, 1.6)])
def test_image_and_maps_stay_on_one_another(
    scale: tuple[float, float] | None, crop: tuple[int, int] | None
) -> None:
    image, maps = quadrants()
    mirrored, tops = set(), set()
    for view in views(Augmentation(flip=True, scale=scale, crop=crop)):
        seen, found = view.frame(image, maps, FAMILIES)
        size = [round(32 * view.scale), round(48 * view.scale)]
        size = size if crop is None else [min(a, b) for a, b in zip(size, crop, strict=True)]
        assert {tuple(one.shape[2:]) for one in (seen, *found.values())} == {tuple(size)}
        said = ((seen[:, :1] + 0.75) * 2).round().long()
        agree = (said == found["labels"]).float().mean()
        assert agree == 1 if scale is None else agree > 0.85  # the filter mixes at the borders
        distances = (found["labels"] + 1) / view.scale
        torch.testing.assert_close(found["distances"], distances)
        # what pointed to the right points to the left in the mirrored image, and is on its left
        right = (found["labels"] % 2 == 1) != view.mirrored
        sign = torch.where(found["labels"] % 2 == 1, -1, 1) * (-1 if view.mirrored else 1)
        torch.testing.assert_close(found["directions"][:, :1], 0.6 * sign.float())
        columns = torch.arange(right.shape[3]).expand_as(right)
        assert not right.any() or right.all() or columns[right].min() > columns[~right].max()
        mirrored.add(view.mirrored)
        tops.add(view.places[0] if crop else None)
    assert mirrored == {False, True} and len(tops) == (64 if crop else 1)


def test_factors_are_drawn_evenly_and_windows_everywhere() -> None:
    drawn = views(replace(ALL, crop=(8, 8), max_share=1.0), 2000)
    factors = np.array([view.scale for view in drawn])
    assert 0.5 <= factors.min() < 0.52 and 1.98 < factors.max() <= 2
    assert factors.mean() == pytest.approx(1.25, abs=0.03)
    ramp = torch.arange(10 * 12).view(1, 1, 10, 12).float()
    corners = {
        int(view._replace(scale=1, mirrored=False).frame(ramp, {}, {})[0][0, 0, 0, 0])
        for view in drawn
    }
    assert corners == {12 * top + left for top in range(3) for left in range(5)}


def test_a_window_shows_no_class_too_often_where_one_can_be_found() -> None:
    image, maps = quadrants()

    def shares(max_share: float) -> list[float]:
        augment = Augmentation(crop=(12, 12), max_share=max_share)
        found = [view.frame(image, maps, FAMILIES)[1] for view in views(augment, 200)]
        return [FAMILIES["labels"].largest_share(one["labels"]) for one in found]

    assert np.mean([share > 0.75 for share in shares(1.0)]) > 0.5
    assert np.mean([share > 0.75 for share in shares(0.75)]) < 0.05


def test_a_window_is_redrawn_ten_times_and_only_while_it_must_be() -> None:
    image, maps = quadrants()
    left, both = (0.0, 0.0), (0.5, 0.5)  # of one class; of four
    view = View(crop=(12, 12), places=(left,) * REDRAWS + (both,), max_share=0.75)
    assert REDRAWS == 10 == len(views(ALL, 1)[0].places) - 1
    assert view.frame(image, maps, FAMILIES)[1]["labels"].unique().tolist() == [0, 1, 2, 3]
    first = view._replace(places=(both, left))
    assert first.frame(image, maps, FAMILIES)[1]["labels"].unique().tolist() == [0, 1, 2, 3]
    last = view._replace(places=(left, left, (0.0, 0.99)))
    assert torch.equal(last.frame(image, maps, FAMILIES)[0], image[..., :12, -12:])
    unknown = {"labels": torch.full_like(maps["labels"], 255)}  # nothing to redraw for
    assert torch.equal(last.frame(image, unknown, FAMILIES)[0], image[..., :12, :12])


def test_what_is_beyond_a_small_image_is_grey_and_unknown(
    tiny_pipe: Diff2in1Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[Tensor] = []
    encode = tiny_pipe.encode_image

    def kept(pixels: Tensor) -> Tensor:
        encoded.append(pixels)
        return encode(pixels)

    monkeypatch.setattr(tiny_pipe, "encode_image", kept)
    augment = Augmentation(crop=(48, 64), jitter={"brightness": 0.9})
    example = of_rooms(tiny_pipe, augment).draw(0, seeded(0))
    assert tuple(encoded[-1].shape) == (1, 3, 48, 64)
    outside = torch.ones(48, 64, dtype=torch.bool)
    outside[:32, :32] = False
    assert encoded[-1][..., outside].abs().max() == 0  # colours change before
    assert (encoded[-1][..., ~outside] != 0).float().mean() > 0.9
    assert torch.equal(example.inside[0], ~outside)
    for name, family in tiny_pipe.perception.families.items():
        known = family.valid(example.targets[name][None])[0, 0]
        assert not known[outside].any() and known[~outside].any()


# --- colours ---


def test_no_change_changes_nothing() -> None:
    image = torch.rand(1, 3, 9, 11)
    torch.testing.assert_close(Colours().change(image), image, atol=1e-6, rtol=0)


def test_each_number_changes_what_it_says() -> None:
    image = torch.rand(1, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    pixels = image[0].permute(1, 2, 0).double().numpy()
    grey = pixels @ [0.299, 0.587, 0.114]
    turned = [
        colorsys.hsv_to_rgb((h + 0.2) % 1, s, v)
        for h, s, v in (colorsys.rgb_to_hsv(*pixel) for pixel in pixels.reshape(-1, 3))
    ]
    expected = {
        Colours(gamma=1.5): pixels**1.5,
        Colours(brightness=1.4): pixels * 1.4,
        Colours(contrast=0.5): grey.mean() + 0.5 * (pixels - grey.mean()),
        Colours(contrast=1.5): grey.mean() + 1.5 * (pixels - grey.mean()),
        Colours(saturation=0.3): grey[..., None] + 0.3 * (pixels - grey[..., None]),
        Colours(hue=0.2): np.array(turned).reshape(pixels.shape),
        Colours(tint=(1.2, 1.0, 0.5)): pixels * [1.2, 1.0, 0.5],
    }
    for colours, wanted in expected.items():
        found = colours.change(image)[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(found, wanted.clip(0, 1), atol=1e-5, err_msg=str(colours))


def test_grey_has_no_hue() -> None:
    grey = torch.linspace(0, 1, 12).view(1, 1, 3, 4).expand(1, 3, 3, 4)
    found = Colours(hue=0.3, saturation=2.0).change(grey)
    torch.testing.assert_close(found, grey, atol=1e-6, rtol=0)


def test_colours_are_drawn_from_their_ranges() -> None:
    drawn = [view.colours for view in views(Augmentation(jitter=JITTER), 2000)]
    for name, most in JITTER.items():
        middle = 0 if name == "hue" else 1
        found = np.array([getattr(colours, name) for colours in drawn]) - middle
        assert -most <= found.min() < -0.97 * most and 0.97 * most < found.max() <= most, name
        assert abs(found.mean()) < 0.06 * most, name
    tints = np.array([colours.tint for colours in drawn if colours])
    assert np.abs(np.corrcoef(tints.T) - np.eye(3)).max() < 0.1  # each channel its own


def test_a_change_does_not_alter_another() -> None:
    turned = dict(reversed(JITTER.items()))
    for n in range(8):
        one = Augmentation(jitter=JITTER).draw(seeded(n)).colours
        assert one and one == Augmentation(jitter=turned).draw(seeded(n)).colours
        for name in JITTER:
            alone = Augmentation(jitter={name: JITTER[name]}).draw(seeded(n)).colours
            assert alone == Colours(**{name: getattr(one, name)})


def test_samples_and_changes_have_their_probability() -> None:
    half = views(Augmentation(jitter={**JITTER, "probability": 0.5}), 1000)
    assert np.mean([view.colours is None for view in half]) == pytest.approx(0.5, abs=0.05)
    assert all(v.colours is None for v in views(Augmentation(jitter={**JITTER, "probability": 0})))
    each = [v.colours for v in views(Augmentation(jitter={**JITTER, "each": 0.3}), 1000)]
    made = np.array([[a != b for a, b in zip(c, Colours(), strict=True)] for c in each if c])
    assert made.shape == (1000, 6)
    np.testing.assert_allclose(made.mean(0), 0.3, atol=0.06)
    assert np.abs(np.corrcoef(made.T) - np.eye(6)).max() < 0.12  # drawn apart


# --- examples ---


def same(one: Example, other: Example) -> bool:
    parts = [(one.latents, other.latents), (one.inside, other.inside)]
    parts += [(one.targets[name], other.targets[name]) for name in one.targets]
    return all(torch.equal(a, b) for a, b in parts)


def test_a_draw_follows_from_seed_epoch_and_sample(tiny_pipe: Diff2in1Pipeline) -> None:
    draws, again = (SampleOrder([of_rooms(tiny_pipe, ALL)], 0) for _ in range(2))
    alone = [draws.at(position) for position in range(8)]
    with ThreadPoolExecutor(3) as pool:
        threaded = list(pool.map(again.at, reversed(range(8))))[::-1]
    assert all(same(one, other) for one, other in zip(alone, threaded, strict=True))
    assert {tuple(one.inside.shape[1:]) for one in alone} == {(24, 40)}
    for n in range(8):  # every epoch another view of each sample
        assert not any(torch.equal(alone[n].latents, alone[m].latents) for m in range(n))
    other = SampleOrder([of_rooms(tiny_pipe, ALL)], 1)
    assert not any(same(one, other.at(n)) for n, one in enumerate(alone))


@pytest.mark.parametrize(
    "augment",
    [replace(Augmentation(), **{name: getattr(ALL, name)}) for name in ("scale", "crop", "jitter")],
    ids=["scale", "crop", "jitter"],
)
def test_what_does_not_come_again_is_not_kept(
    tiny_pipe: Diff2in1Pipeline, tmp_path: Path, augment: Augmentation
) -> None:
    part, plain = of_rooms(tiny_pipe, augment), of_rooms(tiny_pipe, Augmentation(flip=True))
    part.cache = Cache(str(tmp_path))
    drawn = [one.draw(0, seeded(0)) for one in (part, plain)]
    assert [example.pyramid is None for example in drawn] == [True, False]
    assert part.kept == {} and len(plain.kept) == 1
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("created", [False, True])
def test_theta_c_sees_the_same_window_in_its_own_colours(
    tiny_pipe: Diff2in1Pipeline, created: bool
) -> None:
    """Geometry is drawn before colours, so a draw without them shows what theta_C should see."""
    coloured = of_rooms(tiny_pipe, ALL, created=created)
    plain = of_rooms(tiny_pipe, replace(ALL, jitter={}), created=created)
    one, other = coloured.draw(1, seeded(5)), plain.draw(1, seeded(5))
    assert not torch.equal(one.latents, other.latents)
    assert all(torch.equal(one.targets[name], other.targets[name]) for name in one.targets)
    if created:
        assert one.original is not None and torch.equal(one.original, other.latents)
    else:
        assert one.original is None  # theta_C does not predict real samples
    assert other.original is None


def test_a_batch_has_clean_latents_of_its_created_ones(tiny_pipe: Diff2in1Pipeline) -> None:
    half = replace(ALL, jitter={**JITTER, "probability": 0.5})
    made, real = (of_rooms(tiny_pipe, half, created=c) for c in (True, False))
    examples = [real.draw(0, seeded(0)), *(made.draw(n, seeded(n)) for n in range(4))]
    assert {example.original is None for example in examples[1:]} == {False, True}
    batch = stack(examples, torch.device("cpu"))
    own = batch.inputs_of_theta_c(None)["image"].latents
    assert batch.views["image"] is not None and own.shape == batch.latents[1:].shape
    for n, example in enumerate(examples[1:]):
        wanted = example.latents if example.original is None else example.original
        assert torch.equal(own[n], wanted)
    unchanged = [example for example in examples if example.original is None]
    assert stack(unchanged, torch.device("cpu")).views == {"image": None}


def test_denoising_learns_from_images_in_their_own_colours(tiny_pipe: Diff2in1Pipeline) -> None:
    example = of_rooms(tiny_pipe, ALL, denoise=True).draw(1, seeded(5))
    plain = of_rooms(tiny_pipe, replace(ALL, jitter={})).draw(1, seeded(5))
    assert example.noised is not None and not torch.equal(example.latents, plain.latents)
    t, noise = example.noised.t[None], example.noised.target[None]
    noised = tiny_pipe.scheduler.add_noise(plain.latents[None].float(), noise, t)
    assert torch.equal(example.noised.latents, noised[0])


# --- both stages ---


Train = Callable[..., Path]


@pytest.fixture(scope="module")
def train(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Warm up four steps; the run's folder. One of the same flags is made once."""
    folder, number = tmp_path_factory.mktemp("augment"), count()
    made: dict[tuple[object, ...], Path] = {}

    def train(*flags: object) -> Path:
        if flags not in made:
            made[flags] = folder / str(next(number))
            command = ("warm-up", "--base", tiny_base, *SMALL, *HOST, *STEPS, *flags)
            run(*command, "--output_dir", made[flags])
        return made[flags]

    return train


@pytest.fixture(scope="module")
def created(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four created samples."""
    folder = tmp_path_factory.mktemp("made") / "created"
    source = ("--source", "rooms:train", "--max_source_samples", 4, "--resolution", 32)
    some = ("--num_samples", 4, "--num_inference_steps", 2)
    run("create", "--pipeline", train() / "pipeline", *source, *some, "--output_dir", folder)
    return folder


def theta(folder: Path, name: str = "exploitation") -> dict[str, Tensor]:
    return load_file(folder / "checkpoint-4" / f"{name}.safetensors")


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("flags", [VIEWS, COLOURS])
def test_each_augmentation_changes_what_is_learned(train: Train, flags: tuple[object, ...]) -> None:
    assert not equal(theta(train(*flags)), theta(train()))


@pytest.mark.parametrize("stage_name", ["warm-up", "self-improve"])
def test_threads_and_resuming_change_nothing(
    train: Train, created: Path, tiny_base: Path, tmp_path: Path, stage_name: str
) -> None:
    flags = (*VIEWS, *COLOURS, *STEPS)
    command: tuple[object, ...] = ("warm-up", "--base", tiny_base, *SMALL, *HOST, *flags)
    if stage_name == "self-improve":
        inputs = ("--pipeline", train() / "pipeline", "--created", created, "--follow_every", 4)
        command = ("self-improve", *inputs, *SMALL, *flags)
    whole, threaded, resumed = (tmp_path / name for name in ("whole", "threaded", "resumed"))
    run(*command, "--output_dir", whole)
    run(*command, "--output_dir", threaded, "--dataloader_num_workers", 3)
    shutil.copytree(whole, resumed)
    for name in ("checkpoint-4", "pipeline"):
        shutil.rmtree(resumed / name)
    run(*command, "--output_dir", resumed, "--resume_from_checkpoint", "latest")
    for file in (whole / "checkpoint-4").glob("*.safetensors"):
        for other in (threaded, resumed):
            assert (other / "checkpoint-4" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("mix", ["paired", "union"])
@pytest.mark.parametrize("flags", [(), FULL])
def test_theta_c_labels_images_in_their_own_colours(
    train: Train,
    created: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[object, ...],
    mix: str,
) -> None:
    """Whether the U-Net is frozen, and shares a pyramid otherwise, or trained."""
    batches: list[TrainingBatch] = []
    predicted: list[dict[str, Tensor]] = []
    stacked, mixed = runs.stack, stage.with_pseudo_labels

    def keep_batch(*arguments: object) -> TrainingBatch:
        batches.append(stacked(*arguments))  # type: ignore[arg-type]
        return batches[-1]

    def keep_raw(families: object, raw: dict[str, Tensor], *more: object) -> object:
        predicted.append(raw)
        return mixed(families, raw, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(runs, "stack", keep_batch)
    monkeypatch.setattr(stage, "with_pseudo_labels", keep_raw)
    pipeline = train(*flags) / "pipeline"
    inputs = ("--pipeline", pipeline, "--created", created, "--alpha", 1, "--mix", mix)
    inputs += ("--belief_views", "[image]")
    jitter = ("--color_jitter", "{brightness: 0.5, hue: 0.4}")
    run("self-improve", *inputs, *SMALL, *STEPS, *VIEWS, *jitter, "--output_dir", tmp_path / "out")
    creation = make_theta(pipe := open_pipeline(str(pipeline), base_unet=None)).eval()
    conditioning = pipe.perception_conditioning()
    some = [batch for batch in batches if len(batch.created)]
    assert len(some) == len(predicted) > 0
    for batch, raw in zip(some, predicted, strict=True):
        own = batch.inputs_of_theta_c(None)["image"].latents
        assert batch.views["image"] is not None and batch.size == (24, 40)
        with torch.no_grad():
            wanted = creation(own, conditioning, batch.size).raw
            other = creation(batch.latents[batch.created], conditioning, batch.size).raw
        for name, found in raw.items():
            torch.testing.assert_close(found, wanted[name], atol=1e-4, rtol=1e-3)
            assert (found - other[name]).abs().max() > 1e-2


# --- settings ---


def settings(**more: object) -> WarmUpSettings:
    fixed = {"source": "rooms:train", "output_dir": "unused", "host": "light"}
    return WarmUpSettings(**{**fixed, **more})  # type: ignore[arg-type]


def test_settings_become_an_augmentation() -> None:
    own = settings(
        random_scale=[0.5, 2.0], random_crop="24x40", crop_max_share=0.75, color_jitter=JITTER
    )
    assert make_augmentation(own) == ALL
    assert make_augmentation(settings()) == Augmentation(flip=True)
    assert make_augmentation(settings(random_flip=False, color_jitter={})) == Augmentation()
    assert Augmentation(flip=True).recurs and not ALL.recurs


CROP = {"random_crop": "512x512"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"random_scale": [0.5, 2.0]}, "--random_scale needs a --random_crop"),
        ({"random_scale": [2.0, 0.5], **CROP}, "--random_scale [2.0, 0.5]: expected [LOW, HIGH]"),
        ({"random_scale": [0.0, 0.5], **CROP}, "--random_scale [0.0, 0.5]: expected"),
        ({"random_scale": [1.0], **CROP}, "--random_scale [1.0]: expected"),
        ({"random_crop": "512"}, "--random_crop '512': expected height x width, such as 512x512"),
        ({"random_crop": "0x512"}, "--random_crop '0x512': expected"),
        ({"crop_max_share": 0.5}, "--crop_max_share has no effect without --random_crop"),
        ({"crop_max_share": 0.0, **CROP}, "--crop_max_share 0.0: expected more than 0, at most 1"),
        ({"color_jitter": {"brightnes": 0.1}}, "--color_jitter: unknown key 'brightnes', choose"),
        ({"color_jitter": {"hue": 0.6}}, "--color_jitter: hue 0.6: expected 0 to 0.5"),
        ({"color_jitter": {"gamma": -0.1}}, "--color_jitter: gamma -0.1: expected 0 to 1"),
        ({"cache_dir": "c", **CROP}, "with --random_crop: every view is then new"),
        (
            {"cache_dir": "c", "color_jitter": {"hue": 0.1}, **CROP},
            "with --random_crop, --color_jitter: every view is then new",
        ),
    ],
)
def test_wrong_augmentation_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        settings(**wrong)
    assert message in str(error.value)


def test_a_cache_goes_with_the_flip() -> None:
    assert settings(cache_dir="c", random_flip=True, color_jitter={}).cache_dir == "c"
