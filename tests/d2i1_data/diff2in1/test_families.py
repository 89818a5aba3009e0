"""Families: formulas against plain numpy, and the way into a checkpoint's config and back."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from d2i1_data.diff2in1 import FAMILIES, make_family
from d2i1_data.diff2in1.families import LabelMap, MetricMap, UnitVector
from tests.d2i1_data.family_cases import CASES, NAMES

PALETTE = [[1, 2, 3], [40, 50, 60], [255, 0, 9]]
CONFIGS = [case.config for case in CASES.values()]
CONFIGS.append({"family": "label_map", "names": NAMES, "palette": PALETTE})
KAPPAS = (0.02, 0.3, 1.0, 4.0, 40.0)


def activation_of(kappa: float) -> float:
    """What elu + 1.01 makes kappa."""
    return kappa - 1.01 if kappa > 1.01 else np.log(kappa - 0.01)


def draw_vectors(seed: int, size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Raw [B, 4, H, W] and unit vectors [B, 3, H, W], the first row of one sample unknown, and all
    of the last sample; the second sample's first pixel is right, its second opposite."""
    rng = np.random.default_rng(seed)
    raw = 2 * rng.normal(size=(size[0], 4, *size[1:]))
    target = rng.normal(size=(size[0], 3, *size[1:]))
    target /= np.linalg.norm(target, axis=1, keepdims=True)
    right = raw[1, :3, 0, :2] / np.linalg.norm(raw[1, :3, 0, :2], axis=0)
    target[1, :, 0, :2] = right * [1, -1]
    target[0, :, 0] = 0
    target[-1] = 0
    return raw, target


