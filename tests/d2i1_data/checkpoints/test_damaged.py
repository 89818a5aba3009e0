"""Damaged pipelines, tokenizers and adapters: told in one line, never loaded at random."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from d2i1_data.checkpoints.pipelines import open_pipeline
from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.diff2in1.saving import HASHES, LORA_FILE
from d2i1_data.errors import InputError
from d2i1_data.publish.checkpoint import complete_files
from tests.fixtures.write_formats import FORMATS

WEIGHTS = "diffusion_pytorch_model.safetensors"
Damage = Callable[[Path], None]


@pytest.fixture
def copied(pipeline: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pipeline, tmp_path / "pipeline")


@pytest.fixture
def adapter(tiny_base: Path, tmp_path: Path) -> Path:
    """An adapter that an earlier version wrote, without hashes."""
    return shutil.copytree(FORMATS / "adapter", tmp_path / "adapter")


def cut(file: Path) -> None:
    """Truncate a file, as an interrupted copy does."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    """Change one bit, as a bad disk does."""
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)


def change(file: Path, **values: object) -> None:
    """Change values of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def rename(file: Path, to: Callable[[str], str | None]) -> None:
    """Give the weights of a file other names; None drops one."""
    tensors = {to(name): tensor for name, tensor in load_file(file).items()}
    save_file({name: one for name, one in tensors.items() if name}, file, {"format": "pt"})


def drop_one(file: Path) -> None:
    """Drop one of the weights."""
    last = sorted(load_file(file))[-1]
    rename(file, lambda name: None if name == last else name)


def add_one(file: Path) -> None:
    """Add a weight that no model knows."""
    save_file({**load_file(file), "unknown.weight": torch.zeros(2)}, file, {"format": "pt"})


def pickle(file: Path) -> None:
    """Put a file that could run code in the place of weights."""
    file.unlink()
    file.with_name("diffusion_pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n.")


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_damage_of_every_file_is_told(copied: Path, damage: Damage) -> None:
    hashes = json.loads((copied / HASHES).read_text())
    assert {"model_index.json", "pipeline.py", "unet/config.json"} <= hashes.keys()
    assert {file.parent.name for file in copied.rglob("*.safetensors")} <= {
        Path(name).parent.name for name in hashes
    }
    for name in hashes:
        whole = (copied / name).read_bytes()
        damage(copied / name)
        with pytest.raises(InputError) as told:
            open_pipeline(str(copied))
        assert name in str(told.value) and "\n" not in str(told.value)
        (copied / name).write_bytes(whole)
    open_pipeline(str(copied))
    assert HASHES in complete_files(copied, whole=True)
    flip(copied / "unet" / WEIGHTS)
    with pytest.raises(InputError, match=r"unet/.* has changed since it was written"):
        complete_files(copied, whole=True)


OTHER_NAMES: list[tuple[str, Damage, str]] = [
    (f"unet/{WEIGHTS}", drop_one, "unet lacks"),
    (f"unet/{WEIGHTS}", add_one, "unet has unknown unknown.weight"),
    (f"vae/{WEIGHTS}", drop_one, "vae lacks"),
    (f"perception/{WEIGHTS}", drop_one, "perception lacks"),
    (f"perception/{WEIGHTS}", add_one, "perception has unknown unknown.weight"),
    ("text_encoder/model.safetensors", drop_one, "text_encoder lacks"),
    # what transformers 5.0 to 5.5 sees in a text encoder of 5.6: names without a level
    (
        "text_encoder/model.safetensors",
        lambda file: rename(file, lambda name: f"other.{name}"),
        "text_encoder lacks",
    ),
    ("tokenizer/tokenizer.json", Path.unlink, "the tokenizer has 2 tokens, the text encoder"),
    ("tokenizer/tokenizer_config.json", Path.unlink, "the tokenizer makes up to"),
]


