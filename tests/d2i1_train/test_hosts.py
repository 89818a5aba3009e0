"""Every host through training: what of it learns, what theta_C does, and the loop by one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from d2i1_data.diff2in1 import Diff2in1Pipeline, Family
from d2i1_data.diff2in1.attention import RecordingProcessor
from d2i1_train.loop.lora import add_lora
from d2i1_train.settings import WarmUpSettings
from d2i1_train.theta import Follower, Theta, make_theta, twin
from tests.d2i1_train.test_processes import MODULE, assert_same_training
from tests.made import run
from tests.processes import run_ranks
from tests.tiny import MOUNTS, mount_tiny

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 28, 3), np.uint8)
PIXELS = (32, 32)
BATCH_NORMED = ["idisc", "idisc-depth", "vpd", "vpd-depth"]
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    *((mount, {}) for mount in MOUNTS),
    *((mount, {"norm": "group"}) for mount in BATCH_NORMED),
    *((mount, {"protocol": "host"}) for mount in MOUNTS if mount != "light"),
]


def draw_targets(families: dict[str, Family]) -> dict[str, Tensor]:
    """Two random maps of each kind, in float64 where they are not ids."""
    generator = torch.Generator().manual_seed(1)
    raw = torch.randn(2, 3, *PIXELS, generator=generator, dtype=torch.float64)
    classes = max(family.raw_channels for family in families.values())
    ids = torch.randint(0, classes, (2, 1, *PIXELS), generator=generator)
    kinds = {
        "unit_vector": F.normalize(raw, dim=1),
        "metric_map": raw[:, :1].exp(),
        "label_map": ids,
        "probability_map": raw[:, :1].sigmoid(),
    }
    return {name: kinds[family.name] for name, family in families.items()}


def learn(theta: Theta, pipe: Diff2in1Pipeline, *, double: bool = False) -> dict[str, Tensor]:
    """Gradients of one training step on two random latents, by parameter."""
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    conditioning = pipe.perception_conditioning()
    targets = draw_targets(pipe.perception.families)
    if double:
        latents, conditioning = latents.double(), conditioning.to(torch.float64)
    else:
        targets = {n: t.float() if t.is_floating_point() else t for n, t in targets.items()}
    torch.manual_seed(0)  # of dropout and points
    answer = theta(latents, conditioning, PIXELS, targets=targets)
    theta.zero_grad()
    torch.stack([loss.mean() for loss in answer.losses.values()]).sum().backward()
    return {name: p.grad.clone() for name, p in theta.named_parameters() if p.grad is not None}


# --- what learns ---


@pytest.mark.parametrize(("mount", "options"), SETTINGS, ids=str)
def test_every_parameter_of_a_host_learns(
    tiny_base: Path, mount: str, options: dict[str, Any]
) -> None:
    """In double precision, where what is dead but for rounding lies many orders below the rest."""
    pipe = mount_tiny(tiny_base, mount, **options)
    theta = make_theta(pipe).double()
    torch.manual_seed(0)
    with torch.no_grad():  # what begins as zero hides what is behind it, for a step
        for parameter in theta.perception.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    gradients = learn(theta, pipe, double=True)
    trained = {name for name, p in theta.named_parameters() if p.requires_grad}
    assert gradients.keys() == trained
    assert trained == {f"perception.{name}" for name, _ in pipe.perception.named_parameters()}
    most = {name: gradient.abs().max().item() for name, gradient in gradients.items()}
    floor = 1e-9 * max(most.values())
    assert {name: value for name, value in most.items() if not value > floor} == {}


@pytest.mark.parametrize("width", [8, 24])
def test_every_parameter_of_narrow_hosts_learns(tiny_base: Path, width: int) -> None:
    pipe = mount_tiny(tiny_base, "bae", width=width)
    gradients = learn(make_theta(pipe).double(), pipe, double=True)
    most = {name: gradient.abs().max().item() for name, gradient in gradients.items()}
    floor = 1e-9 * max(most.values())
    assert most and {name: value for name, value in most.items() if not value > floor} == {}


@pytest.mark.parametrize("mount", MOUNTS)
def test_mixed_precision_changes_only_rounding(tiny_base: Path, mount: str) -> None:
    pipe = mount_tiny(tiny_base, mount)
    theta, targets = make_theta(pipe), draw_targets(pipe.perception.families)
    targets = {n: t.float() if t.is_floating_point() else t for n, t in targets.items()}
    latents, conditioning = torch.randn(2, 4, 8, 8), pipe.perception_conditioning()
    losses = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses.append(theta(latents, conditioning, PIXELS, targets=targets).losses)
        for loss in losses[-1].values():
            assert loss.dtype == torch.float32
    for name, expected in losses[0].items():
        torch.testing.assert_close(losses[1][name], expected, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("mount", MOUNTS)
def test_only_a_host_with_its_own_context_sees_anew(tiny_base: Path, mount: str) -> None:
    theta = make_theta(mount_tiny(tiny_base, mount))
    own = mount.startswith("vpd")
    assert theta.frozen == (not own)
    assert theta.perception.has_own_conditioning == own


# --- vpd: a context of its own, and attention ---


def make_vpd(base: Path, kind: str) -> tuple[Diff2in1Pipeline, Theta]:
    """With so much of the U-Net trained; a LoRA's second matrices are not zero."""
    pipe = mount_tiny(base, "vpd", norm="group")
    if kind == "lora":
        settings = WarmUpSettings(source="", output_dir="", host="vpd", train_unet="lora", rank=4)
        add_lora(pipe.unet, settings)
        with torch.no_grad():
            for name, parameter in pipe.unet.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.1)
    pipe.register_to_config(trained_unet=kind)
    return pipe, make_theta(pipe)


