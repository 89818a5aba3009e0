"""The labels that theta_C predicts, and theta_E's feature dropout."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.diff2in1.families import MetricMap, UnitVector
from d2i1_data.diff2in1.images import to_batches
from d2i1_data.diff2in1.prediction import predict_raw
from d2i1_data.sources import open_rows
from d2i1_train.loop.augment import Augmentation
from d2i1_train.loop.batches import SampleOrder, seeded, stack
from d2i1_train.loop.cache import Cache
from d2i1_train.loop.examples import Examples, Use
from d2i1_train.pseudo_labels import BELIEF_VIEWS, predict_labels
from d2i1_train.settings import BeliefViewName, SelfImproveSettings
from d2i1_train.theta import make_theta, twin
from tests.made import run

CPU = torch.device("cpu")
REAL = (
    *("--source", "rooms:train", "--max_train_samples", 4, "--resolution", 32),
    *("--report_to", "none", "--real_batch_size", 2),
)
CREATE = (
    *("--source", "rooms:train", "--max_source_samples", 4, "--resolution", 32),
    *("--num_samples", 5, "--num_inference_steps", 2),
)


def of_rooms(
    pipe: Diff2in1Pipeline, use: Use, *, resolution: str = "32", flip: bool = False
) -> Examples:
    shared = (pipe, make_theta(pipe), pipe.perception_conditioning(), Cache(None))
    rows = open_rows("rooms:train", resolution, 4)
    return Examples(rows, *shared, augment=Augmentation(flip=flip), use=use)


def settings(**more: object) -> SelfImproveSettings:
    given = {"source": "rooms:train", "output_dir": "", "pipeline": "", **more}
    return SelfImproveSettings(**given)  # type: ignore[arg-type]


# --- views ---


def test_the_flag_offers_every_view() -> None:
    assert get_args(BeliefViewName) == tuple(BELIEF_VIEWS)


@pytest.mark.parametrize("resolution", ["32", "27x38"])
@pytest.mark.parametrize("flip", [False, True])
def test_labels_of_image_and_mirror_are_those_of_predict_with_flip(
    tiny_pipe: Diff2in1Pipeline, resolution: str, flip: bool
) -> None:
    """Also if the image is padded to the stride, and in a batch of mirrored and plain images."""
    use = Use(created=True, belief_views=("image", "mirror"))
    part = of_rooms(tiny_pipe, use, resolution=resolution, flip=flip)
    examples = [part.draw(n, seeded(n)) for n in range(4)]
    batch = stack(examples, CPU)
    creation = twin(part.theta)
    with torch.no_grad():
        views = batch.inputs_of_theta_c(batch.pyramid)
        factor = batch.pixels_per_latent
        raw = predict_labels(creation, views, part.conditioning, batch.inside, factor)
    tiny_pipe.perception.eval()
    views_drawn = [part.augment.draw(seeded(n)) for n in range(4)]
    assert {view.mirrored for view in views_drawn} == ({False, True} if flip else {False})
    for n, view in enumerate(views_drawn):
        pixels = to_batches(part.rows.source[part.rows.usable[n]].image)[0]
        pixels = pixels.flip(-1) if view.mirrored else pixels
        wanted = predict_raw(tiny_pipe, pixels, processing_resolution=0, flip=True)
        height, width = pixels.shape[2:]
        for name, family in part.pipe.perception.families.items():
            found = family.to_linear(raw[name][n : n + 1, :, :height, :width])
            torch.testing.assert_close(found, family.to_linear(wanted[name]), atol=2e-4, rtol=1e-3)


def test_mirrored_views_are_encoded_once(
    tiny_pipe: Diff2in1Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = of_rooms(tiny_pipe, Use(created=True, belief_views=("mirror", "image")))
    encoded, encode = [], tiny_pipe.encode_image
    monkeypatch.setattr(tiny_pipe, "encode_image", lambda x: (encoded.append(1), encode(x))[1])
    for n in range(8):
        example = part.draw(n % 4, seeded(n))
        mirror = example.views["mirror"]
        assert mirror is not None and mirror.latents is part.get(n % 4, True).latents
    assert len(encoded) == 8  # four images and their mirror images


@pytest.mark.parametrize("family", [MetricMap(), UnitVector()])
@pytest.mark.parametrize("name", ["mirror", "larger"])
def test_views_are_undone_in_the_labels(name: str, family: MetricMap | UnitVector) -> None:
    """A smooth map, changed as the image of the view would change it, and restored."""
    view = BELIEF_VIEWS[name]
    ramp = torch.linspace(1, 3, 32)
    if isinstance(family, MetricMap):
        maps = ramp.expand(1, 1, 24, 32).contiguous()
        changed = family.scaled(maps, view.scale)
    else:
        maps = torch.stack([ramp - 2, torch.ones(32), ramp])[None, :, None].expand(1, 3, 24, 32)
        changed = maps = torch.nn.functional.normalize(maps, dim=1)
    spread = torch.full((1, 1, 24, 32), 0.5)
    linear = torch.cat([changed, spread], 1)
    size = [round(side * view.scale) for side in (24, 32)]
    linear = torch.nn.functional.interpolate(linear, size, mode="bilinear")
    linear = torch.nn.functional.pad(linear, (0, 3, 0, 5), value=9.0)  # padding to a stride
    if view.mirrored:
        linear = family.flip(linear[..., :24, :32])
    restored = view.restore(family, linear, (24, 32))
    torch.testing.assert_close(restored[:, :-1], maps, atol=0.02, rtol=0)
    torch.testing.assert_close(restored[:, -1:], spread)


def test_the_larger_view_reaches_theta_c(tiny_pipe: Diff2in1Pipeline) -> None:
    part = of_rooms(tiny_pipe, Use(created=True, belief_views=("larger",)))
    batch = stack([part.draw(n, seeded(n)) for n in range(2)], CPU)
    (view,) = batch.inputs_of_theta_c(batch.pyramid).values()
    assert view.latents.shape[2] == 1.5 * batch.latents.shape[2]
    with torch.no_grad():
        inputs = (part.conditioning, batch.inside, batch.pixels_per_latent)
        raw = predict_labels(part.theta, {"larger": view}, *inputs)
    assert {tuple(maps.shape[2:]) for maps in raw.values()} == {batch.size}


# --- feature dropout ---


def test_dropout_is_decided_by_the_sample_and_keeps_the_mean(tiny_pipe: Diff2in1Pipeline) -> None:
    part = of_rooms(tiny_pipe, Use(created=True, dropout=0.25), flip=True)
    order = SampleOrder([part], 7)
    drawn = [order.at(n).perturbation.channel_weights for n in range(8)]
    assert all(one is not None for one in drawn)
    factors = torch.stack([torch.cat(one) for one in drawn if one is not None])
    assert factors.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert (factors == 0).float().mean().item() == pytest.approx(0.25, abs=0.05)
    assert len({tuple(row.tolist()) for row in factors}) == 8  # anew in every epoch
    again = SampleOrder([part], 7)
    for n in (5, 2):  # in another order
        same = again.at(n).perturbation.channel_weights
        assert all(map(torch.equal, same or (), drawn[n] or ()))


@pytest.mark.parametrize("frozen", [True, False])
def test_theta_e_gets_the_masked_pyramid_and_theta_c_the_whole_one(
    tiny_pipe: Diff2in1Pipeline, frozen: bool
) -> None:
    """Inside the one call of theta: whether the pyramid is given, or computed in that call."""
    real = of_rooms(tiny_pipe, Use())
    made = of_rooms(tiny_pipe, Use(created=True, dropout=0.5))
    batch = stack([real.draw(0, seeded(0)), made.draw(1, seeded(1))], CPU)
    assert batch.perturbation is not None
    weights = batch.perturbation.channel_weights
    assert weights is not None and all((level[0] == 1).all() for level in weights)
    theta, conditioning = real.theta.eval(), real.conditioning
    with torch.no_grad():
        pyramid = theta.compute_pyramid(batch.latents, conditioning)
        given = pyramid if frozen else None
        found = theta(
            batch.latents, conditioning, batch.size, given, perturbation=batch.perturbation
        ).raw
        masked = tuple(x * w for x, w in zip(pyramid, weights, strict=True))
        wanted = theta.perception(masked, batch.size)
        plain = theta.perception(pyramid, batch.size)
    for name, maps in found.items():
        torch.testing.assert_close(maps, wanted[name])
        torch.testing.assert_close(maps[:1], plain[name][:1])
        assert not torch.allclose(maps[1], plain[name][1])
    (view,) = batch.inputs_of_theta_c(pyramid).values()
    assert view.pyramid is not None
    assert all(
        torch.equal(level, own[1:]) for level, own in zip(view.pyramid, pyramid, strict=True)
    )


# --- CutMix ---


def test_a_patch_is_pasted_into_pyramid_and_labels_alike(tiny_pipe: Diff2in1Pipeline) -> None:
    real = of_rooms(tiny_pipe, Use(), resolution="64")
    made = of_rooms(tiny_pipe, Use(created=True, cutmix=1.0), resolution="64")
    examples = [real.draw(0, seeded(0)), *(made.draw(n, seeded(n)) for n in (1, 2, 3))]
    batch = stack(examples, CPU)
    assert batch.perturbation is not None and batch.perturbation.patches is not None
    assert batch.perturbation.donors.tolist() == [0, 2, 3, 1]
    patches = batch.perturbation.patches
    cells, stride = patches.shape[2:], tiny_pipe.stride
    assert tuple(cells) == (64 // stride, 64 // stride)
    assert not patches[0].any()
    shares = patches[1:].float().mean((1, 2, 3))
    assert (shares > 0).all() and (shares < 1).all()
    ids = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 64, 64)  # which sample is at a pixel
    pasted = batch.perturbation.paste(ids)
    grown = patches.repeat_interleave(stride, 2).repeat_interleave(stride, 3)
    for n, donor in ((1, 2), (2, 3), (3, 1)):
        assert torch.equal(pasted[n] == donor, grown[n])
        assert torch.equal(pasted[n] == n, ~grown[n])
    with torch.no_grad():
        pyramid = made.theta.compute_pyramid(batch.latents, made.conditioning)
    for level, mixed in zip(pyramid, batch.perturbation.of_pyramid(pyramid), strict=True):
        own = batch.perturbation.paste(ids[..., : level.shape[2], : level.shape[3]])
        for n, donor in enumerate((0, 2, 3, 1)):
            rows, columns = (own[n, 0] != n).nonzero(as_tuple=True)
            assert torch.equal(mixed[n][:, rows, columns], level[donor][:, rows, columns])
            rows, columns = (own[n, 0] == n).nonzero(as_tuple=True)
            assert torch.equal(mixed[n][:, rows, columns], level[n][:, rows, columns])


def test_the_loss_is_that_of_pasted_labels(tiny_pipe: Diff2in1Pipeline) -> None:
    part = of_rooms(tiny_pipe, Use(cutmix=1.0), resolution="64")
    batch = stack([part.draw(n, seeded(n)) for n in range(3)], CPU)
    theta, mixed = part.theta.eval(), batch.perturbation
    assert mixed is not None and batch.pyramid is not None
    with torch.no_grad():
        inputs = (batch.latents, part.conditioning, batch.size, batch.pyramid)
        found = theta(*inputs, batch.targets, perturbation=mixed).losses
        targets = {name: mixed.paste(target) for name, target in batch.targets.items()}
        pyramid = mixed.of_pyramid(batch.pyramid)
        wanted = theta(batch.latents, part.conditioning, batch.size, pyramid, targets).losses
    for name, loss in found.items():
        assert torch.equal(loss, wanted[name])


def test_patches_are_decided_by_the_sample(tiny_pipe: Diff2in1Pipeline) -> None:
    part = of_rooms(tiny_pipe, Use(created=True, cutmix=0.5), resolution="64")
    patches = [part.draw(n % 4, seeded(n)).perturbation.patch for n in range(200)]
    drawn = [patch for patch in patches if patch is not None]
    assert len(drawn) == pytest.approx(100, abs=25)
    assert len({tuple(patch.flatten().tolist()) for patch in drawn}) > 10
    again = part.draw(3, seeded(7)).perturbation.patch
    assert (again is None) == (patches[7] is None)
    assert again is None or torch.equal(again, patches[7])


# --- whole runs ---


@pytest.fixture(scope="module")
def loop(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `warm/`, a warm-up of three steps, and `created/`, five samples from it."""
    folder = tmp_path_factory.mktemp("pseudo-labels")
    host = ("--host", "light", "--width", 16, "--tasks", "normals,depth,semseg")
    places = ("--base", tiny_base, "--output_dir", folder / "warm")
    run("warm-up", *REAL, *host, "--max_train_steps", 3, *places)
    pipeline = ("--pipeline", folder / "warm/pipeline")
    run("create", *pipeline, *CREATE, "--output_dir", folder / "created")
    run("create", *pipeline, *CREATE, "--seed", 1, "--output_dir", folder / "others")
    return folder


