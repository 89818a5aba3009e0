"""A run continues as it began, from files as they were written, and alone in its folder."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from d2i1_data.dataset.files import locked
from d2i1_data.dataset.record import RunRecord, write_run
from d2i1_data.errors import InputError
from d2i1_train.loop.manifest import MANIFEST, check_facts, deciding_facts, write_manifest
from d2i1_train.settings import WarmUpSettings
from tests.made import contents, run

D2i1 = Callable[..., str]
SOURCE = ("--source", "rooms:train", "--max_train_samples", 2, "--resolution", 32)
SMALL = (*SOURCE, "--real_batch_size", 2, "--report_to", "none", "--checkpointing_steps", 1)
HOST = ("--host", "light", "--width", 16, "--tasks", "normals")
LATEST = ("--resume_from_checkpoint", "latest")


@pytest.fixture(scope="module")
def warm(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warm-up of two steps, with a checkpoint for each."""
    folder = tmp_path_factory.mktemp("continuing") / "warm"
    run(*command(tiny_base, folder))
    return folder


@pytest.fixture(scope="module")
def improved(warm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Self-improving of two steps without created samples."""
    folder = tmp_path_factory.mktemp("continuing") / "improved"
    run(*improve(warm, folder))
    return folder


def command(base: Path, folder: Path, *flags: object) -> tuple[object, ...]:
    steps = () if "--max_train_steps" in flags else ("--max_train_steps", 2)
    return ("warm-up", "--base", base, *SMALL, *HOST, *steps, *flags, "--output_dir", folder)


def improve(warm: Path, folder: Path, *flags: object) -> tuple[object, ...]:
    steps = () if "--max_train_steps" in flags else ("--max_train_steps", 2)
    more = ("--pipeline", warm / "pipeline", "--follow_every", 2, *steps, *flags)
    return ("self-improve", *SMALL, *more, "--output_dir", folder)


OTHER = {
    "learning_rate": (0.01, "learning_rate: recorded 0.001, given 0.01"),
    "seed": (3, "seed: recorded 0, given 3"),
    "real_batch_size": (1, "real_batch_size: recorded 8, given 1"),
    "gradient_accumulation_steps": (2, "accumulation_steps x processes: recorded 1, given 2"),
    "random_flip": (False, "random_flip: recorded true, given false"),
    "resolution": ("24", 'resolution: recorded null, given "24"'),
    "lr_scheduler": ("linear", 'lr_scheduler: recorded "constant_with_warmup", given "linear"'),
    "max_train_samples": (1, "max_train_samples: recorded null, given 1"),
    "source": ("rooms:val", 'source: recorded "rooms:train", given "rooms:val"'),
    "base": ("other", 'base: recorded "rooms", given "other"'),
}
PLAIN = WarmUpSettings(source="rooms:train", host="light", output_dir="out")


@pytest.mark.parametrize("name", OTHER)
@pytest.mark.parametrize("earlier_version", [False, True])
def test_what_decides_the_result_must_stay(
    tmp_path: Path, name: str, earlier_version: bool
) -> None:
    """Without a manifest, as earlier versions wrote it, `run.json` tells the settings."""
    checkpoint = tmp_path / "checkpoint-1"
    checkpoint.mkdir()
    if earlier_version:
        write_run(tmp_path, RunRecord("warm-up", [], asdict(PLAIN)))
    else:
        write_manifest(checkpoint, deciding_facts(PLAIN, [], 1, "no"))
    check_facts(checkpoint, deciding_facts(PLAIN, [], 1, "no"), PLAIN, 1)
    value, message = OTHER[name]
    other = replace(PLAIN, **{name: value})
    with pytest.raises(InputError, match=re.escape(message)):
        check_facts(checkpoint, deciding_facts(other, [], 1, "no"), other, 1)


def test_the_precision_must_stay(tmp_path: Path) -> None:
    write_manifest(tmp_path, deciding_facts(PLAIN, [], 1, "no"))
    with pytest.raises(InputError, match='mixed_precision: recorded "no", given "bf16"'):
        check_facts(tmp_path, deciding_facts(PLAIN, [], 1, "bf16"), PLAIN, 1)


@pytest.mark.parametrize("scheduler", ["cosine", "linear", "one_cycle"])
def test_a_schedule_must_keep_its_length(tmp_path: Path, scheduler: str) -> None:
    one, longer = (replace(PLAIN, lr_scheduler=scheduler, max_train_steps=n) for n in (2, 3))
    write_manifest(tmp_path, deciding_facts(one, [], 1, "no"))
    with pytest.raises(InputError, match="max_train_steps: recorded 2, given 3"):
        check_facts(tmp_path, deciding_facts(longer, [], 1, "no"), longer, 1)


def test_all_differences_stand_in_one_line(
    d2i1: D2i1, tiny_base: Path, warm: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(warm, tmp_path / "warm")
    before = contents(folder)
    flags = (*LATEST, "--seed", 1, "--learning_rate", 1)
    error = d2i1(*command(tiny_base, folder, *flags), code=2)
    assert "learning_rate: recorded 0.001, given 1.0; seed: recorded 0, given 1" in error
    assert error.count("\n") == 1 and contents(folder) == before


def test_what_does_not_decide_the_result_may_change(
    tiny_base: Path, warm: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "moved" / tiny_base.name)
    folder = shutil.copytree(warm, tmp_path / "warm")
    flags = ("--max_train_steps", 3, "--logging_steps", 1, "--checkpoints_total_limit", 2)
    flags += ("--validation_source", "rooms:val", "--num_validation_samples", 1)
    flags += ("--dataloader_num_workers", 1, "--cache_dir", tmp_path / "cache")
    run(*command(base, folder, *LATEST, *flags))
    whole = tmp_path / "whole"
    run(*command(tiny_base, whole, "--max_train_steps", 3))
    name = "checkpoint-3/exploitation.safetensors"
    assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert json.loads((folder / "run.json").read_text())["settings"]["max_train_steps"] == 3


def test_fewer_steps_than_were_made_are_refused(
    d2i1: D2i1, tiny_base: Path, warm: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(warm, tmp_path / "warm")
    error = d2i1(*command(tiny_base, folder, *LATEST, "--max_train_steps", 1), code=2)
    assert "--max_train_steps 1" in error and "checkpoint-2 has 2 already" in error


def test_theta_c_follows_as_it_began(
    d2i1: D2i1, warm: Path, improved: Path, tmp_path: Path
) -> None:
    """`--alpha auto` depends on the number of steps; the message names the value to give."""
    folder, whole = shutil.copytree(improved, tmp_path / "improved"), tmp_path / "whole"
    longer = ("--max_train_steps", 3)
    error = d2i1(*improve(warm, folder, *longer, *LATEST), code=2)
    alpha = error.partition("alpha: recorded ")[2].partition(",")[0]
    assert float(alpha) == pytest.approx(0.15 ** (1 / 4), rel=1e-12)
    run(*improve(warm, folder, *longer, *LATEST, "--alpha", alpha))
    run(*improve(warm, whole, *longer, "--alpha", alpha))
    for name in ("creation.safetensors", "exploitation.safetensors"):
        files = [at / "checkpoint-3" / name for at in (folder, whole)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_other_samples_are_refused(
    d2i1: D2i1, tiny_base: Path, photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    own = ("--source", f"folder:{photos}", "--resolution", "16x24", "--tasks", "semseg")
    flags = (*own, "--max_train_samples", "null")
    run(*command(tiny_base, folder, *flags))
    for part in ("image", "label"):
        (photos.parent / part / "5.png").unlink()
    error = d2i1(*command(tiny_base, folder, *flags, *LATEST), code=2)
    assert "samples of source: recorded" in error


def test_two_trainings_do_not_share_a_folder(
    d2i1: D2i1, tiny_base: Path, warm: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(warm, tmp_path / "warm")
    (tmp_path / "new").mkdir()
    before = contents(folder)
    for place, flags in ((folder, LATEST), (tmp_path / "new", ())):
        with locked(place):
            error = d2i1(*command(tiny_base, place, *flags), code=2)
        assert f"{place}: another run is writing it" in error
    assert contents(folder) == before and contents(tmp_path / "new") == {}
    d2i1(*command(tiny_base, folder, "--seed", 1, *LATEST), code=2)  # it releases the lock
    run(*command(tiny_base, folder, *LATEST))


# --- damaged checkpoints ---


def damage(file: Path) -> None:
    """Change one byte in the middle of a file."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


FILES = ("exploitation.safetensors", "optimizer.bin", "random_states_0.pkl", "counters.json")


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_damaged_checkpoint_is_set_aside(
    d2i1: D2i1, tiny_base: Path, warm: Path, tmp_path: Path, name: str
) -> None:
    folder = shutil.copytree(warm, tmp_path / "warm")
    damage(folder / "checkpoint-2" / name)
    output = d2i1(*command(tiny_base, folder, *LATEST, "--checkpoints_total_limit", 1))
    (line,) = [line for line in output.splitlines() if "is damaged" in line]
    assert name in line and "now checkpoint-2.damaged: continuing from" in line
    assert line.endswith("checkpoint-1")
    found = sorted(path.name for path in folder.glob("checkpoint-*"))
    assert found == ["checkpoint-2", "checkpoint-2.damaged"]
    again = folder / "checkpoint-2" / FILES[0]
    assert again.read_bytes() == (warm / "checkpoint-2" / FILES[0]).read_bytes()


def test_without_an_intact_checkpoint_nothing_is_changed(
    d2i1: D2i1, tiny_base: Path, warm: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(warm, tmp_path / "warm")
    for step in (1, 2):
        damage(folder / f"checkpoint-{step}/optimizer.bin")
    before = contents(folder)
    error = d2i1(*command(tiny_base, folder, *LATEST), code=2)
    assert "has no intact checkpoint (checkpoint-2: optimizer.bin is not as" in error
    named = ("--resume_from_checkpoint", "checkpoint-1")
    assert "checkpoint-1 is damaged: optimizer.bin" in d2i1(
        *command(tiny_base, folder, *named), code=2
    )
    assert contents(folder) == before


@pytest.mark.parametrize("name", FILES[:2])
@pytest.mark.parametrize("size", [0, 100])
def test_a_damaged_checkpoint_of_an_earlier_version_is_refused(
    d2i1: D2i1, tiny_base: Path, warm: Path, tmp_path: Path, name: str, size: int
) -> None:
    folder = shutil.copytree(warm, tmp_path / "warm")
    newest = folder / "checkpoint-2"
    (newest / MANIFEST).unlink()
    (newest / name).write_bytes((newest / name).read_bytes()[:size])
    before = contents(folder)
    error = d2i1(*command(tiny_base, folder, *LATEST), code=2)
    assert "checkpoint-2" in error and "cannot be read" in error
    assert contents(folder) == before


def test_the_next_stage_needs_an_intact_optimiser(d2i1: D2i1, warm: Path, tmp_path: Path) -> None:
    start = shutil.copytree(warm, tmp_path / "start")
    damage(start / "checkpoint-2/optimizer.bin")
    error = d2i1(*improve(start, tmp_path / "out"), code=2)
    assert "checkpoint-2 is damaged: optimizer.bin" in error and "--fresh_optimizer" in error
    assert not (tmp_path / "out").exists()
    run(*improve(start, tmp_path / "out", "--fresh_optimizer", "true"))
    assert load_file(tmp_path / "out/checkpoint-2/creation.safetensors")
