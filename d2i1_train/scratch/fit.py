"""The training loop of both parts of a base: AdamW, schedule, EMA, resuming, previews."""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from d2i1_data.dataset.files import atomic_file
from d2i1_data.errors import InputError

STATE = "state.safetensors"


@dataclass(frozen=True)
class Fit:
    """How one part is trained.

    every: number of steps between checkpoints. Each checkpoint has a preview.
    """

    steps: int
    learning_rate: float
    ema_decay: float
    every: int
    seed: int


def fit(
    name: str,
    model: nn.Module,
    loss: Callable[[torch.Generator], Tensor],
    recipe: Fit,
    folder: Path,
    preview: Callable[[], None],
) -> None:
    """Train a model. Afterwards it has the averaged weights.

    A resumed run continues exactly as if it had not been interrupted, because the generator of each
    step is seeded by (seed, step).

    Args:
        name: name of the part, for the progress bar and the folder.
        model: the model to train.
        loss: computes the loss of a step. It takes all random numbers from the given generator.
        recipe: how to train.
        folder: gets the checkpoints.
        preview: draws a picture with the averaged weights.

    Raises:
        InputError: if the training diverges, or the last checkpoint cannot be read.
    """
    parameters = dict(model.named_parameters())
    average = {key: value.detach().clone() for key, value in parameters.items()}
    optimizer = torch.optim.AdamW(parameters.values(), recipe.learning_rate, (0.9, 0.99))
    start = _resume(folder / name, parameters, average, optimizer)
    bar = tqdm(range(start, recipe.steps), name, initial=start, total=recipe.steps, mininterval=2)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, recipe.steps)
        value = loss(torch.Generator().manual_seed(recipe.seed * 1_000_003 + step))
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        if not torch.stack([value.detach(), norm]).isfinite().all():
            raise InputError(
                f"base diverged: in step {step + 1} of {name} the loss is {value.item()}, the norm"
                f" of the gradients {norm.item()}: lower --{name}_learning_rate, and begin in a new"
                " folder"
            )
        optimizer.step()
        optimizer.zero_grad()
        decay = min(recipe.ema_decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            list(average.values()), [p.detach() for p in parameters.values()], 1 - decay
        )
        if step % 50 == 0:
            bar.set_postfix(loss=f"{value.item():.4f}")
        if (step + 1) % recipe.every == 0 or step + 1 == recipe.steps:
            _save(folder / name, step + 1, parameters, average, optimizer)
            _with_average(parameters, average, preview)
    with torch.no_grad():
        for key, parameter in parameters.items():
            parameter.copy_(average[key])


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up over 2 % of the steps, then half a cosine, down to 2 % of the rate."""
    warm = max(1, steps // 50)
    if step < warm:
        return (step + 1) / warm
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@torch.no_grad()
def _with_average(
    parameters: dict[str, nn.Parameter], average: dict[str, Tensor], act: Callable[[], None]
) -> None:
    current = {key: value.detach().clone() for key, value in parameters.items()}
    for key, parameter in parameters.items():
        parameter.copy_(average[key])
    act()
    for key, parameter in parameters.items():
        parameter.copy_(current[key])


def _save(
    path: Path,
    step: int,
    parameters: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write one safetensors file as a whole or not at all."""
    path.mkdir(parents=True, exist_ok=True)
    tensors = {f"parameters.{key}": value.detach() for key, value in parameters.items()}
    tensors |= {f"average.{key}": value for key, value in average.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in moments.items()}
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    facts = {"step": json.dumps(step), "hash": _hash(tensors)}
    with atomic_file(path / STATE) as temporary:
        save_file(tensors, temporary, facts)


def _resume(
    path: Path,
    parameters: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> int:
    """Load the last state if there is one, and return its step.

    Raises:
        InputError: if it is damaged, or belongs to other parameters.
    """
    file = path / STATE
    if not file.exists():
        return 0
    try:
        tensors = load_file(file)
        with safe_open(file, "pt") as opened:
            facts = opened.metadata()
        if facts.get("hash", own := _hash(tensors)) != own:  # earlier versions wrote no hash
            raise ValueError("its content is not as it was written")
        _load(tensors, parameters, average, optimizer)
        return int(facts["step"])
    except (OSError, ValueError, LookupError, RuntimeError, AttributeError, SafetensorError) as e:
        raise InputError(f"{file} is damaged ({e}): delete it to train {path.name} anew") from e


def _load(
    tensors: dict[str, Tensor],
    parameters: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, moment = key.split(".", 2)
            state.setdefault(int(index), {})[moment] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    with torch.no_grad():
        for key, parameter in parameters.items():
            parameter.copy_(tensors[f"parameters.{key}"])
            average[key].copy_(tensors[f"average.{key}"])


def _hash(tensors: dict[str, Tensor]) -> str:
    """The sha256 of the names and bytes of tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
