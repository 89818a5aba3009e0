"""Damage files at random, hand each to a command, and look at what happens.

    python -m tests.fuzz --files 2000

A command must succeed, or end with code 2 and one line. No exception, no process, no pickle, no
file outside the folders at hand, no more than 20 seconds, never more than 2 GB. The last line is a
JSON object. Its `failed` names door, file and draw of each failure; `--only DRAW` repeats one.
"""

import argparse
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from tests.environment import HOME, HUB

# isort: split
import matplotlib
import torch

from d2i1_train.cli import main
from tests.fuzz.damage import SECRET, damage
from tests.fuzz.doors import DOORS, Door, make_files

SECONDS = 20
MEMORY = 2 << 30
PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn")
ROOT = Path(__file__).parents[2]


class Watch:
    """What Python does while a command runs: processes, pickles, and files outside some folders."""

    def __init__(self, folders: list[str]) -> None:
        self.folders, self.seen = folders, list[str]()
        self.on = False
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note an event that no damaged file may cause."""
        if not self.on:
            return
        if event in PROCESSES:
            self.seen.append(f"{event} {arguments[0]}")
        elif event == "pickle.find_class":
            self.seen.append(f"{event} {arguments}")
        elif event == "open" and isinstance(arguments[0], str):
            path = os.path.realpath(arguments[0])
            if not path.startswith(tuple(self.folders)):
                self.seen.append(f"open {path}")


def run(door: Door, folder: Path, watch: Watch) -> tuple[str, str]:
    """Run a command in a folder and delete the folder.

    Returns:
        What is wrong, or nothing, and the error that the command printed, or its exit code.
    """
    command, out, wrong = [str(word) for word in door.command], io.StringIO(), ""
    before = Path.cwd()
    os.chdir(folder)
    torch.manual_seed(0)
    watch.seen.clear()
    signal.alarm(SECONDS)
    try:
        with redirect_stdout(out), redirect_stderr(out):
            watch.on = True
            code = main(command)
        if code not in (0, 2):
            wrong = f"exit code {code}"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        ours = [f for f in traceback.extract_tb(error.__traceback__) if "d2i1_" in f.filename]
        place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
        wrong = f"{type(error).__name__}: {error} ({place}; {last.name})"[:400]
        code = None
    finally:
        watch.on = False
        signal.alarm(0)
        os.chdir(before)
        shutil.rmtree(folder)
    printed = out.getvalue().replace("\r", "\n").strip().splitlines()
    said = [line for line in printed if ": error: " in line]
    if code == 2 and (len(said) != 1 or "Traceback" in out.getvalue()):
        wrong = f"expected one line of error, got {printed[-3:]}"[:400]
    if not wrong and watch.seen:
        wrong = f"{watch.seen[0]}"[:400]
    return wrong, said[-1] if said else f"code {code}"


def fuzz(draws: range, show: bool) -> dict[str, Any]:
    """Run one damaged file for each draw."""

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    failed, refused, count = [], 0, dict.fromkeys(DOORS, 0)
    with tempfile.TemporaryDirectory() as place:
        intact, work = Path(place) / "intact", Path(place) / "work"
        make_files(intact)
        (Path(place) / SECRET).write_text("secret")
        ours = [str(work), HOME, str(ROOT), sys.prefix, sys.base_prefix, "/proc", "/sys", "/dev"]
        others = [matplotlib.get_cachedir(), "/usr/lib", "/usr/share", "/etc"]
        watch = Watch([os.path.realpath(one) for one in [*ours, *others]])
        for name, door in DOORS.items():  # with intact files every command works
            shutil.copytree(intact, work)
            wrong, line = run(door, work, watch)
            if wrong or line != "code 0":
                failed.append(f"{name}, intact: {wrong or line}")
        for number in draws:
            draw = random.Random(number)
            name = draw.choice(list(DOORS))
            shutil.copytree(intact, work)
            files = sorted({f for p in DOORS[name].files for f in work.glob(p) if f.is_file()})
            file = draw.choice(files)
            file.write_bytes(damage(file.name, file.read_bytes(), draw))
            wrong, line = run(DOORS[name], work, watch)
            where = f"{number}: {name}: {file.relative_to(work)}"
            count[name] += 1
            refused += ": error: " in line
            if wrong:
                failed.append(f"{where}: {wrong}")
            if show or wrong:
                print(f"{where}: {wrong or line}", flush=True)  # noqa: T201
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    if memory > MEMORY:
        failed.append(f"{memory >> 20} MB of memory")
    files = {"files": sum(count.values()), "refused": refused, "doors": count}
    return {**files, "memory_mb": memory >> 20, "failed": failed}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--files", type=int, default=100, help="number of damaged files")
    parser.add_argument("--first", type=int, default=0, help="the first draw")
    parser.add_argument("--only", type=int, help="repeat one draw")
    parser.add_argument("--show", action="store_true", help="print every file")
    given = parser.parse_args()
    first, number = (given.first, given.files) if given.only is None else (given.only, 1)
    try:
        found = fuzz(range(first, first + number), given.show or number == 1)
        print(json.dumps(found))  # noqa: T201
    finally:
        HUB.stop()
        shutil.rmtree(HOME, ignore_errors=True)
