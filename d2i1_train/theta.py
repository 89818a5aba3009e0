"""theta: the parameters that perceive. One module, its twin, and how the twin follows."""

import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from accelerate.utils import broadcast
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from d2i1_data.diff2in1 import Diff2in1Pipeline, Perception

Raw = dict[str, Tensor]
NOISE_ONLY = ("conv_norm_out", "conv_out")  # parts of a U-Net behind the pyramid


class Noised(NamedTuple):
    """Real images to denoise: latents [B, C, h, w] at noise levels t [B], captions [B, L, D], and
    what the U-Net should say of them, [B, C, h, w]."""

    latents: Tensor
    t: Tensor
    captions: Tensor
    wanted: Tensor


class Answer(NamedTuple):
    """raw: maps per task. losses: instead, per task [B], where the targets were given. noise: the
    U-Net's output for what it was given to denoise, if it was."""

    raw: Raw
    losses: Raw
    noise: Tensor | None


class Theta(nn.Module):
    """U-Net and perception: theta_E, and as its twin theta_C.

    What of it is trained is said by `requires_grad` of theta_E, so one code path serves every way
    to train.
    """

    def __init__(self, unet: UNet2DConditionModel, perception: Perception) -> None:
        super().__init__()
        self.unet, self.perception = unet, perception

    def forward(
        self,
        latents: Tensor,
        context: Tensor,
        size: tuple[int, int],
        pyramid: tuple[Tensor, ...] | None = None,
        targets: Raw | None = None,
        noised: Noised | None = None,
    ) -> Answer:
        """Raw maps [B, R, *size] of latents [B, C, h, w] under context [1 or B, L, D], at t = 0.

        pyramid: of the same latents, where a frozen U-Net has given it already. targets: to learn
        from; then the answer is their losses. noised: also denoise these. One call for everything,
        because several processes average gradients by call.
        """
        maps = None
        if pyramid is None:
            _, pyramid, maps = self.perception.see(self.unet, latents, context)
        noise = None
        if noised is not None:
            noise = self.unet(noised.latents, noised.t, noised.captions).sample.float()
        if targets is not None:
            return Answer({}, self.perception.losses(pyramid, size, targets, maps), noise)
        # in float32 under autocast too: a depth in bfloat16 has three digits
        raw = {name: one.float() for name, one in self.perception(pyramid, size, maps).items()}
        return Answer(raw, {}, noise)

    def see(self, latents: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        """The pyramid of one pass."""
        return self.perception.see(self.unet, latents, context).pyramid

    @property
    def frozen(self) -> bool:
        """Whether nothing before the pyramid is trained, so that all thetas see the same."""
        trained = any(parameter.requires_grad for parameter in self.unet.parameters())
        return not trained and self.perception.own_context is None


def make_theta(pipe: Diff2in1Pipeline, *, denoises: bool = False) -> Theta:
    """theta_E of a pipeline; it shares the pipeline's modules.

    What of the U-Net is trained follows from the pipeline's `trained_unet`: nothing, the LoRA it
    carries, or all that the pyramid depends on; what only the noise depends on, if it `denoises`.
    """
    for part in (pipe.vae, pipe.text_encoder, pipe.unet):
        part.requires_grad_(False).eval()
    kind = pipe.config.trained_unet
    for name, parameter in pipe.unet.named_parameters():
        used = denoises or name.split(".")[0] not in NOISE_ONLY
        parameter.requires_grad_(used and (kind == "full" or (kind == "lora" and "lora_" in name)))
    pipe.unet.train(kind != "none")
    pipe.perception.requires_grad_(True).train()
    return Theta(pipe.unet, pipe.perception)


def twin(theta: Theta) -> Theta:
    """theta_C: a copy of what is trained, sharing every frozen parameter; it never gets gradients.

    Made once device, dtype and `requires_grad` of theta_E are final, and before it is wrapped for
    several processes. Nothing may call `.to(dtype)` afterwards: it would change the shared tensors
    of both.
    """
    shared = {id(p): p for p in theta.parameters() if not p.requires_grad}
    return copy.deepcopy(theta, memo=shared).eval().requires_grad_(False)


def with_theta(pipe: Diff2in1Pipeline, theta: Theta) -> Diff2in1Pipeline:
    """The same pipeline with another theta."""
    parts = {**pipe.components, "unet": theta.unet, "perception": theta.perception}
    other = Diff2in1Pipeline(**parts)
    other.register_to_config(**{k: v for k, v in pipe.config.items() if k in pipe.settings()})
    other.set_progress_bar_config(disable=True)
    return other


def trained_tensors(theta: Theta, like: Theta) -> dict[str, Tensor]:
    """By name, the tensors of theta that are trained in `like` (theta_E), and its buffers."""
    names = {name for name, parameter in like.named_parameters() if parameter.requires_grad}
    names |= {f"perception.{name}" for name, _ in like.perception.named_buffers()}
    state = {**dict(theta.named_parameters()), **dict(theta.named_buffers())}
    return {name: state[name].detach() for name in sorted(names)}


@dataclass
class Follower:
    """theta_C <- alpha^k theta_C + (1 - alpha^k) theta_E, once per `every` consumed samples.

    Paper: every 40 samples, alpha 0.998 (0.999 on PASCAL-Context). One optimiser step may consume
    several times 40 samples (k > 1) or fewer (k = 0): `consumed` and `followed` keep the count.
    """

    alpha: float
    every: int
    consumed: int = 0
    followed: int = 0

    @torch.no_grad()
    def follow(self, creation: Theta, exploitation: Theta, samples: int) -> None:
        """Count the samples of one optimiser step and move theta_C as often as is due."""
        self.consumed += samples
        k = self.consumed // self.every - self.followed
        self.followed += k
        if k == 0:
            return
        target = trained_tensors(creation, exploitation)
        source = trained_tensors(exploitation, exploitation)
        if target.keys() != source.keys():
            raise ValueError(
                f"theta_C and theta_E differ in {sorted(target.keys() ^ source.keys())}"
            )
        parameters = dict(exploitation.named_parameters())
        for name, tensor in target.items():
            if name in parameters:
                tensor.lerp_(source[name], 1 - self.alpha**k)
            else:  # buffers, such as running statistics, are rank 0's
                tensor.copy_(broadcast(source[name]))
