"""The contract of every task: its family's maps, its stored form, its loss and its meter."""

from typing import Any

import datasets
import numpy as np
import pytest
import torch
from datasets import Image
from numpy.typing import NDArray
from torch import Tensor

from d2i1_data.dataset.sample import Provenance, Quality, Sample
from d2i1_data.dataset.schema import Schema
from d2i1_data.diff2in1.families import Family
from d2i1_data.tasks import DEPTH, TASKS, Task
from tests.d2i1_data.family_cases import CASES

SIZES = [(41, 50), (48, 37), (30, 61), (45, 45)]
each_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


def random_map(
    family: Family, seed: int, size: tuple[int, int] = (13, 18), unknown: float = 0.2
) -> NDArray[Any]:
    """A plausible array of the family, a share of its pixels unknown."""
    rng = np.random.default_rng(seed)
    array = CASES[family.name].draw(family, rng, size)
    array[rng.random(size) < unknown] = family.unknown
    return array


def truth(family: Family, seed: int = 0, size: tuple[int, int] = (13, 18)) -> Tensor:
    return family.to_tensor(random_map(family, seed, size))[None]


def random_raw(family: Family, seed: int = 1, size: tuple[int, int] = (13, 18)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, family.raw_channels, *size, generator=generator)


def perfect_raw(family: Family, target: Tensor) -> Tensor:
    """A raw prediction that says the target, surely, wherever it is known."""
    return CASES[family.name].predict(family, target)


def spoiled(family: Family, array: NDArray[Any], seed: int) -> NDArray[Any]:
    """A fair prediction: the truth with noise, and something everywhere, as a model gives."""
    rng = np.random.default_rng(seed + 1000)
    other = random_map(family, seed + 100, array.shape[:2], unknown=0)
    known = known_in(family, array).reshape(*array.shape[:2], *(1,) * (array.ndim - 2))
    truth = np.where(known, array, other)
    return np.where(known, CASES[family.name].spoil(rng, truth, other), other)


def known_in(family: Family, array: NDArray[Any]) -> NDArray[np.bool_]:
    return np.any(array != family.unknown, -1) if array.ndim == 3 else array != family.unknown


def assert_same_map(family: Family, stored: NDArray[Any], array: NDArray[Any]) -> None:
    """Equal within what the PNG format keeps; unknown pixels exactly."""
    known = known_in(family, array)
    assert stored.shape == array.shape
    np.testing.assert_array_equal(known_in(family, stored), known)
    if family.name == "unit_vector":
        np.testing.assert_allclose(np.linalg.norm(stored[known], axis=-1), 1, atol=1e-5)
        cosine = (stored[known].astype(np.float64) * array[known]).sum(-1)
        assert np.rad2deg(np.arccos(np.clip(cosine, -1, 1))).max() < CASES[family.name].limit
    else:
        error = np.abs(stored[known].astype(np.float64) - array[known].astype(np.float64))
        assert error.max() <= CASES[family.name].limit


@each_task
def test_png_keeps_the_map(task: Task) -> None:
    array = random_map(task.family, 0, (40, 50))
    stored = task.family.from_png(task.family.to_png(array))
    assert_same_map(task.family, stored, array)
    again = task.family.from_png(task.family.to_png(stored))
    assert_same_map(task.family, again, stored)
    if task.family.name != "unit_vector":  # of vectors the length is restored, which may round anew
        np.testing.assert_array_equal(again, stored)