@pytest.fixture
def improve(loop: Path, tmp_path: Path) -> Callable[..., dict[str, Tensor]]:
    """Self-improve three steps; the weights of theta_E."""

    def improve(*flags: object, created: str = "created") -> dict[str, Tensor]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        place = created if created == "none" else loop / created
        inputs = ("--pipeline", loop / "warm/pipeline", "--created", place)
        size = ("--max_train_steps", 3, "--follow_every", 4, "--output_dir", folder)
        run("self-improve", *inputs, *REAL, *size, *flags)
        weights = load_file(folder / "checkpoint-3/exploitation.safetensors")
        weights["theta_C"] = torch.cat(
            [
                one.flatten()
                for one in load_file(folder / "checkpoint-3/creation.safetensors").values()
            ]
        )
        return weights

    return improve


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_every_ingredient_changes_what_theta_e_learns(
    improve: Callable[..., dict[str, Tensor]],
) -> None:
    results = [
        improve(*flags)
        for flags in (
            ("--config", "paper"),
            (),
            ("--belief_views", "[image]"),
            ("--belief_views", "[image, mirror, larger]"),
            ("--feature_dropout", 0),
            ("--real_feature_dropout", 0.5),
            ("--cutmix", 0),
            ("--real_cutmix", 1),
            ("--created_weight", 2),
            ("--created_labels", "stored"),
            ("--created_batch_size", 0),
            ("--real_batch_size", 0, "--created_batch_size", 2),
        )
    ]
    for n, one in enumerate(results):
        assert not any(same(one, other) for other in results[:n]), n
    off = ("--belief_views", "[image]", "--feature_dropout", 0, "--alpha", 0.998)
    off += ("--cutmix", 0, "--real_cutmix", 0)
    assert same(results[0], improve(*off))


