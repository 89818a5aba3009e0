"""Perception: what every host is, a model from the pyramid of one pass to raw maps per task."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from diffusers import ConfigMixin, ModelMixin, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from .attention import record_attention
from .conditioning import Conditioning
from .families import Family, make_family
from .join import join_modules
from .one_pass import OnePass, one_pass, pyramid_channels
from .registry import REGISTRY

Pyramid = tuple[Tensor, ...]
AttentionMaps = dict[int, Tensor]  # see `OnePass`


class Perception(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Base class of all hosts: a component of the pipeline, saved in its folder `perception/`.

    A host registers `tasks` in its config: task name -> the config of its family, such as
    `{"normals": {"family": "unit_vector"}, "semseg": {"family": "label_map", "names": [...]}}`.
    """

    name: ClassVar[str]
    """The host's name in commands, cards and provenance."""
    published_width: ClassVar[int | None] = None
    """The width in the host's paper; None if it has no paper."""
    width_step: ClassVar[int] = 16
    """A width is a multiple of this."""
    single_task_families: ClassVar[tuple[str, ...] | None] = None
    """Families of which the host perceives one task, the best suited first; None: any tasks."""
    has_own_conditioning: ClassVar[bool] = False
    """Whether the host conditions the U-Net on something else than the empty prompt."""
    reads_attention = False
    """Whether the host reads the cross-attention maps of the pass."""
    timestep = 0
    """The timestep that the U-Net is given."""
    latent_scale = 1.0
    """Scaled latents are multiplied with this for the U-Net."""

    families: dict[str, Family]

    @classmethod
    def mount(
        cls, base: StableDiffusionPipeline, tasks: dict[str, dict[str, Any]], **options: Any
    ) -> "Perception":
        """A fresh host for the U-Net of a base.

        Args:
            base: all parts of the base, as `Base.load` gives them.
            tasks: task name -> the config of its family.
            options: of the host, such as `width`.
        """
        return cls(tasks, pyramid_channels(base.unet), **cls.default_options(base.unet, options))

    @classmethod
    def default_options(cls, unet: UNet2DConditionModel, options: dict[str, Any]) -> dict[str, Any]:
        """The options, with a width if they have none.

        It is the published width, or a quarter of it for a U-Net that is narrower than Stable
        Diffusion's.
        """
        if cls.published_width is None or "width" in options:
            return options
        narrow = unet.config.block_out_channels[0] < 320
        return {**options, "width": cls.published_width // 4 if narrow else cls.published_width}

    @classmethod
    def choose_tasks(cls, families: Mapping[str, Family]) -> list[str]:
        """The tasks that the host perceives by default: all it can, or the first if it takes one.

        Args:
            families: of the tasks to choose from, by task.
        """
        if cls.single_task_families is None:
            return list(families)
        ranked = [
            name
            for kind in cls.single_task_families
            for name, family in families.items()
            if family.name == kind
        ]
        return ranked[:1]

    @classmethod
    def check_tasks(cls, families: Mapping[str, Family]) -> None:
        """Check that the host can perceive these tasks together.

        Raises:
            ValueError: if it cannot.
        """
        if not families:
            raise ValueError("a host needs at least one task")
        if cls.single_task_families is None:
            return
        kinds = {family.name for family in families.values()}
        if len(families) != 1 or kinds - {*cls.single_task_families}:
            got = ", ".join(f"{name} ({family.name})" for name, family in families.items())
            allowed = " or ".join(cls.single_task_families)
            raise ValueError(f"{cls.__name__} perceives one task of {allowed}, got {got}")

    @classmethod
    def check_options(cls, **options: Any) -> None:
        """Check the options of a host.

        Raises:
            ValueError: if the host does not have an option, or cannot have that width.
        """
        known = inspect.signature(cls).parameters
        unknown = sorted(set(options) - set(known))
        if unknown:
            has = ", ".join(name for name, one in known.items() if one.default is not one.empty)
            raise ValueError(f"{cls.__name__} has no setting {', '.join(unknown)}; it has {has}")
        width = options.get("width", cls.width_step)
        if not isinstance(width, int) or width < cls.width_step or width % cls.width_step:
            raise ValueError(f"width {width}: expected a multiple of {cls.width_step}")

    def add_families(self, tasks: dict[str, dict[str, Any]]) -> None:
        """Make the families that the config names. Every host calls this first."""
        # sorted, as a config comes back from its file: heads keep their order, optimisers theirs
        self.families = {name: make_family(tasks[name]) for name in sorted(tasks)}
        self.check_tasks(self.families)
        protocol = self.config.get("protocol", "ours")
        if protocol not in ("ours", "host"):
            raise ValueError(f"protocol {protocol!r}: expected ours or host")

    @property
    def single_task(self) -> tuple[str, Family]:
        """Name and family of the task of a host that perceives one."""
        (found,) = self.families.items()
        return found

    def own_conditioning(self) -> Conditioning:
        """The host's own conditioning, a batch of one, where `has_own_conditioning`."""
        raise NotImplementedError

    def run_unet(
        self, unet: UNet2DConditionModel, latents: Tensor, conditioning: Conditioning
    ) -> OnePass:
        """One pass of the U-Net over latents without noise, with the host's timestep and scale.

        Args:
            unet: of the base.
            latents: scaled latents `[B, C, h, w]`.
            conditioning: of the empty prompt, a batch of one. A host with its own ignores it.
        """
        if self.reads_attention:  # here, as others may have replaced the processors since
            record_attention(unet)
        if self.has_own_conditioning:
            conditioning = self.own_conditioning()
        conditioning = conditioning.to(latents).expand(len(latents))
        return one_pass(unet, latents * self.latent_scale, self.timestep, conditioning)

    def forward(
        self,
        pyramid: Pyramid,
        size: tuple[int, int],
        attention_maps: AttentionMaps | None = None,
    ) -> dict[str, Tensor]:
        """Raw maps per task.

        Args:
            pyramid: of one pass, finest level first.
            size: (H, W) in pixels.
            attention_maps: of the same pass, for a host that reads them.

        Returns:
            Task name -> raw map `[B, R, H, W]` in the layout of the task's family.
        """
        raise NotImplementedError

    def losses(
        self,
        pyramid: Pyramid,
        size: tuple[int, int],
        targets: dict[str, Tensor],
        attention_maps: AttentionMaps | None = None,
    ) -> dict[str, Tensor]:
        """The loss of each sample per task; its mean is to be minimised.

        It is the family's loss of the raw maps, unless a host has its own.

        Args:
            pyramid: of one pass, finest level first.
            size: (H, W) in pixels.
            targets: task name -> target `[B, C, H, W]`.
            attention_maps: as in `forward`.

        Returns:
            Task name -> losses `[B]`.
        """
        raw = self(pyramid, size, attention_maps)
        return {name: f.loss(raw[name], targets[name]) for name, f in self.families.items()}

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Write config and weights, and the code of the host as one file, `diff2in1.py`."""
        super().save_pretrained(save_directory, **options)
        code = join_modules(type(self).__module__)
        (Path(save_directory) / "diff2in1.py").write_text(code)


HOSTS: dict[str, type[Perception]] = REGISTRY  # the same object, with its type


def register_host(host: type[Perception]) -> type[Perception]:
    """Let a host be mounted by its name and loaded by its class name. Usable as a decorator.

    Raises:
        ValueError: if another host has the name.
    """
    known = HOSTS.setdefault(host.name, host)
    if known is not host:
        raise ValueError(f"host {host.name!r} is registered already, as {known.__name__}")
    return host
