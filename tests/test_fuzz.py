"""Damaged files of every kind end in one line, see `python -m tests.fuzz --help`."""

import json
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("first", "files"), [(0, 40), pytest.param(1000, 2000, marks=pytest.mark.slow)]
)
@pytest.mark.timeout(3600)
def test_damaged_files_are_refused_in_one_line(first: int, files: int) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--first", str(first), "--files", str(files)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["failed"] == []
    assert found["files"] == files and found["refused"] > files / 4