@each_task
def test_row_keeps_the_sample(task: Task) -> None:
    image = np.random.default_rng(0).integers(0, 256, (13, 18, 3), np.uint8)
    sample = Sample(
        "one",
        image,
        {task.name: random_map(task.family, 0)},
        "a caption",
        Provenance("created", "source", seed=2**40, strength=0.5, noise_seed=2**63 - 1),
        {task.name: Quality(confidence=0.5, flip=0.25)},
    )
    schema = Schema.of(TASKS)
    rows = datasets.Dataset.from_list([schema.to_row(sample)], features=schema.features)
    for name in ("image", *TASKS):
        rows = rows.cast_column(name, Image(decode=False))
    loaded = schema.from_row(rows[0])
    np.testing.assert_array_equal(loaded.image, image)
    assert list(loaded.targets) == [task.name]
    assert_same_map(task.family, loaded.targets[task.name], sample.targets[task.name])
    assert (loaded.id, loaded.caption) == ("one", "a caption")
    assert loaded.provenance == sample.provenance
    assert loaded.quality == sample.quality


@each_task
def test_array_and_tensor_are_the_same_map(task: Task) -> None:
    array = random_map(task.family, 0)
    tensor = task.family.to_tensor(array)
    assert tensor.shape == (task.family.channels, 13, 18)
    assert tensor.dtype == task.family.blank((2, 3)).dtype
    np.testing.assert_array_equal(task.family.to_array(tensor), array)
    np.testing.assert_array_equal(
        task.family.valid(tensor[None])[0, 0].numpy(), known_in(task.family, array)
    )
    assert not task.family.valid(task.family.blank((5, 6))[None]).any()


@each_task
def test_flip_twice_is_identity(task: Task) -> None:
    target, raw = truth(task.family), random_raw(task.family)
    flip = task.family.flip
    assert torch.equal(flip(flip(target)), target)
    assert torch.equal(flip(flip(raw)), raw)
    assert torch.equal(task.family.valid(flip(target)), task.family.valid(target).flip(-1))
    torch.testing.assert_close(task.family.finish(flip(raw)), flip(task.family.finish(raw)))


@each_task
def test_flip_mirrors_and_negates_x_of_vectors_only(task: Task) -> None:
    target = truth(task.family)
    sign = [-1, 1, 1] if task.family.name == "unit_vector" else [1]
    flipped = task.family.flip(target)
    for channel, s in enumerate(sign):
        assert torch.equal(flipped[:, channel, :, 0], s * target[:, channel, :, -1])


@each_task
@pytest.mark.parametrize("size", [(7, 9), (26, 36), (20, 11)])
def test_resize_mixes_no_pixels(task: Task, size: tuple[int, int]) -> None:
    target = truth(task.family)
    resized = task.family.resize(target, size)
    assert resized.shape[-2:] == size
    assert resized.dtype == target.dtype
    before = {tuple(v) for v in target[0].flatten(1).T.tolist()}
    after = {tuple(v) for v in resized[0].flatten(1).T.tolist()}
    assert after <= before
    known = task.family.valid(target)
    expected = torch.nn.functional.interpolate(known.float(), size, mode="nearest-exact") > 0
    assert torch.equal(task.family.valid(resized), expected)
    assert not known.all()


@each_task
@pytest.mark.parametrize("kind", ["random", "huge", "negative", "zero", "perfect"])
def test_loss_has_finite_gradients(task: Task, kind: str) -> None:
    target = truth(task.family)
    raw = {
        "random": random_raw(task.family),
        "huge": 1e4 * random_raw(task.family).sign(),
        "negative": torch.full_like(random_raw(task.family), -1e4),
        "zero": torch.zeros_like(random_raw(task.family)),
        "perfect": perfect_raw(task.family, target),
    }[kind].requires_grad_()
    loss = task.family.loss(raw, target)
    assert loss.shape == (1,)
    loss.sum().backward()
    assert raw.grad is not None
    assert loss.isfinite().all()
    assert raw.grad.isfinite().all()
    uncertainty = task.family.uncertainty(raw)
    assert uncertainty.shape == (1, 1, 13, 18)
    assert uncertainty.min() >= 0
    assert uncertainty.max() <= 1