@pytest.mark.parametrize("kind", ["none", "lora", "full"])
def test_recomputed_activations_have_the_same_gradients(tiny_base: Path, kind: str) -> None:
    pipe, theta = make_vpd(tiny_base, kind)
    plain = learn(theta, pipe)
    pipe.unet.enable_gradient_checkpointing()
    if kind == "none":
        pipe.unet.train()  # else it does not recompute
    recomputed = learn(theta, pipe)
    assert plain.keys() == recomputed.keys()
    of_unet = {name for name in plain if name.startswith("unet.")}
    assert bool(of_unet) == (kind != "none") and all("lora" in n for n in of_unet) == (
        kind != "full"
    )
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, atol=1e-6, rtol=1e-4, msg=name)
    assert plain["perception.text_residual.0.weight"].abs().max() > 0


def test_the_context_is_learned_through_the_frozen_unet(tiny_base: Path) -> None:
    """And its gradient is right: a small step along it changes the loss as it says."""
    pipe, theta = make_vpd(tiny_base, "none")
    theta = theta.double().eval()  # without dropout
    gradient = learn(theta, pipe, double=True)["perception.gamma"]
    assert not any(p.requires_grad or p.grad is not None for p in theta.unet.parameters())
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    targets, losses = draw_targets(pipe.perception.families), []
    step = 1e-4 * gradient / gradient.norm()
    with torch.no_grad():
        for sign in (1, -1):
            theta.perception.gamma += sign * step
            conditioning = pipe.perception_conditioning().to(torch.float64)
            losses.append(
                theta(latents, conditioning, PIXELS, targets=targets).losses["semseg"].mean()
            )
            theta.perception.gamma -= sign * step
    slope = (losses[0] - losses[1]) / 2e-4
    torch.testing.assert_close(slope, gradient.norm(), atol=0, rtol=1e-4)


@pytest.mark.parametrize("kind", ["none", "lora", "full"])
def test_theta_c_listens_to_its_own_unet(tiny_base: Path, kind: str) -> None:
    pipe, exploitation = make_vpd(tiny_base, kind)
    latents, conditioning = torch.randn(2, 4, 8, 8), pipe.perception_conditioning()
    exploitation(latents, conditioning, PIXELS)  # from here on it is recorded
    creation = twin(exploitation)
    assert creation.unet.recorder is not exploitation.unet.recorder
    for theta in (exploitation, creation):
        processors = theta.unet.attn_processors.values()
        recorders = {id(p.recorder) for p in processors if isinstance(p, RecordingProcessor)}
        assert recorders == {id(theta.unet.recorder)}
    exploitation.eval()
    with torch.no_grad():
        one = creation(latents, conditioning, PIXELS).raw["semseg"]
        torch.testing.assert_close(exploitation(latents, conditioning, PIXELS).raw["semseg"], one)
        exploitation.perception.gamma += 1
        other = exploitation(latents, conditioning, PIXELS).raw["semseg"]
        assert torch.equal(creation(latents, conditioning, PIXELS).raw["semseg"], one)
    assert (other - one).abs().max() > 1e-3


