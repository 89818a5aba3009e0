"""theta: the parameters that perceive. One module, its twin, and how the twin follows it."""

import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from accelerate.utils import broadcast
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from d2i1_data.diff2in1 import Conditioning, Diff2in1Pipeline, Perception

Raw = dict[str, Tensor]
NOISE_ONLY = ("conv_norm_out", "conv_out")  # parts of a U-Net behind the pyramid


class Noised(NamedTuple):
    """Real images to denoise, for the denoising loss.

    Args:
        latents: noisy scaled latents `[B, C, h, w]`.
        t: their timesteps `[B]`.
        conditioning: of their captions.
        target: what the U-Net should predict, `[B, C, h, w]`.
    """

    latents: Tensor
    t: Tensor
    conditioning: Conditioning
    target: Tensor


class ThetaOutput(NamedTuple):
    """The result of a forward of theta.

    Args:
        raw: raw maps by task; empty if targets were given.
        losses: losses `[B]` by task; empty unless targets were given.
        denoising: the U-Net's output for `Noised`, or None.
    """

    raw: Raw
    losses: Raw
    denoising: Tensor | None


class Theta(nn.Module):
    """U-Net and perception: theta_E, and as its twin theta_C.

    `requires_grad` of theta_E says what is trained, so one code path serves every way to train.
    """

    def __init__(self, unet: UNet2DConditionModel, perception: Perception) -> None:
        super().__init__()
        self.unet, self.perception = unet, perception

    def forward(
        self,
        latents: Tensor,
        conditioning: Conditioning,
        size: tuple[int, int],
        pyramid: tuple[Tensor, ...] | None = None,
        targets: Raw | None = None,
        noised: Noised | None = None,
    ) -> ThetaOutput:
        """Raw maps or losses of latents, at t = 0.

        One call does everything, because several processes average gradients by call.

        Args:
            latents: scaled latents `[B, C, h, w]`.
            conditioning: of the empty prompt, a batch of one.
            size: (H, W) of the maps in pixels.
            pyramid: of the same latents, if a frozen U-Net has given it already.
            targets: by task; if given, the losses are returned instead of raw maps.
            noised: images to denoise in the same call.
        """
        attention_maps = None
        if pyramid is None:
            _, pyramid, attention_maps = self.perception.run_unet(self.unet, latents, conditioning)
        denoising = None
        if noised is not None:
            arguments = noised.conditioning.unet_arguments()
            denoising = self.unet(noised.latents, noised.t, **arguments).sample.float()
        if targets is not None:
            losses = self.perception.losses(pyramid, size, targets, attention_maps)
            return ThetaOutput({}, losses, denoising)
        raw = self.perception(pyramid, size, attention_maps)
        # in float32 under autocast too: a depth in bfloat16 has three digits
        return ThetaOutput({name: one.float() for name, one in raw.items()}, {}, denoising)

    def compute_pyramid(self, latents: Tensor, conditioning: Conditioning) -> tuple[Tensor, ...]:
        """The pyramid of one pass over latents `[B, C, h, w]`."""
        return self.perception.run_unet(self.unet, latents, conditioning).pyramid

    @property
    def frozen(self) -> bool:
        """Whether nothing before the pyramid is trained, so that all thetas have the same one."""
        trained = any(parameter.requires_grad for parameter in self.unet.parameters())
        return not trained and not self.perception.has_own_conditioning


def make_theta(pipe: Diff2in1Pipeline, *, denoises: bool = False) -> Theta:
    """theta_E of a pipeline; it shares the pipeline's modules.

    The pipeline's `trained_unet` says which parameters of the U-Net are trained: none, the LoRA's,
    or all that the pyramid depends on.

    Args:
        pipe: the pipeline to train.
        denoises: also train what only the U-Net's output depends on.
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
    """theta_C: a copy of what is trained that shares every frozen parameter and gets no gradients.

    Make it once device, dtype and `requires_grad` of theta_E are final, and before theta_E is
    wrapped for several processes. Never call `.to(dtype)` afterwards: it would change the shared
    tensors of both.
    """
    shared = {id(p): p for p in theta.parameters() if not p.requires_grad}
    return copy.deepcopy(theta, memo=shared).eval().requires_grad_(False)


def with_theta(pipe: Diff2in1Pipeline, theta: Theta) -> Diff2in1Pipeline:
    """The same pipeline with another theta; all other parts are shared."""
    parts = {**pipe.components, "unet": theta.unet, "perception": theta.perception}
    other = Diff2in1Pipeline(**parts)
    other.register_to_config(**{k: v for k, v in pipe.config.items() if k in pipe.settings()})
    other.set_progress_bar_config(disable=True)
    return other


def trained_tensors(theta: Theta, like: Theta) -> dict[str, Tensor]:
    """The trained tensors of a theta by name, and the buffers of its perception.

    Args:
        theta: whose tensors are returned.
        like: theta_E, whose `requires_grad` says which parameters are trained.
    """
    names = {name for name, parameter in like.named_parameters() if parameter.requires_grad}
    names |= {f"perception.{name}" for name, _ in like.perception.named_buffers()}
    state = {**dict(theta.named_parameters()), **dict(theta.named_buffers())}
    return {name: state[name].detach() for name in sorted(names)}


@dataclass
class Follower:
    """theta_C <- alpha^k theta_C + (1 - alpha^k) theta_E, once per `every` consumed samples.

    One optimiser step may consume several times `every` samples (k > 1) or fewer (k = 0).

    Args:
        alpha: weight of theta_C. Paper: 0.998; 0.999 on PASCAL-Context.
        every: samples. Paper: 40.
        consumed: samples so far.
        followed: how often theta_C has followed so far.
    """

    alpha: float
    every: int
    consumed: int = 0
    followed: int = 0

    @torch.no_grad()
    def follow(self, creation: Theta, exploitation: Theta, samples: int) -> None:
        """Count the samples of one optimiser step, and move theta_C as often as is due.

        Args:
            creation: theta_C.
            exploitation: theta_E.
            samples: consumed by the step, on all processes.

        Source: paper Sec. 3; released code.
        """
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
