"""Pages that tests serve, as people do: by a process of their own."""

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
    """The address that a command prints when it serves; it must end well when told to.

    refused: the error with which the server may log a traceback.
    """
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd=folder,
        env={**env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: said.extend(process.stdout or ()), daemon=True)
    reader.start()
    try:
        yield _address(process, said)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 0, "".join(said)
        reader.join()
        wrong = [line for line in said if line.startswith("Traceback")]
        assert len(wrong) == sum(f"{refused}: " in line for line in said), "".join(said)
    finally:
        process.kill()
        process.wait()
        reader.join()


def _address(process: "subprocess.Popen[str]", said: list[str]) -> str:
    until = time.monotonic() + LIMIT
    while process.poll() is None and time.monotonic() < until:
        for line in list(said):
            if " is served at " in line:
                return line.partition(" is served at ")[2].partition(",")[0]
        time.sleep(0.05)
    raise AssertionError("".join(said) or f"silent for {LIMIT} seconds")
