"""Rows of a stranger: bytes only, and labels as a dataset of ours holds them."""

import io
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from d2i1_data.checkpoints.files import fetch
from d2i1_data.creation.plan import read_plan
from d2i1_data.dataset.record import read_run
from d2i1_data.dataset.schema import METADATA, Schema
from d2i1_data.dataset.shards import shard_path, write_metadata
from d2i1_data.diff2in1.families import encode_png
from d2i1_data.errors import InputError
from d2i1_data.hub.retry import whoami
from d2i1_data.sources.dataset import Dataset
from d2i1_data.sources.rooms import Rooms

SCHEMA = Schema.real(Rooms.tasks)
SIZE = 8
Rows = list[dict[str, Any]]


def written(folder: Path, **columns: Any) -> Path:
    """A dataset of one row with some columns replaced."""
    shard_path(folder, 0).parent.mkdir(parents=True)
    row = SCHEMA.to_row(Rooms("val", (SIZE, SIZE))[0]) | columns
    pq.write_table(pa.Table.from_pylist([row], SCHEMA.arrow), shard_path(folder, 0))
    write_metadata(folder, SCHEMA)
    return folder


def stored(pixels: np.ndarray, mode: str | None = None) -> dict[str, Any]:
    file = io.BytesIO()
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def plain(value: int, *shape: int) -> np.ndarray:
    return np.full(shape or (SIZE, SIZE), value, np.uint8)


def test_a_row_that_names_a_file_is_refused(tmp_path: Path, d2i1: Callable[..., str]) -> None:
    """A published row must not carry off a picture of this machine."""
    (tmp_path / "secret.png").write_bytes(encode_png(plain(7, SIZE, SIZE, 3)))
    for column in ("image", "semseg"):
        theirs = {"bytes": None, "path": str(tmp_path / "secret.png")}
        folder = written(tmp_path / column, **{column: theirs})
        out = ("--output_dir", tmp_path / "out" / column)
        for line in (
            ("export", folder, "--format", "folders", *out),
            ("import", "--source", f"dataset:{folder}", "--output_dir", tmp_path / "in" / column),
            ("report", folder),
        ):
            message = d2i1(*line, code=2)
            assert "secret.png', only bytes are read" in message, line
        assert not list((tmp_path / "out").rglob("*.png"))


LABELS: dict[str, tuple[str, Any, str]] = {
    "class": ("semseg", stored(plain(200)), "semseg holds class id 200, allowed are 0 to"),
    "colours": ("semseg", stored(plain(0, SIZE, SIZE, 3)), "semseg is stored with mode RGB"),
    "size": ("semseg", stored(plain(0, 4, 6)), "semseg has 6x4 pixels, its image 8x8"),
    "8-bit depth": ("depth", stored(plain(9)), "depth is stored with mode L, expected I;16"),
    "grey normals": ("normals", stored(plain(9)), "normals is stored with mode L, expected RGB"),
    "no label bytes": ("saliency", {"bytes": None, "path": None}, "a picture holds no bytes"),
    "no image": ("image", None, "a picture holds no bytes"),
    "no picture": ("depth", {"bytes": b"depth", "path": None}, "not a readable image"),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_are_checked(tmp_path: Path, case: str) -> None:
    """A class that does not exist was an IndexError in the middle of training."""
    column, value, expected = LABELS[case]
    source = Dataset(str(written(tmp_path / "rows", **{column: value})))
    with pytest.raises(InputError, match=f"dataset rows: row '.*': .*{expected}"):
        source[0]


def test_rows_without_any_label_stop_or_are_skipped(tmp_path: Path) -> None:
    labels = dict.fromkeys(Rooms.tasks)
    source = Dataset(str(written(tmp_path / "rows", **labels)))
    with pytest.raises(InputError, match=r"source rows: 'rooms-val-00000' has no label"):
        next(source.usable_rows().samples())
    with pytest.raises(InputError, match="no usable sample"):
        source.usable_rows(on_bad_row="skip")


def test_allowed_forms_of_labels(tmp_path: Path) -> None:
    indexed, mask = stored(plain(1), "P"), stored(plain(255), "1")
    source = Dataset(str(written(tmp_path / "rows", semseg=indexed, saliency=mask, depth=None)))
    targets = source[0].targets
    assert (targets["saliency"] == 1).all() and "depth" not in targets
    assert targets["semseg"].shape == (SIZE, SIZE)


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("id", [None], "1 rows have no id"),
        ("id", [{"a": 1}], "column id is struct"),
        ("image", ["a.png"], "column image is string, expected struct"),
        ("provenance", [3], "column provenance is int64, expected struct"),
        ("semseg", [{"bytes": 3, "path": None}], "column semseg is struct"),
    ],
)
def test_columns_of_other_types_are_refused(
    tmp_path: Path, column: str, values: list[Any], expected: str
) -> None:
    folder = written(tmp_path / "rows")
    table = pq.read_table(shard_path(folder, 0)).replace_schema_metadata(None)
    place = table.schema.get_field_index(column)
    pq.write_table(table.set_column(place, column, pa.array(values)), shard_path(folder, 0))
    with pytest.raises(InputError, match=expected):
        Dataset(str(folder))


def test_only_shards_are_read(tmp_path: Path) -> None:
    """The card of a stranger may name any file, and a folder may hold files of other kinds."""
    folder = written(tmp_path / "rows")
    outside = tmp_path / "outside.parquet"
    shard_path(folder, 0).rename(outside)
    files = json.dumps([{"split": "train", "path": str(outside)}])
    (folder / "README.md").write_text(
        f"---\nconfigs: [{{config_name: default, data_files: {files}}}]\n---\n"
    )
    assert len(datasets.load_dataset(str(folder), split="train")) == 1
    with pytest.raises(InputError, match="cannot be loaded: "):
        Dataset(str(folder))


def test_a_mistyped_name_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="dataset runs: no such folder, and not a Hub id"):
        Dataset("runs")
    with pytest.raises(InputError, match="no such folder, and not a Hub id"):
        Dataset(str(tmp_path / "runs"))


def test_no_hub_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The clients of the Hub try a closed port for 23 seconds, and wait for a silent one."""
    monkeypatch.setattr("d2i1_data.hub.retry.PATIENCE", 0.2)
    monkeypatch.setattr("d2i1_data.hub.retry.FIRST_WAIT", 0.001)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        for why in ("refused", "timed out"):
            address = f"http://127.0.0.1:{silent.getsockname()[1]}"
            monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
            start = time.monotonic()
            for read in (lambda: Dataset("runs/mistyped"), lambda: fetch("runs/mistyped", "base")):
                with pytest.raises(InputError, match=f"neither a folder nor on the Hub: .*{why}"):
                    read()
            with pytest.raises(InputError, match=f"{address}: .*{why}"):
                whoami()
            assert f"{why}; again in" in caplog.text
            assert time.monotonic() - start < 10
            caplog.clear()
            silent.listen()


DEEP = '{"a": ' * 100_000 + "1" + "}" * 100_000
JSON = ("", "{", "[]", "\0", DEEP, '{"format_version": 1e999}', '{"format_version": 1}')


READERS: dict[str, Callable[[Path], object]] = {
    METADATA: lambda folder: Dataset(str(folder)),
    "plan.json": read_plan,
    "run.json": read_run,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("text", JSON, ids=range(len(JSON)))
def test_broken_json_is_one_line(tmp_path: Path, name: str, text: str) -> None:
    folder = written(tmp_path / "rows")
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=name) as caught:
        READERS[name](folder)
    assert "\n" not in str(caught.value)
