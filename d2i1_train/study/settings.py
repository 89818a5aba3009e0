"""Settings of `d2i1 study`."""

from dataclasses import dataclass, field
from typing import Any

from d2i1_data.checks import require_library, require_positive
from d2i1_data.errors import InputError


@dataclass(kw_only=True)
class StudySettings:
    """Compare settings of warm-up, creation and self-improving over seeds, beside baselines."""

    arms: dict[str, dict[str, Any]]
    """What each arm changes: {ARM: {PART: {SETTING: value}}}. The parts are `warm_up`; `create`,
    `label` or `import`, which writes the created dataset; `self_improve`. Each holds settings of
    that command. Without any `self_improve`, the study compares warm-ups."""
    common: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What all arms share: {PART: {SETTING: value}}. An arm overrides single settings."""
    output_dir: str
    """Folder for ARM/seed-N/, table.md, results.csv and curves.png, and for the warm-ups and
    created datasets that arms share. A study of warm-ups writes sparsification.png (first seed of
    every arm) and training-mean.json (metrics of the average of the training targets at each
    pixel) instead of curves.png. A study that was stopped continues with what is missing."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    """Every arm runs once with each seed. A seed sets `seed` and `subset_seed` of all parts, so it
    also chooses the labelled samples. Arms with one seed can be compared in pairs."""
    test: str = "rooms:test"
    """Labelled source that the arms are scored on."""
    test_samples: int = 300
    """Use only this many samples of the test source, chosen at random, the same for all seeds."""
    subset_seed: int | None = 0
    """Decides which samples `test_samples` chooses; null takes the first samples."""
    curve_steps: int = 100
    """Number of steps of self-improving between scores. 0 scores only after the last step."""
    generation_samples: int = 200
    """Number of images that a study of warm-ups creates to score generation. 0 leaves this out."""
    workers: int = 1
    """Number of processes. Each works on one warm-up, dataset or training at a time."""
    threads: int | None = None
    """CPU threads of each process. None divides the CPUs by `workers`. The number affects the
    rounding of sums, `workers` alone does not."""

    def __post_init__(self) -> None:
        require_library("matplotlib", "plots", "study")
        require_positive(self, "test_samples", "workers", "threads")
        for name in ("curve_steps", "generation_samples"):
            if getattr(self, name) < 0:
                raise InputError(f"--{name} {getattr(self, name)}: expected at least 0")
        if not self.arms or not self.seeds:
            raise InputError("study: expected at least one arm and one seed")
        if len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"--seeds {self.seeds}: expected different seeds")
