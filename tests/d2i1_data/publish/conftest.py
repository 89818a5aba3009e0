"""Datasets to publish."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="package")
def created(
    create: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Datasets of seven samples in three shards, by seed."""
    made: dict[int, Path] = {}

    def by(seed: int) -> Path:
        if seed not in made:
            made[seed] = create(tmp_path_factory.mktemp("created") / f"seed-{seed}", "--seed", seed)
        return made[seed]

    return by
