"""The optimiser of theta_E: make it, schedule its learning rates, load its state."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.optimization import get_scheduler

from d2i1_data.errors import InputError

from ..theta import Theta
from .checkpoint import checkpoint_of, explain_damage
from .manifest import require_intact
from .settings import TrainSettings

MAX_BETA1, MIN_BETA1 = 0.95, 0.85  # defaults of torch's OneCycleLR


def make_optimizer(theta: Theta, settings: TrainSettings) -> torch.optim.Optimizer:
    """Make AdamW for the trained parameters, with one rate for the U-Net and one for the host.

    Raises:
        InputError: if the settings choose 8-bit moments and bitsandbytes is not installed.
    """
    parts = (
        ("unet", theta.unet.parameters(), settings.unet_learning_rate),
        ("host", theta.perception.parameters(), settings.learning_rate),
    )
    groups = [
        {"params": trained, "lr": rate, "initial_lr": rate, "part": part}
        for part, parameters, rate in parts
        if (trained := [p for p in parameters if p.requires_grad])
    ]
    rate, decay = settings.learning_rate, settings.adam_weight_decay
    if not settings.use_8bit_adam:
        return torch.optim.AdamW(groups, rate, weight_decay=decay, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise InputError(
            "--use_8bit_adam needs bitsandbytes: pip install 'diff2in1[8bit]'"
        ) from error
    return AdamW8bit(groups, rate, weight_decay=decay)


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: TrainSettings
) -> Callable[[int], float]:
    """Make the schedule: a function without state from a step to the factor of all rates."""
    if settings.lr_scheduler == "one_cycle":
        start = 1 / settings.lr_div_factor
        return _one_cycle(settings, start, 1.0, start / settings.lr_final_div_factor)
    schedule = get_scheduler(
        settings.lr_scheduler,
        optimizer,
        num_warmup_steps=settings.lr_warmup_steps,
        num_training_steps=settings.max_train_steps,
        num_cycles=settings.lr_num_cycles,
        power=settings.lr_power,
    )
    rate: Callable[[int], float] = schedule.lr_lambdas[0]
    return rate


def make_beta1(settings: TrainSettings) -> Callable[[int], float] | None:
    """Make the function from a step to the first beta of AdamW; None if beta is constant."""
    if settings.lr_scheduler != "one_cycle" or not settings.lr_cycle_beta1:
        return None
    return _one_cycle(settings, MAX_BETA1, MIN_BETA1, MAX_BETA1)


def _one_cycle(
    settings: TrainSettings, start: float, turn: float, end: float
) -> Callable[[int], float]:
    """Go from start to turn, then to end, with the same steps as torch's OneCycleLR.

    Source: Smith and Topin 2017, arXiv 1708.07120, in two phases.
    """
    last = settings.max_train_steps - 1
    top = settings.lr_pct_start * settings.max_train_steps - 1

    def at(step: int) -> float:
        rises = step <= top
        begin, stop, low, high = (0.0, top, start, turn) if rises else (top, last, turn, end)
        share = (step - begin) / (stop - begin) if stop > begin else 1.0
        if settings.lr_anneal == "linear":
            return low + (high - low) * share
        return high + (low - high) * (1 + math.cos(math.pi * share)) / 2

    return at


def optimizer_file(pipeline: str) -> Path:
    """Find the optimiser state of the run that trained a pipeline, see `checkpoint_of`.

    Raises:
        InputError: if there is no checkpoint beside the pipeline, or it is damaged.
    """
    checkpoint = checkpoint_of(pipeline)
    if checkpoint is None:
        raise InputError(
            f"no checkpoint-N with an optimiser state beside {pipeline};"
            " --fresh_optimizer starts with an empty state"
        )
    require_intact(checkpoint, "--fresh_optimizer starts with an empty state")
    return checkpoint / "optimizer.bin"


def load_optimizer(optimizer: torch.optim.Optimizer, file: Path) -> None:
    """Load the optimiser state of another run. Learning rates and weight decay do not change.

    Args:
        optimizer: gets the state.
        file: `optimizer.bin` of a checkpoint.

    Raises:
        InputError: if the other run trained other parameters, or used another kind of AdamW, or
            the file is damaged.
    """
    own = optimizer.state_dict()["param_groups"]
    with explain_damage(file):
        state = torch.load(file, map_location="cpu", weights_only=True)
        _check_state(state, own, file)
        optimizer.load_state_dict({"state": state["state"], "param_groups": own})


def _check_state(state: dict[str, Any], own: list[dict[str, Any]], file: Path) -> None:
    """Refuse the state of other parameters, or of another kind of AdamW."""
    if ("amsgrad" in state["param_groups"][0]) != (
        "amsgrad" in own[0]
    ):  # 8-bit AdamW has no such option
        raise InputError(
            f"{file}: the warm-up and this run differ in --use_8bit_adam; set it in both, or start"
            " with an empty state: --fresh_optimizer"
        )
    theirs, ours = ([len(g["params"]) for g in groups] for groups in (state["param_groups"], own))
    if theirs != ours:
        raise InputError(
            f"{file} is the state of {theirs} parameters, this run trains {ours}: another part of"
            " the U-Net; --fresh_optimizer starts with an empty state"
        )
