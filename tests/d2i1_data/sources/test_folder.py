"""Folders of images and labels: what is read, what is brought to size, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from d2i1_data.errors import InputError
from d2i1_data.sources import open_rows, open_source, random_subset, write_report
from d2i1_data.sources.folder import Folder

NAMES = ["sky", "road", "tree"]


def rewrite(file: Path, **changes: object) -> Path:
    """The YAML file with some keys changed."""
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | changes))
    return file


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_labels_come_at_the_size_of_the_image(photos: Path) -> None:
    source = open_source(f"folder:{photos}")
    assert len(source) == 6
    for sample in source:
        stored = np.asarray(Image.open(photos.parent / "label" / f"{sample.id}.png"))
        assert sample.image.shape == (14, 20, 3)
        assert sample.targets["semseg"].shape == (14, 20)
        picked = stored[1::2, 1::2]  # the pixel under the centre of each pair
        np.testing.assert_array_equal(sample.targets["semseg"], np.where(picked == 3, 255, picked))
    assert source.notes == {"semseg resized": 6}
    source[0]
    assert source.notes == {"semseg resized": 6}  # pictures, not readings
    assert source.tasks["semseg"].family.names == tuple(NAMES)  # type: ignore[attr-defined]


def test_caption_and_provenance(photos: Path) -> None:
    sample = Folder(str(photos))[2]
    ids, counts = np.unique(sample.targets["semseg"], return_counts=True)
    order = [NAMES[i] for i in ids[np.argsort(-counts, kind="stable")] if i != 255]
    assert sample.caption is not None
    assert sample.caption.startswith("a street with ")
    assert sorted(sample.caption.removeprefix("a street with ").split(", ")) == sorted(order)
    assert (sample.id, sample.provenance.kind) == ("2", "real")
    assert (sample.provenance.source_dataset, sample.provenance.licence) == ("photos", "cc0-1.0")


def test_caption_leaves_out_small_classes_and_names_the_largest_first(photos: Path) -> None:
    label = np.full((28, 40), 2, np.uint8)
    label[:8], label[27, 39] = 0, 1
    save(photos.parent / "label" / "0.png", label)
    assert Folder(str(photos))[0].caption == "a street with tree, sky"


def test_captions_from_text_files(photos: Path) -> None:
    (photos.parent / "texts").mkdir()
    for n in range(5):
        (photos.parent / "texts" / f"{n}.txt").write_text(f"street {n}\n")
    source = Folder(str(rewrite(photos, caption={"folder": "texts"})))
    assert [source[n].caption for n in range(5)] == [f"street {n}" for n in range(5)]
    with pytest.raises(InputError, match=r"texts/5\.txt"):
        source[5]


@pytest.mark.parametrize(
    ("split", "expected"),
    [("*", "012345"), ("[0-2]", "012"), (["4", "1"], "41"), ([4, 1], "41"), ("ids.txt", "53")],
)
def test_split_chooses(photos: Path, split: object, expected: str) -> None:
    (photos.parent / "ids.txt").write_text("5\n3\n")
    source = Folder(str(rewrite(photos, split=split)))
    assert [sample.id for sample in source] == list(expected)
    assert [source.identity(n) for n in range(len(source))] == list(expected)


def test_split_placeholder(photos: Path) -> None:
    for part, count in (("train", 3), ("val", 2)):
        for n in range(count):
            save(photos.parent / part / "rgb" / "a" / f"{n}.png", np.zeros((4, 4, 3), np.uint8))
    rewrite(photos, columns={"image": "{split}/rgb"}, caption=None)
    assert [s.id for s in open_source(f"folder:{photos}:val")] == ["a/0", "a/1"]
    assert len(open_source(f"folder:{photos}:train")) == 3
    with pytest.raises(InputError, match=r"uses \{split\}: name a split"):
        open_source(f"folder:{photos}")


def test_root_expands_variables(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOTOS_HERE", str(photos.parent))
    moved = photos.parent.parent / "elsewhere.yaml"
    moved.write_text(rewrite(photos, root="$PHOTOS_HERE").read_text())
    assert len(Folder(str(moved))) == 6


BINARY = np.random.default_rng(3).random((14, 20)) > 0.6


@pytest.mark.parametrize(
    ("pixels", "column"),
    [
        (BINARY, "mask"),  # one bit, as ECSSD-like sets come
        (BINARY.astype(np.uint8) * 255, {"folder": "mask", "scale": 255}),
        (BINARY.astype(np.uint8) * 254, "mask"),
        (BINARY.astype(np.uint8) * 254, {"folder": "mask", "scale": 254}),
    ],
)
def test_masks(photos: Path, pixels: np.ndarray, column: object) -> None:
    for n in range(6):
        save(photos.parent / "mask" / f"{n}.png", pixels)
    rewrite(photos, columns={"image": "image", "saliency": column}, caption=None)
    np.testing.assert_array_equal(Folder(str(photos))[0].targets["saliency"], BINARY)


@pytest.mark.parametrize(("scale", "metres"), [(None, 1000), (1000, 1000), (5000, 5000)])
def test_depth_scale(photos: Path, scale: int | None, metres: int) -> None:
    stored = np.random.default_rng(1).integers(0, 60_000, (14, 20)).astype(np.uint16)
    stored[0, 0] = 0
    for n in range(6):
        save(photos.parent / "range" / f"{n}.png", stored)
    column = {"folder": "range", "scale": scale} if scale else "range"
    rewrite(photos, columns={"image": "image", "depth": column}, caption=None)
    depth = Folder(str(photos))[0].targets["depth"]
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, stored / metres, rtol=1e-6)
    assert depth[0, 0] == 0


def truncate(photos: Path) -> None:
    file = photos.parent / "image" / "2.png"
    file.write_bytes(file.read_bytes()[:300])


def depth_with_nan(photos: Path) -> None:
    for n in range(6):
        save(photos.parent / "range" / f"{n}.tif", np.full((14, 20), np.nan, np.float32))
    column = {"folder": "range", "scale": 1}
    rewrite(photos, columns={"image": "image", "depth": column}, caption=None)


def label_with_floats(photos: Path) -> None:
    (photos.parent / "label" / "2.png").unlink()
    save(photos.parent / "label" / "2.tif", np.full((14, 20), 0.5, np.float32))


def label(pixels: np.ndarray) -> Callable[[Path], None]:
    return lambda photos: save(photos.parent / "label" / "2.png", pixels)


def settings(**changes: object) -> Callable[[Path], None]:
    return lambda photos: (rewrite(photos, **changes), None)[1]


def depth_column(column: object) -> Callable[[Path], None]:
    return settings(columns={"image": "image", "depth": column}, caption=None)


BAD_FOLDERS = {
    "no YAML file": (lambda p: p.unlink(), ["no such file", "photos.yaml"]),
    "not YAML": (lambda p: p.write_text("a: [b\n"), ["photos.yaml", "not readable as YAML"]),
    "empty YAML": (lambda p: p.write_text(""), ["photos.yaml", "expected the keys columns"]),
    "unknown key": (settings(licens="x"), ["photos.yaml", "'licens'", "did you mean 'licence'"]),
    "unknown inner key": (
        settings(classes={"semseg": {"name": NAMES}}),
        ["photos.yaml", "'name'", "did you mean 'names'"],
    ),
    "unknown column key": (
        settings(columns={"image": {"folder": "image", "scal": 2}}, caption=None),
        ["photos.yaml", "'scal'", "did you mean 'scale'"],
    ),
    "columns not a mapping": (settings(columns="image"), ["photos.yaml", "columns", "'image'"]),
    "classes not a mapping": (settings(classes=NAMES), ["photos.yaml", "classes"]),
    "names not text": (
        settings(classes={"semseg": {"names": [True, False]}}),
        ["photos.yaml", "classes: semseg", "names"],
    ),
    "template of another word": (
        settings(caption={"template": "a {street}"}),
        ["photos.yaml", "caption", "{street}", "{classes}"],
    ),
    "broken template": (settings(caption={"template": "a {"}), ["photos.yaml", "'a {'"]),
    "no image column": (settings(columns={"semseg": "label"}), ["photos.yaml", "no `image`"]),
    "unknown column": (
        settings(columns={"image": "image", "normal": "x"}, caption=None),
        ["photos.yaml", "'normal'", "allowed are image, normals, depth"],
    ),
    "missing folder": (
        settings(columns={"image": "image", "semseg": "nowhere"}),
        ["photos.yaml", "no such folder", "nowhere"],
    ),
    "two files of one id": (
        lambda p: save(p.parent / "image" / "4.bmp", np.zeros((14, 20, 3), np.uint8)),
        ["image/4.bmp and 4.png have the same id"],
    ),
    "one id twice": (settings(split=["0", "1", "0"]), ["photos.yaml", "split", "'0' twice"]),
    "a number as split": (settings(split=5), ["photos.yaml", "split: got 5"]),
    "a text as scale": (
        settings(
            columns={"image": "image", "depth": {"folder": "label", "scale": "x"}}, caption=None
        ),
        ["photos.yaml: columns: depth", "scale: got 'x'", "expected float"],
    ),
    "scale 0": (
        settings(
            columns={"image": "image", "depth": {"folder": "label", "scale": 0}}, caption=None
        ),
        ["photos.yaml: columns: depth", "scale: got 0", "above 0"],
    ),
    "values of distances": (
        settings(
            columns={"image": "image", "depth": {"folder": "label", "values": {1: 2}}}, caption=None
        ),
        ["columns: depth", "a metric_map has no values", "scale, unknown, upright"],
    ),
    "a word as value": (
        settings(columns={"image": "image", "semseg": {"folder": "label", "values": {"a": 1}}}),
        ["columns: semseg: values: got a", "expected stored numbers"],
    ),
    "a word as unknown": (
        settings(columns={"image": "image", "semseg": {"folder": "label", "unknown": "void"}}),
        ["columns: semseg: unknown: got 'void'", "numbers or [red, green, blue]"],
    ),
    "a class called no": (
        settings(classes={"semseg": {"names": [False, "car", "sky"]}}),
        ["classes: semseg: names: got False", 'put words such as "no" and "yes" in quotes'],
    ),
    "a palette out of range": (
        settings(classes={"semseg": {"names": NAMES, "palette": [[0] * 3, [0, 0, 300], [1] * 3]}}),
        ["photos.yaml: classes: semseg", "[0, 0, 300]", "0 to 255"],
    ),
    "an alias": (lambda p: p.write_text("a: &a [1]\nb: *a\n"), ["photos.yaml", "alias"]),
    "deep YAML": (lambda p: p.write_text("[" * 20_000), ["photos.yaml", "not readable as YAML"]),
    "bytes": (lambda p: p.write_bytes(b"\xff\xfe\xff"), ["photos.yaml", "not readable as YAML"]),
    "no classes": (settings(classes={}, caption=None), ["photos.yaml", "'semseg'", "`classes`"]),
    "palette of another length": (
        settings(classes={"semseg": {"names": NAMES, "palette": [[1, 2, 3]]}}),
        ["photos.yaml", "1 palette colours for 3"],
    ),
    "a scale of classes": (
        settings(columns={"image": "image", "semseg": {"folder": "label", "scale": 2}}),
        ["photos.yaml", "columns: semseg", "a label_map has no scale"],
    ),
    "classes of distances": (
        settings(
            columns={"image": "image", "depth": "label"},
            classes={"depth": {"names": NAMES}},
            caption=None,
        ),
        ["photos.yaml", "classes: depth", "a metric_map has no classes"],
    ),
    "two captions": (
        settings(caption={"template": "{classes}", "folder": "texts"}),
        ["photos.yaml", "either `template` or `folder`"],
    ),
    "captions of all classes": (
        settings(caption={"template": "{classes}", "at_least": 0}),
        ["photos.yaml: caption: at_least: got 0", "above 0, up to 1"],
    ),
    "caption of nothing": (
        settings(caption={"template": "{classes}", "of": "human_parsing"}),
        ["photos.yaml", "'human_parsing'"],
    ),
    "caption of no column": (
        settings(columns={"image": "image"}),
        ["photos.yaml", "caption", "'semseg', which is not a column"],
    ),
    "empty split": (settings(split="z*"), ["photos.yaml", "'z*'", "none of 6"]),
    "no list": (settings(split="ids.txt"), ["photos.yaml", "no such list", "ids.txt"]),
    "foreign id": (settings(split=["0", "nine"]), ["photos.yaml", "1 of 2", "'nine'"]),
}


@pytest.mark.parametrize(("spoil", "told"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_bad_folder_is_refused(
    photos: Path, spoil: Callable[[Path], None], told: list[str]
) -> None:
    spoil(photos)
    with pytest.raises(InputError) as caught:
        open_source(f"folder:{photos}")
    assert "\n" not in str(caught.value)
    for fragment in told:
        assert fragment in str(caught.value)


BAD_ROWS = {
    "unreadable": (
        lambda p: (p.parent / "image" / "2.png").write_bytes(b"no image"),
        ["image/2.png", "not a readable image"],
    ),
    "truncated": (truncate, ["image/2.png", "not a readable image"]),
    "another aspect": (
        label(np.zeros((30, 30), np.uint8)),
        ["label/2.png", "30x30", "20x14", "aspect ratio"],
    ),
    "class out of range": (
        label(np.full((14, 20), 7, np.uint8)),
        ["label/2.png", "class id 7", "0 to 2 and 255"],
    ),
    "coloured label": (label(np.zeros((14, 20, 3), np.uint8)), ["label/2.png", "(14, 20, 3)"]),
    "label with fractions": (label_with_floats, ["label/2.tif", "semseg", "class id"]),
    "nan": (depth_with_nan, ["range/2.tif", "depth", "NaN"]),
}


@pytest.mark.parametrize(("spoil", "told"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_row_is_refused(photos: Path, spoil: Callable[[Path], None], told: list[str]) -> None:
    spoil(photos)
    source = open_source(f"folder:{photos}")
    with pytest.raises(InputError) as caught:
        source[2]
    assert "\n" not in str(caught.value)
    for fragment in told:
        assert fragment in str(caught.value)


def test_skip_leaves_bad_rows_out_and_reports_them(photos: Path, tmp_path: Path) -> None:
    truncate(photos)
    save(photos.parent / "label" / "4.png", np.full((14, 20), 9, np.uint8))
    source = open_source(f"folder:{photos}")
    assert source.usable_rows(None, "stop").usable == [0, 1, 2, 3, 4, 5]
    rows = source.usable_rows(None, "skip")
    assert rows.source is source and [s.id for s in rows.samples()] == ["0", "1", "3", "5"]
    assert rows.usable == [0, 1, 3, 5]
    assert set(rows.skipped) == {"2", "4"}
    assert "class id 9" in rows.skipped["4"]
    limited = open_rows(f"folder:{photos}", None, 2, "skip", subset_seed=None)
    assert (limited.usable, limited.skipped) == ([0, 1], {})
    four = random_subset(6, 4)
    assert {2, 4} & {*four}
    few = open_rows(f"folder:{photos}", None, 4, "skip")  # no other row replaces a bad one
    assert few.usable == [row for row in four if row not in (2, 4)]
    assert few.skipped.keys() == {str(row) for row in four} & {"2", "4"}
    report = tmp_path / "skipped.json"
    for parts in ([rows], [limited, rows], [rows._replace(skipped={"8": "torn"}), rows]):
        write_report(report, *parts)
        expected = {key: why for part in parts for key, why in part.skipped.items()}
        assert json.loads(report.read_text()) == expected
    write_report(report, limited)  # and an older report goes
    assert not report.exists()


def test_nothing_usable_is_refused(photos: Path) -> None:
    for n in range(6):
        (photos.parent / "image" / f"{n}.png").write_bytes(b"")
    with pytest.raises(InputError, match="no usable sample among 6"):
        open_source(f"folder:{photos}").usable_rows(None, "skip")


@pytest.mark.parametrize(
    ("resolution", "size"),
    [
        *[("32", (22, 32)), ("10", (7, 10)), ("8x8", (8, 8)), ("28x20", (28, 20))],
        *[("14x40", (14, 40)), ("short:28", (28, 40)), ("short:7", (7, 10))],
    ],
)
def test_resized(photos: Path, resolution: str, size: tuple[int, int]) -> None:
    plain, source = open_source(f"folder:{photos}"), open_source(f"folder:{photos}", resolution)
    assert (len(source), source.name, source.identity(1)) == (6, "photos", "1")
    sample = source[1]
    assert sample.image.shape == (*size, 3)
    assert source.image_size(1) == size and plain.image_size(1) == (14, 20)
    assert sample.targets["semseg"].shape == size
    assert set(np.unique(sample.targets["semseg"])) <= set(np.unique(plain[1].targets["semseg"]))
    assert sample.caption == plain[1].caption


def test_a_long_image_stays_below_four_times_its_shorter_side(photos: Path) -> None:
    Image.new("RGB", (200, 14)).save(photos.parent / "image/0.png")
    assert open_source(f"folder:{photos}", "short:28").image_size(0) == (8, 112)


def test_resized_crops_the_middle_without_distortion(photos: Path) -> None:
    label = np.zeros((14, 20), np.uint8)
    label[:, 3:17], label[0, 3] = 1, 2
    for n in range(6):
        save(photos.parent / "label" / f"{n}.png", label)
    sample = open_source(f"folder:{photos}", "14x14")[0]
    np.testing.assert_array_equal(sample.targets["semseg"], label[:, 3:17])
    original = np.asarray(Image.open(photos.parent / "image" / "0.png"))
    np.testing.assert_array_equal(sample.image, original[:, 3:17])


@pytest.mark.parametrize(
    "wrong",
    [
        *["0", "12x", "axb", "1x2x3", "-5", "", "8193", "9" * 5000, "1x99999"],
        *["short:", "short:0", "short:8x8", "short512", "long:8"],
    ],
)
def test_wrong_resolution_is_refused(photos: Path, wrong: str) -> None:
    with pytest.raises(InputError, match="expected a number such as 512, short:512 or 480x640"):
        open_source(f"folder:{photos}", wrong)


@pytest.mark.parametrize("spec", ["folder:", "folders:x.yaml", "dataset:", "", "x.yaml"])
def test_unknown_source_is_refused(spec: str) -> None:
    with pytest.raises(InputError, match=r"expected one of rooms\[:SPLIT\], folder:FILE.yaml"):
        open_source(spec)


def test_depth_too_far_to_store_is_counted(photos: Path) -> None:
    folder = photos.parent / "range"
    folder.mkdir()
    for n in range(6):
        depth = np.full((14, 20), 2000, np.uint16)
        depth[0, : n + 1] = 65535  # at 100 a metre: 655 m
        Image.fromarray(depth).save(folder / f"{n}.png")
    rewrite(
        photos, columns={"image": "image", "depth": {"folder": "range", "scale": 100}}, caption=None
    )
    source = Folder(str(photos))
    for _ in range(2):
        assert len(list(source)) == 6
    assert source.notes == {"depth pixels too far to store, unknown": 21}


def test_links_to_folders_are_followed_without_end(photos: Path) -> None:
    home = photos.parent
    (home / "image").rename(home / "shots")
    (home / "label").rename(home / "maps")
    for part, place in (("image", "shots"), ("label", "maps")):
        (home / part).mkdir()
        (home / part / "scene").symlink_to(home / place)
        (home / place / "back").symlink_to(home / part)  # leads to the same files again
        (home / place / "self").symlink_to(home / place / "self")
    assert [sample.id for sample in Folder(str(photos))] == [f"scene/{n}" for n in range(6)]
