"""Web pages that tests serve from a process of its own, as users do."""

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

LIMIT = 120  # seconds


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextmanager
def served(
    command: Sequence[object], folder: Path, env: Mapping[str, str], refused: str | None = None
) -> Iterator[str]:
    """Run a command that serves a page; its address. On SIGTERM it must exit with code 0.

    refused: the name of the error with which the server may log a traceback.
    """
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd=folder,
        env={**env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
    reader.start()
    try:
        yield _address(process, lines)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 0, "".join(lines)
        reader.join()
        wrong = [line for line in lines if line.startswith("Traceback")]
        assert len(wrong) == sum(f"{refused}: " in line for line in lines), "".join(lines)
    finally:
        process.kill()
        process.wait()
        reader.join()


def _address(process: "subprocess.Popen[str]", lines: list[str]) -> str:
    until = time.monotonic() + LIMIT
    while process.poll() is None and time.monotonic() < until:
        for line in list(lines):
            if " is served at " in line:
                return line.partition(" is served at ")[2].partition(",")[0]
        time.sleep(0.05)
    raise AssertionError("".join(lines) or f"silent for {LIMIT} seconds")
