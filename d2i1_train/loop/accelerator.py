"""The accelerator of a run: processes, precision and trackers."""

import importlib.util
import os
import sys

from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    ProjectConfiguration,
)

from d2i1_data.checks import require_library
from d2i1_data.errors import InputError

from .settings import TrainSettings

SUPPORTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
SHARDING = ("FSDP", "DEEPSPEED", "MEGATRON_LM")
NO_TRACKER = "losses are not logged: pip install 'diff2in1[tensorboard]', or see --report_to"
DDP = "use DDP: scripts/accelerate/eight_gpus.yaml"


def open_accelerator(settings: TrainSettings) -> Accelerator:
    """Make the accelerator that the settings and `accelerate launch` ask for.

    Raises:
        InputError: if the tracker is not installed, or the kind of distribution is not supported.
    """
    tracker = _find_tracker(settings.report_to)
    for kind in SHARDING:
        if os.environ.get(f"ACCELERATE_USE_{kind}", "false").lower() in ("true", "1"):
            raise InputError(f"{kind} is not supported: theta_C and theta_E share tensors; {DDP}")
    folder = settings.output_dir
    accelerator = Accelerator(
        mixed_precision=settings.mixed_precision,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        log_with=tracker,
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
        project_config=ProjectConfiguration(folder, os.path.join(folder, "logs")),
    )
    if accelerator.distributed_type not in SUPPORTED:
        kind = accelerator.distributed_type.value
        raise InputError(f"distributed type {kind} is not supported; {DDP}")
    if tracker is None and settings.report_to is None:
        accelerator.print(NO_TRACKER, file=sys.stderr)
    return accelerator


def _find_tracker(name: str | None) -> str | None:
    """The tracker that a setting asks for; None for no tracker."""
    if name is None:
        return "tensorboard" if importlib.util.find_spec("tensorboard") else None
    if name == "none":
        return None
    require_library(name, name, f"--report_to {name}")
    return name
