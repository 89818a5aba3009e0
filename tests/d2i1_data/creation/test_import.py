"""`d2i1 import`: in processes, killed and continued, with a page about what was imported."""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.made import contents, run
from tests.processes import start

D2i1 = Callable[..., str]
ROWS = 20
ROOMS = ("--source", "rooms:val", "--max_source_samples", ROWS, "--shard_size", 1)


def command(folder: Path, *flags: object) -> tuple[object, ...]:
    return ("import", *ROOMS, "--output_dir", folder, *flags)


def files(folder: Path) -> dict[str, bytes]:
    """All files that do not hold times or flags."""
    return {name: data for name, data in contents(folder).items() if name != "run.json"}


def made(folder: Path) -> dict[str, int]:
    """The finished shards, and when each was written."""
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("data/train-*.parquet")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process imports in one go."""
    folder = tmp_path_factory.mktemp("import") / "rooms"
    run(*command(folder))
    return folder


def test_a_killed_worker_is_told_and_the_command_continues(
    whole: Path, tmp_path: Path, d2i1: D2i1
) -> None:
    folder = tmp_path / "rooms"

    def kill_one() -> None:
        begin = time.monotonic()
        while len(made(folder)) < 2 and time.monotonic() - begin < 120:
            time.sleep(0.02)
        family = psutil.Process().children(recursive=True)
        workers = [child for child in family if child.ppid() != os.getpid()]
        max(workers, key=lambda worker: worker.pid).kill()

    killer = threading.Thread(target=kill_one)
    killer.start()
    error = d2i1(*command(folder, "--workers", 2), code=2).splitlines()[-1]
    killer.join()
    assert "a worker ended, perhaps for lack of memory: repeat the command" in error
    done = made(folder)
    assert 2 <= len(done) < ROWS, "it was killed too late to show anything"
    run(*command(folder))  # another number of processes
    assert files(folder) == files(whole) and done.items() <= made(folder).items()


@pytest.mark.slow  # the processes import all libraries
def test_killed_at_once_all_processes_end_and_continue_to_equal_files(
    whole: Path, tmp_path: Path
) -> None:
    """Only the process that the user began is killed. The others end by themselves."""
    folder, log = tmp_path / "rooms", tmp_path / "log.txt"
    process = start("-m", "d2i1_train", *command(folder, "--workers", 2), log=log)
    begin = time.monotonic()
    while len(made(folder)) < 2:
        assert process.exitcode is None and time.monotonic() - begin < 250, log.read_text()
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.kill()
    process.join()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    done = made(folder)
    assert 2 <= len(done) < ROWS, "it was killed too late to show anything"
    run(*command(folder))
    assert files(folder) == files(whole) and done.items() <= made(folder).items()
    assert not list(folder.rglob("*.tmp"))
    entries = [json.loads(line) for name in folder.glob("logs/*") for line in name.open()]
    assert {entry["process"] for entry in entries} == {0, 1}


def test_a_bad_row_in_a_process_is_told_in_one_line(
    photos: Path, tmp_path: Path, d2i1: D2i1
) -> None:
    (photos.parent / "image/4.png").write_bytes(b"torn")
    flags = ("--source", f"folder:{photos}", "--workers", 2, "--shard_size", 3)
    error = d2i1("import", *flags, "--output_dir", tmp_path / "made", code=2).splitlines()[-1]
    assert error.startswith("d2i1 import: error: ") and "4.png" in error


def test_the_page_tells_what_was_imported(photos: Path, tmp_path: Path, d2i1: D2i1) -> None:
    """Half of the pixels of each label are unknown; one row is bad; there are two sizes."""
    for n in range(6):
        label = np.full((28, 40), 3, np.uint8)
        label[:14] = n % 2
        Image.fromarray(label).save(photos.parent / f"label/{n}.png")
    Image.new("RGB", (40, 28)).save(photos.parent / "image/1.png")
    (photos.parent / "image/5.png").write_bytes(b"torn")
    flags = ("--source", f"folder:{photos}", "--on_bad_row", "skip", "--report")
    assert d2i1("import", *flags, "--output_dir", tmp_path / "made").strip() == f"{tmp_path}/made"
    page = json.loads((tmp_path / "made/report/report.json").read_text())
    assert (page["counts"]["rows"], page["counts"]["skipped"]) == ("5", "1")
    assert sorted(page["sizes"]) == [["14x20", 4], ["28x40", 1]]
    ((name, why),) = page["skipped"]
    assert name == "5" and "5.png" in why
    (semseg,) = page["maps"]
    assert semseg["unknown"] == 0.5 and not semseg["compared"]
    # two of the five labels are road: 280 pixels, and 560 for the larger one
    lines = {line["name"]: line["values"] for line in semseg["lines"]}
    assert lines == {"sky": [pytest.approx(3 / 8), 0.6], "road": [pytest.approx(5 / 8), 0.4]} | {
        "tree": [0, 0]
    }
    html = (tmp_path / "made/report/index.html").read_text()
    assert "50.00% of the pixels are unknown" in html and "Rows that were left out" in html
    assert len(page["gallery"]) == 5


@pytest.mark.parametrize("act", ["create", "label"])
def test_workers_of_other_acts_need_ray(act: str, pipeline: Path, d2i1: D2i1) -> None:
    flags = ("--pipeline", pipeline, "--source", "rooms", "--output_dir", "made", "--workers", 2)
    assert "--workers has no effect without --engine ray" in d2i1(act, *flags, code=2)