# --- batch norm: theta_C knows the statistics that theta_E gathered ---


@pytest.mark.parametrize("mount", BATCH_NORMED)
def test_theta_c_labels_without_the_batch_and_follows_statistics(
    tiny_base: Path, mount: str
) -> None:
    pipe = mount_tiny(tiny_base, mount)
    exploitation = make_theta(pipe)
    creation = twin(exploitation)
    learn(exploitation, pipe)

    def buffers(theta: Theta) -> dict[str, Tensor]:
        return {n: b.clone() for n, b in theta.perception.named_buffers() if "running" in n}

    fresh, gathered = buffers(creation), buffers(exploitation)
    assert fresh and all(not torch.equal(fresh[name], gathered[name]) for name in fresh)
    latents, conditioning = torch.randn(3, 4, 8, 8), pipe.perception_conditioning()
    (task,) = pipe.perception.families
    whole = creation(latents, conditioning, PIXELS).raw[task]
    alone = creation(latents[:1], conditioning, PIXELS).raw[task]
    torch.testing.assert_close(whole[:1], alone, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(buffers(creation)[name], fresh[name]) for name in fresh)
    Follower(alpha=0.9, every=2).follow(creation, exploitation, 2)
    assert all(torch.equal(buffers(creation)[name], gathered[name]) for name in fresh)
    assert not creation.training and not any(
        m.training for m in creation.modules() if isinstance(m, nn.BatchNorm2d)
    )


# --- the loop, by one line ---

YAML = """
host: {host}
width: 16
source: rooms:train
max_train_samples: 4
resolution: "32"
real_batch_size: 2
max_train_steps: 2
report_to: none
"""
FIRST = {"light": "semseg", "bae": "normals", "idisc": "normals", "vpd": "semseg"}


