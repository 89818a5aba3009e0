"""Perception: the base class of hosts, models that turn the pyramid of one pass into raw maps."""

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
    """Base class of all hosts. A host is the component `perception` of a pipeline.

    A host registers `tasks` in its config: task name -> the config of its family, such as
    `{"normals": {"family": "unit_vector"}, "semseg": {"family": "label_map", "names": [...]}}`.
    """

    name: ClassVar[str]
    """The host's name in commands, cards and provenance."""
    published_width: ClassVar[int | None] = None
    """The width in the host's paper; None if it has no paper."""
    width_step: ClassVar[int] = 16
    """A width must be a multiple of this."""
    single_task_families: ClassVar[tuple[str, ...] | None] = None
    """The host perceives one task of one of these families, the best suited first. None: the host
    perceives any number of tasks of all families."""
    has_own_conditioning: ClassVar[bool] = False
    """Whether the host has its own conditioning for the U-Net, instead of the empty prompt."""
    reads_attention = False
    """Whether the host reads the cross-attention maps of the pass."""
    timestep = 0
    """The timestep at which the U-Net runs."""
    latent_scale = 1.0
    """Scaled latents are multiplied by this before the U-Net."""

    families: dict[str, Family]

    @classmethod
    def mount(
        cls, base: StableDiffusionPipeline, tasks: dict[str, dict[str, Any]], **options: Any
    ) -> "Perception":
        """A new, untrained host for the U-Net of a base.

        Args:
            base: all parts of the base, as `Base.load` gives them.
            tasks: task name -> the config of its family.
            options: options of the host, such as `width`.
        """
        return cls(tasks, pyramid_channels(base.unet), **cls.default_options(base.unet, options))

    @classmethod
    def default_options(cls, unet: UNet2DConditionModel, options: dict[str, Any]) -> dict[str, Any]:
        """Add a width to options without one.

        The width is the published one, or a quarter of it if the U-Net is narrower than Stable
        Diffusion's.

        Args:
            unet: the U-Net of the base.
            options: options of the host.
        """
        if cls.published_width is None or "width" in options:
            return options
        narrow = unet.config.block_out_channels[0] < 320
        return {**options, "width": cls.published_width // 4 if narrow else cls.published_width}

    @classmethod
    def choose_tasks(cls, families: Mapping[str, Family]) -> list[str]:
        """The tasks that the host perceives by default: all that it can, or one if it takes one.

        Args:
            families: the tasks to choose from, task name -> family.
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
            ValueError: if the host does not have such an option, or the width is wrong.
        """
        parameters = inspect.signature(cls).parameters
        unknown = sorted(set(options) - set(parameters))
        if unknown:
            has = ", ".join(name for name, p in parameters.items() if p.default is not p.empty)
            raise ValueError(f"{cls.__name__} has no setting {', '.join(unknown)}; it has {has}")
        width = options.get("width", cls.width_step)
        if not isinstance(width, int) or width < cls.width_step or width % cls.width_step:
            raise ValueError(f"width {width}: expected a multiple of {cls.width_step}")

    def add_families(self, tasks: dict[str, dict[str, Any]]) -> None:
        """Make the families that the config names. Every host calls this first."""
        # A saved config is sorted. Sorting here keeps the order of heads and optimiser states.
        self.families = {name: make_family(tasks[name]) for name in sorted(tasks)}
        self.check_tasks(self.families)
        protocol = self.config.get("protocol", "ours")
        if protocol not in ("ours", "host"):
            raise ValueError(f"protocol {protocol!r}: expected ours or host")

    @property
    def single_task(self) -> tuple[str, Family]:
        """Name and family of the single task. Only for hosts that perceive one task."""
        (task,) = self.families.items()
        return task

    def own_conditioning(self) -> Conditioning:
        """The host's own conditioning, a batch of one. Only for `has_own_conditioning`."""
        raise NotImplementedError

    def run_unet(
        self, unet: UNet2DConditionModel, latents: Tensor, conditioning: Conditioning
    ) -> OnePass:
        """Make one pass over latents without noise, with the timestep and scale of the host.

        Args:
            unet: U-Net of the base.
            latents: scaled latents `[B, C, h, w]`.
            conditioning: the empty prompt, a batch of one. A host with its own conditioning ignores
                it.
        """
        if self.reads_attention:  # in each pass, because other code may replace the processors
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
            pyramid: pyramid of one pass, finest level first.
            size: (H, W) in pixels.
            attention_maps: attention maps of the same pass, for a host that reads them.

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
        """The losses of each task, one for each sample. Training minimises their mean.

        The default is the loss of the family on the raw maps. A host may have its own loss.

        Args:
            pyramid: pyramid of one pass, finest level first.
            size: (H, W) in pixels.
            targets: task name -> target `[B, C, H, W]`.
            attention_maps: as in `forward`.

        Returns:
            Task name -> losses `[B]`.
        """
        raw = self(pyramid, size, attention_maps)
        return {name: f.loss(raw[name], targets[name]) for name, f in self.families.items()}

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Write config and weights, and the code of the host as one file `diff2in1.py`."""
        super().save_pretrained(save_directory, **options)
        code = join_modules(type(self).__module__)
        (Path(save_directory) / "diff2in1.py").write_text(code)


HOSTS: dict[str, type[Perception]] = REGISTRY  # the same object, with its type


def register_host(host: type[Perception]) -> type[Perception]:
    """Register a host, so that it can be mounted and loaded by name. Usable as a decorator.

    Raises:
        ValueError: if another host has the same name.
    """
    registered = HOSTS.setdefault(host.name, host)
    if registered is not host:
        raise ValueError(f"host {host.name!r} is registered already, as {registered.__name__}")
    return host
