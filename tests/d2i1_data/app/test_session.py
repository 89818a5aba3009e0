"""Sessions of the app: samples of uploads, downloads, HTML, settings."""

import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import load_dataset

from d2i1_data.app.sample_view import sample_html
from d2i1_data.app.session import PipelineSession
from d2i1_data.app.settings import AppSettings
from d2i1_data.checkpoints.files import fingerprint
from d2i1_data.creation.plan import noise_seed
from d2i1_data.dataset.sample import Sample, image_sha256
from d2i1_data.dataset.schema import Schema
from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.errors import InputError
from d2i1_data.sources.dataset import Dataset
from tests.d2i1_data.app.images import ROOM, SIDE, assert_near, decoded, unpack

# --- samples ---


def test_labels_are_those_of_predict(session: PipelineSession, pipe: Diff2in1Pipeline) -> None:
    sample, predicted = session.label(ROOM), pipe.predict(ROOM)
    np.testing.assert_array_equal(sample.image, ROOM)
    assert_near(session, sample.targets, predicted.predictions)
    for name, unsure in predicted.uncertainty.items():
        np.testing.assert_allclose(1 - sample.confidence[name], unsure[0], atol=1 / 254)


def test_variations_are_those_of_the_pipeline(
    session: PipelineSession, pipe: Diff2in1Pipeline
) -> None:
    prompt, strength, steps, seed = "a room {with} braces", 0.7, 3, 5
    sample = session.create(ROOM, prompt, strength, steps, seed)
    source = f"upload-{image_sha256(ROOM)[:12]}"
    generator = torch.Generator().manual_seed(noise_seed(source, 0, seed))
    made = pipe(ROOM, prompt, strength, steps, generator=generator)
    np.testing.assert_array_equal(sample.image, np.asarray(made.images[0]))
    assert_near(session, sample.targets, made.predictions)
    assert sample.caption == prompt
    other = session.create(ROOM, prompt, strength, steps, seed + 1)
    assert np.abs(sample.image.astype(int) - other.image).mean() > 1


def test_provenance_says_how_a_row_was_made(session: PipelineSession, pipeline: Path) -> None:
    origin = session.create(ROOM, "a room", 0.35, 2, 7).provenance
    assert (origin.kind, origin.strength, origin.steps, origin.seed) == ("created", 0.35, 2, 7)
    assert origin.source_dataset == "upload" and origin.source_sha256 == image_sha256(ROOM)
    assert origin.noise_seed == noise_seed(origin.source_id or "", 0, 7)
    assert (origin.host, origin.base, origin.labels_from) == ("light", "base", "latent")
    assert origin.fingerprint == fingerprint(pipeline)
    assert origin.checkpoint is None and origin.licence is None  # unknown
    labelled = session.label(ROOM).provenance
    assert (labelled.strength, labelled.steps, labelled.labels_from) == (0, 0, "image")
    assert labelled.noise_seed is None and labelled.source_sha256 == image_sha256(ROOM)


def test_rows_of_one_upload_have_names_of_their_own(session: PipelineSession) -> None:
    def create(prompt: str = "", strength: float = 0.6, steps: int = 1, seed: int = 0) -> Sample:
        return session.create(ROOM, prompt, strength, steps, seed)

    rows = [create(), create("a"), create(strength=0.5), create(steps=2), create(seed=1)]
    ids = {row.id for row in (session.label(ROOM), *rows)}
    assert len(ids) == 6 and create().id == rows[0].id
    assert {name.rpartition("-")[0] for name in ids} == {f"upload-{image_sha256(ROOM)[:12]}"}


def test_a_failure_of_the_pipeline_is_an_input_error(pipeline: Path) -> None:
    session = PipelineSession(AppSettings(pipeline=str(pipeline)))
    for weight in session.pipe.perception.parameters():
        weight.data.fill_(float("nan"))
    with pytest.raises(InputError, match=r"the checkpoint gives NaN$"):
        session.label(ROOM)


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"steps": 10}, "10 calls of the U-Net: expected 1 to 9"),
        ({"steps": 0}, "0 calls of the U-Net"),
        ({"strength": 0.005}, "6 steps: expected 1 to 5"),
        ({"strength": 1.5}, r"^strength 1\.5: expected more than 0, at most 1"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 2**32}, "seed 4294967296"),
        ({"prompt": "a" * 1001}, "1001 characters"),
    ],
)
def test_inputs_out_of_range_are_refused(session: PipelineSession, given: Any, wrong: str) -> None:
    with pytest.raises(InputError, match=wrong):
        session.create(ROOM, **({"strength": 0.6, "steps": 6} | given))


