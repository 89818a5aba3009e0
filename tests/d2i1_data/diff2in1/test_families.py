"""Families: formulas against plain numpy, and the way into a checkpoint's config and back."""

import json

import numpy as np
import pytest
import torch

from d2i1_data.diff2in1 import FAMILIES, make_family

NAMES = ["sky", "road", "tree"]
PALETTE = [[1, 2, 3], [40, 50, 60], [255, 0, 9]]
CONFIGS = [
    {"family": "unit_vector"},
    {"family": "metric_map"},
    {"family": "label_map", "names": NAMES},
    {"family": "label_map", "names": NAMES, "palette": PALETTE},
    {"family": "probability_map"},
]


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


def test_only_distances_change_with_the_size_of_an_image() -> None:
    maps = {
        "unit_vector": torch.tensor([0.6, 0.0, 0.8]).view(1, 3, 1, 1),
        "metric_map": torch.tensor([[[[3.0, 0.0]]]]),
        "label_map": torch.tensor([[[[2, 255]]]]),
        "probability_map": torch.tensor([[[[0.5, -1.0]]]]),
    }
    for config in CONFIGS:
        family, target = make_family(config), maps[config["family"]]
        found = family.scaled(target, 2.0)
        if config["family"] == "metric_map":
            assert found.tolist() == [[[[1.5, 0.0]]]]
        else:
            assert torch.equal(found, target)


def test_only_classes_have_a_largest_share() -> None:
    labels = torch.tensor([[[[0, 2, 2, 2, 255, 255]]]])
    for config in CONFIGS:
        family = make_family(config)
        if config["family"] != "label_map":
            assert family.largest_share(family.blank((2, 3))[None] + 1) == 0
            continue
        assert family.largest_share(labels) == 0.75
        assert family.largest_share(labels[..., 1:4]) == 1
        assert family.largest_share(labels[..., 4:]) == 0  # nothing known
