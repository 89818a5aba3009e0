"""theta: the parameters that perceive. theta_E is a module, theta_C its twin that follows it."""

import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from accelerate.utils import broadcast
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from d2i1_data.diff2in1 import Conditioning, Diff2in1Pipeline, Perception

from .perturbation import Perturbation

Raw = dict[str, Tensor]
NOISE_ONLY = ("conv_norm_out", "conv_out")  # parts of a U-Net that the pyramid does not depend on


class Noised(NamedTuple):
    """Real images to denoise, for the denoising loss.

    Args:
        latents: noisy scaled latents `[B, C, h, w]`.
        t: their timesteps `[B]`.
        conditioning: conditioning of their captions.
        target: the right prediction of the U-Net, `[B, C, h, w]`.
    """

    latents: Tensor
    t: Tensor
    conditioning: Conditioning
    target: Tensor


class ThetaOutput(NamedTuple):
    """The result of a forward of theta.

    Args:
        raw: task -> raw maps; empty if targets were given.
        losses: task -> losses `[B]`; empty if no targets were given.
        denoising: output of the U-Net for `Noised`, or None.
    """

    raw: Raw
    losses: Raw
    denoising: Tensor | None


class Theta(nn.Module):
    """U-Net and perception. theta_E is one instance, theta_C its twin.

    `requires_grad` of theta_E marks the trained parameters, so all ways to train share their code.
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
        perturbation: Perturbation | None = None,
    ) -> ThetaOutput:
        """Compute raw maps or losses of latents, at t = 0.

        One call does everything, because several processes average their gradients once per call.

        Args:
            latents: scaled latents `[B, C, h, w]`.
            conditioning: the empty prompt, a batch of one.
            size: (H, W) of the maps in pixels.
            pyramid: pyramid of the same latents, if a frozen U-Net has already computed it.
            targets: task -> targets. If given, losses are returned instead of raw maps.
            noised: images to denoise in the same call.
            perturbation: changes of pyramid and targets, after the U-Net and before the host.
        """
        attention_maps: dict[int, Tensor] = {}
        if pyramid is None:
            _, pyramid, attention_maps = self.perception.run_unet(self.unet, latents, conditioning)
        if perturbation is not None:
            pyramid = perturbation.of_pyramid(pyramid)
            attention_maps = {n: perturbation.paste(one) for n, one in attention_maps.items()}
            targets = targets and {n: perturbation.paste(one) for n, one in targets.items()}
        denoising = None
        if noised is not None:
            arguments = noised.conditioning.unet_arguments()
            denoising = self.unet(noised.latents, noised.t, **arguments).sample.float()
        if targets is not None:
            losses = self.perception.losses(pyramid, size, targets, attention_maps)
            return ThetaOutput({}, losses, denoising)
        raw = self.perception(pyramid, size, attention_maps)
        # in float32 even under autocast, because bfloat16 has only three digits
        return ThetaOutput({name: one.float() for name, one in raw.items()}, {}, denoising)

    def compute_pyramid(self, latents: Tensor, conditioning: Conditioning) -> tuple[Tensor, ...]:
        """The pyramid of one pass over latents `[B, C, h, w]`."""
        return self.perception.run_unet(self.unet, latents, conditioning).pyramid

    @property
    def frozen(self) -> bool:
        """Whether no parameter before the pyramid is trained. Then all thetas share the pyramid."""
        trained = any(parameter.requires_grad for parameter in self.unet.parameters())
        return not trained and not self.perception.has_own_conditioning


def make_theta(pipe: Diff2in1Pipeline, *, denoises: bool = False) -> Theta:
    """Make theta_E of a pipeline. Both share their modules.

    `trained_unet` of the pipeline chooses the trained parameters of the U-Net: none, the LoRA's, or
    all parameters that the pyramid depends on.

    Args:
        pipe: the pipeline to train.
        denoises: also train the parameters that only the output of the U-Net depends on.
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
    """Make theta_C: a copy of the trained parameters that shares all frozen parameters.

    theta_C gets no gradients. Make it when device, dtype and `requires_grad` of theta_E are final,
    and before theta_E is wrapped for several processes. Never call `.to(dtype)` afterwards, because
    it would change the shared tensors of both.
    """
    shared = {id(p): p for p in theta.parameters() if not p.requires_grad}
    return copy.deepcopy(theta, memo=shared).eval().requires_grad_(False)


def with_theta(pipe: Diff2in1Pipeline, theta: Theta) -> Diff2in1Pipeline:
    """The same pipeline with another theta. All other parts are shared."""
    parts = {**pipe.components, "unet": theta.unet, "perception": theta.perception}
    other = Diff2in1Pipeline(**parts)
    other.register_to_config(**{k: v for k, v in pipe.config.items() if k in pipe.settings()})
    other.set_progress_bar_config(disable=True)
    return other


def trained_tensors(theta: Theta, like: Theta) -> dict[str, Tensor]:
    """The trained tensors of a theta and the buffers of its perception, by name.

    Args:
        theta: its tensors are returned.
        like: theta_E. Its `requires_grad` marks the trained parameters.
    """
    names = {name for name, parameter in like.named_parameters() if parameter.requires_grad}
    names |= {f"perception.{name}" for name, _ in like.perception.named_buffers()}
    state = {**dict(theta.named_parameters()), **dict(theta.named_buffers())}
    return {name: state[name].detach() for name in sorted(names)}


@dataclass
class Follower:
    """Updates theta_C: theta_C <- alpha theta_C + (1 - alpha) theta_E, every so many samples.

    An optimiser step may consume fewer samples than `every` or several times as many. k due updates
    are made at once, with alpha^k.

    Args:
        alpha: weight of theta_C. Paper: 0.998; 0.999 on PASCAL-Context.
        every: number of consumed samples between two updates. Paper: 40.
        consumed: samples consumed so far.
        followed: updates made so far.
        buffers: whether running statistics of batch norm follow like weights. Otherwise they are
            copied.
    """

    alpha: float
    every: int
    consumed: int = 0
    followed: int = 0
    buffers: bool = False

    @torch.no_grad()
    def follow(self, creation: Theta, exploitation: Theta, samples: int) -> None:
        """Count the samples of one optimiser step, and make all due updates.

        Args:
            creation: theta_C.
            exploitation: theta_E.
            samples: samples that the step consumed, on all processes.

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
            # the buffers of rank 0 decide
            new = source[name] if name in parameters else broadcast(source[name])
            if name in parameters or (self.buffers and new.is_floating_point()):
                tensor.lerp_(new, 1 - self.alpha**k)
            else:
                tensor.copy_(new)