def test_unit_vector_loss_is_the_angular_von_mises_fisher_likelihood() -> None:
    """Bae et al. 2021 (arXiv 2109.09881), eq. 5, with their activation of kappa."""
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(3, 4, 5, 6)).astype(np.float32) * 2
    target = rng.normal(size=(3, 3, 5, 6)).astype(np.float32)
    target /= np.linalg.norm(target, axis=1, keepdims=True)
    target[0, :, :2] = 0  # unknown
    target[2] = 0  # nothing known

    vectors = raw[:, :3].astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    theta = np.arccos(np.clip((vectors * target).sum(1), -1, 1))
    activation = raw[:, 3].astype(np.float64)
    k = np.where(activation > 0, activation, np.exp(activation) - 1) + 1.01
    error = -np.log(k**2 + 1) + k * theta + np.log(1 + np.exp(-k * np.pi))
    error /= k  # each pixel weighted by its spread, beta-NLL
    expected = [error[0, 2:].mean(), error[1].mean(), 0]

    found = make_family({"family": "unit_vector"}).loss(
        torch.from_numpy(raw), torch.from_numpy(target)
    )
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def nll_of(raw: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bae et al. 2021, as their released code computes it, and the cosines, [B, H, W]."""
    cosine = (raw[:, :3] * target).sum(1) / np.linalg.norm(raw[:, :3], axis=1)
    kappa = np.where(raw[:, 3] > 0, raw[:, 3], np.expm1(np.minimum(raw[:, 3], 0))) + 1.01
    angle = np.arccos(np.clip(cosine, -1, 1))
    return -np.log(kappa**2 + 1) + kappa * angle + np.log(1 + np.exp(-kappa * np.pi)), cosine


def test_nll_and_both_means_of_it() -> None:
    raw, target = draw_vectors(0, (4, 5, 6))
    error, cosine = nll_of(raw, target)
    known = np.linalg.norm(target, axis=1) > 0
    family, tensors = UnitVector(), (torch.from_numpy(raw), torch.from_numpy(target))
    found = family.nll(*tensors)[:, 0].numpy()
    np.testing.assert_allclose(found[known], error[known], atol=1e-5, rtol=0)  # at angle 0
    np.testing.assert_allclose(found[2], error[2], atol=1e-7)
    means = [error[0, 1:].mean(), error[1].mean(), error[2].mean(), 0]
    np.testing.assert_allclose(family.nll_loss(*tensors).numpy(), means, atol=1e-6)
    counted = known & (abs(cosine) < 0.999)
    assert counted.sum() == known.sum() - 2  # the right one and the opposite one
    pooled = family.nll_loss(*tensors, pooled=True).numpy()
    np.testing.assert_allclose(pooled, [error[counted].mean()] * 4, atol=1e-7)
    nothing = torch.zeros(2, 3, 5, 6)
    for both in (False, True):
        assert not family.nll_loss(torch.ones(2, 4, 5, 6), nothing, pooled=both).any()


@pytest.mark.parametrize("kappa", KAPPAS)
def test_density_integrates_to_one_and_has_the_expected_error(kappa: float) -> None:
    """Over the sphere, with the midpoint rule in the angle."""
    steps = 200_000
    angle = (np.arange(steps) + 0.5) * np.pi / steps
    target = np.stack([np.sin(angle), np.zeros(steps), np.cos(angle)])[None, :, None]
    raw = np.zeros((1, 4, 1, steps))
    raw[:, 2], raw[:, 3] = 3.0, activation_of(kappa)
    family, tensors = UnitVector(), (torch.from_numpy(raw), torch.from_numpy(target))
    density = np.exp(-family.nll(*tensors).numpy().ravel()) / (2 * np.pi)
    ring = density * 2 * np.pi * np.sin(angle) * np.pi / steps
    assert ring.sum() == pytest.approx(1, abs=1e-6)
    expected = np.rad2deg((ring * angle).sum())
    found = family.expected_error(tensors[0])
    assert found.numpy() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kappa", KAPPAS[:-1])
def test_expected_error_is_that_of_samples(kappa: float) -> None:
    """Directions drawn evenly, each kept as often as the density at it says."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(400_000, 3))
    angle = np.arccos(vectors[:, 2] / np.linalg.norm(vectors, axis=1))
    kept = np.rad2deg(angle[rng.random(len(angle)) < np.exp(-kappa * angle)])
    assert len(kept) > 10_000
    raw = torch.tensor([0.0, 0.0, 0.5, activation_of(kappa)])[None, :, None, None]
    error = kept.std() / len(kept) ** 0.5
    assert abs(UnitVector().expected_error(raw).item() - kept.mean()) < 4 * error


def test_settled_answers_come_back() -> None:
    vectors, distances = UnitVector(), MetricMap()
    raw = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0)) * 4
    settled = vectors.to_linear(raw)
    torch.testing.assert_close(settled[:, :3].norm(dim=1), torch.ones(2, 5, 6))
    again = vectors.from_linear(settled)
    torch.testing.assert_close(vectors.finish(again), vectors.finish(raw))
    torch.testing.assert_close(vectors.kappa(again), vectors.kappa(raw), atol=2e-6, rtol=1e-6)
    again = distances.from_linear(distances.to_linear(raw[:, :2]))
    torch.testing.assert_close(distances.finish(again), distances.finish(raw[:, :2]))
    torch.testing.assert_close(distances.uncertainty(again), distances.uncertainty(raw[:, :2]))


