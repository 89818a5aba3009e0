"""Bases as they are published: a folder, one file, half precision, a revision on the Hub."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file
from torch import nn

from d2i1_data.checkpoints.bases import find_base
from d2i1_data.diff2in1 import Base, Diff2in1Pipeline
from d2i1_data.errors import InputError
from d2i1_train.scratch.parts import build_unet, build_vae
from d2i1_train.scratch.settings import BaseSettings
from tests.hub import Hub
from tests.tiny import TINY, save_single_file, save_tiny_base

PARTS = ("unet", "vae", "text_encoder")
DEEP = dataclasses.replace(
    TINY, vae_channels=[8, 16, 16], vae_layers=2, unet_channels=[16, 32, 32], unet_layers=2
)
IMAGE = np.random.default_rng(0).integers(0, 256, (18, 26, 3), np.uint8)
ROOMS = ("--source", "rooms:train", "--resolution", "32x48")
TRAIN = (*ROOMS, "--max_train_samples", 4, "--real_batch_size", 2, "--report_to", "none")
HOST = ("--host", "light", "--tasks", "normals,depth", "--width", 16)


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    """Bit for bit, and by the same names."""
    left, right = one.state_dict(), other.state_dict()
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def edit(file: Path, **entries: Any) -> None:
    """Set entries of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def without_weights(base: Path, folder: Path) -> Path:
    """Configs and tokenizer only: what loads with them has its weights from elsewhere."""
    return shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.safetensors"))


@pytest.fixture(scope="module")
def v_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that predicts the velocity, as Stable Diffusion 2.x at 768 does."""
    return save_tiny_base(tmp_path_factory.mktemp("v") / "base", "v_prediction")


@pytest.fixture(scope="module")
def v_file(v_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same base in one file."""
    return save_single_file(v_base, tmp_path_factory.mktemp("file") / "base.safetensors")