@each_task
def test_truth_costs_least_and_is_surest(task: Task) -> None:
    target = truth(task.family)
    if task.family.name == "probability_map":
        target = torch.where(target >= 0, target.round(), target)  # a coin's truth is never sure
    raw, other = perfect_raw(task.family, target), random_raw(task.family)
    known = task.family.valid(target)
    finished = task.family.finish(raw)
    torch.testing.assert_close(
        torch.where(known, finished, 0), torch.where(known, target, 0), atol=1e-5, rtol=1e-5
    )
    assert task.family.loss(raw, target) < task.family.loss(other, target)
    sure, unsure = task.family.uncertainty(raw)[known], task.family.uncertainty(other)[known]
    assert sure.mean() < unsure.mean()


@each_task
def test_unknown_pixels_never_count(task: Task) -> None:
    family, target = task.family, truth(task.family)
    known = family.valid(target)
    raw = random_raw(family).requires_grad_()
    family.loss(raw, target).sum().backward()
    assert raw.grad is not None
    assert (raw.grad[(~known).expand_as(raw)] == 0).all()
    assert (raw.grad[known.expand_as(raw)] != 0).any()
    changed = torch.where(known, raw, 50 * random_raw(family, 7)).detach()
    assert torch.equal(family.loss(raw, target), family.loss(changed, target))
    one, other = family.finish(raw.detach()), family.finish(changed)
    assert not torch.equal(one, other)
    measure = task.meter.measure
    assert torch.equal(measure(one, target, known), measure(other, target, known))


@each_task
def test_nothing_known_is_no_loss_and_no_figure(task: Task) -> None:
    target = task.family.blank((13, 18))[None]
    raw = random_raw(task.family).requires_grad_()
    loss = task.family.loss(raw, target)
    loss.sum().backward()
    assert loss.item() == 0
    assert raw.grad is not None
    assert (raw.grad == 0).all()
    finished = task.family.finish(raw.detach())
    total = task.meter.measure(finished, target, task.family.valid(target)).sum(0)
    assert np.isnan(list(task.meter.summary(total).values())).all()


@each_task
def test_perfect_prediction_has_the_best_figures(task: Task) -> None:
    target = truth(task.family, size=(40, 50))
    known = task.family.valid(target)
    prediction = torch.where(known, target, 0)
    figures = task.meter.summary(task.meter.measure(prediction, target, known).sum(0))
    errors = {"mean", "median", "rmse", "abs_rel", "sq_rel", "log10", "rmse_log", "silog", "mae"}
    errors |= {"aligned_rmse", "aligned_abs_rel"}
    for name, figure in figures.items():
        best = 0.0 if name in errors else 1.0
        assert task.meter.higher_is_better(name) == (name not in errors)
        assert figure == pytest.approx(best, abs=0.006 if name == "median" else 1e-5), name
    assert set(task.meter.table_metrics) <= set(figures)
    assert task.meter.headline in figures


