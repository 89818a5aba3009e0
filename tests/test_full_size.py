"""Stable Diffusion v1-5's exact size, with random weights, through the commands on this CPU."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 20.0  # GiB
ALL_THREADS = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}

STEP = """
import resource
import sys
import time

import torch
from diffusers import UNet2DConditionModel
from d2i1_data.diff2in1 import Conditioning
from d2i1_data.diff2in1.attention import attention_levels, record_attention
from d2i1_data.diff2in1.hosts import HOSTS
from d2i1_data.diff2in1.one_pass import last_channels, pyramid_channels
from d2i1_train.theta import Theta

name, kind = sys.argv[1:]
classes = [str(n) for n in range(150)]
tasks = {"semseg": {"family": kind, "names": classes} if kind == "label_map" else {"family": kind}}
torch.manual_seed(0)
unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)  # the defaults are v1-5's
assert pyramid_channels(unet) == [2560, 4160, 7040, 7680]
if name == "vpd":
    levels = attention_levels(unet)
    host = HOSTS[name](tasks, last_channels(unet), 768, attention=levels, norm="group")
    host.embeddings.normal_()
else:
    host = HOSTS[name](tasks, pyramid_channels(unet))
if host.reads_attention:
    record_attention(unet)
with torch.no_grad():  # what begins as zero hides what is behind it, for a step
    for parameter in host.parameters():
        parameter += 0.02 * torch.randn_like(parameter)
theta = Theta(unet.requires_grad_(False).eval(), host.train())
family, size = host.single_task[1], (512, 512)
target = family.finish(torch.randn(1, family.raw_channels, *size)).to(family.dtype)
trained = [p for p in theta.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trained, 1e-4)
start = time.perf_counter()
conditioning, latents = Conditioning(torch.randn(1, 77, 768)), torch.randn(1, 4, 64, 64)
loss = theta(latents, conditioning, size, targets={"semseg": target}).losses["semseg"]
loss.mean().backward()
missed = [n for n, p in host.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
seen = [n for n, p in host.named_parameters() if p.grad is not None and p.grad.any()]
before = [p.detach().clone() for p in trained]
optimizer.step()
moved = sum(not torch.equal(p, old) for p, old in zip(trained, before, strict=True))
print(f"loss {loss.tolist()}")
print(f"parameters {len(trained)} missed {missed} seen {len(seen)} moved {moved}")
print(f"seconds {time.perf_counter() - start:.1f}")
print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2:.2f}")
"""  # in a process of its own, whose peak is its own


def execute(command: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run on all cores, whatever the other tests use."""
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=ALL_THREADS
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_full_size_stays_under_20_gib(tmp_path: Path) -> None:
    """Warm-up frozen and with a LoRA at 256 and 512 px, creation, and opening the pipeline."""

    def run(script: str, *arguments: object) -> str:
        command = [sys.executable, str(ROOT / "scripts" / script), *map(str, arguments)]
        done = execute(command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    parameters = run("random_base.py", tmp_path / "base")
    assert "unet: 859.5 M" in parameters and "text_encoder: 123.1 M" in parameters
    table = run("benchmark.py", "memory", "--base", tmp_path / "base", "--output_dir", tmp_path)
    print(table)  # noqa: T201 # the figures of docs/benchmarks.md
    peaks = [float(peak) for peak in re.findall(r"\| ([\d.]+) \|$", table, re.M)]
    assert len(peaks) == 10
    assert max(peaks) < LIMIT, table
    *_, plain, checkpointed, _, _ = peaks  # a step with a LoRA, then two in full
    assert checkpointed < plain - 0.5, table


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("host", "family"),
    [
        ("light", "unit_vector"),
        ("bae", "unit_vector"),
        ("idisc", "unit_vector"),
        ("idisc", "metric_map"),
        ("vpd", "label_map"),
        ("vpd", "metric_map"),
    ],
)
def test_a_step_of_a_published_host_behind_stable_diffusion(host: str, family: str) -> None:
    """At 512 px and published width, the U-Net frozen; vpd learns its context through it."""
    command = [sys.executable, "-c", STEP, host, family]
    done = execute(command)
    assert done.returncode == 0, done.stdout + done.stderr
    print(host, family, done.stdout)  # noqa: T201 # seconds and memory
    told = re.search(r"parameters (\d+) missed (\[.*\]) seen (\d+) moved (\d+)", done.stdout)
    assert told, done.stdout
    total, missed, seen, moved = told.groups()
    assert missed == "[]" and int(total) > 20
    assert total == seen == moved
    (peak,) = re.findall(r"peak ([\d.]+)", done.stdout)
    assert float(peak) < LIMIT, done.stdout