@pytest.mark.parametrize(("name", "damage", "wrong"), OTHER_NAMES)
def test_other_weights_and_tokenizers_are_refused_everywhere(
    copied: Path, name: str, damage: Damage, wrong: str
) -> None:
    """With our class, with that of diffusers, and with the published code."""
    (copied / HASHES).unlink()  # a folder of an earlier version
    damage(copied / name)
    published = {"custom_pipeline": str(copied), "trust_remote_code": True}
    with pytest.raises(InputError, match=wrong):
        open_pipeline(str(copied))
    for kind, options in (
        (Diff2in1Pipeline, {}),
        (DiffusionPipeline, {}),
        (DiffusionPipeline, published),
    ):
        with pytest.raises(ValueError, match=wrong):
            kind.from_pretrained(copied, **options)


def test_a_text_encoder_with_the_names_of_earlier_versions_opens(copied: Path) -> None:
    before = open_pipeline(str(copied)).text_encoder.state_dict()
    file = copied / "text_encoder/model.safetensors"
    rename(file, lambda name: f"text_model.{name}")
    (copied / HASHES).unlink()
    after = open_pipeline(str(copied)).text_encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


DAMAGES: list[tuple[str, Damage]] = [
    ("unet/config.json", cut),
    ("unet/config.json", lambda file: file.write_text("[" * 100_000)),
    ("unet/config.json", lambda file: file.write_text('{"block_out_channels": "many"}')),
    ("unet/config.json", lambda file: change(file, freq_shift={"a": 1})),
    ("vae/config.json", lambda file: change(file, scaling_factor="much")),
    (f"unet/{WEIGHTS}", cut),
    (f"unet/{WEIGHTS}", pickle),
    ("text_encoder/config.json", lambda file: file.write_text("[]")),
    ("tokenizer/tokenizer.json", cut),
    ("tokenizer/tokenizer.json", lambda file: file.write_bytes(b"\xff\xfe")),
    ("scheduler/scheduler_config.json", lambda file: file.write_text('{"beta_schedule": 3}')),
    ("perception/config.json", lambda file: file.write_text('{"tasks": {"depth": {}}}')),
    ("model_index.json", lambda file: file.write_text("[" * 100_000)),
    ("model_index.json", lambda file: file.write_text('{"_class_name": "Diff2in1Pipeline"}')),
    (HASHES, lambda file: file.write_text('{"../x": "0"}')),
    (HASHES, lambda file: file.write_text("[" * 100_000)),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_damage_without_hashes_is_one_line(copied: Path, name: str, damage: Damage) -> None:
    if name != HASHES:
        (copied / HASHES).unlink()
    damage(copied / name)
    with pytest.raises(InputError) as told:
        open_pipeline(str(copied))
    assert str(copied) in str(told.value) and "\n" not in str(told.value)


ADAPTERS: list[tuple[str, Damage, str]] = [
    (LORA_FILE, drop_one, "the LoRA lacks"),
    (LORA_FILE, add_one, "LoRA|unknown"),
    (LORA_FILE, cut, "SafetensorError"),
    (f"perception/{WEIGHTS}", drop_one, "perception lacks"),
    (f"perception/{WEIGHTS}", add_one, "perception has unknown"),
    (
        "model_index.json",
        lambda file: file.write_text('{"_class_name": "Diff2in1Pipeline"}'),
        "its base",
    ),
]


@pytest.mark.parametrize(("name", "damage", "wrong"), ADAPTERS)
def test_a_damaged_adapter_is_refused(
    adapter: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: Damage, wrong: str
) -> None:
    monkeypatch.chdir(FORMATS)  # its base is called `pipeline`, which lies there
    damage(adapter / name)
    with pytest.raises(InputError, match=wrong) as told:
        open_pipeline(str(adapter))
    assert str(adapter) in str(told.value) and "\n" not in str(told.value)


def test_a_command_tells_damage_in_one_line(
    d2i1: Callable[..., str], copied: Path, tmp_path: Path
) -> None:
    flip(copied / "vae" / WEIGHTS)
    flags = ("--pipeline", copied, "--source", "rooms:test", "--output_file", tmp_path / "f.json")
    told = d2i1("evaluate", *flags, code=2).strip()
    assert f"vae/{WEIGHTS}: has changed since it was written" in told and "\n" not in told
