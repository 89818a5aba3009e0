"""What can go wrong while a dataset is written: one clear line, nothing lost, and it goes on."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from d2i1_data.creation.settings import LabelSettings
from d2i1_data.dataset.files import locked
from d2i1_data.dataset.record import read_record
from d2i1_data.diff2in1.saving import HASHES
from d2i1_data.errors import InputError
from d2i1_data.sources import random_subset
from d2i1_data.sources.rooms import Rooms
from tests.made import SEVEN, run, samples, shards

D2i1 = Callable[..., str]


def spoil(pipeline: Path, folder: Path, part: str, name: str) -> Path:
    """A copy of a pipeline in which one weight is NaN."""
    shutil.copytree(pipeline, folder, ignore=shutil.ignore_patterns(HASHES))
    (file,) = (folder / part).glob("*.safetensors")
    tensors = load_file(file)
    tensors[name].view(-1)[0] = torch.nan
    save_file(tensors, file)
    return folder


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("unet", "conv_in.bias"),
        ("vae", "decoder.conv_in.bias"),
        ("perception", "decoder.narrow.0.1.bias"),
    ],
)
def test_a_checkpoint_that_gives_nan(
    pipeline: Path, tmp_path: Path, d2i1: D2i1, part: str, name: str
) -> None:
    broken = spoil(pipeline, tmp_path / "broken", part, name)
    command = ("create", "--pipeline", broken, *SEVEN, "--output_dir", tmp_path / "made")
    message = d2i1(*command, code=2)
    rooms = Rooms("train")
    first = rooms.identity(random_subset(len(rooms), 3)[0])
    assert f"sample {first}, variant 0: the checkpoint gives NaN" in message
    assert "--on_bad_row skip" in message and not shards(tmp_path / "made")
    message = d2i1(*command, "--on_bad_row", "skip", code=2)
    assert "no sample could be made, see skipped.json" in message
    skipped = json.loads((tmp_path / "made/skipped.json").read_text())
    assert len(skipped) == 7 and all("NaN" in why for why in skipped.values())


def test_one_poisoned_sample_among_sound_ones(pipeline: Path, photos: Path, tmp_path: Path) -> None:
    """Only what hears this one caption is NaN; the others of its batch are what they were."""
    source = photos.read_text().split("caption:")[0] + "caption: {folder: texts}\n"
    (photos.parent / "texts").mkdir()
    for n in range(6):
        (photos.parent / "texts" / f"{n}.txt").write_text("poison" if n == 2 else "a room")
    photos.write_text(source)
    command = ("create", "--source", f"folder:{photos}", "--num_inference_steps", 2)
    run(*command, "--pipeline", pipeline, "--output_dir", tmp_path / "sound")
    broken = shutil.copytree(pipeline, tmp_path / "broken", ignore=shutil.ignore_patterns(HASHES))
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(pipeline / "tokenizer")
    only = {*tokenizer("poison").input_ids} - {*tokenizer("a room").input_ids}
    (file,) = (broken / "text_encoder").glob("*.safetensors")
    tensors = load_file(file)
    (embedding,) = [name for name in tensors if name.endswith("token_embedding.weight")]
    tensors[embedding][sorted(only)] = torch.nan
    save_file(tensors, file)
    skip = ("--on_bad_row", "skip", "--shard_size", 4)
    run(*command, "--pipeline", broken, "--output_dir", tmp_path / "made", *skip)
    found, sound = samples(tmp_path / "made"), samples(tmp_path / "sound")
    assert list(json.loads((tmp_path / "made/skipped.json").read_text())) == ["2-000"]
    del sound[2]
    assert [sample.id for sample in found] == [sample.id for sample in sound]
    for one, other in zip(found, sound, strict=True):
        assert (abs(one.image.astype(int) - other.image) <= 1).mean() > 0.999


@pytest.mark.parametrize("act", ["import", "label", "create"])
def test_an_unreadable_image(
    pipeline: Path, photos: Path, tmp_path: Path, d2i1: D2i1, act: str
) -> None:
    torn = photos.parent / "image/4.png"
    whole = torn.read_bytes()
    torn.write_bytes(whole[:60])
    model = () if act == "import" else ("--pipeline", pipeline)
    steps = ("--num_inference_steps", 2) if act == "create" else ()
    command = (act, *model, *steps, "--source", f"folder:{photos}", "--shard_size", 3)
    message = d2i1(*command, "--output_dir", tmp_path / "made", code=2)
    assert (
        "4.png: not a readable image" in message and "\n" not in message.strip().split("error:")[1]
    )
    first = shards(tmp_path / "made")
    assert list(first) == ["data/train-00000.parquet"]  # what is complete stays
    run(*command, "--output_dir", tmp_path / "made", "--on_bad_row", "skip")
    assert len(samples(tmp_path / "made")) == 5
    assert first.items() <= shards(tmp_path / "made").items()
    skipped = json.loads((tmp_path / "made/skipped.json").read_text())
    name = "4" if act == "import" else "4-000"
    assert list(skipped) == [name] and "4.png: not a readable image" in skipped[name]
    for shard in shards(tmp_path / "made").values():
        assert str(photos.parent).encode() not in shard  # a shard knows no places
    shutil.rmtree(tmp_path / "made/logs")  # as in a dataset that was moved
    run(*command, "--output_dir", tmp_path / "made", "--on_bad_row", "skip")
    skipped = json.loads((tmp_path / "made/skipped.json").read_text())
    assert skipped == {name: "the source cannot be read there"}
    torn.write_bytes(whole)
    run(*command, "--output_dir", tmp_path / "other")
    assert len(samples(tmp_path / "other")) == 6 and not (tmp_path / "other/skipped.json").exists()


WITHIN = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.argv[1:2] = []
from d2i1_train.cli import main
sys.exit(main())
"""  # no file may grow beyond that, as on a full disk


