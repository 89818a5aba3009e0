"""Perception: what every host is, a model from the pyramid of one pass to raw maps per task."""

from pathlib import Path
from typing import Any

from diffusers import ConfigMixin, ModelMixin
from torch import Tensor

from .families import Family, make_family
from .joined import join_modules


class Perception(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Base of all hosts: a component of the pipeline, saved in its folder `perception/`.

    A host registers `tasks` in its config: task name -> the config of its family, such as
    `{"normals": {"family": "unit_vector"}, "semseg": {"family": "label_map", "names": [...]}}`.
    """

    families: dict[str, Family]
    own_context: Tensor | None = None  # a host that conditions the U-Net itself brings its context

    def add_families(self, tasks: dict[str, dict[str, Any]]) -> None:
        """Make the families the config names; called first by every host."""
        if not tasks:
            raise ValueError("a host needs at least one task")
        # sorted, as a config comes back from its file: heads keep their order, optimisers theirs
        self.families = {name: make_family(tasks[name]) for name in sorted(tasks)}

    def forward(self, pyramid: tuple[Tensor, ...], size: tuple[int, int]) -> dict[str, Tensor]:
        """Raw maps [B, R, H, W] per task at `size` = (H, W) pixels from a pyramid, finest first."""
        raise NotImplementedError

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Write config and weights, and the code of the host as one file, `diff2in1.py`."""
        super().save_pretrained(save_directory, **options)
        code = join_modules(type(self).__module__)
        (Path(save_directory) / "diff2in1.py").write_text(code)
