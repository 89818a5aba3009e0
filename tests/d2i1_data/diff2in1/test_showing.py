"""Ensembles of predictions, and outputs as pictures and files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from d2i1_data import Diff2in1Pipeline
from d2i1_data.dataset.schema import describe_tasks
from d2i1_data.diff2in1.families import Family, make_family
from d2i1_data.diff2in1.prediction import choose_views
from d2i1_data.tasks import TASKS
from tests.d2i1_data.family_cases import CASES

each_family = pytest.mark.parametrize(
    "family", [make_family(case.config) for case in CASES.values()], ids=CASES
)


def picture(height: int = 16, width: int = 24, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


# --- ensembles ---


def test_an_ensemble_of_one_and_of_two(tiny_pipe: Diff2in1Pipeline) -> None:
    plain, one = tiny_pipe.predict(picture()), tiny_pipe.predict(picture(), ensemble_size=1)
    flip, two = (
        tiny_pipe.predict(picture(), flip=True),
        tiny_pipe.predict(picture(), ensemble_size=2),
    )
    for name in plain.predictions:
        for field in ("predictions", "uncertainty"):
            np.testing.assert_array_equal(plain[field][name], one[field][name])
        np.testing.assert_array_equal(flip.predictions[name], two.predictions[name])
    assert not np.array_equal(flip.uncertainty["normals"], two.uncertainty["normals"])


@pytest.mark.parametrize(("size", "window"), [((13, 9), None), ((3, 20), None), ((9, 20), 16)])
def test_a_larger_ensemble(
    tiny_pipe: Diff2in1Pipeline, size: tuple[int, int], window: int | None
) -> None:
    image, options = picture(*size), {"ensemble_size": 3, "window": window}
    found, again = (tiny_pipe.predict(image, **options) for _ in range(2))
    two = tiny_pipe.predict(image, ensemble_size=2, window=window)
    for name, (one,) in found.uncertainty.items():
        assert one.shape == size and ((one >= 0) & (one <= 1)).all()
        np.testing.assert_array_equal(one, again.uncertainty[name][0])
    assert not np.array_equal(found.predictions["depth"], two.predictions["depth"])
    assert found.expected_error["normals"][0].shape == size
    assert "semseg" not in found.expected_error


@pytest.mark.parametrize(
    ("own", "enlarged"),
    [((64, 64), (80, 80)), ((32, 64), (32, 80)), ((60, 70), (64, 80)), ((3, 40), (16, 48))],
)
def test_enlarged_views_need_no_padding(own: tuple[int, int], enlarged: tuple[int, int]) -> None:
    plain, mirrored, *larger = choose_views(4)
    assert plain.size(own, 16) == mirrored.size(own, 16) == own
    assert [view.size(own, 16) for view in larger] == [enlarged] * 2
    assert [view.mirrored for view in choose_views(4)] == [False, True, False, True]


@pytest.mark.parametrize(
    "options", [{"ensemble_size": 0}, {"ensemble_size": 5}, {"ensemble_size": 2, "flip": True}]
)
def test_ensembles_that_cannot_be(tiny_pipe: Diff2in1Pipeline, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="ensemble_size"):
        tiny_pipe.predict(picture(), **{"ensemble_size": 0, **options})


def members(family: Family, count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (count, 2, family.raw_channels, 8, 12)
    return list(torch.randn(shape, generator=generator))


@each_family
def test_a_members_own_answer_is_as_unsure_as_the_member(family: Family) -> None:
    (raw,) = members(family, 1)
    own = family.uncertainty_about(raw, family.finish(raw))
    torch.testing.assert_close(own, family.uncertainty(raw), atol=1e-4, rtol=1e-4)
    error, wanted = family.expected_error_about(raw, family.finish(raw)), family.expected_error(raw)
    assert (error is None) == (wanted is None)
    if error is not None:
        torch.testing.assert_close(error, wanted, atol=1e-3, rtol=1e-4)


@each_family
def test_members_that_differ_are_less_sure(family: Family) -> None:
    raws = members(family)
    linear = torch.stack([family.to_linear(raw) for raw in raws]).mean(0)
    mean = family.from_linear(linear)
    answer = family.finish(mean)
    found = torch.stack([family.uncertainty_about(raw, answer) for raw in raws]).mean(0)
    own = torch.stack([family.uncertainty(raw) for raw in raws]).mean(0)
    assert ((found >= 0) & (found <= 1)).all() and found.mean() > own.mean()
    if family.expected_error(mean) is None:  # averaged probabilities hold all that there is
        torch.testing.assert_close(found, family.uncertainty(mean), atol=1e-4, rtol=1e-4)
    simple = Family.uncertainty_about(family, raws[0], answer)  # of a family without its own
    agrees = family.agrees(family.finish(raws[0]), answer)
    assert (simple[~agrees] == 1).all()
    assert torch.equal(simple[agrees], family.uncertainty(raws[0])[agrees])


def test_the_uncertainty_of_distances_is_that_of_their_distribution() -> None:
    family = make_family(CASES["metric_map"].config)
    rng = np.random.default_rng(0)
    for apart in (0.0, 0.1, 0.4):
        raw = torch.tensor([apart, -1.5]).view(1, 2, 1, 1)
        scale = family.expected_error(raw).item()
        logs = np.abs(rng.laplace(apart, scale, 400_000))  # of truth over an answer of one metre
        found = family.uncertainty_about(raw, torch.ones(1, 1, 1, 1)).item()
        assert found == pytest.approx((logs > np.log(1.25)).mean(), abs=0.005)
        error = family.expected_error_about(raw, torch.ones(1, 1, 1, 1)).item()
        assert error == pytest.approx(logs.mean(), abs=0.005)


# --- pictures and files ---


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest, tiny_base: Path) -> tuple[str, Diff2in1Pipeline]:
    """A task, and a pipeline that perceives it alone."""
    name = request.param
    config = describe_tasks({name: TASKS[name]})
    pipe = Diff2in1Pipeline.from_base(str(tiny_base), "light", config, width=16)
    return name, pipe


@pytest.mark.parametrize("output_type", ["pil", "np", "pt"])
def test_every_task_is_shown_and_exported(
    task: tuple[str, Diff2in1Pipeline], output_type: Any, tmp_path: Path
) -> None:
    name, pipe = task
    image, family = picture(13, 9), pipe.perception.families[task[0]]
    output = pipe.predict([image, picture(8, 8)], output_type=output_type)
    expected = pipe.predict([image, picture(8, 8)]).predictions[name][0]
    (first, second) = pipe.visualize(output)[name]
    assert first.size == (9, 13) and second.size == (8, 8)
    np.testing.assert_array_equal(np.asarray(first), family.colorize(expected))
    unsure = pipe.visualize(output, "uncertainty")[name][0]
    assert unsure.mode == "L" and unsure.size == (9, 13)

    files = pipe.export(output, tmp_path / "out", ["a", "b"])
    assert {*files} == {file for file in (tmp_path / "out").rglob("*") if file.is_file()}
    kinds = ("labels", "arrays", "pictures", "overlays", "uncertainty")
    assert len(files) == 2 * (1 + len(kinds))
    out = {kind: tmp_path / "out" / kind / name / "a" for kind in kinds}
    np.testing.assert_array_equal(np.load(out["arrays"].with_suffix(".npy")), expected)
    assert out["labels"].with_suffix(".png").read_bytes() == family.to_png(expected)
    np.testing.assert_array_equal(Image.open(tmp_path / "out" / "images" / "a.png"), image)
    np.testing.assert_array_equal(Image.open(out["pictures"].with_suffix(".png")), first)
    sixteen = np.asarray(Image.open(out["uncertainty"].with_suffix(".png")))
    assert sixteen.dtype == np.uint16
    stored = output.uncertainty[name][0]
    stored = stored[0].numpy() if output_type == "pt" else stored
    np.testing.assert_allclose(sixteen / 65535, stored, atol=1e-5)


def test_depth_is_exported_in_millimetres(tiny_pipe: Diff2in1Pipeline, tmp_path: Path) -> None:
    output = tiny_pipe(picture(), num_inference_steps=2)
    tiny_pipe.export(output, tmp_path)
    millimetres = np.asarray(Image.open(tmp_path / "labels" / "depth" / "00000.png"))
    assert millimetres.dtype == np.uint16
    np.testing.assert_array_equal(millimetres, np.round(output.predictions["depth"][0] * 1000))


def test_nothing_is_overwritten(tiny_pipe: Diff2in1Pipeline, tmp_path: Path) -> None:
    output = tiny_pipe.predict(picture())
    tiny_pipe.export(output, tmp_path, ["a"])
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    for names, wrong in ((["a"], "a.png exists"), (["../a"], "without folders"), ([], "0 diff")):
        with pytest.raises(ValueError, match=wrong):
            tiny_pipe.export(output, tmp_path, names)
    latents = tiny_pipe(picture(), num_inference_steps=2, output_type="latent")
    with pytest.raises(ValueError, match="latents cannot be exported"):
        tiny_pipe.export(latents, tmp_path, ["b"])
    with pytest.raises(ValueError, match="expected predictions or uncertainty"):
        tiny_pipe.visualize(output, "images")
    after = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    assert before == after