def draw_distances(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Raw [3, 2, 4, 5] and metres [3, 1, 4, 5], partly and in the last sample all unknown."""
    rng = np.random.default_rng(seed)
    raw, metres = rng.normal(size=(3, 2, 4, 5)), rng.uniform(0.5, 9, (3, 1, 4, 5))
    metres[0, 0, :2], metres[-1] = 0, 0
    return raw, metres


@pytest.mark.parametrize("keep", [0.15, 0.5, 1.0])
def test_silog(keep: float) -> None:
    """Eigen et al. 2014, with what iDisc and VPD keep of the mean."""
    raw, metres = draw_distances(0)
    known = metres[:, 0] > 0
    ratio = raw[:, 0] - np.log(np.where(known, metres[:, 0], 1))

    def formula(error: np.ndarray) -> float:
        return np.sqrt(error.var() + keep * error.mean() ** 2)

    family, tensors = MetricMap(), (torch.from_numpy(raw), torch.from_numpy(metres))
    expected = [formula(ratio[0, 2:]), formula(ratio[1]), 0]
    # the root begins at 1e-3, where its gradient is finite
    np.testing.assert_allclose(family.silog(*tensors, keep).numpy(), expected, atol=1e-3)
    exact = [np.sqrt(e**2 + 1e-6) - 1e-3 for e in expected]
    np.testing.assert_allclose(family.silog(*tensors, keep).numpy(), exact, atol=1e-9)
    pooled = np.sqrt(formula(ratio[known]) ** 2 + 1e-6) - 1e-3
    found = family.silog(*tensors, keep, pooled=True).numpy()
    np.testing.assert_allclose(found, [pooled] * 3, atol=1e-9)
    perfect = torch.cat([tensors[1][:2].log().nan_to_num(neginf=0), tensors[0][:2, 1:]], 1)
    perfect.requires_grad_()
    loss = family.silog(perfect, tensors[1][:2], keep)
    loss.sum().backward()
    assert loss.abs().max() < 1e-9 and perfect.grad is not None
    assert perfect.grad.isfinite().all()


def test_scale_loss_teaches_only_the_scale() -> None:
    raw, metres = draw_distances(1)
    known = metres[:, 0] > 0
    error = abs(raw[:, 0] - np.log(np.where(known, metres[:, 0], 1)))
    log_scale = 5 * np.tanh(raw[:, 1] / 5)
    nll = error / np.exp(log_scale) + log_scale
    tensors = torch.from_numpy(raw).requires_grad_(), torch.from_numpy(metres)
    found = MetricMap().scale_loss(*tensors)
    expected = [nll[0, 2:].mean(), nll[1].mean(), 0]
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-9)
    found.sum().backward()
    assert tensors[0].grad is not None and not tensors[0].grad[:, 0].any()
    assert tensors[0].grad[1, 1].all()


def test_label_map_loss_is_cross_entropy() -> None:
    rng = np.random.default_rng(0)
    raw, ids = 3 * rng.normal(size=(3, 3, 4, 5)), rng.integers(0, 3, (3, 1, 4, 5))
    ids[0, 0, :2], ids[-1] = 255, 255
    picked = np.take_along_axis(raw, np.where(ids == 255, 0, ids), 1)[:, 0]
    error = np.log(np.exp(raw).sum(1)) - picked
    expected = [error[0, 2:].mean(), error[1].mean(), 0]
    found = LabelMap(NAMES).loss(torch.from_numpy(raw), torch.from_numpy(ids))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("pooled", [False, True])
def test_gradients_are_those_of_the_losses(pooled: bool) -> None:
    raw, target = (torch.from_numpy(one) for one in draw_vectors(2, (3, 3, 4)))
    target[1, :, 0, :2] = target[1, :, 1, :2]  # at angle 0 there is a corner
    vectors, distances, labels = UnitVector(), MetricMap(), LabelMap(NAMES)

    def check(loss: Callable[[Tensor], Tensor], raw: Tensor) -> None:
        assert loss(raw).dtype == torch.float64
        torch.autograd.gradcheck(loss, raw.detach().clone().requires_grad_())

    check(lambda x: vectors.nll_loss(x, target, pooled=pooled), raw)
    check(lambda x: vectors.nll_loss(vectors.from_linear(vectors.to_linear(x)), target), raw)
    raw, metres = (torch.from_numpy(one) for one in draw_distances(2))
    check(lambda x: distances.silog(x, metres, 0.15, pooled=pooled), raw)
    check(lambda x: distances.scale_loss(torch.cat([raw[:, :1], x], 1), metres), raw[:, 1:])
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (3, 1, 4, 5)))
    check(lambda x: labels.loss(x, ids), torch.cat([raw, raw[:, :1] ** 2], 1))


def test_metric_map_loss_is_laplace_in_log_depth() -> None:
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(2, 2, 3, 4)).astype(np.float32)
    depth = rng.uniform(0.5, 9, (2, 1, 3, 4)).astype(np.float32)
    depth[0, 0, 0] = 0  # unknown
    log_scale = 5 * np.tanh(raw[:, 1] / 5)
    with np.errstate(divide="ignore"):
        error = np.abs(raw[:, 0] - np.log(depth[:, 0])) / np.exp(log_scale) + log_scale
    error *= np.exp(log_scale)  # each pixel weighted by its spread, beta-NLL
    found = make_family({"family": "metric_map"}).loss(
        torch.from_numpy(raw), torch.from_numpy(depth)
    )
    np.testing.assert_allclose(found.numpy(), [error[0, 1:].mean(), error[1].mean()], atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: "-".join(config))
def test_config_survives_a_file(config: dict[str, object]) -> None:
    family = make_family(config)
    stored = json.loads(json.dumps(family.config()))
    again = make_family(stored)
    assert config.items() <= stored.items()
    assert type(again) is type(family)
    assert vars(again) == vars(family)


@pytest.mark.parametrize("config", [{"family": "unit_vectors"}, {"names": NAMES}])
def test_unknown_family_names_the_allowed(config: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="unknown family") as raised:
        make_family(config)
    assert all(name in str(raised.value) for name in FAMILIES)


@pytest.mark.parametrize(
    ("names", "palette"), [([], None), (["a"] * 256, None), (NAMES, [[0] * 3])]
)
def test_label_map_refuses_bad_classes(names: list[str], palette: list[list[int]] | None) -> None:
    with pytest.raises(ValueError, match="class names"):
        make_family({"family": "label_map", "names": names, "palette": palette})


def test_every_family_is_in_the_table_of_tests() -> None:
    assert set(CASES) == set(FAMILIES)
    assert all(case.config["family"] == name for name, case in CASES.items())


@pytest.mark.parametrize("name", CASES)
def test_only_distances_change_with_the_size_of_an_image(name: str) -> None:
    family = make_family(CASES[name].config)
    array = CASES[name].draw(family, np.random.default_rng(0), (3, 4))
    array[0, 0] = family.unknown
    target = family.to_tensor(array)[None]
    wanted = target / 2 if family.in_metres else target
    assert torch.equal(family.scaled(target, 2.0), wanted)


def test_only_classes_have_a_largest_share() -> None:
    labels = torch.tensor([[[[0, 2, 2, 2, 255, 255]]]])
    for config in CONFIGS:
        family = make_family(config)
        if not family.names:
            assert family.largest_share(family.blank((2, 3))[None] + 1) == 0
            continue
        assert family.largest_share(labels) == 0.75
        assert family.largest_share(labels[..., 1:4]) == 1
        assert family.largest_share(labels[..., 4:]) == 0  # nothing known


def test_legends_name_the_colours_of_a_picture() -> None:
    ids = np.uint8([[2, 0, 0], [255, 0, 2]])
    classes = LabelMap(NAMES, PALETTE)
    entries, ramp = classes.legend(ids)
    assert entries == [((1, 2, 3), "sky"), ((255, 0, 9), "tree")] and not ramp  # largest first
    picture = classes.colorize(ids)
    assert {colour for colour, _ in entries} == {tuple(c) for c in picture[ids != 255].tolist()}

    metres = np.float32([[0, 1.5, 2], [3, 20, 8]])
    distances = MetricMap()
    (near, far), ramp = distances.legend(metres)
    picture = distances.colorize(metres)
    assert near == (tuple(picture[0, 1].tolist()), "1.50 m")
    assert far == (tuple(picture[1, 1].tolist()), "20.00 m")
    assert ramp[0] == near[0] and ramp[-1] == far[0] and tuple(picture[1, 2].tolist()) in ramp
    assert distances.legend(np.zeros((2, 2), np.float32)) == ([], [])

    vectors = make_family({"family": "unit_vector"})
    entries, _ = vectors.legend(np.zeros((1, 1, 3)))
    where = {text: colour for colour, text in entries}
    facing = np.float32([[[1, 0, 0], [0, 1, 0], [0, 0, 1]]])
    colours = [tuple(colour) for colour in vectors.colorize(facing)[0].tolist()]
    assert colours == [where["right"], where["up"], where["to the viewer"]]

    (low, high), ramp = make_family({"family": "probability_map"}).legend(np.zeros((1, 1)))
    assert (low, high) == (((0, 0, 0), "0"), ((255, 255, 255), "1")) and ramp == [low[0], high[0]]