@pytest.mark.parametrize("host", FIRST)
def test_the_whole_loop_by_one_line(
    tiny_base: Path, tmp_path: Path, d2i1: Callable[..., str], host: str
) -> None:
    file = tmp_path / "host.yaml"
    file.write_text(YAML.format(host=host))
    warm, created, improved = (tmp_path / name for name in ("warm", "created", "improved"))
    d2i1("warm-up", "--config", file, "--base", tiny_base, "--output_dir", warm)
    few = ("--source", "rooms:train", "--max_source_samples", 4, "--resolution", 32)
    few += ("--num_samples", 4, "--num_inference_steps", 2)
    d2i1("create", "--pipeline", warm / "pipeline", *few, "--output_dir", created)
    if host == "vpd":
        wrong = ("--labels_from", "last_step", "--output_dir", tmp_path / "wrong")
        message = d2i1("create", "--pipeline", warm / "pipeline", *few, *wrong, code=2)
        assert "error: labels_from='last_step' needs a host that reads" in message

    lines = [x for x in YAML.splitlines() if not x.startswith(("host", "width"))]
    file.write_text("\n".join(lines))
    inputs = ("--pipeline", warm / "pipeline", "--created", created, "--follow_every", 4)
    d2i1("self-improve", "--config", file, *inputs, "--output_dir", improved)
    figures = tmp_path / "figures.json"
    scored = ("--source", "rooms:test", "--max_samples", 2, "--output_file", figures)
    d2i1("evaluate", "--pipeline", improved / "pipeline", *scored)
    names = json.loads(figures.read_text())["tasks"]
    assert FIRST[host] in names and (len(names) == 5 if host == "light" else len(names) == 1)

    pipe = Diff2in1Pipeline.from_pretrained(improved / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    found = pipe.predict(IMAGE).predictions
    assert found.keys() == names.keys()
    checkpoint = improved / "checkpoint-2"
    creation, exploitation = (
        load_file(checkpoint / f"{name}.safetensors") for name in ("creation", "exploitation")
    )
    before = load_file(warm / "checkpoint-2/exploitation.safetensors")
    assert creation.keys() == exploitation.keys() == before.keys()
    statistics = {n for n in creation if n.endswith(("running_mean", "running_var"))}
    counts = {n for n in creation if n.endswith("num_batches_tracked")}
    assert bool(counts) == bool(statistics) == (host in ("idisc", "vpd"))
    for name in statistics | counts:  # followed after the last step
        assert torch.equal(creation[name], exploitation[name])
        assert not torch.equal(creation[name], before[name])
    # theta_E's passes in training are all that counts, two of warm-up and two since
    assert all(creation[name] == 4 for name in counts)
    learned = [n for n in creation if n not in statistics | counts and not n.endswith("embeddings")]
    assert learned and all(name.startswith("perception.") for name in learned)
    moved = [name for name in learned if not torch.equal(exploitation[name], before[name])]
    apart = [name for name in learned if not torch.equal(exploitation[name], creation[name])]
    assert len(moved) > 0.95 * len(learned) and len(apart) > 0.95 * len(learned)


def test_two_processes_equal_one_with_group_norm(tiny_base: Path, tmp_path: Path) -> None:
    """Of vpd: its conditioning is learned through the U-Net, its dropout follows the sample."""
    flags = ("--host", "vpd", "--width", 16, "--norm", "group", "--source", "rooms:train")
    flags += ("--max_train_samples", 8, "--resolution", 32, "--report_to", "none")
    flags += ("--real_batch_size", 2, "--max_train_steps", 3, "--max_grad_norm", 1e6)
    command = ("warm-up", "--base", tiny_base, *flags)
    one, two = tmp_path / "one", tmp_path / "two"
    run(*command, "--gradient_accumulation_steps", 2, "--output_dir", one)
    run_ranks(*MODULE, *command, "--output_dir", two, log=tmp_path / "log.txt")
    assert_same_training(two / "checkpoint-3", one / "checkpoint-3")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--host bae --tasks depth", "--tasks: Bae perceives one task of unit_vector, got depth"),
        ("--host bae --tasks normals,depth", "--tasks: Bae perceives one task of unit_vector"),
        ("--host idisc --tasks semseg", "IDisc perceives one task of unit_vector or metric_map"),
        ("--host vpd --tasks normals", "Vpd perceives one task of label_map or metric_map"),
        ("--host vpd --tasks norms", "--tasks: unknown task 'norms', choose from normals"),
        ("--host bae --norm group", "Bae has no setting norm"),
        ("--host light --protocol host", "Light has no setting protocol"),
        ("--host light --norm group", "Light has no setting norm"),
        ("--host idisc --norm layer", "norm"),
        ("--host vpd --protocol theirs", "protocol"),
        ("--host idisc --width 24", "width 24: expected a multiple of 16"),
        ("--host bae --width 12", "width 12: expected a multiple of 8"),
        ("--host bea", "--host: unknown host 'bea': choose from light, bae, idisc, vpd"),
    ],
)
def test_what_a_host_cannot_do_is_told_in_one_line(
    d2i1: Callable[..., str], tiny_base: Path, tmp_path: Path, flags: str, message: str
) -> None:
    real = ("--source", "rooms:train", "--max_train_samples", 2, "--resolution", 32)
    real += ("--report_to", "none", "--output_dir", tmp_path / "out")
    error = d2i1("warm-up", "--base", tiny_base, *real, *flags.split(), code=2)
    lines = [line for line in error.replace("\r", "\n").split("\n") if line and "%|" not in line]
    assert len(lines) == 1 and lines[0].startswith("d2i1 warm-up: error: ")
    assert message in lines[0]
    assert not (tmp_path / "out").exists()


def test_a_source_without_what_a_host_learns(
    d2i1: Callable[..., str], photos: Path, tiny_base: Path, tmp_path: Path
) -> None:
    flags = ("--base", tiny_base, "--source", f"folder:{photos}", "--output_dir", tmp_path / "out")
    message = d2i1("warm-up", "--host", "bae", *flags, code=2)
    assert "source photos has labels of semseg: bae cannot learn them" in message
