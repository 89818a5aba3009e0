"""Perception: what every host is, a model from the pyramid of one pass to raw maps per task."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from diffusers import ConfigMixin, ModelMixin, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from .attention import record_attention
from .families import Family, make_family
from .joined import join_modules
from .one_pass import OnePass, one_pass, pyramid_channels

Pyramid = tuple[Tensor, ...]
Maps = dict[int, Tensor]  # see `OnePass`


class Perception(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Base of all hosts: a component of the pipeline, saved in its folder `perception/`.

    A host registers `tasks` in its config: task name -> the config of its family, such as
    `{"normals": {"family": "unit_vector"}, "semseg": {"family": "label_map", "names": [...]}}`.

    one_of: the families of which a host perceives one task, the most natural first; None is any
    number of tasks. published: the width that its paper has. step: what a width is a multiple of.
    reads_attention: whether it wants the cross-attention maps of the pass. own_context: what it
    conditions the U-Net on instead of the empty prompt, [1, L, D]. seen_at, latent_factor: the
    timestep that the U-Net is told, and what scaled latents are multiplied with.
    """

    families: dict[str, Family]
    published: ClassVar[int | None] = None
    step: ClassVar[int] = 16
    one_of: ClassVar[tuple[str, ...] | None] = None
    reads_attention = False
    seen_at = 0
    latent_factor = 1.0

    @classmethod
    def mount(
        cls, base: StableDiffusionPipeline, tasks: dict[str, dict[str, Any]], **options: Any
    ) -> "Perception":
        """A fresh host for the U-Net of a base."""
        return cls(tasks, pyramid_channels(base.unet), **cls.fitted(base.unet, options))

    @classmethod
    def fitted(cls, unet: UNet2DConditionModel, options: dict[str, Any]) -> dict[str, Any]:
        """Options with a width, unless they have one: the published, or a quarter of it for a U-Net
        that is narrower than Stable Diffusion's."""
        if cls.published is None or "width" in options:
            return options
        narrow = unet.config.block_out_channels[0] < 320
        return {**options, "width": cls.published // 4 if narrow else cls.published}

    @classmethod
    def choose(cls, families: Mapping[str, Family]) -> list[str]:
        """Which of these tasks a host perceives if it is not told: all it can, or its first."""
        if cls.one_of is None:
            return list(families)
        ranked = [name for kind in cls.one_of for name, f in families.items() if f.name == kind]
        return ranked[:1]

    @classmethod
    def check(cls, families: Mapping[str, Family]) -> None:
        """Raise ValueError if a host cannot perceive these tasks."""
        if not families:
            raise ValueError("a host needs at least one task")
        if cls.one_of is None:
            return
        if len(families) != 1 or {f.name for f in families.values()} - {*cls.one_of}:
            got = ", ".join(f"{name} ({f.name})" for name, f in families.items())
            raise ValueError(
                f"{cls.__name__} perceives one task of {' or '.join(cls.one_of)}, got {got}"
            )

    @classmethod
    def check_options(cls, **options: Any) -> None:
        """Raise ValueError for settings that a host does not have, or a width it cannot have."""
        known = inspect.signature(cls).parameters
        unknown = sorted(set(options) - set(known))
        if unknown:
            has = ", ".join(name for name, one in known.items() if one.default is not one.empty)
            raise ValueError(f"{cls.__name__} has no setting {', '.join(unknown)}; it has {has}")
        width = options.get("width", cls.step)
        if not isinstance(width, int) or width < cls.step or width % cls.step:
            raise ValueError(f"width {width}: expected a multiple of {cls.step}")

    def add_families(self, tasks: dict[str, dict[str, Any]]) -> None:
        """Make the families the config names; called first by every host."""
        # sorted, as a config comes back from its file: heads keep their order, optimisers theirs
        self.families = {name: make_family(tasks[name]) for name in sorted(tasks)}
        self.check(self.families)
        protocol = self.config.get("protocol", "ours")
        if protocol not in ("ours", "host"):
            raise ValueError(f"protocol {protocol!r}: expected ours or host")

    @property
    def only(self) -> tuple[str, Family]:
        """Name and family of a host's one task."""
        (found,) = self.families.items()
        return found

    @property
    def own_context(self) -> Tensor | None:
        return None

    def see(self, unet: UNet2DConditionModel, latents: Tensor, context: Tensor) -> OnePass:
        """What the U-Net makes of scaled latents [B, C, h, w] without noise, at t = 0 unless a host
        has its own `seen_at`.

        context: of the empty prompt, [1, L, D]; a host with its own does without.
        """
        if self.reads_attention:  # here, as others may have replaced the processors since
            record_attention(unet)
        own = self.own_context
        context = (context if own is None else own).to(latents).expand(len(latents), -1, -1)
        return one_pass(unet, latents * self.latent_factor, self.seen_at, context)

    def forward(
        self, pyramid: Pyramid, size: tuple[int, int], maps: Maps | None = None
    ) -> dict[str, Tensor]:
        """Raw maps [B, R, H, W] per task at `size` = (H, W) pixels from a pyramid, finest first."""
        raise NotImplementedError

    def losses(
        self,
        pyramid: Pyramid,
        size: tuple[int, int],
        targets: dict[str, Tensor],
        maps: Maps | None = None,
    ) -> dict[str, Tensor]:
        """Per task the loss of each sample, [B], whose mean is to be minimised.

        The family's, of the answer, unless a host learns in its own way.
        """
        raw = self(pyramid, size, maps)
        return {name: f.loss(raw[name], targets[name]) for name, f in self.families.items()}

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Write config and weights, and the code of the host as one file, `diff2in1.py`."""
        super().save_pretrained(save_directory, **options)
        code = join_modules(type(self).__module__)
        (Path(save_directory) / "diff2in1.py").write_text(code)
