"""Presets that say how the host methods are trained: what they hold, and that both stages run."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from d2i1_train.acts import ACTS
from d2i1_train.loop.settings import TrainSettings
from d2i1_train.presets.files import find_settings_file

RECIPES = {
    "bae": "sd15-frozen",
    "idisc": "sd15-frozen",
    "idisc-depth": "sd15-frozen",
    "vpd": "sd15-full",
    "vpd-depth": "sd15-full",
}
HOSTS = {
    "bae": ("bae", "normals"),
    "idisc": ("idisc", "normals"),
    "idisc-depth": ("idisc", "depth"),
    "vpd": ("vpd", "semseg"),
    "vpd-depth": ("vpd", "depth"),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_hold_only_what_both_stages_have(recipe: str) -> None:
    text = find_settings_file(recipe).read_text()
    assert set(yaml.safe_load(text)) <= {field.name for field in fields(TrainSettings)}
    for line in text.splitlines():
        assert "#" in line or line.startswith("  "), f"{line!r} has no source"


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_win_over_the_preset_of_a_stage(recipe: str) -> None:
    """What they say wins over the stage's preset, what they leave open stays the stage's."""
    base = ("--source", "rooms", "--output_dir", "there")
    wanted = yaml.safe_load(find_settings_file(recipe).read_text())
    stages = {
        "warm-up": (RECIPES[recipe], "--host", "light"),
        "self-improve": ("sd15-self-improve", "--pipeline", "there"),
    }
    for act, (preset, *more) in stages.items():
        found = ACTS[act].read(["--config", preset, "--config", recipe, *more, *base])
        stage = yaml.safe_load(find_settings_file(preset).read_text())
        for name, value in {**stage, **wanted}.items():
            got = getattr(found, name)
            assert got == (pytest.approx(float(value)) if isinstance(got, float) else value), name


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_go_through_both_stages(
    d2i1: Callable[..., str], tiny_base: Path, tmp_path: Path, recipe: str
) -> None:
    """As they are, but for base, host and size."""
    small = ("--source", "rooms:train", "--max_train_samples", 2, "--max_train_steps", 2)
    small += ("--real_batch_size", 1, "--mixed_precision", "no", "--report_to", "none")
    small += ("--gradient_accumulation_steps", 1, "--resolution", "24x32", "--lr_warmup_steps", 0)
    small += ("--use_8bit_adam", "false")
    crop = yaml.safe_load(find_settings_file(recipe).read_text()).get("random_crop")
    small += ("--random_crop", "24x24") if crop else ()
    warm, created = tmp_path / "warm", tmp_path / "created"
    presets = ("--config", RECIPES[recipe], "--config", recipe)
    host, task = HOSTS[recipe]
    own = ("--base", tiny_base, "--host", host, "--tasks", task, "--width", 16)
    d2i1("warm-up", *presets, *own, *small, "--output_dir", warm)
    some = ("--num_samples", 2, "--num_inference_steps", 1, "--resolution", "24x32")
    source = ("--source", "rooms:train", "--max_source_samples", 2)
    d2i1("create", "--pipeline", warm / "pipeline", *source, *some, "--output_dir", created)
    presets = ("--config", "sd15-self-improve", "--config", recipe)
    inputs = ("--pipeline", warm / "pipeline", "--created", created)
    d2i1("self-improve", *presets, *inputs, *small, "--output_dir", tmp_path / "improved")
    state = load_file(tmp_path / "improved/checkpoint-2/creation.safetensors")
    assert all(tensor.isfinite().all() for tensor in state.values())
