"""Manifests: which file is image, label, caption and split; and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from d2i1_data.errors import InputError
from d2i1_data.sources import open_source
from d2i1_data.sources.source import Source

ROWS: list[dict[str, Any]] = [
    {"img": "shots/1.png", "d": "range/a.png", "key": "first", "part": "train", "text": "a, b"},
    {"img": "shots/2.png", "d": "range/b.png", "key": "second", "part": "val", "text": "c"},
    {"img": "shots/3.png", "d": "", "key": "third one", "part": "val", "text": ""},
]
KEYS = {"file": "rows.jsonl", "id": "key", "split": "part"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for number, row in enumerate(ROWS, 1):
        for name, pixels in (
            (row["img"], np.full((4, 6, 3), number, np.uint8)),
            (row["d"], np.full((4, 6), 1000 * number, np.uint16)),
        ):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            if name:
                Image.fromarray(pixels).save(tmp_path / name)
    write(tmp_path, ROWS)
    return tmp_path


def write(home: Path, rows: list[dict[str, Any]]) -> None:
    """The rows as JSONL, and as CSV with quotes and a byte order mark."""
    (home / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    cells = [[*rows[0]], *([*row.values()] for row in rows)]
    lines = [",".join(f'"{cell}"' for cell in line) for line in cells]
    (home / "rows.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())


def opened(home: Path, part: str = "", manifest: Any = KEYS, **changes: Any) -> Source:
    columns = {"image": "img", "depth": {"column": "d", "scale": 1000}}
    content = {"manifest": manifest, "columns": columns, "caption": {"column": "text"}, **changes}
    (home / "x.yaml").write_text(yaml.safe_dump(content))
    return open_source(f"folder:{home / 'x.yaml'}{part}")


@pytest.mark.parametrize("file", ["rows.jsonl", "rows.csv"])
def test_rows_are_samples(home: Path, file: str) -> None:
    source = opened(home, manifest={**KEYS, "file": file})
    assert [source.identity(row) for row in range(3)] == ["first", "second", "third one"]
    one, other = source[0], source[1]
    assert (one.image.max(), other.image.max()) == (1, 2)
    assert (one.targets["depth"].max(), other.targets["depth"].min()) == (1, 2)
    assert (one.caption, other.caption, source.read(2, ()).caption) == ("a, b", "c", None)
    with pytest.raises(InputError, match="the column 'd': no depth of 'third one'"):
        source[2]
    with pytest.raises(InputError, match=r"1 of 3 images have no depth, the first is 'third one'"):
        source.usable_rows()
    assert source.usable_rows(on_bad_row="skip").usable == [0, 1]


def test_the_split_chooses_rows(home: Path) -> None:
    assert [opened(home, ":val").identity(row) for row in range(2)] == ["second", "third one"]
    assert [sample.id for sample in opened(home, split="s*")] == ["second"]
    assert opened(home, ":val").fingerprint != opened(home, ":train").fingerprint
    with pytest.raises(InputError, match=r"no row of the split 'test', only of train, val"):
        opened(home, ":test")


def test_ids_are_paths_by_default(home: Path) -> None:
    source = opened(home, manifest="rows.csv")
    assert [source.identity(row) for row in range(3)] == ["shots/1", "shots/2", "shots/3"]


def test_the_content_of_the_manifest_is_part_of_the_fingerprint(home: Path) -> None:
    before = opened(home).fingerprint
    assert opened(home).fingerprint == before
    write(home, [{**ROWS[0], "text": "another"}, *ROWS[1:]])
    assert opened(home).fingerprint != before


REFUSED: dict[str, tuple[str | None, dict[str, Any], list[str]]] = {
    "no file": (None, {"manifest": "no.csv"}, ["no such file", "no.csv"]),
    "another ending": (None, {"manifest": "x.yaml"}, ["ends with one of .csv, .tsv, .jsonl"]),
    "an unknown key": (None, {"manifest": {"file": "rows.csv", "ids": "key"}}, ["mean 'id'?"]),
    "an unknown column": (None, {"columns": {"image": "image"}}, ["no column 'image' among img"]),
    "a folder": (None, {"columns": {"image": {"folder": "shots"}}}, ["'column' is missing"]),
    "an id twice": ("k,img\na,shots/1.png\na,shots/2.png", {}, ["line 3", "'a' is there twice"]),
    "no image": ("k,img\na,shots/1.png\nb,", {}, ["line 3: no image"]),
    "no id": ("k,img\na,shots/1.png\n,x.png", {}, ["line 3: no k"]),
    "a cell too many": ("k,img\na,shots/1.png,z", {}, ["line 2: expected 2 cells"]),
    "a cell too few": ("k,img\na", {}, ["line 2: expected 2 cells"]),
    "an open quote": ('k,img\na,"shots', {}, ["after line 1: unexpected end of data"]),
    "nothing": ("", {}, ["no column 'img' among none"]),
    "not text": ("k,img\n\0,1.png\n", {}, []),
    "not JSON": ('{"k": 1, "img": "a.png"}\n{"k"', {}, ["line 2: not readable as JSON"]),
    "a list": ("[1]", {}, ["line 1: expected an object, got [1]"]),
    "a list as cell": ('{"k": "a", "img": ["a.png"]}', {}, ["line 1: img: got ['a.png']"]),
}


@pytest.mark.parametrize(("text", "changes", "told"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_manifest_is_refused(
    home: Path, text: str | None, changes: dict[str, Any], told: list[str]
) -> None:
    if text is not None:
        file = "t.jsonl" if text[:1] in "{[" and text else "t.csv"
        (home / file).write_text(text)
        changes = {"manifest": {"file": file, "id": "k"}, "columns": {"image": "img"}}
    with pytest.raises(InputError) as caught:
        opened(home, **{"caption": None, **changes})[0]
    assert "\n" not in str(caught.value)
    for fragment in told:
        assert fragment in str(caught.value)


def test_files_outside_need_ids(home: Path) -> None:
    (home / "inner").mkdir()
    for path in ("../shots/1.png", str(home / "shots" / "1.png")):
        (home / "inner" / "rows.csv").write_text(f"k,img\none,{path}\n")
        place = {"root": "inner", "columns": {"image": "img"}, "caption": None}
        with pytest.raises(InputError, match="name a column of ids"):
            opened(home, manifest="rows.csv", **place)
        assert opened(home, manifest={"file": "rows.csv", "id": "k"}, **place)[0].id == "one"


def test_a_missing_file_is_named(home: Path) -> None:
    (home / "range" / "b.png").unlink()
    with pytest.raises(InputError, match=r"range/b\.png: no such file"):
        opened(home)[1]
