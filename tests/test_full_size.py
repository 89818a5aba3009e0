"""Stable Diffusion v1-5's exact size, with random weights, through the commands on this CPU."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 20.0  # GiB


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_full_size_stays_under_20_gib(tmp_path: Path) -> None:
    """Warm-up frozen and with a LoRA at 256 and 512 px, creation, and opening the pipeline."""

    def run(script: str, *arguments: object) -> str:
        command = [sys.executable, str(ROOT / "scripts" / script), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
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
