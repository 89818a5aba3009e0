"""Sparsification: binned sums give the curves that sorting every pixel gives."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from d2i1_data.inspection.evaluation.sparsification import KEPT, Curve, Sparsification, curve, plot
from d2i1_data.tasks import TASKS

PIXELS = 50_000


def found(uncertainty: Tensor, error: Tensor, valid: Tensor | None = None) -> Curve:
    valid = torch.ones_like(error, dtype=torch.bool) if valid is None else valid
    watch = Sparsification(["one"])
    watch.add("one", uncertainty, error, valid)
    return curve(watch.sums["one"])


def by_sorting(key: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Mean error of the pixels with the smallest keys, at every share."""
    ranked = error[np.argsort(key, kind="stable")]
    return np.array([ranked[: round(share * len(ranked))].mean() for share in KEPT])


def draw(kind: str) -> tuple[Tensor, Tensor]:
    """Uncertainties and errors that go with them a little."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(PIXELS, generator=generator)
    uncertainty = {
        "even": torch.rand(PIXELS, generator=generator),
        "narrow": 0.31 + 0.001 * torch.rand(PIXELS, generator=generator),
        "almost sure": torch.exp(-12 + noise),
        "almost unsure": 1 - torch.exp(-9 + noise),
    }[kind]
    rank = uncertainty.argsort().argsort() / PIXELS
    spread = torch.exp(0.3 * torch.randn(PIXELS, generator=generator))
    return uncertainty.view(1, 1, 50, -1), ((0.1 + rank) * spread).view(1, 1, 50, -1)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 90.0])
@pytest.mark.parametrize("kind", ["even", "narrow", "almost sure", "almost unsure"])
def test_curves_are_those_of_an_exact_sort(kind: str, scale: float) -> None:
    uncertainty, error = draw(kind)
    one = found(uncertainty, scale * error)
    key, plain = uncertainty.flatten().numpy(), scale * error.flatten().double().numpy()
    expected, best = by_sorting(key, plain), by_sorting(plain, plain)
    np.testing.assert_allclose(one.error, expected, rtol=3e-3)
    np.testing.assert_allclose(one.oracle, best, rtol=1e-4)
    share, gap = [*(1 - np.array(KEPT)), 1.0], [*(expected - best), 0.0]
    assert one.ause == pytest.approx(np.trapezoid(gap, share), rel=3e-3)
    assert one.ause > 0.02 * scale


def test_wrong_and_right_pixels() -> None:
    """Errors of 0 and 1: the oracle has none left once all wrong ones are out."""
    uncertainty, error = draw("even")
    wrong = (torch.rand(error.shape, generator=torch.Generator().manual_seed(1)) < 0.3).double()
    one = found(uncertainty, wrong)
    share = wrong.mean().item()
    expected = [max(0, share - (1 - kept)) / kept for kept in KEPT]
    np.testing.assert_allclose(one.oracle, expected, atol=1e-9)
    np.testing.assert_allclose(one.error, share, atol=0.02)  # said nothing of them


def test_errors_as_uncertainty_are_the_oracle() -> None:
    _, error = draw("even")
    one = found(error / error.max(), error)
    assert one.ause == pytest.approx(0, abs=1e-4)
    assert one.oracle[-1] < 0.2 * one.oracle[0]
    np.testing.assert_allclose(one.error, one.oracle, rtol=1e-3)


def test_equal_uncertainty_has_no_skill() -> None:
    _, error = draw("even")
    for value in (0.0, 0.4, 1.0):
        one = found(torch.full_like(error, value), error)
        np.testing.assert_allclose(one.error, error.double().mean().item(), rtol=1e-9)


def test_unknown_pixels_are_left_out_and_sums_merge() -> None:
    uncertainty, error = draw("even")
    valid = torch.rand(error.shape, generator=torch.Generator().manual_seed(2)) < 0.5
    one = found(uncertainty, torch.where(valid, error, torch.nan), valid)
    known = found(uncertainty[valid], error[valid])
    np.testing.assert_array_equal(one.error, known.error)
    np.testing.assert_array_equal(one.oracle, known.oracle)
    parts = [Sparsification(["one"]) for _ in range(3)]  # the last has no sample
    for part, watch in zip((slice(0, 20), slice(20, 50)), parts, strict=False):
        rows = [each[:, :, part] for each in (uncertainty, error, valid)]
        watch.add("one", *rows)
    merged = curve(torch.stack([watch.sums["one"] for watch in parts]).sum(0))
    np.testing.assert_allclose(merged.error, one.error, rtol=1e-12)
    assert merged.ause == pytest.approx(one.ause, rel=1e-9)


def test_nothing_known_has_no_curve() -> None:
    uncertainty, error = draw("even")
    one = found(uncertainty, error, torch.zeros_like(error, dtype=torch.bool))
    assert np.isnan([*one.error, *one.oracle, one.ause]).all()


@pytest.mark.parametrize("count", [1, 4, 6])
def test_a_picture_has_a_panel_for_every_task(count: int, tmp_path: Path) -> None:
    uncertainty, error = draw("even")
    tasks = dict(list(TASKS.items())[:count])
    file = tmp_path / "new" / "curves.png"
    one = found(uncertainty, error)
    plot({name: {"one": one} for name in tasks}, tasks, file)
    assert file.stat().st_size < 200_000
    with Image.open(file) as drawn:
        width, height = drawn.size
        blue = np.asarray(drawn.convert("RGB")).astype(int) @ [-1, 0, 1] > 100  # the curves
    columns, rows = min(count, 3), -(-count // 3)
    assert width > 350 * columns and height > 300 * rows
    for place in range(columns * rows):
        row, column = divmod(place, columns)
        panel = blue[35:][row * (height - 35) // rows :, column * width // columns :]
        drawn_here = panel[: (height - 35) // rows, : width // columns].sum() > 200
        assert drawn_here == (place < count), place