@pytest.mark.parametrize("size", [(1, SIDE), (SIDE, 2), (3, 5)])
def test_images_smaller_than_the_stride_work(
    session: PipelineSession, size: tuple[int, int], tmp_path: Path
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    for sample in (session.label(image), session.create(image, steps=1)):
        assert sample.size == size and {t.shape[:2] for t in sample.targets.values()} == {size}
        assert session.pack(sample, tmp_path).is_file()
        assert sample_html("Image", sample, session.tasks)


@pytest.mark.parametrize("size", [(1, 1), (4, 3)])
def test_an_image_of_one_latent_pixel_is_refused(
    session: PipelineSession, size: tuple[int, int]
) -> None:
    image = np.zeros((*size, 3), np.uint8)
    for make in (session.label, session.create):
        with pytest.raises(InputError, match=f"{size[1]} x {size[0]} pixels; this .* more than 4"):
            make(image)


# --- downloads ---


def assert_same(one: Sample, other: Sample) -> None:
    assert (one.id, one.caption, one.provenance) == (other.id, other.caption, other.provenance)
    np.testing.assert_array_equal(one.image, other.image)
    for maps, others in ((one.targets, other.targets), (one.confidence, other.confidence)):
        assert list(maps) == list(others) and maps
        for name in maps:
            np.testing.assert_array_equal(maps[name], others[name])
    for name, quality in one.quality.items():
        assert quality.flip == pytest.approx(other.quality[name].flip)


@pytest.mark.parametrize("kind", ["label", "create"])
def test_a_download_is_a_dataset_of_one_row(
    session: PipelineSession, kind: str, tmp_path: Path, d2i1: Callable[..., str]
) -> None:
    sample = session.label(ROOM) if kind == "label" else session.create(ROOM, "a room", steps=2)
    packed = session.pack(sample, tmp_path)
    folder = unpack(packed, tmp_path / "unpacked")
    rows = load_dataset(str(folder), split="train")
    schema = Dataset(str(folder)).schema
    assert rows.features == schema.features and len(rows) == 1
    np.testing.assert_array_equal(np.asarray(rows[0]["image"]), sample.image)
    shard = str(folder / "data" / "train-00000.parquet")
    alone = load_dataset("parquet", data_files=shard, split="train")
    assert alone.features == schema.features
    (again,) = Dataset(str(folder))
    assert_same(schema.from_row(schema.to_row(sample)), again)
    d2i1("export", folder, "--format", "coco", "--output_dir", tmp_path / "coco")
    assert (tmp_path / "coco" / "samples.jsonl").read_text().count(sample.id) > 0
    for file in (f for f in folder.rglob("*") if f.is_file()):
        assert str(tmp_path).encode() not in file.read_bytes(), f"{file} names a place here"
    assert "seed | 0" in (folder / "README.md").read_text() or kind == "label"


# --- the HTML of a sample ---


class Page(HTMLParser):
    """Tags, attributes and text of the HTML of a sample."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "img":
            self.sources.append((dict(attrs)["class"] or "", dict(attrs)["src"] or ""))

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())


def test_the_html_shows_the_stored_sample(session: PipelineSession) -> None:
    made = session.label(ROOM)
    schema = Schema.of(session.tasks, confidence=True)
    sample = schema.from_row(schema.to_row(made))
    page = Page(sample_html("Image", made, session.tasks))
    pictures = [decoded(source) for _, source in page.sources]
    labels = [t.family.colorize(sample.targets[n]) for n, t in session.tasks.items()]
    unsure = [np.round((1 - sample.confidence[n]) * 255) for n in session.tasks]
    np.testing.assert_array_equal(pictures[0], sample.image)
    for n, (label, grey) in enumerate(zip(labels, unsure, strict=True)):
        np.testing.assert_array_equal(pictures[1 + 2 * n], label)
        np.testing.assert_array_equal(pictures[2 + 2 * n][..., 0], grey)
    depth = sample.targets["depth"]
    assert {f"{depth.min():.2f} m", f"{depth.max():.2f} m"} <= {*page.words}
    names = session.tasks["semseg"].family.config()["names"]
    there = {names[label] for label in np.unique(sample.targets["semseg"])}
    assert {name for name in names if name in page.words} == there


def test_texts_are_never_markup(session: PipelineSession) -> None:
    evil = '<script>alert(1)</script><img src=x onerror="alert(2)">'
    sample = replace(session.label(ROOM), caption=evil)
    count = len(session.tasks["semseg"].family.config()["names"])
    tasks = {**session.tasks, "semseg": session.tasks["semseg"].with_classes([evil] * count)}
    page = Page(sample_html("Image", sample, tasks))
    assert page.words.count(evil) >= 2
    assert "script" not in page.tags and page.tags.count("img") == 1 + 2 * len(tasks)


# --- settings ---


@pytest.mark.parametrize(
    ("flags", "wrong"),
    [
        (("--max_side", 0), "--max_side 0: expected at least 1"),
        (("--num_inference_steps", 101), "--num_inference_steps 101: expected at most"),
        (("--max_inference_steps", 5000), "--max_inference_steps 5000: expected 1 to 1000"),
        (("--examples", "/nowhere"), "--examples /nowhere: no such folder"),
        (("--pipeline", "/nowhere"), "pipeline /nowhere: no such folder"),
    ],
)
def test_wrong_flags_are_refused(
    flags: tuple[object, ...], wrong: str, pipeline: Path, d2i1: Callable[..., str]
) -> None:
    pytest.importorskip("gradio")
    assert wrong in d2i1("app", "--pipeline", pipeline, *flags, code=2)


def test_a_port_that_is_taken_is_refused(pipeline: Path, d2i1: Callable[..., str]) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        output = d2i1("app", "--pipeline", pipeline, "--server_port", port, code=2)
    assert "the page cannot be served" in output and str(port) in output


def test_without_gradio_it_says_how_to_get_it(
    pipeline: Path, d2i1: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "d2i1_data.app.page", raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    output = d2i1("app", "--pipeline", pipeline, code=2)
    assert "gradio is not installed: pip install 'diff2in1[app]'" in output
