"""LoRA: small trained matrices beside the frozen ones of the U-Net, in the format of diffusers.

Hu et al. 2021, arXiv 2106.09685; rsLoRA: Kalajdzievski 2023, arXiv 2312.03732.
"""

from pathlib import Path

from diffusers import UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import nn

from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.diff2in1.saving import LORA_NAME, write_index
from d2i1_data.errors import InputError

from ..settings import WarmUpSettings

WITH_LORA = (nn.Linear, nn.Conv2d)  # layers that can have a LoRA


def add_lora(unet: UNet2DConditionModel, settings: WarmUpSettings) -> None:
    """Add a new LoRA to layers of a U-Net. Until it is trained, it does not change the output.

    Args:
        unet: the U-Net.
        settings: names of the layers, and rank, alpha and dropout.

    Raises:
        InputError: if there is no such layer.
    """
    layers = [name.strip() for name in settings.lora_layers.split(",")]
    for layer in layers:
        found = [m for name, m in unet.named_modules() if f".{name}".endswith(f".{layer}")]
        if not layer or not found or not all(isinstance(m, WITH_LORA) for m in found):
            raise InputError(
                f"--lora_layers: no linear layers or convolutions called {layer!r};"
                " attention has to_q, to_k, to_v, to_out.0, feed-forward ff.net.0.proj,"
                " ff.net.2, a resnet conv1, conv2"
            )
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.rank if settings.lora_alpha is None else settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        use_rslora=settings.use_rslora,
        target_modules=layers,
        init_lora_weights="gaussian",
    )
    unet.add_adapter(config, LORA_NAME)


def save_adapter(pipe: Diff2in1Pipeline, folder: Path) -> None:
    """Write a pipeline whose LoRA is not fused as an adapter repository.

    The folder holds `pytorch_lora_weights.safetensors` as diffusers writes it, with rank and alpha
    in its header; the whole `perception/`; and only the name of the base.
    `Diff2in1Pipeline.from_adapter` opens it.

    Args:
        pipe: the pipeline.
        folder: gets the files.
    """
    layers = convert_state_dict_to_diffusers(
        get_peft_model_state_dict(pipe.unet, adapter_name=LORA_NAME)
    )
    header = pipe.unet.peft_config[LORA_NAME].to_dict()
    header["target_modules"] = sorted(header["target_modules"])  # a set has no order
    pipe.save_lora_weights(folder, unet_lora_layers=layers, unet_lora_adapter_metadata=header)
    pipe.perception.save_pretrained(folder / "perception")
    config = {key: value for key, value in pipe.config.items() if key in pipe.settings()}
    write_index(folder, perception=["diff2in1", type(pipe.perception).__name__], **config)


def fuse(pipe: Diff2in1Pipeline) -> None:
    """Merge the LoRA into the U-Net. This cannot be undone."""
    pipe.fuse_lora(components=["unet"])
    pipe.unload_lora_weights()