def test_weight_zero_is_the_baseline_of_a_union(
    improve: Callable[..., dict[str, Tensor]],
) -> None:
    """The draws depend on the number of created samples, and nothing else of them matters."""
    union = ("--mix", "union", "--max_train_steps", 3)
    one = improve(*union, "--created_weight", 0)
    assert same(one, improve(*union, "--created_weight", 0, created="others"))
    assert not same(one, improve(*union))
    assert not same(improve(*union), improve(*union, created="others"))


def test_stored_labels_are_those_of_the_dataset(
    loop: Path, improve: Callable[..., dict[str, Tensor]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Real rows as created samples with stored labels teach exactly what real samples teach."""
    imported = loop / "imported"
    run(
        "import", *REAL[:2], "--max_source_samples", 4, "--resolution", 32, "--output_dir", imported
    )
    flags = ("--created_labels", "stored", "--feature_dropout", 0, "--random_flip", "false")
    flags += ("--cutmix", 0)
    flags += ("--real_batch_size", 0, "--created_batch_size", 4, "--resolution", "32")
    stored = improve(*flags, created="imported")
    plain = ("--random_flip", "false", "--real_cutmix", 0)
    real = improve("--real_batch_size", 4, *plain, created="none")
    for name, tensor in real.items():
        # AdamW divides by small gradients
        torch.testing.assert_close(tensor, stored[name], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("steps", "batch", "every", "alpha"),
    [(500, 16, 40, 0.15 ** (1 / 200)), (1, 16, 40, 0.15), (9900, 8, 40, 0.15 ** (1 / 1980))],
)
def test_auto_alpha_leaves_the_warm_up_a_share_of_15_percent(
    steps: int, batch: int, every: int, alpha: float
) -> None:
    own = settings(max_train_steps=steps, follow_every=every)
    assert own.choose_alpha(batch) == pytest.approx(alpha, rel=1e-12)
    assert settings(alpha=0.9).choose_alpha(batch) == 0.9


@pytest.mark.parametrize(
    ("flags", "wrong"),
    [
        (("--alpha", 1.5), "--alpha 1.5: expected 0 to 1, or auto"),
        (("--feature_dropout", 1), "--feature_dropout 1.0: expected 0 to below 1"),
        (("--real_feature_dropout", -0.1), "--real_feature_dropout -0.1: expected 0 to below 1"),
        (("--cutmix", 1.1), "--cutmix 1.1: expected 0 to 1"),
        (("--belief_views", "[]"), "--belief_views []: expected at least one view, each once"),
        (("--belief_views", "[image, image]"), "expected at least one view, each once"),
        (("--created_weight", -1), "--created_weight -1.0: expected at least 0"),
        (("--created_batch_size", -1), "--created_batch_size -1: expected 0 to 65536"),
        (("--real_batch_size", -1), "--real_batch_size -1: expected 0 to 65536"),
        (("--real_batch_size", 0), "--real_batch_size and --created_batch_size are both 0"),
        (("--created", "none", "--mix", "union"), "--mix union needs a --created dataset"),
        (
            ("--created", "none", "--real_batch_size", 0, "--created_batch_size", 1),
            "--real_batch_size 0 needs a --created dataset",
        ),
    ],
)
def test_wrong_values_end_in_one_line(
    d2i1: Callable[..., str], loop: Path, tmp_path: Path, flags: tuple[object, ...], wrong: str
) -> None:
    inputs = ("--pipeline", loop / "warm/pipeline", "--created", loop / "created", *REAL)
    message = d2i1("self-improve", *inputs, *flags, "--output_dir", tmp_path / "out", code=2)
    assert wrong in message and not (tmp_path / "out").exists()


def test_the_training_record_says_how_created_samples_were_labelled(
    improve: Callable[..., dict[str, Tensor]], tmp_path: Path
) -> None:
    improve("--belief_views", "[image, larger]", "--feature_dropout", 0.3)
    record = json.loads((tmp_path / "0/pipeline/training.json").read_text())
    own = record["stages"][-1]["settings"]
    assert own["belief_views"] == ["image", "larger"] and own["feature_dropout"] == 0.3
    assert own["alpha"] == "auto"