def test_a_full_disk(create: Callable[..., Path], pipeline: Path, tmp_path: Path) -> None:
    whole = create(tmp_path / "whole")
    size = len(shards(whole)["data/train-00001.parquet"])
    command = ("create", "--pipeline", pipeline, *SEVEN, "--output_dir", tmp_path / "made")
    line = [sys.executable, "-c", WITHIN, str(size // 2), *map(str, command)]
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    (error,) = [line for line in ended.stderr.splitlines() if "error:" in line]
    assert ended.returncode == 2 and "File too large; complete files stay" in error
    assert not list((tmp_path / "made").rglob("*.tmp"))
    complete = shards(tmp_path / "made")
    assert complete.items() <= shards(whole).items()
    create(tmp_path / "made")
    assert shards(tmp_path / "made") == shards(whole)


def test_a_file_where_a_folder_should_be(pipeline: Path, tmp_path: Path, d2i1: D2i1) -> None:
    (tmp_path / "file").write_text("mine")
    command = ("create", "--pipeline", pipeline, *SEVEN, "--output_dir")
    for place in (tmp_path / "file", tmp_path / "file/made"):
        assert f"{tmp_path}/file is a file" in d2i1(*command, place, code=2)
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "made").mkdir()
    run(*command, tmp_path / "made")
    shutil.rmtree(tmp_path / "made/data")
    (tmp_path / "made/data").write_text("in the way")
    assert "is a file" in d2i1(*command, tmp_path / "made", code=2)


def test_a_changed_checkpoint_does_not_continue(
    create: Callable[..., Path], pipeline: Path, tmp_path: Path, d2i1: D2i1
) -> None:
    folder = create(tmp_path / "made")
    (folder / "data/train-00001.parquet").unlink()
    before = shards(folder)
    other = shutil.copytree(pipeline, tmp_path / "pipeline", ignore=shutil.ignore_patterns(HASHES))
    (file,) = (other / "perception").glob("*.safetensors")
    tensors = load_file(file)
    next(iter(tensors.values())).view(-1)[0] += 1
    save_file(tensors, file)
    message = d2i1("create", "--pipeline", other, *SEVEN, "--output_dir", folder, code=2)
    assert 'another dataset (fingerprint: "' in message and shards(folder) == before
    create(folder)
    assert len(shards(folder)) == 3


def test_rows_are_valid_after_a_fault(photos: Path, tmp_path: Path) -> None:
    (photos.parent / "image/0.png").write_bytes(b"")
    command = ("import", "--source", f"folder:{photos}", "--on_bad_row", "skip")
    run(*command, "--shard_size", 1, "--output_dir", tmp_path / "made")
    counts = [pq.read_metadata(f).num_rows for f in sorted((tmp_path / "made/data").iterdir())]
    assert counts == [0, 1, 1, 1, 1, 1] and len(samples(tmp_path / "made")) == 5


def test_two_runs_do_not_write_one_folder(photos: Path, tmp_path: Path, d2i1: D2i1) -> None:
    command = ("import", "--source", f"folder:{photos}", "--output_dir", tmp_path / "made")
    (tmp_path / "made").mkdir()
    with locked(tmp_path / "made"):
        assert "another run is writing it" in d2i1(*command, code=2)
    run(*command)
    assert len(samples(tmp_path / "made")) == 6


def test_nothing_readable(pipeline: Path, photos: Path, tmp_path: Path, d2i1: D2i1) -> None:
    for file in (photos.parent / "image").iterdir():
        file.write_bytes(b"")
    command = ("create", "--pipeline", pipeline, "--source", f"folder:{photos}", "--variants", 2)
    more = ("--num_inference_steps", 2, "--on_bad_row", "skip", "--output_dir", tmp_path / "made")
    assert "no sample could be made, see skipped.json" in d2i1(*command, *more, code=2)
    assert len(json.loads((tmp_path / "made/skipped.json").read_text())) == 12


def test_another_source_does_not_continue(pipeline: Path, tmp_path: Path, d2i1: D2i1) -> None:
    file = tmp_path / "captions.txt"
    file.write_text("a room\n")
    source = ("--source", f"text:{file}", "--resolution", 32, "--num_inference_steps", 2)
    command = ("create", "--pipeline", pipeline, *source, "--output_dir", tmp_path / "made")
    run(*command)
    file.write_text("a cube\n")
    assert "another dataset (source_fingerprint: " in d2i1(*command, code=2)


def test_other_classes_do_not_continue(photos: Path, tmp_path: Path, d2i1: D2i1) -> None:
    command = ("import", "--source", f"folder:{photos}", "--output_dir", tmp_path / "made")
    run(*command)
    before = (tmp_path / "made/diff2in1.json").read_bytes()
    photos.write_text(photos.read_text().replace("sky, road", "road, sky"))
    assert "another dataset (source_fingerprint: " in d2i1(*command, code=2)
    assert (tmp_path / "made/diff2in1.json").read_bytes() == before


def test_labels_of_the_source_are_not_read(pipeline: Path, photos: Path, tmp_path: Path) -> None:
    photos.write_text(photos.read_text().split("caption:")[0])
    (photos.parent / "label/3.png").write_bytes(b"torn")
    command = ("create", "--pipeline", pipeline, "--source", f"folder:{photos}")
    run(*command, "--num_inference_steps", 2, "--output_dir", tmp_path / "made")
    assert len(samples(tmp_path / "made")) == 6


def test_a_run_killed_while_it_planned(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made/.plan.json.tmp").write_text("{")
    run("import", "--source", f"folder:{photos}", "--output_dir", tmp_path / "made")
    assert len(samples(tmp_path / "made")) == 6


def test_notes_are_those_of_all_runs(photos: Path, tmp_path: Path) -> None:
    command = ("import", "--source", f"folder:{photos}", "--shard_size", 2)
    run(*command, "--output_dir", tmp_path / "made")
    card = (tmp_path / "made/README.md").read_text()
    assert "| semseg resized | 6 |" in card
    (tmp_path / "made/data/train-00001.parquet").unlink()
    run(*command, "--output_dir", tmp_path / "made")
    assert (tmp_path / "made/README.md").read_text() == card


def test_a_torn_log_spoils_nothing(photos: Path, tmp_path: Path) -> None:
    command = ("import", "--source", f"folder:{photos}", "--shard_size", 2)
    run(*command, "--output_dir", tmp_path / "made")
    log = tmp_path / "made/logs/00000.jsonl"
    log.write_text(log.read_text()[:-20])  # as a kill or a full disk leaves it
    (tmp_path / "made/data/train-00002.parquet").unlink()
    run(*command, "--output_dir", tmp_path / "made")
    assert [entry.shard for entry in read_record(str(tmp_path / "made")).logs] == [0, 1, 2]


def test_a_folder_that_cannot_be_written(photos: Path, d2i1: D2i1) -> None:
    """Nobody, not even root, makes folders in /sys."""
    command = ("import", "--source", f"folder:{photos}", "--output_dir", "/sys/made")
    assert "/sys/made: " in (message := d2i1(*command, code=2))
    assert "choose another --output_dir" in message and message.count("\n") == 1


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--seed", 10**22, f"--seed {10**22}: expected at most {2**63 - 1}"),
        ("--num_samples", 10**12, "1,000,000,000,000 samples: expected at most 10,000,000"),
        ("--variants", 10**12, "3,000,000,000,000 samples: expected at most 10,000,000"),
    ],
)
def test_absurd_numbers(
    pipeline: Path, tmp_path: Path, d2i1: D2i1, flag: str, value: int, expected: str
) -> None:
    size = ("--source", "rooms:train", "--max_source_samples", 3, "--resolution", 32)
    command = ("create", "--pipeline", pipeline, *size, flag, value)
    assert expected in d2i1(*command, "--output_dir", tmp_path / "made", code=2)
    assert not (tmp_path / "made").exists()


def test_a_source_that_lost_an_image(
    pipeline: Path, photos: Path, tmp_path: Path, d2i1: D2i1
) -> None:
    """A plan names images; the fingerprint of a folder does not know them."""
    photos.write_text(photos.read_text().split("caption:")[0])
    source = ("--source", f"folder:{photos}", "--num_inference_steps", 2)
    command = ("create", "--pipeline", pipeline, *source, "--output_dir", tmp_path / "made")
    run(*command)
    for part in ("image", "label"):
        (photos.parent / part / "4.png").unlink()
    message = d2i1("create", "--verify", tmp_path / "made", "--rows", 6, code=2)
    assert "row 4-000: source photos has no sample '4'" in message


def test_images_without_labels(photos: Path, tmp_path: Path) -> None:
    images = photos.parent / "image"
    run("import", "--source", f"folder:{images}", "--output_dir", tmp_path / "made")
    found = samples(tmp_path / "made")
    assert len(found) == 6 and not any(sample.targets for sample in found)
    assert (tmp_path / "made/preview.png").is_file()


@pytest.mark.parametrize("value", ["float8", [[]], None])
def test_choices_are_checked_in_python_too(value: Any) -> None:
    with pytest.raises(InputError, match=r"^--precision .*: expected one of float32, bfloat16"):
        LabelSettings(pipeline="p", source="rooms:val", output_dir="o", precision=value)
