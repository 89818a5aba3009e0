"""Open the results of a run again: to train further, or to use theta_E instead of theta_C."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from diffusers import UNet2DConditionModel
from safetensors import safe_open

from d2i1_data.checkpoints.bases import find_base
from d2i1_data.checkpoints.files import fetch, read_index
from d2i1_data.checkpoints.pipelines import open_pipeline
from d2i1_data.dataset.record import read_run
from d2i1_data.diff2in1 import Base, Diff2in1Pipeline
from d2i1_data.errors import InputError

from ..theta import make_theta
from .checkpoint import checkpoint_of, explain_damage, load_tensors
from .manifest import require_intact


def open_trainable(
    pipeline: str, base: str | None = None
) -> tuple[Diff2in1Pipeline, Callable[[], UNet2DConditionModel]]:
    """Open a pipeline to train it further.

    A fused LoRA cannot be trained. It is then read from the folder `adapter` beside the pipeline,
    and its base from the place that the warm-up used.

    Args:
        pipeline: folder or Hub id of a pipeline or an adapter.
        base: new place of the base of a LoRA, if it was moved.

    Returns:
        The pipeline, and a function that loads the base's own U-Net.

    Raises:
        InputError: if a fused LoRA has no adapter beside it, or the base is not found.
    """
    folder = fetch(pipeline, "pipeline")
    index = read_index(folder, "pipeline")
    if index.get("trained_unet") != "lora":
        subfolder = "base_unet" if index.get("trained_unet") == "full" else "unet"
        load = partial(UNet2DConditionModel.from_pretrained, folder, subfolder=subfolder)
        return open_pipeline(pipeline, base_unet=None), load
    adapter = folder.parent / "adapter" if "unet" in index else folder
    if not adapter.is_dir():
        raise InputError(
            f"pipeline {pipeline}: its LoRA is fused and cannot be trained further;"
            " give the adapter"
        )
    found = _base_beside(folder, base)
    if found is None:
        found = find_base(index["base"], index["base_revision"], index["base_variant"])
    return open_pipeline(str(adapter), found), found.load_unet


def _base_beside(pipeline: Path, moved: str | None) -> Base | None:
    """The base that the first stage of a pipeline started from.

    moved: its new place, if it was moved.
    """
    record = read_run(pipeline.parent)
    run = record.settings if record else {}
    if run.get("pipeline"):  # this run improved the result of another run
        return _base_beside(Path(run["pipeline"]), moved or run.get("base"))
    place = moved or run.get("base")
    if not place:
        return None
    if str(place).endswith(".safetensors"):
        found = find_base(place, config=run.get("base_config"))
    else:
        found = find_base(place, None if moved else run.get("revision"), run.get("variant"))
    return replace(found, prediction_type=run.get("prediction_type"))


def open_theta(pipeline: str, theta: str) -> Diff2in1Pipeline:
    """Open a pipeline with theta_C's weights or with theta_E's.

    Args:
        pipeline: folder or Hub id of a pipeline; for theta_E the folder `pipeline` of a run.
        theta: `creation` for the pipeline's own weights, `exploitation` for those of the checkpoint
            beside it, see `checkpoint_of`.

    Raises:
        InputError: if there is no checkpoint beside it, or it is damaged.
    """
    if theta != "exploitation":
        return open_pipeline(pipeline, base_unet=None)
    checkpoint = checkpoint_of(pipeline)
    if checkpoint is None:
        raise InputError(f"--theta exploitation: no checkpoint-N beside {pipeline}")
    require_intact(checkpoint, "--theta creation scores the pipeline")
    pipe, _ = open_trainable(pipeline)
    own, file = make_theta(pipe), checkpoint / "exploitation.safetensors"
    with explain_damage(file), safe_open(file, "pt") as stored:
        names = set(stored.keys())
    for name, parameter in own.named_parameters():
        parameter.requires_grad_(name in names)
    load_tensors(file, own, own)
    own.eval().requires_grad_(False)
    return pipe
