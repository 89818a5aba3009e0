"""The app: samples of uploads, downloads, and the page in a real browser."""

import base64
import io
import json
import os
import shutil
import socket
import sys
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import load_dataset
from numpy.typing import NDArray
from PIL import Image

from d2i1_data.app.sample_view import sample_html
from d2i1_data.app.session import PipelineSession
from d2i1_data.app.settings import AppSettings
from d2i1_data.checkpoints.files import fingerprint
from d2i1_data.creation.plan import noise_seed
from d2i1_data.dataset.sample import Sample, image_sha256
from d2i1_data.dataset.schema import Schema
from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.errors import InputError
from d2i1_data.inspection.photo import read_photo
from d2i1_data.sources.dataset import Dataset
from d2i1_data.sources.rooms import Rooms
from tests.serving import free_port, served

ROOM: NDArray[np.uint8] = Rooms("test")[3].image
SIDE = 48  # longest side of the tests' uploads


@pytest.fixture(scope="module")
def session(pipeline: Path) -> PipelineSession:
    return PipelineSession(
        AppSettings(pipeline=str(pipeline), max_side=SIDE, max_inference_steps=9)
    )


@pytest.fixture(scope="module")
def pipe(pipeline: Path) -> Diff2in1Pipeline:
    pipe = Diff2in1Pipeline.from_pretrained(pipeline)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def small(image: NDArray[np.uint8] = ROOM, side: int = SIDE) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS))


def as_read(session: PipelineSession, predictions: dict[str, list[Any]]) -> dict[str, NDArray[Any]]:
    """Predictions after they were stored and read."""
    families = {name: task.family for name, task in session.tasks.items()}
    return {n: f.from_png(f.to_png(predictions[n][0])) for n, f in families.items()}


def assert_near(session: PipelineSession, targets: Any, predictions: dict[str, list[Any]]) -> None:
    """Equal up to one stored step; torch rounds differently for other memory layouts."""
    assert {*targets} == {*predictions} == {*session.tasks}
    for name, task in session.tasks.items():
        one, other = task.family.to_png(targets[name]), task.family.to_png(predictions[name][0])
        first, second = (
            np.asarray(Image.open(io.BytesIO(png))).astype(int) for png in (one, other)
        )
        assert first.std() > 0
        assert (np.abs(first - second) <= 1).mean() > 0.995


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
        ({"strength": 1.5}, r"strength 1\.5: expected more than 0, at most 1"),
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


def unpack(file: Path, folder: Path) -> Path:
    """The dataset in a zip, whose files all lie in one folder."""
    with zipfile.ZipFile(file) as packed:
        (top,) = {Path(name).parts[0] for name in packed.namelist()}
        packed.extractall(folder)
    assert top == file.stem
    return folder / top


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


# --- uploads ---


def saved(folder: Path, name: str, picture: Image.Image, **options: Any) -> Path:
    picture.save(folder / name, **options)
    return folder / name


def test_uploads_are_upright_rgb(tmp_path: Path) -> None:
    room, read = Image.fromarray(ROOM[:40]), lambda file: read_photo(file, 64)
    np.testing.assert_array_equal(read(saved(tmp_path, "a.png", room)), ROOM[:40])

    exif = room.getexif()
    exif[274] = 6  # the camera was turned
    turned = read(saved(tmp_path, "b.png", room, exif=exif))
    np.testing.assert_array_equal(turned, np.rot90(ROOM[:40], -1))

    palette = room.convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(
        read(saved(tmp_path, "c.png", palette)), np.asarray(palette.convert("RGB"))
    )
    frames = [room.convert("P"), room.rotate(90).convert("P")]
    moving = saved(tmp_path, "d.gif", frames[0], save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read(moving), np.asarray(frames[0].convert("RGB")))

    clear = room.convert("RGBA")
    clear.putalpha(Image.fromarray(np.repeat(np.uint8([[0, 255]]), 32, 1).repeat(40, 0)))
    opaque = read(saved(tmp_path, "e.png", clear))
    assert (opaque[:, :32] == 255).all()
    np.testing.assert_array_equal(opaque[:, 32:], ROOM[:40, 32:])

    deep = np.linspace(0, 65535, 64 * 40).reshape(40, 64).astype(np.uint16)
    grey = read(saved(tmp_path, "f.png", Image.fromarray(deep)))
    np.testing.assert_array_equal(grey, np.repeat((deep >> 8)[..., None], 3, -1))
    assert read(saved(tmp_path, "g.jpg", room.convert("CMYK"))).shape == (40, 64, 3)


