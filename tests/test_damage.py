"""Damage to each file of a finished folder, one at a time, is told or mended."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from d2i1_data.dataset.record import RUN
from d2i1_train.cli import main
from tests.fixtures.write_formats import CREATE, FEW, FORMATS, HOST, LATEST, ROOMS
from tests.made import contents, run

WARM_UP = (
    *("warm-up", *HOST, *ROOMS, *FEW, "--base", "pipeline", "--max_train_steps", 2),
    *("--checkpointing_steps", 1, "--output_dir", "warm-up"),
)
COMMANDS = {"dataset": CREATE, "warm-up": (*WARM_UP, *LATEST)}  # folder -> what continues it
UNREAD = "warm-up/checkpoint-1/"  # not the newest; it is checked when somebody continues from it
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "flipped": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 64])
    + data[len(data) // 2 + 1 :],
    "cut": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pipeline, a dataset and a warm-up."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(FORMATS / "pipeline", folder / "pipeline")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(*CREATE)
        run(*WARM_UP)
    return folder


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    "how", ["flipped", *(pytest.param(one, marks=pytest.mark.slow) for one in ("cut", "emptied"))]
)
def test_damage_is_told_or_mended(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    how: str,
) -> None:
    before, wrong = contents(finished / name), []
    read = [file for file in before if not f"{name}/{file}".startswith(UNREAD)]
    for number, file in enumerate(read):
        folder = shutil.copytree(finished, tmp_path / str(number))
        monkeypatch.chdir(folder)
        (folder / name / file).write_bytes(DAMAGE[how](before[file]))
        capsys.readouterr()
        code, said = main([str(word) for word in COMMANDS[name]]), capsys.readouterr().err
        if code == 2:
            if "Traceback" in said or not said.splitlines()[-1].startswith("d2i1 "):
                wrong.append(f"{file}: {said}")
            continue
        after = contents(folder / name)
        if changed := [one for one in before if one != RUN and after.get(one) != before[one]]:
            wrong.append(f"{file}: code {code}, not mended: {changed}")
    assert not wrong, "\n".join(wrong)
