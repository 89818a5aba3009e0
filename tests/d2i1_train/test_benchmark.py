"""The benchmark measures the real training step."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "benchmark.py"


@pytest.mark.parametrize("mode", ["none", "lora"])
def test_one_step_runs(tiny_base: Path, tmp_path: Path, mode: str) -> None:
    command = [sys.executable, str(SCRIPT), "step", "--base", str(tiny_base), "--resolution", "32"]
    done = subprocess.run(
        [*command, "--train_unet", mode], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