def test_large_uploads_are_scaled_down(tmp_path: Path) -> None:
    for name, mode in (("a.png", "RGB"), ("b.jpg", "RGB"), ("c.png", "L")):
        file = saved(tmp_path, name, Image.new(mode, (3000, 1000), "grey"))
        pixels = read_photo(file, 60)
        assert pixels.shape == (20, 60, 3) and np.abs(pixels.astype(int) - 128).max() <= 1
    assert read_photo(saved(tmp_path, "d.png", Image.new("L", (3000, 1))), 60).shape == (1, 60, 3)


def test_damaged_exif_data_is_ignored(tmp_path: Path) -> None:
    exif, picture = Image.Exif(), Image.fromarray(ROOM)
    exif[274], exif[270] = 6, "a description of a room"
    torn = exif.tobytes().replace(b"\x01\x0e", b"\x01\x15")  # a text instead of a number
    for name, own in (("a.jpg", exif), ("b.jpg", torn), ("c.jpg", None)):
        saved(tmp_path, name, picture, **({"exif": own} if own else {}))
    turned, kept, plain = (read_photo(tmp_path / name, 64) for name in ("a.jpg", "b.jpg", "c.jpg"))
    np.testing.assert_array_equal(turned, np.rot90(plain, -1))
    np.testing.assert_array_equal(kept, plain)


def huge(folder: Path, width: int) -> Path:
    return saved(folder, f"{width}.png", Image.new("1", (width, 10_000)))


def broken(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(ROOM).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (lambda f: broken(f, "a.png", b"<b>no image</b>"), "cannot be read; expected an image"),
        (lambda f: broken(f, "a.png", b""), "cannot be read"),
        (lambda f: broken(f, "a.jpg", jpeg()[:400]), "cannot be read"),
        (lambda f: broken(f, "a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "cannot be"),
        (lambda f: broken(f, "a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n"), "cannot be read"),
        (lambda f: huge(f, 6_000), "6000 x 10000 pixels, allowed are 50 million"),
        (lambda f: huge(f, 20_000), "far more than 50 million"),
        (lambda f: saved(f, "a.tiff", Image.new("F", (4, 4))), "32 bits a pixel"),
    ],
)
def test_other_files_are_refused(make: Callable[[Path], Path], wrong: str, tmp_path: Path) -> None:
    file = make(tmp_path)
    with pytest.raises(InputError, match=wrong) as raised:
        read_photo(file, 64)
    assert str(tmp_path) not in str(raised.value) and "<b>" not in str(raised.value)


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


def decoded(address: str) -> NDArray[np.uint8]:
    head, _, data = address.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


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


# --- the page, in a browser ---

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MARKUP = "<img src=x onerror=alert(1)> {{1+1}} ${1+1}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium, of $CHROMIUM or on PATH."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = [path for name in BROWSERS if (path := shutil.which(name))]
    program = os.environ.get("CHROMIUM") or (found or [None])[0]
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} on PATH, and CHROMIUM is not set")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Home, working and temporary folder of the served process."""
    return {name: tmp_path_factory.mktemp(name) for name in ("home", "work", "temporary")}


