"""Finish a run: write the trained pipeline with its card, and push it if the settings say so."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from diffusers import UNet2DConditionModel
from PIL.Image import Image

from d2i1_data.card import Links, write_model_card
from d2i1_data.checkpoints.training_record import TrainingRecord, write_training
from d2i1_data.dataset.files import atomic_folder, write_png
from d2i1_data.dataset.preview import PREVIEW
from d2i1_data.dataset.schema import read_tasks
from d2i1_data.diff2in1 import Diff2in1Pipeline

from .checkpoint import load_tensors
from .lora import fuse, save_adapter
from .run import Run
from .training_stage import StageFacts, training_record
from .validation import draw_predictions

LoadUnet = Callable[[], UNet2DConditionModel]


def finish(run: Run, pipe: Diff2in1Pipeline, load_base_unet: LoadUnet, held_out: int = 0) -> Path:
    """Write the trained pipeline, push it if the settings say so, and close the run.

    Args:
        run: the run, after its last step.
        pipe: the pipeline to publish.
        load_base_unet: loads the base's own U-Net, which is saved beside a trained U-Net.
        held_out: number of created rows made from samples that may be held out.

    Returns:
        The folder of the pipeline.
    """
    folder = run.folder / "pipeline"
    if run.accelerator.is_main_process:
        _write_results(run, folder, pipe, load_base_unet, held_out)
    run.close()
    for source in (rows.source for rows in run.rows):
        for note, count in source.notes.items():
            run.accelerator.print(f"{source.name}: {note}: {count}")
    run.accelerator.wait_for_everyone()
    if run.pusher:
        run.pusher.finish()
    return folder


def _write_results(
    run: Run, folder: Path, pipe: Diff2in1Pipeline, load_base_unet: LoadUnet, held_out: int
) -> None:
    """Write the pipeline. After training a LoRA, first write the adapter alone."""
    validation, validated = run.validation, None
    if validation:
        best = validation.best
        if best and best.is_saved():  # a run may end before its first validation
            name = "creation" if "creation" in run.thetas else "exploitation"
            load_tensors(best.folder / f"{name}.safetensors", run.creation, run.exploitation)
        validated, picture = validation.report(pipe), validation.picture(pipe)
    else:
        configs = {name: family.config() for name, family in pipe.perception.families.items()}
        picture = draw_predictions(pipe, run.rows[0], read_tasks(configs, "pipeline"))
    processes = run.accelerator.num_processes
    facts = StageFacts(run.name, run.settings, run.rows, run.step, processes, validated, held_out)
    if pipe.config.trained_unet == "lora":
        save = partial(save_adapter, pipe)
        _write_folder(run.folder / "adapter", save, training_record(facts, pipe), picture)
        fuse(pipe)
    if pipe.config.trained_unet != "none" and pipe.config.default_create_with == "base":
        pipe.register_modules(base_unet=load_base_unet())
    _write_folder(folder, pipe.save_pretrained, training_record(facts, pipe), picture)


def _write_folder(
    folder: Path, save: Callable[[Path], None], record: TrainingRecord, picture: Image
) -> None:
    """Write a pipeline or an adapter with its card, as a whole or not at all."""
    with atomic_folder(folder, replace=True) as temporary:
        save(temporary)
        write_png(temporary / PREVIEW, picture)
        write_training(temporary, record)
        write_model_card(temporary, Links(name=folder.name))
