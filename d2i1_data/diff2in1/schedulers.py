"""Schedulers: those that can create, and how each of them follows the schedule of a call.

Letters in shape comments: B batch, C channels, h w latent pixels, S steps.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from .backbone import Backbone
from .ddim import ddim_step

SCHEDULERS = {  # name in settings -> class
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "dpm++": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
}
SETTINGS = {  # of their configs, with the only values that fit timesteps of our own, without noise
    "use_karras_sigmas": (False, None),
    "use_exponential_sigmas": (False, None),
    "use_beta_sigmas": (False, None),
    "use_lu_lambdas": (False, None),
    "use_flow_sigmas": (False, None),
    "use_dynamic_shifting": (False, None),
    "interpolation_type": ("linear",),
    "timestep_type": ("discrete",),
    "algorithm_type": ("dpmsolver++",),
    "solver_p": (None,),
}


def check_scheduler(scheduler: Any) -> None:
    """Check that a scheduler can create.

    Raises:
        ValueError: if its class or one of its settings is not supported.
    """
    name, kinds = type(scheduler).__name__, SCHEDULERS.values()
    if type(scheduler) not in kinds:
        expected = ", ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"scheduler {name} cannot create: expected one of {expected}")
    own = {} if name == "DDIMScheduler" else scheduler.config  # it may keep settings of others
    for key, allowed in SETTINGS.items():
        if own.get(key, allowed[0]) not in allowed:
            raise ValueError(f"{name} with {key}={own[key]!r}: creation needs {allowed[0]!r}")


def find_scheduler_name(class_name: str) -> str | None:
    """The name in `SCHEDULERS` of a class with this name, None if there is none."""
    return next((name for name, kind in SCHEDULERS.items() if kind.__name__ == class_name), None)


def choose_scheduler(pipe: DiffusionPipeline, name: str | None) -> None:
    """Give a pipeline another scheduler with the same noise levels.

    Args:
        pipe: the pipeline.
        name: one of `SCHEDULERS`; None keeps the scheduler of the pipeline.
    """
    if name is not None:
        pipe.scheduler = SCHEDULERS[name].from_config(pipe.scheduler.config)


class Sampler(ABC):
    """Takes the noisy latents of a batch from step to step. Each row has its own timesteps.

    Args:
        backbone: backbone of the base; its scheduler has the noise levels.
        schedule: the `timesteps` of every row, `[S, B]`.
    """

    def __init__(self, backbone: Backbone, schedule: Tensor) -> None:
        self.backbone, self.schedule = backbone, schedule

    @abstractmethod
    def begin(self, latents: Tensor | None, noise: Tensor) -> Tensor:
        """Add noise to clean latents at the first timestep; without latents start from noise.

        Args:
            latents: scaled latents `[B, C, h, w]`, or None.
            noise: normal noise `[B, C, h, w]`.
        """

    @abstractmethod
    def scale(self, latents: Tensor, step: int) -> Tensor:
        """The input of the U-Net for noisy latents at a step, `[B, C, h, w]`."""

    @abstractmethod
    def advance(self, output: Tensor, step: int, latents: Tensor) -> Tensor:
        """Take the latents from one step to the next, given the output of the U-Net."""


class DdimSampler(Sampler):
    """DDIM. `DDIMScheduler.step` allows only some distances between timesteps; these are any."""

    def begin(self, latents: Tensor | None, noise: Tensor) -> Tensor:
        if latents is None:
            return noise
        first = self.schedule[0].to(latents.device)
        noisy: Tensor = self.backbone.scheduler.add_noise(latents, noise, first)
        return noisy

    def scale(self, latents: Tensor, step: int) -> Tensor:
        return latents

    def advance(self, output: Tensor, step: int, latents: Tensor) -> Tensor:
        following = self.schedule[step + 1] if step + 1 < len(self.schedule) else None
        return ddim_step(self.backbone, output, self.schedule[step], following, latents)


class OwnStepSampler(Sampler):
    """The `add_noise` and `step` of the scheduler.

    A scheduler remembers one sequence of steps. Every call has new ones, one for the rows that have
    the same timesteps, so that no row depends on another or on an earlier call.
    """

    def __init__(self, backbone: Backbone, schedule: Tensor) -> None:
        super().__init__(backbone, schedule)
        rows: dict[tuple[int, ...], list[int]] = {}
        for row, column in enumerate(schedule.T.tolist()):
            rows.setdefault(tuple(column), []).append(row)
        self.parts = [(same, follow(backbone.scheduler, column)) for column, same in rows.items()]

    def begin(self, latents: Tensor | None, noise: Tensor) -> Tensor:
        noisy = torch.empty_like(noise)
        for rows, own in self.parts:
            if latents is None:
                noisy[rows] = noise[rows] * own.init_noise_sigma
            else:
                first = own.timesteps[:1].expand(len(rows))
                noisy[rows] = own.add_noise(latents[rows], noise[rows], first)
        return noisy

    def scale(self, latents: Tensor, step: int) -> Tensor:
        scaled = torch.empty_like(latents)
        for rows, own in self.parts:
            scaled[rows] = own.scale_model_input(latents[rows], own.timesteps[step])
        return scaled

    def advance(self, output: Tensor, step: int, latents: Tensor) -> Tensor:
        following = torch.empty_like(latents)
        for rows, own in self.parts:
            given = (output[rows], own.timesteps[step], latents[rows])
            following[rows] = own.step(*given, return_dict=False)[0]
        return following


def make_sampler(backbone: Backbone, schedule: Tensor) -> Sampler:
    """The sampler of the scheduler of a backbone; see `Sampler` for the arguments."""
    kind = DdimSampler if isinstance(backbone.scheduler, DDIMScheduler) else OwnStepSampler
    return kind(backbone, schedule)


def follow(scheduler: Any, timesteps: tuple[int, ...]) -> Any:
    """A new scheduler like this one, at the first of these timesteps.

    Args:
        scheduler: one of `SCHEDULERS` that remembers its steps.
        timesteps: descending timesteps, one for each call of the U-Net.
    """
    own = type(scheduler).from_config(scheduler.config)
    if isinstance(own, UniPCMultistepScheduler):  # the only one that takes no timesteps
        own.set_timesteps(len(timesteps))
        own.timesteps = torch.tensor(timesteps)
        abar = own.alphas_cumprod[own.timesteps]
        own.sigmas = torch.cat([((1 - abar) / abar).sqrt(), own.sigmas[-1:]])
    else:
        own.set_timesteps(timesteps=list(timesteps))
    own.set_begin_index(0)
    return own
