"""Diff2in1Pipeline: one latent diffusion model that creates labelled images and perceives images.

Letters in shape comments: B batch, C R channels, H W pixels, h w latent pixels.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    ModelMixin,
    SchedulerMixin,
    UNet2DConditionModel,
)
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from .backbone import Backbone
from .checkpoint import Base, check_parts, load_part
from .conditioning import Conditioning
from .creation import (
    CreateWith,
    Denoising,
    LabelsFrom,
    check_creation,
    create_latents,
)
from .images import to_batches, to_uint8
from .outputs import (
    CREATED_TYPES,
    PREDICTED_TYPES,
    Diff2in1Output,
    OutputType,
    as_returned,
    check_output_type,
    finish_images,
    finish_maps,
)
from .prediction import perceive, predict_maps
from .registry import find_host, find_host_class
from .request import (
    check_copies,
    encode_images,
    read_callback,
    read_request,
)
from .saving import (
    FORMAT_VERSION,
    SavedWithCode,
    check_index,
    load_lora,
)
from .showing import ShowsMaps


class Diff2in1Pipeline(SavedWithCode, ShowsMaps, DiffusionPipeline, StableDiffusionLoraLoaderMixin):  # type: ignore[misc]
    """A Stable Diffusion base with a perception model that reads the features of its U-Net.

    `pipe(image, prompt)` creates a labelled variation of an image, `pipe.predict(image)` labels it.

    Args:
        vae: autoencoder of the base.
        text_encoder: text encoder of the base.
        tokenizer: tokenizer of the base.
        unet: the U-Net of theta, which perceives. If it was trained for perception (`trained_unet`
            "lora" or "full"), it partly forgets how to create.
        scheduler: noise levels of the base, and how it creates: one of `schedulers.SCHEDULERS`.
        perception: the host.
        base_unet: the base's own U-Net, for creation; `base_unet=None` leaves it out.
        base: name or Hub id of the base, with `base_revision` and `base_variant`.
        trained_unet: the trained part of the U-Net: "none", "lora" or "full".
        default_create_with: calls use the `default_` settings for arguments that are None.
        format_version: format version of the folder that the pipeline is loaded from.
    """

    model_cpu_offload_seq = "text_encoder->base_unet->unet->perception->vae"
    _optional_components: ClassVar = ["base_unet"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        perception: ModelMixin,
        base_unet: UNet2DConditionModel | None = None,
        base: str | None = None,
        base_revision: str | None = None,
        base_variant: str | None = None,
        trained_unet: str = "none",
        default_create_with: str = "base",
        default_strength: float = 0.6,
        default_num_inference_steps: int = 50,
        default_guidance_scale: float = 1.0,
        default_processing_resolution: int | None = None,
        format_version: int = FORMAT_VERSION,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            perception=perception,
            base_unet=base_unet,
        )
        check_parts(self.components)
        self.register_to_config(
            base=base,
            base_revision=base_revision,
            base_variant=base_variant,
            trained_unet=trained_unet,
            default_create_with=default_create_with,
            default_strength=default_strength,
            default_num_inference_steps=default_num_inference_steps,
            default_guidance_scale=default_guidance_scale,
            default_processing_resolution=default_processing_resolution,
            format_version=FORMAT_VERSION,
        )
        check_index({**self.config, "format_version": format_version}, "pipeline")
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.stride = self.vae_scale_factor * 2 ** (len(unet.config.block_out_channels) - 1)

    @classmethod
    def from_base(
        cls, base: str | Base, host: str, tasks: dict[str, dict[str, Any]], **options: Any
    ) -> "Diff2in1Pipeline":
        """Mount a new, untrained host on a base.

        Args:
            base: a Stable Diffusion checkpoint, see `Base`, or the name of an embedded base.
            host: name of the host.
            tasks: task name -> the config of its family, see `Perception`.
            options: options of the host, such as `width`.

        Raises:
            ValueError: if the host or an option is unknown, or the base cannot be used.
        """
        kind = find_host(host)
        kind.check_options(**options)
        base = Base.named(base) if isinstance(base, str) else base
        parts = base.load()
        return cls._mounted(base, parts, kind.mount(parts, tasks, **options).eval())

    @classmethod
    def from_adapter(cls, adapter: str, base: str | Base | None = None) -> "Diff2in1Pipeline":
        """Open an adapter repository: a LoRA and a perception model, on the base that it names.

        The LoRA is not fused, so creation can switch it off.

        Args:
            adapter: a folder or Hub id.
            base: place of the base. None uses the base that the adapter names, if it is embedded or
                on the Hub.

        Raises:
            ValueError: if its host is unknown or its format is newer.
        """
        config = cls.load_config(adapter)
        check_index(config, f"adapter {adapter}")
        host = find_host_class(config["perception"][1])
        if host is None:
            raise ValueError(f"{adapter}: unknown host {config['perception'][1]}")
        if base is None:
            base = Base.named(config["base"], config["base_revision"], config["base_variant"])
        base = Base.named(base) if isinstance(base, str) else base
        perception = load_part(host, adapter, "perception")
        pipe = cls._mounted(base, base.load(), perception.eval())
        known = cls.settings() - {"format_version"}
        pipe.register_to_config(**{k: v for k, v in config.items() if k in known})
        load_lora(pipe, adapter)
        pipe.unet.eval()  # loading a LoRA switches its dropout on
        return pipe

    @classmethod
    def _mounted(cls, base: Base, parts: Any, perception: ModelMixin) -> "Diff2in1Pipeline":
        return cls(
            vae=parts.vae,
            text_encoder=parts.text_encoder,
            tokenizer=parts.tokenizer,
            unet=parts.unet,
            scheduler=DDIMScheduler.from_config(parts.scheduler.config),
            perception=perception,
            base=base.name,
            base_revision=base.revision,
            base_variant=base.variant,
        )

    @classmethod
    def settings(cls) -> set[str]:
        """Names of the settings in the config, without the components."""
        return set(cls._get_signature_keys(cls)[1]) - {*cls._optional_components}

    @property
    def backbone(self) -> Backbone:
        """How the base encodes text and images, and what its U-Net predicts."""
        return Backbone.of(self)

    def enable_freeu(self, s1: float, s2: float, b1: float, b2: float) -> None:
        """Create with FreeU, as in diffusers. It does not change predictions.

        Args:
            s1: factor of the skip features in the first stage of the U-Net.
            s2: the same in the second stage.
            b1: factor of the backbone features in the first stage.
            b2: the same in the second stage.
        """
        for unet in filter(None, (self.unet, self.base_unet)):
            unet.enable_freeu(s1=s1, s2=s2, b1=b1, b2=b2)

    def disable_freeu(self) -> None:
        """Create without FreeU."""
        for unet in filter(None, (self.unet, self.base_unet)):
            unet.disable_freeu()

    @torch.no_grad()
    def __call__(
        self,
        image: Any = None,
        prompt: str | list[str] = "",
        strength: float | list[float] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | list[str] = "",
        generator: torch.Generator | list[torch.Generator] | None = None,
        labels_from: LabelsFrom = "latent",
        create_with: CreateWith | None = None,
        height: int | None = None,
        width: int | None = None,
        output_type: OutputType = "pil",
        num_images_per_prompt: int = 1,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, Tensor, dict[str, Tensor]], Any] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Diff2in1Output:
        """Create a labelled variation of each image.

        Arguments that are None take the default of the checkpoint.

        Args:
            image: images of one size, see `images.to_batches`. None creates from pure noise and the
                prompts alone.
            prompt: one prompt, or one per image. A warning names text that the tokenizer cuts off.
            strength: noise level T / 1000 in [0, 1], one, or one per image. 0 for all images keeps
                and labels them. Without an image it is 1.
            num_inference_steps: U-Net calls between T and 0, T / steps apart, the last at t = 1
                (paper: 50). Diffusers' image-to-image makes only int(steps * strength) calls.
            guidance_scale: scale of classifier-free guidance; 1 is no guidance (paper).
            negative_prompt: one prompt that guidance leads away from, or one per image.
            generator: one generator, or one per created image.
            labels_from: "latent" makes one more pass, over the final latents at t = 0. "last_step"
                uses the features of the last denoising call (paper; no extra cost). "image" encodes
                the 8-bit image again, and so gives the same labels as `predict`.
            create_with: the U-Net that denoises: "base" for the base's own, "theta" for theta's.
                They are the same unless the U-Net was trained.
            height: height in pixels, only without an image; None is the base's.
            width: width in pixels, only without an image; None is the base's.
            output_type: "pil", "np", "pt" or "latent", see `Diff2in1Output`.
            num_images_per_prompt: number of variations of each image, which are neighbours.
            prompt_embeds: output of the text encoder `[1 or B, L, D]` instead of a prompt.
            negative_prompt_embeds: the same instead of a negative prompt.
            return_dict: False gives a tuple of the fields of the output.
            callback_on_step_end: function of pipeline, step, timestep and a dict of tensors, called
                after each step. Latents in the dict that it returns replace those of the call.
            callback_on_step_end_tensor_inputs: tensors in that dict; there is only "latents".

        Raises:
            ValueError: if a value is unknown, or this pipeline cannot create in this way.

        Source: paper Fig. 2, creation.
        """
        # 1. Settings of the call, or else of the checkpoint
        check_output_type(output_type, CREATED_TYPES)
        if strength is None:
            strength = 1.0 if image is None else self.config.default_strength
        create_with = create_with or self.config.default_create_with
        check_creation(self, labels_from, create_with)
        check_copies(num_images_per_prompt, strength)
        if strength == 0:
            output = self.predict(
                image, output_type="pt" if output_type == "latent" else output_type
            )
            if output_type == "latent":
                output["images"] = encode_images(self, image)
            return as_returned(output, return_dict)
        tensor_inputs = callback_on_step_end_tensor_inputs
        positive, negative = (prompt, prompt_embeds), (negative_prompt, negative_prompt_embeds)
        request = read_request(
            self, image, (height, width), positive, negative, strength, num_images_per_prompt
        )

        # 2. Latents by partial noising and denoising
        latents, pyramid = create_latents(
            self,
            request.start,
            request.prompts,
            request.strengths,
            generator,
            Denoising(num_inference_steps, guidance_scale, request.negative, create_with),
            return_pyramid=labels_from == "last_step",
            on_step_end=read_callback(self, callback_on_step_end, tensor_inputs),
        )

        # 3. Decoding, then labels
        output = self._finish(latents, pyramid, request.size, labels_from, output_type)
        return as_returned(output, return_dict)

    def _finish(
        self,
        latents: Tensor,
        pyramid: tuple[Tensor, ...] | None,
        size: tuple[int, int],
        labels_from: LabelsFrom,
        output_type: OutputType,
    ) -> Diff2in1Output:
        """Decode and label created latents `[B, C, h, w]`; see `__call__`."""
        maps_type: OutputType = "pt" if output_type == "latent" else output_type
        images = list(latents)
        if output_type != "latent" or labels_from == "image":
            created = self.decode_latents(latents)[..., : size[0], : size[1]]  # [B, 3, H, W]
        if output_type != "latent":
            images = finish_images(created.split(1), output_type)
        if labels_from == "image":
            maps: Any = self.predict(list(to_uint8(created)), output_type=maps_type)
        else:
            raw = perceive(self, latents, size, pyramid)
            maps = finish_maps(self.perception.families, raw, maps_type)
        self.maybe_free_model_hooks()
        return Diff2in1Output(**{**maps, "images": images})

    @torch.no_grad()
    def predict(
        self,
        image: Any,
        processing_resolution: int | None = None,
        flip: bool = False,
        window: int | None = None,
        batch_size: int = 8,
        output_type: OutputType = "pil",
        return_dict: bool = True,
        ensemble_size: int = 1,
    ) -> Diff2in1Output:
        """Label images of any size. The same input gives the same output.

        Latents have no noise: they are the mode of the posterior. The U-Net runs at t = 0 with the
        empty prompt, unless the host has its own settings. Maps have the size of their image.

        Args:
            image: see `images.to_batches`.
            processing_resolution: longer side at which the model works; 0 keeps the size of the
                image, None takes the default of the checkpoint.
            flip: average with the prediction for the mirrored image.
            window: predict in overlapping square windows with this side, two thirds of it apart.
                None predicts the whole image at once.
            batch_size: number of images, all of one size, in one pass.
            output_type: "pil", "np" or "pt", see `Diff2in1Output`.
            return_dict: False gives a tuple of the fields of the output.
            ensemble_size: average the predictions of 1 to 4 views of the image: as it is, mirrored,
                and both enlarged by a stride. The uncertainty is that of the ensemble.

        Raises:
            ValueError: if an image or the output type cannot be used.
        """
        check_output_type(output_type, PREDICTED_TYPES)
        batches = to_batches(image)
        how = (processing_resolution, flip, window, batch_size, ensemble_size)
        maps = predict_maps(self, batches, output_type, *how)
        self.maybe_free_model_hooks()
        images = finish_images(batches, output_type)
        return as_returned(Diff2in1Output(images=images, **maps), return_dict)

    def perception_conditioning(self) -> Conditioning:
        """Conditioning of the empty prompt, a batch of one, for hosts without their own."""
        return self.encode_prompt([""])

    def encode_prompt(self, prompts: list[str]) -> Conditioning:
        """Conditioning of a batch of prompts. A warning names text that the tokenizer cuts off."""
        return self.backbone.encode_text(prompts, self._execution_device)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Encode images `[B, 3, H, W]` in [-1, 1] as scaled latents `[B, C, h, w]`, the mode."""
        return self.backbone.encode_image(pixels)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Decode scaled latents `[B, C, h, w]` to images `[B, 3, H, W]`, roughly in [-1, 1]."""
        return self.backbone.decode_latents(latents)