def angles(prediction: NDArray[Any], target: NDArray[Any]) -> dict[str, float]:
    p, t = prediction.astype(np.float64), target.astype(np.float64)
    lengths = np.linalg.norm(p, axis=-1) * np.linalg.norm(t, axis=-1)
    angle = np.sort(np.degrees(np.arccos(np.clip((p * t).sum(-1) / lengths, -1, 1))))
    return {
        "mean": angle.mean(),
        "median": angle[(len(angle) - 1) // 2],
        "rmse": np.sqrt((angle**2).mean()),
        **{f"under_{t:g}": (angle < t).mean() for t in (5, 7.5, 11.25, 11.5, 22.5, 30)},
    }


def distances(prediction: NDArray[Any], target: NDArray[Any]) -> dict[str, float]:
    p, t = prediction.astype(np.float64), target.astype(np.float64)
    factor = np.maximum(p / t, t / p)
    return {
        "rmse": np.sqrt(((p - t) ** 2).mean()),
        "abs_rel": (np.abs(p - t) / t).mean(),
        "sq_rel": ((p - t) ** 2 / t).mean(),
        "log10": np.abs(np.log10(p / t)).mean(),
        "rmse_log": np.sqrt((np.log(p / t) ** 2).mean()),
        "silog": 100 * np.log(p / t).std(),
        "delta1": (factor < 1.25).mean(),
        "delta2": (factor < 1.25**2).mean(),
        "delta3": (factor < 1.25**3).mean(),
    }


def overlaps(prediction: NDArray[Any], target: NDArray[Any]) -> dict[str, float]:
    shares = []
    for k in np.union1d(prediction, target):
        both = ((prediction == k) & (target == k)).sum()
        shares.append(both / ((prediction == k) | (target == k)).sum())
    return {"miou": np.mean(shares), "accuracy": (prediction == target).mean()}


def f_measure(prediction: NDArray[Any], target: NDArray[Any]) -> dict[str, float]:
    positive, best = target > 0.5, 0.0
    for threshold in np.arange(0.05, 0.96, 0.05):
        chosen = prediction > threshold
        hits = (chosen & positive).sum()
        if hits:
            precision, recall = hits / chosen.sum(), hits / positive.sum()
            best = max(best, 1.3 * precision * recall / (0.3 * precision + recall))
    return {"max_f": best, "mae": np.abs(prediction.astype(np.float64) - target).mean()}


def average_precision(prediction: NDArray[Any], target: NDArray[Any]) -> dict[str, float]:
    hits = (target > 0.5)[np.argsort(-prediction, kind="stable")]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return {"ap": precision[hits].mean()}


def aligned(task: Task, pairs: list[tuple[NDArray[Any], NDArray[Any]]]) -> dict[str, float]:
    fitted = []
    for prediction, target in pairs:
        p, t = prediction.astype(np.float64), target.astype(np.float64)
        scale, shift = np.linalg.lstsq(np.stack([p, np.ones_like(p)], 1), t, rcond=None)[0]
        fitted.append(np.maximum(scale * p + shift, 1e-6))
    figures = distances(np.concatenate(fitted), np.concatenate([target for _, target in pairs]))
    return {f"aligned_{name}": figures[name] for name in ("rmse", "abs_rel", "delta1")}


def in_all_classes(task: Task, pairs: list[tuple[NDArray[Any], NDArray[Any]]]) -> dict[str, float]:
    prediction, target = (np.concatenate(own) for own in zip(*pairs, strict=True))
    found = len(np.union1d(prediction, target))
    return {"miou_all": overlaps(prediction, target)["miou"] * found / len(task.family.names)}


# metrics for which the pixels of an image, or the number of classes, matter
MORE = {"depth": aligned, "semseg": in_all_classes, "human_parsing": in_all_classes}
REFERENCES = {
    "normals": angles,
    "depth": distances,
    "semseg": overlaps,
    "human_parsing": overlaps,
    "saliency": f_measure,
    "edges": average_precision,
}


def scored(task: Task) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Predictions and truths of several images of different sizes."""
    truths = [random_map(task.family, n, size) for n, size in enumerate(SIZES)]
    return [(spoiled(task.family, array, n), array) for n, array in enumerate(truths)]


def measured(task: Task, pairs: list[tuple[NDArray[Any], NDArray[Any]]]) -> Tensor:
    family, total = task.family, torch.zeros(())
    for prediction, array in pairs:
        target = family.to_tensor(array)[None]
        sums = task.meter.measure(family.to_tensor(prediction)[None], target, family.valid(target))
        assert sums.dtype == torch.float64
        total = total + sums.sum(0)
    return total


@each_task
def test_meter_agrees_with_a_plain_reference(task: Task) -> None:
    pairs = scored(task)
    known = [known_in(task.family, array) for _, array in pairs]
    pooled = [
        np.concatenate([pair[side][k] for pair, k in zip(pairs, known, strict=True)])
        for side in (0, 1)
    ]
    expected = REFERENCES[task.name](*pooled)
    if task.name in MORE:
        inside = zip(pairs, known, strict=True)
        expected |= MORE[task.name](task, [(pair[0][k], pair[1][k]) for pair, k in inside])
    figures = task.meter.summary(measured(task, pairs))
    assert set(figures) == set(expected)
    for name, figure in figures.items():
        tolerance = {"median": 0.0051, "ap": 2e-3}.get(name, 1e-6)
        assert figure == pytest.approx(expected[name], abs=tolerance, rel=1e-5), name


def wrong_by(task: Task, prediction: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
    """Every pixel's error in plain numpy."""
    p, t = prediction.astype(np.float64), target.astype(np.float64)
    if task.name == "normals":
        return np.degrees(np.arccos(np.clip((p * t).sum(-1), -1, 1)))
    if task.name == "depth":
        return np.abs(p / t - 1)
    return np.abs(p - t) if task.name in ("saliency", "edges") else p != t


@each_task
def test_error_of_every_pixel(task: Task) -> None:
    array = random_map(task.family, 0)
    prediction, known = spoiled(task.family, array, 0), known_in(task.family, array)
    tensors = (task.family.to_tensor(one)[None] for one in (prediction, array))
    found = task.meter.error(*tensors)
    assert found.shape == (1, 1, 13, 18)
    expected = wrong_by(task, prediction[known], array[known])
    assert expected.mean() > 0.05
    np.testing.assert_allclose(found[0, 0].numpy()[known], expected, atol=5e-4)


def test_alignment_undoes_a_scale_and_a_shift() -> None:
    target = truth(DEPTH.family)
    known = DEPTH.family.valid(target)
    for prediction in (target * 0.3 + 2, torch.where(known, target, 99.0) * 5 - 1):
        figures = DEPTH.meter.summary(DEPTH.meter.measure(prediction, target, known)[0])
        assert figures["aligned_abs_rel"] < 1e-6 < figures["abs_rel"]
        assert figures["aligned_delta1"] == 1
    flat = DEPTH.meter.summary(DEPTH.meter.measure(target * 0 + 7, target, known)[0])
    assert flat["aligned_rmse"] == pytest.approx(target[known].std(correction=0).item(), rel=1e-5)


def test_scores_of_single_classes() -> None:
    meter = TASKS["semseg"].with_classes(["sky", "road", "tree", "car"]).meter
    target = torch.tensor([[0, 0, 1], [1, 1, 255]])[None, None]
    prediction = torch.tensor([[0, 1, 1], [1, 2, 2]])[None, None]
    total = meter.measure(prediction, target, target != 255)[0]
    found = meter.by_class(total)
    assert found is not None
    assert found.confusion == [[1, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(found.iou, [0.5, 0.5, 0, np.nan])
    figures = meter.summary(total)
    assert (figures["miou"], figures["miou_all"]) == (pytest.approx(1 / 3), 0.25)
    assert DEPTH.meter.by_class(torch.zeros(13)) is None


@each_task
def test_meter_merges_by_addition(task: Task) -> None:
    pairs = scored(task)
    parts = measured(task, pairs[:1]) + measured(task, pairs[1:])
    torch.testing.assert_close(parts, measured(task, pairs), rtol=1e-12, atol=1e-9)
    family = task.family
    arrays = [random_map(family, n) for n in range(3)]
    target = torch.stack([family.to_tensor(a) for a in arrays])
    predicted = [spoiled(family, a, n) for n, a in enumerate(arrays)]
    prediction = torch.stack([family.to_tensor(p) for p in predicted])
    batch = task.meter.measure(prediction, target, family.valid(target))
    assert len(batch) == 3
    for n in range(3):  # a sample's sums do not depend on its batch
        alone = measured(task, [(predicted[n], arrays[n])])
        torch.testing.assert_close(batch[n], alone, rtol=1e-12, atol=1e-9)


@each_task
def test_agreement(task: Task) -> None:
    target = truth(task.family)
    assert task.family.agreement(target, target).tolist() == [1.0]
    far = task.family.finish(10 * random_raw(task.family, 5))
    assert 0 <= task.family.agreement(target, far).item() < 0.9
    unknown = task.family.blank((13, 18))[None]
    assert task.family.agreement(target, unknown).isnan().all()


@each_task
def test_average_of_what_is_known(task: Task) -> None:
    family, size = task.family, (5, 7)
    arrays = [random_map(family, n, size, unknown=0.5) for n in range(9)]
    for array in arrays:
        array[0, :3] = family.unknown
    known = np.stack([known_in(family, array) for array in arrays])
    found = family.average(torch.stack([family.to_tensor(array) for array in arrays]))
    assert found.dtype == family.dtype
    average = family.to_array(found)
    assert not known[:, 0, :3].any() and 0 < known[:, 1:].mean() < 1
    np.testing.assert_array_equal(known_in(family, average), known.any(0))
    for row, column in np.argwhere(known.any(0)):
        values = np.stack(arrays)[known[:, row, column], row, column]
        expected = CASES[family.name].average(values)
        np.testing.assert_allclose(average[row, column], expected, atol=1e-5, rtol=1e-5)


@each_task
def test_average_of_equal_maps_is_the_map(task: Task) -> None:
    target = truth(task.family)
    average = task.family.average(target.expand(4, -1, -1, -1))
    torch.testing.assert_close(average, target[0], atol=1e-6, rtol=1e-6)


def test_opposite_directions_have_no_average() -> None:
    vectors = torch.tensor([[0.6, 0.8, 0.0], [-0.6, -0.8, 0.0]])[:, :, None, None]
    assert not TASKS["normals"].family.average(vectors).any()


@each_task
def test_distances_alone_end_somewhere(task: Task) -> None:
    family, target = task.family, truth(task.family)
    prediction = truth(family, 1)
    assert family.in_metres == (task is DEPTH)
    clipped, near = family.within(prediction, target, 20.0)
    if not family.in_metres:
        assert torch.equal(clipped, prediction) and torch.equal(near, target)
        return
    assert torch.equal(clipped, prediction.clamp(max=20)) and clipped.max() == 20
    assert torch.equal(family.valid(near), (target > 0) & (target <= 20))
    assert torch.equal(near[family.valid(near)], target[family.valid(near)])
    assert family.valid(near).sum() < family.valid(target).sum()


@each_task
def test_problem_names_what_is_wrong(task: Task) -> None:
    family, good = task.family, random_map(task.family, 0)
    assert family.find_problem(good) is None
    outside = good.astype(np.float32) if good.dtype != np.uint8 else good.astype(np.int64)
    outside[0, 0] = CASES[family.name].outside
    nan = good.astype(np.float32)
    nan[0, 0] = np.nan
    for wrong in (outside, nan, good[0], good[..., None], np.stack([good, good], -1)):
        problem = family.find_problem(wrong)
        assert problem, wrong.shape
        assert "\n" not in problem
    if family.names:
        assert f"0 to {len(family.names) - 1}" in str(family.find_problem(outside))


@each_task
def test_colours_show_the_known_pixels(task: Task) -> None:
    picture = task.family.colorize(random_map(task.family, 0))
    assert (picture.shape, picture.dtype) == ((13, 18, 3), np.uint8)
    blank = task.family.to_array(task.family.blank((13, 18)))
    assert not task.family.colorize(blank).any()
    assert picture.any()


def test_depth_beyond_the_format_is_unknown() -> None:
    family = DEPTH.family
    array = np.array([[65.534, 65.535, 65.536, 1000.0, 0.0]], np.float32)
    stored = family.from_png(family.to_png(array))
    np.testing.assert_allclose(stored, [[65.534, 65.535, 0, 0, 0]], rtol=1e-6)
    assert family.count_too_large(array) == 2