@pytest.fixture(scope="module")
def v_config(v_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What describes the file."""
    return without_weights(v_base, tmp_path_factory.mktemp("config") / "config")


# --- one file ---


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("settings", [TINY, DEEP], ids=["tiny", "deep"])
def test_one_file_gives_the_weights_of_the_folder(
    tmp_path: Path, settings: BaseSettings, prediction_type: str
) -> None:
    base = save_tiny_base(tmp_path / "base", prediction_type)
    original = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    original.register_modules(
        unet=build_unet(settings, (16, 16)), vae=build_vae(settings, (32, 32))
    )
    for part in PARTS:  # fresh norms and biases are all alike: exchanged ones would not show
        for parameter in getattr(original, part).parameters():
            nn.init.normal_(parameter)
    original.save_pretrained(base)
    file = save_single_file(base, tmp_path / "one.safetensors")
    config = without_weights(base, tmp_path / "config")

    found = find_base(str(file), config=str(config))
    assert found == Base(str(file), config=str(config)) and found.is_file
    loaded = found.load()
    for part in PARTS:
        assert_same_weights(getattr(original, part), getattr(loaded, part))
        assert not getattr(loaded, part).training
    assert_same_weights(original.unet, found.load_unet())
    assert loaded.scheduler.config.prediction_type == prediction_type
    assert loaded.tokenizer("a blue sphere") == original.tokenizer("a blue sphere")


def test_the_name_of_an_embedded_base_describes_a_file(v_file: Path) -> None:
    """The configs are those of `rooms`, found without a path; its sizes are not the file's."""
    found = find_base(str(v_file), config="rooms")
    assert found.config is not None and (Path(found.config) / "unet/config.json").is_file()


# --- the whole loop ---


@pytest.mark.parametrize("kind", ["folder", "file"])
@pytest.mark.parametrize("trained", ["none", "lora"])
def test_the_whole_loop_on_a_v_prediction_base(
    d2i1: Callable[..., str],
    v_base: Path,
    v_file: Path,
    v_config: Path,
    tmp_path: Path,
    kind: str,
    trained: str,
) -> None:
    base = {"folder": ("--base", v_base), "file": ("--base", v_file, "--base_config", v_config)}
    unet: tuple[object, ...] = ("--train_unet", trained)
    if trained == "lora":
        unet += ("--rank", 2, "--denoise_weight", 0.1)
    steps = ("--max_train_steps", 2)
    warm, created, improved = tmp_path / "warm", tmp_path / "created", tmp_path / "improved"
    d2i1("warm-up", *base[kind], *TRAIN, *HOST, *unet, *steps, "--output_dir", warm)

    few = ("--num_samples", 4, "--num_inference_steps", 2)
    d2i1("create", "--pipeline", warm / "pipeline", *ROOMS, *few, "--output_dir", created)

    mixed = ("--pipeline", warm / "pipeline", "--created", created, *TRAIN, *steps)
    d2i1("self-improve", *mixed, "--follow_every", 4, "--output_dir", improved)

    scored = ("--pipeline", improved / "pipeline", "--source", "rooms:test", "--max_samples", 4)
    for theta in ("creation", "exploitation"):
        file = tmp_path / f"{theta}.json"
        d2i1("evaluate", *scored, "--theta", theta, "--output_file", file)
        figures = json.loads(file.read_text())["tasks"]
        assert figures.keys() == {"normals", "depth"}
        assert all(np.isfinite(list(values.values())).all() for values in figures.values())

    pipe = Diff2in1Pipeline.from_pretrained(improved / "pipeline")
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    assert pipe.config.trained_unet == trained
    for maps in pipe.predict(IMAGE).predictions.values():
        assert maps[0].shape[:2] == IMAGE.shape[:2] and np.isfinite(maps[0]).all()
    own = (
        pipe.unet if trained == "none" else pipe.base_unet
    )  # what creates is the base's to the end
    assert_same_weights(own, Base(str(v_base)).load_unet())


# --- half precision ---


@pytest.fixture(scope="module")
def half_base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of which only half precision is published."""
    folder = tmp_path_factory.mktemp("half") / "base"
    Base(str(tiny_base)).load().to(torch.float16).save_pretrained(folder, variant="fp16")
    assert len(list(folder.glob("*/*.fp16.safetensors"))) == 3
    assert len(list(folder.glob("*/*.safetensors"))) == 3
    return folder


def test_a_variant_loads_in_full_precision(tiny_base: Path, half_base: Path) -> None:
    found = find_base(str(half_base), variant="fp16")
    original, loaded = Base(str(tiny_base)).load(), found.load()
    for part in PARTS:
        assert {p.dtype for p in getattr(loaded, part).parameters()} == {torch.float32}
        assert_same_weights(getattr(original, part).half().float(), getattr(loaded, part))
    assert_same_weights(loaded.unet, found.load_unet())


def test_a_variant_warms_up(d2i1: Callable[..., str], half_base: Path, tmp_path: Path) -> None:
    base = ("--base", half_base, "--variant", "fp16")
    d2i1("warm-up", *base, *TRAIN, *HOST, "--max_train_steps", 1, "--output_dir", tmp_path / "run")
    pipe = Diff2in1Pipeline.from_pretrained(tmp_path / "run/pipeline")
    assert_same_weights(pipe.unet, Base(str(half_base), variant="fp16").load_unet())


# --- a revision on the Hub ---

HUB_USER = """
import json
import sys

from safetensors.torch import save_file

from d2i1_data.errors import InputError
from d2i1_data.checkpoints.bases import find_base
from d2i1_train.cli import main

out = sys.argv[1]
for name, revision in json.loads(sys.argv[2]).items():
    base = find_base("alice/tiny", revision=revision)
    pipe = base.load()
    assert pipe.safety_checker is None
    save_file(pipe.unet.state_dict(), f"{out}/{name}.safetensors")
    save_file(base.load_unet().state_dict(), f"{out}/{name}-unet.safetensors")
for arguments in (["alice/unknown"], ["alice/tiny", "v3"]):
    try:
        find_base(*arguments)
    except InputError as error:
        print(json.dumps([*arguments, str(error)]))
    else:
        sys.exit(f"{arguments} was found")
code = main(json.loads(sys.argv[3]))
sys.exit(code)
"""


def test_a_revision_of_the_hub(hub: Hub, tmp_path: Path) -> None:
    """Loaded from the Hub; then offline, in a process that knows nothing but the cache."""
    api, commits = HfApi(), {}
    api.create_repo("alice/tiny")
    api.create_branch("alice/tiny", branch="v2")
    for revision in ("main", "v2"):
        base = save_tiny_base(tmp_path / revision / "base")
        if revision == "v2":
            pipe = Base(str(base)).load()
            nn.init.normal_(pipe.unet.conv_out.weight)
            pipe.save_pretrained(base)
        checker = ["stable_diffusion", "StableDiffusionSafetyChecker"]  # as SD 1.x has, unfetched
        edit(base / "model_index.json", safety_checker=checker)
        pushed = api.upload_folder(repo_id="alice/tiny", folder_path=base, revision=revision)
        commits[revision] = pushed.oid

    revisions = {"none": None, "main": "main", "v2": "v2", "commit": commits["v2"]}
    for revision in revisions.values():
        loaded = find_base("alice/tiny", revision=revision).load()
        own = Base(str(tmp_path / ("v2" if revision in ("v2", commits["v2"]) else "main") / "base"))
        assert_same_weights(loaded.unet, own.load_unet())
    for wrong in (("alice/unknown",), ("alice/tiny", "v3")):
        with pytest.raises(InputError, match=f"base {wrong[0]}: neither a folder nor on the Hub"):
            find_base(*wrong)
    asked = len(hub.log)

    command = ["warm-up", "--base", "alice/tiny", "--revision", "v2", *TRAIN, *HOST]
    command += ["--train_unet", "lora", "--max_train_steps", 1, "--output_dir", tmp_path / "run"]
    (tmp_path / "out").mkdir()
    arguments = [json.dumps(revisions), json.dumps([str(part) for part in command])]
    done = subprocess.run(
        [sys.executable, "-c", HUB_USER, str(tmp_path / "out"), *arguments],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(hub.log) == asked

    for name, revision in {"none": "main", "main": "main", "v2": "v2", "commit": "v2"}.items():
        wanted = Base(str(tmp_path / revision / "base")).load_unet().state_dict()
        for found in (f"{name}.safetensors", f"{name}-unet.safetensors"):
            held = load_file(tmp_path / "out" / found)
            assert held.keys() == wanted.keys()
            assert [key for key in held if not torch.equal(held[key], wanted[key])] == [], found
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert [arguments for *arguments, _ in told] == [["alice/unknown"], ["alice/tiny", "v3"]]
    for name, *_, message in told:
        assert f"base {name}: neither a folder nor on the Hub" in message and "\n" not in message
    for saved in ("pipeline", "adapter"):
        index = json.loads((tmp_path / "run" / saved / "model_index.json").read_text())
        assert (index["base"], index["base_revision"]) == ("alice/tiny", commits["v2"])


# --- the safety checker ---


def test_the_safety_checker_is_never_loaded(tiny_base: Path, tmp_path: Path) -> None:
    """The index names one, its folder is not there: who asks for it would fail."""
    base = shutil.copytree(tiny_base, tmp_path / "base")
    edit(
        base / "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
        requires_safety_checker=True,
    )
    with pytest.raises(OSError):
        StableDiffusionPipeline.from_pretrained(base)
    pipe = find_base(str(base)).load()
    assert pipe.safety_checker is None and pipe.feature_extractor is None
    assert not pipe.config.requires_safety_checker
    assert_same_weights(pipe.unet, Base(str(tiny_base)).load_unet())


# --- what is refused ---


def pickled_file(base: Path, folder: Path) -> dict[str, str]:
    (folder / "sd.ckpt").write_bytes(b"\x80\x02}q\x00.")
    return {"name": str(folder / "sd.ckpt")}


def absent_file(base: Path, folder: Path) -> dict[str, str]:
    return {"name": str(folder / "absent.safetensors")}


def truncated_file(base: Path, folder: Path) -> dict[str, str]:
    file = save_single_file(base, folder / "sd.safetensors")
    file.write_bytes(file.read_bytes()[:-1000])
    return {"name": str(file)}


def garbled_file(base: Path, folder: Path) -> dict[str, str]:
    (folder / "sd.safetensors").write_bytes(b"<html>404</html>")
    return {"name": str(folder / "sd.safetensors")}


def file_without_vae(base: Path, folder: Path) -> dict[str, str]:
    file = save_single_file(base, folder / "sd.safetensors")
    tensors = load_file(file)
    save_file({n: t for n, t in tensors.items() if not n.startswith("first_stage_model.")}, file)
    return {"name": str(file)}


def file_for_inpainting(base: Path, folder: Path) -> dict[str, str]:
    file = save_single_file(base, folder / "sd.safetensors")
    tensors = load_file(file)
    tensors["model.diffusion_model.input_blocks.0.0.weight"] = torch.zeros(16, 9, 3, 3)
    save_file(tensors, file)
    return {"name": str(file)}


def pickled_unet(base: Path, folder: Path) -> dict[str, str]:
    unet = shutil.copytree(base, folder / "base") / "unet"
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    (unet / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    return {"name": str(folder / "base")}


def absent_variant(base: Path, folder: Path) -> dict[str, str]:
    return {"name": str(base), "variant": "fp16"}


def xl_folder(base: Path, folder: Path) -> dict[str, str]:
    copy = shutil.copytree(base, folder / "base")
    more = {"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}
    edit(copy / "model_index.json", _class_name="StableDiffusionXLPipeline", **more)
    return {"name": str(copy)}


def configured_folder(base: Path, folder: Path) -> dict[str, str]:
    return {"name": str(base), "config": str(base)}


WEIGHTS = "diffusion_pytorch_model.safetensors"
Producer = Callable[[Path, Path], dict[str, str]]
REFUSED: list[tuple[Producer, str]] = [
    (pickled_file, "a pickle file can run code"),
    (absent_file, "no such file"),
    (truncated_file, "not a complete safetensors file"),
    (garbled_file, "not a complete safetensors file"),
    (file_without_vae, ": vae missing"),
    (file_for_inpainting, "U-Net takes 9 channels, expected 4"),
    (pickled_unet, r"unet has no \.safetensors, only: diffusion_pytorch_model\.bin"),
    (absent_variant, r"vae has no \.safetensors of variant fp16, only: diffusion_pytorch_model"),
    (xl_folder, "StableDiffusionXLPipeline with text_encoder_2"),
    (configured_folder, r"--base_config .* has no effect: base .* is a folder"),
]


@pytest.mark.parametrize(("make", "wrong"), REFUSED, ids=[make.__name__ for make, _ in REFUSED])
def test_a_base_is_refused(tiny_base: Path, tmp_path: Path, make: Producer, wrong: str) -> None:
    asked = make(tiny_base, tmp_path)
    with pytest.raises(InputError, match=wrong) as raised:
        find_base(**asked)
    assert asked["name"] in str(raised.value)


@pytest.mark.parametrize("make", [absent_variant, truncated_file, file_for_inpainting])
def test_a_command_refuses_in_one_line(
    d2i1: Callable[..., str], tiny_base: Path, tmp_path: Path, make: Producer
) -> None:
    asked = make(tiny_base, tmp_path)
    flags = [f"--{'base' if key == 'name' else key}={value}" for key, value in asked.items()]
    run = tmp_path / "run"
    message = d2i1("warm-up", *flags, *TRAIN, *HOST, "--output_dir", run, code=2)
    told = [line for line in message.splitlines() if line.strip()]
    assert len(told) == 1 and asked["name"] in told[0]
    assert not run.exists()


def drop(file: Path, name: str) -> None:
    """Take a tensor out of a safetensors file."""
    tensors = load_file(file)
    del tensors[next(key for key in tensors if key.endswith(name))]
    save_file(tensors, file, {"format": "pt"})


def another_input(base: Path) -> None:
    edit(base / "unet" / "config.json", in_channels=9)
    file = base / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_in.weight"] = torch.zeros(16, 9, 3, 3)
    save_file(tensors, file, {"format": "pt"})


LOADED: list[tuple[Callable[[Path], None], str]] = [
    (another_input, "the U-Net takes 9 channels, the autoencoder gives 4"),
    (lambda base: drop(base / "unet" / WEIGHTS, "conv_out.weight"), r"unet lacks conv_out\.weight"),
    (lambda base: drop(base / "vae" / WEIGHTS, "conv_out.bias"), "vae lacks .*conv_out.bias"),
    (
        lambda base: drop(base / "text_encoder" / "model.safetensors", "final_layer_norm.bias"),
        "text_encoder lacks .*final_layer_norm.bias",
    ),
    (
        lambda base: edit(base / "scheduler" / "scheduler_config.json", prediction_type="sample"),
        "prediction type 'sample'",
    ),
    (lambda base: edit(base / "unet" / "config.json", class_embed_type="timestep"), "class_embed"),
]


@pytest.mark.parametrize(("spoil", "wrong"), LOADED, ids=[wrong[:16] for _, wrong in LOADED])
def test_loading_says_what_is_missing(
    d2i1: Callable[..., str],
    tiny_base: Path,
    tmp_path: Path,
    spoil: Callable[[Path], None],
    wrong: str,
) -> None:
    """Before anything is written; transformers alone would fill the gap with random numbers."""
    base = shutil.copytree(tiny_base, tmp_path / "base")
    spoil(base)
    with pytest.raises(ValueError, match=wrong):
        find_base(str(base)).load()
    run = tmp_path / "run"
    message = d2i1("warm-up", "--base", base, *TRAIN, *HOST, "--output_dir", run, code=2)
    assert f"error: base {base}: " in message and not run.exists()


def test_what_only_loading_shows_names_the_base(
    d2i1: Callable[..., str], v_file: Path, half_base: Path, tmp_path: Path
) -> None:
    """Configs of another size than the file; half precision that was not asked for."""
    another_size = ("--base", v_file, "--base_config", "rooms")
    run = ("--output_dir", tmp_path / "run")
    for base in (another_size, ("--base", half_base)):
        message = d2i1("warm-up", *base, *TRAIN, *HOST, *run, code=2)
        assert f"error: base {base[1]}: " in message
        assert not (tmp_path / "run").exists()
