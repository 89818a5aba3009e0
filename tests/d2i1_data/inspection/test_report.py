"""The page of a dataset: its numbers are those of the maps, copies are found, text stays text."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from d2i1_data.dataset.columns import describe_counts
from d2i1_data.dataset.record import DatasetRecord, RunRecord, write_run
from d2i1_data.dataset.sample import Quality
from d2i1_data.diff2in1.families import (
    DirectionDensity,
    Histogram,
    LabelMap,
    MetricMap,
    ProbabilityMap,
    UnitVector,
)
from d2i1_data.inspection.report.copies import compare
from d2i1_data.inspection.report.distributions import FIGURES
from d2i1_data.inspection.report.report import open_extractor
from d2i1_data.inspection.report.source_images import SourceImages
from d2i1_data.inspection.settings import ReportSettings
from d2i1_data.sources import open_rows, open_source
from d2i1_data.sources.dataset import Dataset
from d2i1_data.sources.rooms import Rooms
from d2i1_data.sources.source import evenly_spaced
from d2i1_data.tasks import TASKS, Task
from d2i1_train.cli import main
from tests.made import changed, contents, samples, save_dataset

ROOMS = ("--source", "rooms:train", "--max_source_samples", "3", "--resolution", "32")
HOSTILE = "</p><script>alert(1)</script><img src=x onerror=alert(2)>\"'> **b** $\\frac{1}$ {{ 7 }}"


@pytest.fixture(scope="module")
def created(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images created from three rooms, with what says how."""
    folder = tmp_path_factory.mktemp("report") / "created"
    flags = (*ROOMS, "--num_samples", "6", "--shard_size", "4", "--num_inference_steps", "1")
    arguments = ("create", "--pipeline", str(pipeline), *flags, "--output_dir", str(folder))
    assert main(arguments) == 0
    run = {"source": "rooms:train", "pipeline": str(pipeline), "resolution": "32"}
    write_run(folder, RunRecord("create", [], run))
    (folder / "logs").mkdir(exist_ok=True)
    for file in (folder / "logs").iterdir():
        file.unlink()
    lines = [
        {"shard": 0, "samples": 4, "seconds": 2.0, "process": 0, "device": "cpu", "skipped": {}},
        {"shard": 1, "samples": 2, "seconds": 1.0, "process": 1, "device": "cpu", "skipped": {}},
    ]
    for line in lines:
        (folder / "logs" / f"{line['process']}.jsonl").write_text(json.dumps(line) + "\n")
    return folder


def read(folder: Path) -> dict[str, Any]:
    """The numbers of a report, with the page as `html`."""
    page: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return page | {"html": (folder / "index.html").read_text()}


