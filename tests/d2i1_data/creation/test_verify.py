"""`create --verify`: what is as it was made passes, what was changed is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from d2i1_data.diff2in1.saving import HASHES
from d2i1_data.sources.dataset import Dataset
from d2i1_data.tasks import TASKS
from tests.made import run

D2i1 = Callable[..., str]
ALL = ("--rows", 6)


@pytest.fixture
def made(pipeline: Path, photos: Path, tmp_path: Path) -> Path:
    """Six samples from six photographs, in two shards; the checkpoint is a copy."""
    shutil.copytree(pipeline, tmp_path / "pipeline", ignore=shutil.ignore_patterns(HASHES))
    command = ("create", "--pipeline", tmp_path / "pipeline", "--source", f"folder:{photos}")
    size = ("--num_inference_steps", 2, "--shard_size", 4, "--batch_size", 3)
    run(*command, *size, "--output_dir", tmp_path / "made")
    return tmp_path / "made"


def change(folder: Path, edit: Callable[[dict], None], shard: int = 1) -> None:
    """Edit the last row of a shard."""
    file = folder / f"data/train-{shard:05d}.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    edit(rows[-1])
    pq.write_table(pa.Table.from_pylist(rows, table.schema), file)


def test_what_was_made_is_made_again(made: Path, d2i1: D2i1) -> None:
    before = {file: file.read_bytes() for file in made.rglob("*") if file.is_file()}
    assert "6 rows made again, equal byte for byte" in d2i1("create", "--verify", made, *ALL)
    output = d2i1("create", f"--verify={made}", "--rows", 1)
    assert any(f"{count} rows made again" in output for count in (1, 2, 3))  # of one batch
    assert before == {file: file.read_bytes() for file in made.rglob("*") if file.is_file()}


def test_a_changed_label_is_found(made: Path, d2i1: D2i1) -> None:
    schema = Dataset(str(made)).schema

    def edit(row: dict) -> None:
        sample = schema.from_row(row)
        sample.targets["semseg"] = sample.targets["semseg"].copy()
        sample.targets["semseg"][0, 0] ^= 1  # one pixel
        row["semseg"] = schema.to_row(sample)["semseg"]

    change(made, edit)
    message = d2i1("create", "--verify", made, *ALL, code=2)
    assert "row 5-000 differs when made again: semseg differs" in message


@pytest.mark.parametrize("column", ["caption", "quality", "provenance"])
def test_other_changed_columns_are_found(made: Path, d2i1: D2i1, column: str) -> None:
    def edit(row: dict) -> None:
        if column == "caption":
            row["caption"] = "another"
        elif column == "quality":
            row["quality"]["depth"]["flip"] = 0.125
        else:
            row["provenance"]["noise_seed"] += 1

    change(made, edit)
    assert f"{column} differs" in d2i1("create", "--verify", made, *ALL, code=2)


def test_a_missing_row_or_shard_is_found(made: Path, d2i1: D2i1) -> None:
    file = made / "data/train-00001.parquet"
    table = pq.read_table(file)
    pq.write_table(table.slice(0, 1), file)
    assert "row 5-000 is missing" in d2i1("create", "--verify", made, *ALL, code=2)
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), file)
    assert "row 4-000 is there twice" in d2i1("create", "--verify", made, *ALL, code=2)
    rows = table.to_pylist()
    stranger = pa.Table.from_pylist([*rows, rows[0] | {"id": "9-000"}], table.schema)
    pq.write_table(stranger, file)
    assert "row 9-000 is not in the plan" in d2i1("create", "--verify", made, *ALL, code=2)
    file.unlink()
    assert "train-00001.parquet: no such file" in d2i1("create", "--verify", made, *ALL, code=2)


def test_a_changed_source_is_found(made: Path, photos: Path, d2i1: D2i1) -> None:
    file = photos.parent / "image/2.png"
    pixels = np.asarray(Image.open(file)).copy()
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(file)
    assert "source image 2 has changed" in d2i1("create", "--verify", made, *ALL, code=2)


def test_a_changed_weight_is_found(made: Path, tmp_path: Path, d2i1: D2i1) -> None:
    (file,) = (tmp_path / "pipeline/unet").glob("*.safetensors")
    tensors = load_file(file)
    tensors["conv_in.bias"][0] += 1e-3
    save_file(tensors, file)
    message = d2i1("create", "--verify", made, code=2)
    assert "was made from another plan: fingerprint: " in message


def move_to_another_machine(folder: Path) -> None:
    """Change the version of torch in the plan. The shards then state no plan, as earlier ones."""
    plan = json.loads((folder / "plan.json").read_text())
    plan["versions"]["torch"] = "2.0"
    (folder / "plan.json").write_text(json.dumps(plan))
    for file in (folder / "data").iterdir():
        pq.write_table(pq.read_table(file), file)


def test_on_other_machines_rounding_is_allowed(made: Path, tmp_path: Path, d2i1: D2i1) -> None:
    move_to_another_machine(made)
    output = d2i1("create", "--verify", made, *ALL)
    assert "6 rows made again, equal within rounding (versions" in output
    schema = Dataset(str(made)).schema

    def edit(row: dict) -> None:
        sample = schema.from_row(row)
        sample.image = sample.image.copy()
        sample.image[:4] = 255 - sample.image[:4]
        sample.targets["depth"] = sample.targets["depth"] * 1.5
        row |= {k: v for k, v in schema.to_row(sample).items() if k in ("image", "depth")}

    change(made, edit)
    message = d2i1("create", "--verify", made, *ALL, code=2)
    assert "of the image's bytes differ" in message and "depth agrees in 0.00%" in message


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("depth", None, "depth is missing"),
        ("depth", "unknown", "depth agrees in 0.00% of the pixels"),
        ("quality", 1.0, "quality of "),
        ("caption", "another", "caption differs"),
    ],
)
def test_rounding_does_not_excuse(
    made: Path, d2i1: D2i1, column: str, value: object, expected: str
) -> None:
    move_to_another_machine(made)

    def edit(row: dict) -> None:
        if column == "quality":
            row["quality"]["depth"] = dict.fromkeys(row["quality"]["depth"], value)
        elif value == "unknown":
            row["depth"]["bytes"] = TASKS["depth"].family.to_png(np.zeros((14, 20), np.float32))
        else:
            row[column] = value

    change(made, edit)
    assert expected in d2i1("create", "--verify", made, *ALL, code=2)


def test_what_was_skipped_is_not_missed(
    made: Path, photos: Path, tmp_path: Path, d2i1: D2i1
) -> None:
    file = photos.parent / "image/4.png"
    whole = file.read_bytes()
    file.write_bytes(b"torn")
    command = ("create", "--pipeline", tmp_path / "pipeline", "--source", f"folder:{photos}")
    more = ("--num_inference_steps", 2, "--on_bad_row", "skip", "--output_dir", tmp_path / "fewer")
    run(*command, *more)
    assert "5 rows made again" in d2i1("create", "--verify", tmp_path / "fewer", *ALL)
    assert "4.png: not a readable image" in d2i1("create", "--verify", made, *ALL, code=2)
    file.write_bytes(whole)
    message = d2i1("create", "--verify", tmp_path / "fewer", *ALL, code=2)
    assert "row 4-000 was left out, but can be made" in message


def test_places_may_be_given(made: Path, photos: Path, tmp_path: Path, d2i1: D2i1) -> None:
    (tmp_path / "pipeline").rename(tmp_path / "moved")
    (made / "run.json").unlink()
    assert "use --source" in d2i1("create", "--verify", made, code=2)
    where = ("--source", f"folder:{photos}", "--pipeline", tmp_path / "moved")
    assert "byte for byte" in d2i1("create", "--verify", made, *where)


def test_labels_of_images_as_they_are(pipeline: Path, tmp_path: Path, d2i1: D2i1) -> None:
    source = ("--source", "rooms:test", "--max_source_samples", 2, "--resolution", 32)
    run("label", "--pipeline", pipeline, *source, "--output_dir", tmp_path / "labelled")
    assert "2 rows made again" in d2i1("create", "--verify", tmp_path / "labelled")


def test_nothing_else_can_be_made_again(tmp_path: Path, d2i1: D2i1) -> None:
    run(
        "import", "--source", "rooms:val", "--max_source_samples", 2, "--output_dir", tmp_path / "r"
    )
    assert "holds real labels" in d2i1("create", "--verify", tmp_path / "r", code=2)
    assert "holds no plan.json" in d2i1("create", "--verify", tmp_path, code=2)


def test_threads_of_the_plan_are_used(made: Path, d2i1: D2i1) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert "byte for byte" in d2i1("create", "--verify", made)
    finally:
        torch.set_num_threads(threads)