@pytest.fixture(scope="module")
def address(pipeline: Path, places: dict[str, Path]) -> Iterator[str]:
    """The address of a running `d2i1 app`. At the end it must leave no files."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    flags = ("--pipeline", pipeline, "--server_port", free_port(), "--max_side", SIDE)
    threads = ("--threads", torch.get_num_threads(), "--num_inference_steps", 3)
    command = [sys.executable, "-m", "d2i1_train.cli", "app", *flags, *threads]
    root = str(Path(__file__).parents[3])
    env = {**os.environ, "PYTHONPATH": root, "HOME": str(places["home"])}
    own = {"TMPDIR": "", "HF_HOME": "hf", "MPLCONFIGDIR": "fonts"}  # caches of libraries
    env |= {name: str(places["temporary"] / part) for name, part in own.items()}
    with served(command, places["work"], env, "InvalidPathError") as address:
        assert address.startswith("http://127.0.0.1:")
        yield address
    assert not list(places["temporary"].glob("diff2in1-*"))
    assert not [*places["work"].rglob("*"), *places["home"].rglob("*")]


class Visitor:
    """A page in the browser, with its requests and errors."""

    def __init__(self, browser: Any, address: str, width: int) -> None:
        context = browser.new_context(viewport={"width": width, "height": 900})
        self.page = context.new_page()
        self.asked: list[str] = []
        self.wrong: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("dialog", lambda dialog: self.wrong.append(dialog.message))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.set_default_timeout(30_000)
        self.page.goto(address)

    def upload(self, file: Path) -> None:
        self.page.set_input_files("#upload input[type=file]", str(file))

    def pictures(self, place: str, kind: str) -> list[NDArray[np.uint8]]:
        self.page.wait_for_selector(f"#{place} .sample-view")
        found = self.page.query_selector_all(f"#{place} img.{kind}")
        return [decoded(one.get_attribute("src")) for one in found]

    def download(self, button: str, folder: Path) -> Path:
        with self.page.expect_download() as awaited:
            self.page.click(button)
        file = folder / awaited.value.suggested_filename
        awaited.value.save_as(file)
        return unpack(file, folder)


def screenshot(page: Any, selector: str) -> NDArray[np.uint8]:
    data = page.locator(selector).screenshot()
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_a_visit(
    browser: Any, address: str, session: PipelineSession, pipe: Diff2in1Pipeline, tmp_path: Path
) -> None:
    """Upload, move the slider, create, download: the page shows what the pipeline predicts."""
    visitor, room = Visitor(browser, address, 1300), small()
    visitor.upload(saved(tmp_path, "room.png", Image.fromarray(room)))
    (image,) = visitor.pictures("labels", "image")
    assert visitor.page.query_selector("#labels [aria-live=polite] .sample-view")
    np.testing.assert_array_equal(image, room)
    predicted = pipe.predict(room)
    stored = as_read(session, predicted.predictions)
    labels = visitor.pictures("labels", "label")
    for label, (name, task) in zip(labels, session.tasks.items(), strict=True):
        difference = np.abs(label.astype(int) - task.family.colorize(stored[name]))
        assert (difference <= 2).mean() > 0.995 and label.std() > 0, name
    unsure = visitor.pictures("labels", "uncertainty")
    for grey, name in zip(unsure, session.tasks, strict=True):
        np.testing.assert_allclose(grey[..., 0] / 255, predicted.uncertainty[name][0], atol=1 / 100)

    drawn = screenshot(visitor.page, "#labels")
    assert drawn.std() > 20
    for colour, name in session.tasks["semseg"].family.legend(stored["semseg"]).entries[:3]:
        assert (np.abs(drawn.astype(int) - colour).max(-1) <= 2).sum() > 100, name

    slider = visitor.page.locator("#strength input[type=range]")
    slider.focus()
    slider.press("ArrowRight")
    visitor.page.get_by_label("Prompt").fill(MARKUP)
    visitor.page.click("#create")
    (created,) = visitor.pictures("created", "image")
    assert visitor.page.inner_text("#created .caption") == MARKUP

    (row,) = load_dataset(str(visitor.download("#created-row", tmp_path)), split="train")
    np.testing.assert_array_equal(np.asarray(row["image"]), created)
    assert row["caption"] == MARKUP
    origin = row["provenance"]
    assert (origin["strength"], origin["steps"], origin["seed"]) == (0.65, 3, 0)
    generator = torch.Generator().manual_seed(origin["noise_seed"])
    made = pipe(room, MARKUP, 0.65, 3, generator=generator)
    assert (np.abs(created.astype(int) - np.asarray(made.images[0])) <= 1).mean() > 0.99
    np.testing.assert_array_equal(
        visitor.pictures("created", "label")[2],
        session.tasks["semseg"].family.colorize(np.asarray(row["semseg"])),
    )
    (seen_row,) = load_dataset(str(visitor.download("#labels-row", tmp_path)), split="train")
    np.testing.assert_array_equal(np.asarray(seen_row["image"]), room)
    assert not visitor.wrong
    assert not [url for url in visitor.asked if not url.startswith((address, "data:", "blob:"))]


def test_two_visitors_at_once(browser: Any, address: str, tmp_path: Path) -> None:
    visitors = [Visitor(browser, address, width) for width in (390, 1300)]
    rooms = [small(Rooms("test")[n].image) for n in (0, 5)]
    for n, visitor in enumerate(visitors):
        visitor.upload(saved(tmp_path, f"{n}.png", Image.fromarray(rooms[n])))
    for room, visitor in zip(rooms, visitors, strict=True):
        np.testing.assert_array_equal(visitor.pictures("labels", "image")[0], room)
        wide = visitor.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, "the page is wider than the screen"


def swap(visitor: Visitor, file: Path) -> None:
    visitor.page.get_by_label("Remove Image").click()
    visitor.upload(file)


def test_labels_are_of_the_image_beside_them(browser: Any, address: str, tmp_path: Path) -> None:
    """An image is replaced while its labels still wait for the model."""
    rooms = [small(Rooms("test")[n].image) for n in (0, 5)]
    files = [saved(tmp_path, f"{n}.png", Image.fromarray(room)) for n, room in enumerate(rooms)]
    other, visitor = Visitor(browser, address, 1300), Visitor(browser, address, 1300)
    other.upload(files[0])
    other.pictures("labels", "image")
    slowly(other)
    visitor.upload(files[0])
    visitor.page.wait_for_selector("#labels .progress-text")
    swap(visitor, files[1])
    np.testing.assert_array_equal(visitor.pictures("labels", "image")[0], rooms[1])
    other.pictures("created", "image")
    np.testing.assert_array_equal(visitor.pictures("labels", "image")[0], rooms[1])
    (row,) = load_dataset(str(visitor.download("#labels-row", tmp_path)), split="train")
    np.testing.assert_array_equal(np.asarray(row["image"]), rooms[1])


def test_a_variation_is_of_the_image_above_it(browser: Any, address: str, tmp_path: Path) -> None:
    """An image is replaced while its variation is being created."""
    rooms = [small(Rooms("test")[n].image) for n in (0, 5)]
    files = [saved(tmp_path, f"{n}.png", Image.fromarray(room)) for n, room in enumerate(rooms)]
    visitor = Visitor(browser, address, 1300)
    visitor.upload(files[0])
    visitor.pictures("labels", "image")
    slowly(visitor)
    swap(visitor, files[1])
    np.testing.assert_array_equal(visitor.pictures("labels", "image")[0], rooms[1])
    assert not visitor.page.query_selector("#created .sample-view")  # the old image got no answer
    assert not visitor.page.locator("#created-row").is_visible()
    visitor.page.click("#create")
    visitor.pictures("created", "image")
    (row,) = load_dataset(str(visitor.download("#created-row", tmp_path)), split="train")
    assert row["provenance"]["source_sha256"] == image_sha256(rooms[1])


def slowly(visitor: Visitor) -> None:
    """Start to create with many calls of the U-Net."""
    visitor.page.locator("#steps input[type=number]").fill("100")
    visitor.page.locator("#steps input[type=number]").press("Tab")
    visitor.page.click("#create")
    visitor.page.wait_for_selector("#created .progress-text")


def test_an_image_as_high_as_a_tower_fits_the_screen(
    browser: Any, address: str, tmp_path: Path
) -> None:
    visitor = Visitor(browser, address, 1300)
    visitor.upload(saved(tmp_path, "tower.png", Image.new("RGB", (1, 5000))))
    visitor.pictures("labels", "image")
    for picture in visitor.page.query_selector_all("#labels img"):
        assert picture.bounding_box()["height"] <= 450


def test_the_page_shows_errors_of_uploads(browser: Any, address: str, tmp_path: Path) -> None:
    visitor = Visitor(browser, address, 390)
    visitor.upload(saved(tmp_path, "room.png", Image.fromarray(small())))
    visitor.pictures("labels", "image")
    visitor.page.get_by_label("Remove Image").click()
    visitor.page.wait_for_selector("#labels .hint")
    visitor.upload(broken(tmp_path, "<b>.png", b"no image"))
    visitor.page.get_by_text("This file cannot be read; expected an image").wait_for()
    assert not visitor.page.query_selector("#labels .sample-view")  # nor what was there before
    assert not visitor.page.locator("#labels-row").is_visible()


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"prompt": None}, "Prompt: got nothing, expected text"),
        ({"strength": "0.5"}, "Strength: got '0.5', expected a number"),
        ({"strength": 0}, "Strength 0: expected more than 0"),
        ({"steps": 2.5}, "Steps: got 2.5, expected a whole number"),
        ({"steps": "2"}, "Steps: got '2', expected a whole number"),
        ({"steps": True}, "Steps: got True, expected a whole number"),
        ({"seed": None}, "Seed: got nothing, expected a whole number"),
        ({"seed": [0]}, "Seed: got [0], expected a whole number"),
        ({"seed": -1}, "Seed -1: expected 0 to"),
    ],
)
def test_inputs_of_another_type_are_refused(
    address: str, given: dict[str, Any], wrong: str, tmp_path: Path
) -> None:
    client = pytest.importorskip("gradio_client")
    file = client.handle_file(saved(tmp_path, "room.png", Image.fromarray(small())))
    inputs = {"prompt": "a room", "strength": 0.6, "steps": 2, "seed": 0} | given
    with pytest.raises(client.exceptions.AppError) as raised:
        client.Client(address, verbose=False).predict(file, **inputs, api_name="/create")
    assert wrong in str(raised.value)


def test_the_api_has_names_and_reads_uploads_only(address: str, pipeline: Path) -> None:
    client = pytest.importorskip("gradio_client").Client(address, verbose=False)
    known = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert sorted(known) == ["/create", "/predict"]
    given = [one["parameter_name"] for one in known["/create"]["parameters"]]
    assert given == ["image", "prompt", "strength", "steps", "seed"]
    own = pipeline.parent / "own.png"
    Image.fromarray(ROOM).save(own)
    for name in (own, pipeline / "model_index.json"):
        body = {"data": [{"path": str(name), "meta": {"_type": "gradio.FileData"}}]}
        asked = f"{address}gradio_api/call/predict"
        head = {"Content-Type": "application/json"}
        request = urllib.request.Request(asked, json.dumps(body).encode(), head)
        with urllib.request.urlopen(request) as answer:
            event = json.load(answer)["event_id"]
        with urllib.request.urlopen(f"{asked}/{event}") as answer:
            output = answer.read().decode()
        assert "event: error" in output and "base64" not in output