@pytest.fixture
def reported(d2i1: Callable[..., str], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Reports on a dataset; what the report says."""

    def run(dataset: Path, *flags: object) -> dict[str, Any]:
        folder = tmp_path / "page"
        said = d2i1("report", dataset, "--output_dir", folder, *flags)
        assert said.strip() == str(folder / "index.html")
        return read(folder)

    return run


@pytest.fixture(scope="module")
def folder(created: Path) -> Path:
    """The report of the dataset as it was created."""
    page = created.parent / "page"
    assert main(["report", str(created), "--output_dir", str(page)]) == 0
    return page


@pytest.fixture
def page(folder: Path) -> dict[str, Any]:
    return read(folder)


class Parsed(HTMLParser):
    """The tags of a page, with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


# --- the page ---


def test_the_page_is_whole_and_its_own(folder: Path, page: dict[str, Any]) -> None:
    files = {file.name for file in folder.iterdir()}
    pictures = {f"{task['name']}.png" for task in page["maps"]}
    assert len(pictures) == 3
    pictures |= {"gallery.png", "quality.png", "copies.png", "pairs.png"}
    assert files == {"index.html", "report.json", *pictures}
    parsed = Parsed(page["html"])
    styles = " ".join(str(attributes.get("style")) for _, attributes in parsed.tags)
    shown = {a["src"] for tag, a in parsed.tags if tag == "img"}
    assert shown | set(re.findall(r"url\((.*?)\)", styles)) == pictures
    assert not {"script", "link", "iframe"} & {tag for tag, _ in parsed.tags}
    assert "http" not in page["html"] and "@import" not in page["html"]
    assert all((folder / name).stat().st_size < 200_000 for name in pictures)
    for sample in page["gallery"]:
        assert sample["caption"] in parsed.text and sample["id"] in parsed.text
        assert [tile["label"] for tile in sample["tiles"]][:2] == ["source", "image"]
        assert len(sample["tiles"]) == 5


def test_what_stands_beside_the_pictures(created: Path, page: dict[str, Any]) -> None:
    counts, origin = page["counts"], page["provenance"]
    assert (counts["rows"], counts["shards"], counts["source images"]) == ("6", "2", "3")
    assert counts["image sizes, height x width"] == "32x32"
    assert origin["variant"] == "0 (3), 1 (3)" and origin["strength"] == "0.6"
    assert origin["fingerprint"] == samples(created)[0].provenance.fingerprint
    assert page["licence"] == "cc0-1.0"
    (cost,) = page["cost"]
    assert (cost["processes"], cost["shards"], cost["images"]) == (2, 2, 6)
    assert cost["seconds"] == 3 and cost["rate"] == 2


def test_a_half_written_dataset_says_so(
    created: Path, tmp_path: Path, reported: Callable[..., dict[str, Any]]
) -> None:
    folder = changed(created, tmp_path / "half", {})  # its plan has two shards
    (folder / "skipped.json").write_text(json.dumps({"a": "no image", "b": "no image"}))
    counts = reported(folder)["counts"]
    assert counts["shards"] == "1 of 2 planned"
    assert counts["skipped"] == "2"


def test_the_same_dataset_gives_the_same_page(
    created: Path, folder: Path, tmp_path: Path, reported: Callable[..., dict[str, Any]]
) -> None:
    reported(created)
    assert contents(tmp_path / "page") == contents(folder)


def test_few_rows_are_decoded(
    created: Path, reported: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded, decode = set(), Dataset.__getitem__
    monkeypatch.setattr(
        Dataset, "__getitem__", lambda rows, n: (decoded.add(n), decode(rows, n))[1]
    )
    page = reported(created, "--max_samples", 2)
    assert decoded == {0, 5} and page["read"] == 2
    assert page["counts"]["rows"] == "6" and page["quality"][0]["measured"] == 6
    assert len(page["gallery"]) == 2 and page["copies"]["images"] == 2
    assert evenly_spaced(6, 2) == [0, 5] and evenly_spaced(3, 9) == [0, 1, 2]
    assert evenly_spaced(1_000_000, 3) == [0, 500000, 999999]


def test_text_of_the_dataset_stays_text(
    created: Path,
    page: dict[str, Any],
    tmp_path: Path,
    reported: Callable[..., dict[str, Any]],
) -> None:
    row, known = samples(created)[0], Parsed(page["html"])
    provenance = replace(row.provenance, licence=HOSTILE, host=HOSTILE, scheduler=HOSTILE)
    hostile = replace(row, caption=HOSTILE, provenance=provenance)
    changes = {n: replace(hostile, id=f"{HOSTILE}{n}") for n in range(6)}
    folder = changed(created, tmp_path / '<b>"&amp;', changes)
    metadata = json.loads((folder / "diff2in1.json").read_text())
    classes = metadata["tasks"]["semseg"]["names"]
    metadata["tasks"]["semseg"]["names"] = [f"{HOSTILE}{n}" for n in range(len(classes))]
    (folder / "diff2in1.json").write_text(json.dumps(metadata))
    log = {"shard": 0, "samples": 6, "seconds": 1, "process": 0, "device": HOSTILE, "skipped": {}}
    (folder / "logs" / "0.jsonl").write_text(json.dumps(log))
    parsed = Parsed(reported(folder)["html"])
    assert parsed.text.count(HOSTILE) > 10 + len(classes)
    assert {tag for tag, _ in parsed.tags} <= {tag for tag, _ in known.tags} | {"ul", "li"}
    names = {name for _, attributes in known.tags for name in attributes}
    assert {name for _, attributes in parsed.tags for name in attributes} <= names


# --- distributions ---


def test_shares_of_classes_are_those_of_the_maps(created: Path, page: dict[str, Any]) -> None:
    (classes,) = (one for one in page["maps"] if one["name"] == "semseg")
    assert classes["heads"] == [
        "pixels dataset",
        "images dataset",
        "pixels source",
        "images source",
    ]
    rooms = open_rows("rooms:train", "32", 3).samples()
    table = np.array([line["values"] for line in classes["lines"]])
    for column, found in enumerate((samples(created), rooms)):
        maps = np.stack([one.targets["semseg"] for one in found])
        for k, shares in enumerate(table[:, 2 * column : 2 * column + 2]):
            assert shares[0] == pytest.approx((maps == k).mean())
            assert shares[1] == pytest.approx((maps == k).any((1, 2)).mean())
        assert table[:, 2 * column].sum() == pytest.approx(1)


def test_a_source_with_other_classes_is_not_compared(
    created: Path, tmp_path: Path, reported: Callable[..., dict[str, Any]]
) -> None:
    folder = changed(created, tmp_path / "renamed", {})
    text = (folder / "diff2in1.json").read_text()
    (folder / "diff2in1.json").write_text(text.replace('"wall"', '"fence"'))
    found = {one["name"]: one["compared"] for one in reported(folder)["maps"]}
    assert not found.pop("semseg") and all(found.values())


def test_unknown_classes_do_not_count() -> None:
    counted = LabelMap(["a", "b"]).distribution()
    counted.add(np.array([[0, 0, 1, 255]], np.uint8))
    counted.add(np.array([[255, 255, 255, 0]], np.uint8))
    assert [line.values for line in counted.lines()] == [[0.75, 1.0], [0.25, 0.5]]


def test_distances() -> None:
    drawn = np.random.default_rng(0).uniform(1, 9, (50, 60)).astype(np.float32)
    counted, known = MetricMap().distribution(), drawn.copy()
    drawn[:10] = 0  # unknown
    counted.add(drawn)
    counted.add(np.full((1, 7), 65.535, np.float32))
    assert isinstance(counted, Histogram) and counted.counts.sum() == 40 * 60 + 7
    known = np.append(known[10:].ravel(), np.full(7, 65.535))
    for line, share in zip(counted.lines(), (5, 50, 95), strict=True):
        assert line.values[0] == pytest.approx(np.percentile(known, share), abs=0.02)


def test_directions_have_equal_area() -> None:
    drawn = np.random.default_rng(0).normal(size=(500, 400, 3))
    drawn /= np.linalg.norm(drawn, axis=-1, keepdims=True)
    counted = UnitVector().distribution()
    assert isinstance(counted, DirectionDensity)
    counted.add(drawn)
    middles = (counted.cuts[1:] + counted.cuts[:-1]) / 2
    inside = np.hypot(*np.meshgrid(middles, middles)) < 1.35
    assert counted.counts.sum() == counted.pixels == 200_000
    for part in (inside, inside & (np.hypot(*np.meshgrid(middles, middles)) < 0.5)):
        assert counted.density()[part].mean() == pytest.approx(1, abs=0.02)
    assert np.abs([line.values for line in counted.lines()]).max() < 0.01


@pytest.mark.parametrize(
    ("direction", "place"),
    [((0, 0, 1), (0, 0)), ((1, 0, 0), (1, 0)), ((0, 1, 0), (0, 1)), ((0, 0.6, 0.8), (0, 0.447))],
)
def test_directions_lie_where_they_point(
    direction: tuple[float, ...], place: tuple[float, float]
) -> None:
    counted = UnitVector().distribution()
    assert isinstance(counted, DirectionDensity)
    counted.add(np.array([[direction, (0, 0, 0)]], np.float32))
    ((row, column),) = np.argwhere(counted.counts)
    step = counted.cuts[1] - counted.cuts[0]
    assert counted.cuts[column] == pytest.approx(place[0], abs=step)  # x right
    assert counted.cuts[row] == pytest.approx(place[1], abs=step)  # y up
    assert [line.values[0] for line in counted.lines()] == pytest.approx(direction)


def test_probabilities() -> None:
    counted = ProbabilityMap().distribution()
    counted.add(np.array([[0, 0.5, 1, -1]], np.float32))
    assert isinstance(counted, Histogram) and counted.counts.sum() == 3
    assert counted.lines()[0].values == [0.5]


def test_every_task_has_a_picture(tmp_path: Path, reported: Callable[..., dict[str, Any]]) -> None:
    """All families, without a source: real rooms, as imported."""
    tasks: dict[str, Task] = dict(Rooms.tasks)
    rooms = [open_source("rooms:val", "32")[n] for n in range(2)]
    first = rooms[0]
    first.confidence = {"depth": np.full(first.size, 0.5, np.float32)}
    page = reported(save_dataset(tmp_path / "rooms", rooms, tasks))
    assert [one["name"] for one in page["maps"]] == list(tasks)
    assert not any(one["compared"] for one in page["maps"])
    assert page["quality"] == [] and page["cost"] == [] and page["copies"] is None
    assert "does not name its source" in page["html"] and "No score" in page["html"]
    assert "depth, confidence" in [tile["label"] for tile in page["gallery"][0]["tiles"]]
    assert {type(task.family.distribution()) for task in TASKS.values()} == set(FIGURES)


# --- quality ---


def test_thresholds_keep_what_is_not_below(
    created: Path, tmp_path: Path, reported: Callable[..., dict[str, Any]]
) -> None:
    found = samples(created)
    values = [0.25, 0.5, 0.6, 0.75, 0.9, None]
    changes = {
        n: replace(found[n], quality={"depth": Quality(value)}) for n, value in enumerate(values)
    }
    (line,) = reported(changed(created, tmp_path / "scored", changes))["quality"]
    assert (line["task"], line["score"], line["measured"]) == ("depth", "confidence", 5)
    assert line["kept"] == {"0.7": 2, "0.8": 1, "0.9": 1, "0.95": 0, "0.99": 0}
    assert line["median"] == pytest.approx(0.6)
    assert line["keeps_most"] == pytest.approx(np.quantile(values[:5], 0.2))


# --- copies ---


def test_copies_of_sources_are_found(
    created: Path,
    page: dict[str, Any],
    tmp_path: Path,
    reported: Callable[..., dict[str, Any]],
) -> None:
    found, clean = samples(created), page["copies"]
    rooms = list(open_rows("rooms:train", "32", 3).samples())
    assert clean["identical"] == 0 and clean["images"] == 6
    noise = np.random.default_rng(0).integers(-1, 2, rooms[1].image.shape)
    near = np.clip(rooms[1].image.astype(int) + noise, 0, 255).astype(np.uint8)
    changes = {
        4: replace(found[4], image=near),  # nearly its own source
        3: replace(found[3], image=rooms[2].image),  # another source
        5: replace(  # only labelled: has to be its source
            found[5],
            image=rooms[2].image,
            provenance=replace(found[5].provenance, strength=0.0),
        ),
    }
    assert [found[n].provenance.source_id for n in (3, 4)] == [rooms[0].id, rooms[1].id]
    copies = reported(changed(created, tmp_path / "copied", changes))["copies"]
    first, second = copies["pairs"][:2]
    assert (first["id"], first["source"], first["own"]) == (found[3].id, rooms[2].id, False)
    assert first["cosine"] == pytest.approx(1, abs=1e-5)
    assert (second["id"], second["source"], second["own"]) == (found[4].id, rooms[1].id, True)
    assert 0.98 < second["cosine"] < 1 and copies["pairs"][2]["cosine"] < second["cosine"]
    shares = {line["name"]: line["share"] for line in copies["curves"]}
    assert (copies["images"], copies["identical"]) == (5, 1)
    assert shares["created, own source"] >= 1 / 5
    assert shares["created, nearest other source"] == pytest.approx(1 / 5)


def test_cosines_are_of_what_differs_from_the_mean() -> None:
    offset = torch.tensor([100.0, 0.0, 0.0])  # in common: without it all cosines are 1
    sources = offset + torch.tensor([[0.0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    created = offset + torch.tensor([[0.0, 2, 0], [0, 1, 1], [0, 0, -3]])
    found = compare(created, sources, [0, None, 2])
    assert found.own == pytest.approx([1, np.nan, -1], abs=1e-4, nan_ok=True)
    assert found.other == pytest.approx([0, 0.7071, 1], abs=1e-4)
    assert found.among == pytest.approx([0] * 4, abs=1e-4)
    assert [(pair.created, pair.source, pair.own) for pair in found.pairs[:2]] == [
        (0, 0, True),
        (2, 3, False),
    ]


def test_equal_images_are_listed(
    created: Path,
    page: dict[str, Any],
    tmp_path: Path,
    reported: Callable[..., dict[str, Any]],
) -> None:
    found = samples(created)
    changes = {n: replace(found[n], image=found[1].image) for n in (3, 5)}
    doubled = reported(changed(created, tmp_path / "doubled", changes))
    assert page["equal"] == [] and doubled["equal"] == [[found[n].id for n in (1, 3, 5)]]
    assert ", ".join(doubled["equal"][0]) in doubled["html"]


@pytest.mark.parametrize(
    ("run", "told_of"),
    [
        ({"source": "rooms:train"}, "The pipeline is unknown"),
        ({"source": "rooms:train", "pipeline": "/gone"}, "cannot be opened: pipeline /gone"),
        ({"source": "folder:/gone.yaml"}, "The source cannot be opened"),
        ({"source": "rooms:test"}, "was made from none of its 500 images"),
        ({}, "name it with --source"),
    ],
)
def test_what_is_not_there_is_left_out(created: Path, run: dict[str, str], told_of: str) -> None:
    settings, rows = ReportSettings(dataset=str(created)), Dataset(str(created))
    record = DatasetRecord(RunRecord("create", [], run), run.get("resolution"))
    origin = SourceImages(rows, settings, record)
    extractor, blind = open_extractor(rows, origin, settings, record)
    assert extractor is None and told_of in f"{origin.missing} {blind}"


def test_captions_alone_have_nothing_to_compare(created: Path, tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("a room\n")
    settings, rows = ReportSettings(dataset=str(created)), Dataset(str(created))
    run = RunRecord("create", [], {"source": f"text:{tmp_path / 'captions.txt'}"})
    origin = SourceImages(rows, settings, DatasetRecord(run, resolution="32"))
    assert origin.source is None and "has no images, only captions" in str(origin.missing)


def test_flags_say_what_the_folder_does_not(
    created: Path,
    page: dict[str, Any],
    pipeline: Path,
    tmp_path: Path,
    reported: Callable[..., dict[str, Any]],
) -> None:
    bare = changed(created, tmp_path / "bare", {})
    (bare / "run.json").unlink()
    (bare / "plan.json").unlink()  # and so the resolution: the source is brought to the images'
    found = reported(bare, "--source", "rooms:train", "--pipeline", pipeline)
    for one, other in zip(found["copies"]["pairs"], page["copies"]["pairs"], strict=True):
        assert one["cosine"] == pytest.approx(other["cosine"], abs=0.1)


def test_labelled_images_are_no_copies(
    pipeline: Path,
    tmp_path: Path,
    d2i1: Callable[..., str],
    reported: Callable[..., dict[str, Any]],
) -> None:
    d2i1("label", "--pipeline", pipeline, *ROOMS, "--output_dir", tmp_path / "labelled")
    page = reported(tmp_path / "labelled", "--source", "rooms:train", "--pipeline", pipeline)
    assert page["copies"] is None and "No image was created" in page["html"]


# --- what is refused ---


def test_wrong_input_is_told_in_one_line(
    created: Path, photos: Path, tmp_path: Path, d2i1: Callable[..., str]
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "diff2in1.json").write_text("{}")
    wrong = {
        "gone: no such folder, and not a Hub id": (tmp_path / "gone",),
        "not a metadata file of ours": (tmp_path / "other",),
        "is a file; --output_dir needs a folder": (created, "--output_dir", tmp_path / "file"),
        f"{tmp_path}/file is a file": (created, "--output_dir", tmp_path / "file" / "page"),
        "none of its 6 images": (created, "--source", f"folder:{photos}"),
        "pipeline gone: no such folder": (created, "--pipeline", "gone"),
        "expected at least 1": (created, "--max_samples", 0),
    }
    for message, arguments in wrong.items():
        said = d2i1("report", *arguments, code=2)
        assert message in said and said.count("\n") == 1, said
    assert not (created / "report").exists() and (tmp_path / "file").read_text() == "mine"


def test_a_source_of_other_images_is_refused(
    created: Path, tmp_path: Path, d2i1: Callable[..., str]
) -> None:
    rows = samples(created)
    lies = {0: replace(rows[0], provenance=replace(rows[0].provenance, source_sha256="0" * 64))}
    folder = changed(created, tmp_path / "lies", lies)
    assert "its pixels differ" in d2i1("report", folder, code=2)


@pytest.mark.parametrize("marker", [None, "{}", "[1]", "not json"])
def test_a_foreign_folder_is_left_alone(
    created: Path, tmp_path: Path, d2i1: Callable[..., str], marker: str | None
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("years of work")
    if marker:
        (tmp_path / "mine" / "report.json").write_text(marker)
    message = d2i1("report", created, "--output_dir", tmp_path / "mine", code=2)
    assert "is not empty and holds no report of ours" in message
    assert (tmp_path / "mine" / "index.html").read_text() == "years of work"


def test_an_earlier_report_is_replaced(
    created: Path, tmp_path: Path, d2i1: Callable[..., str]
) -> None:
    folder = changed(created, tmp_path / "again", {})
    d2i1("report", folder)
    assert (folder / "report" / "copies.png").exists()
    (folder / "report" / "notes.txt").write_text("mine")
    (folder / "run.json").unlink()
    d2i1("report", folder)
    left = {file.name for file in (folder / "report").iterdir()}
    assert {"copies.png", "pairs.png"}.isdisjoint(left) and {"notes.txt", "index.html"} <= left
    assert len(samples(folder)) == 6  # the dataset still loads, the pictures are no rows of it


def test_values_are_told_shortly() -> None:
    assert describe_counts({0.6: 9}) == "0.6" and describe_counts({None: 3}) == "none"
    assert describe_counts({"a": 1, None: 2_000}) == "none (2,000), a (1)"
    assert describe_counts(dict.fromkeys(range(7), 1)) == "7 values, 0 to 6"
    assert describe_counts(dict.fromkeys("abcdef", 1)) == "6 different"
