"""The accelerator of a run: processes, precision and trackers."""

import importlib.util
import os

from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    ProjectConfiguration,
)

from d2i1_data.errors import InputError

from .settings import TrainSettings

SUPPORTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
SHARDING = ("FSDP", "DEEPSPEED", "MEGATRON_LM")
DDP = "use DDP: scripts/accelerate/eight_gpus.yaml"


def open_accelerator(settings: TrainSettings) -> Accelerator:
    """Make the accelerator that the settings and `accelerate launch` ask for.

    Raises:
        InputError: if the tracker is not installed, or the kind of distribution is not supported.
    """
    tracker = None if settings.report_to == "none" else settings.report_to
    if tracker and importlib.util.find_spec(tracker) is None:
        raise InputError(f"--report_to {tracker}: not installed, pip install 'diff2in1[{tracker}]'")
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
    return accelerator
