"""The page of the app in a real browser, and its API."""

import io
import json
import os
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import load_dataset
from numpy.typing import NDArray
from PIL import Image

from d2i1_data.app.session import PipelineSession
from d2i1_data.dataset.sample import image_sha256
from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.sources.rooms import Rooms
from tests.d2i1_data.app.images import ROOM, SIDE, as_read, broken, decoded, saved, small, unpack
from tests.serving import free_port, served

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
    # else a test may still find the labels of the image before
    visitor.page.wait_for_selector("#labels .sample-view", state="detached")
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
    visitor.page.get_by_text("Not a readable image; expected JPEG").wait_for()
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
