"""The page: Gradio's controls around a studio. The only file that needs gradio."""

from collections.abc import Callable
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

import hub_cards

from ..errors import InputError
from ..sample import Sample
from .sheet import sheet
from .studio import LONGEST_PROMPT, Studio
from .upload import FORMATS, read_upload

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
KEPT = 3600  # seconds, of what visitors upload and download
WAITING = 32  # visitors
DOWNLOAD = "Download the row"
NOTHING_SEEN = '<div class="hint">The labels of the image appear here.</div>'
NOTHING_MADE = '<div class="hint">What is created, and its labels, appear here.</div>'
CREATING = (
    '<h2>Create a variation</h2><p class="lead">The image is noised up to the strength, denoised'
    " under the prompt, and the result labelled.</p>"
)
CSS = (hub_cards.FOLDER / "app.css").read_text()
SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"]
MONO = ["ui-monospace", "SF Mono", "Menlo", "DejaVu Sans Mono", "monospace"]
THEME = gr.themes.Default(  # fonts of the visitor's machine: nothing is loaded from elsewhere
    primary_hue="slate", neutral_hue="gray", radius_size="sm", font=SANS, font_mono=MONO
)


def build_page(studio: Studio, folder: Path) -> gr.Blocks:
    """The page of a studio. folder: where downloads lie; gradio's temporary one, which it empties.

    Its API has `predict` and `create`, each giving a sheet as HTML and a zip of the row.
    """
    examples, desk = _examples(studio), _Desk(studio, folder)
    model: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}
    about = {"title": f"Diff-2-in-1: {studio.name}", "analytics_enabled": False}
    with gr.Blocks(**about, delete_cache=(KEPT // 6, KEPT)) as page:
        gr.HTML(_heading(studio))
        with gr.Row(elem_classes="part"):
            with gr.Column(scale=1, min_width=240):
                image = _upload(examples)
                seen_file = gr.DownloadButton(DOWNLOAD, visible=False, elem_id="seen-row")
            with gr.Column(scale=4, min_width=320):
                seen = gr.HTML(NOTHING_SEEN, elem_id="seen")
        gr.HTML(CREATING)
        with gr.Row(elem_classes="part"):
            with gr.Column(scale=1, min_width=240):
                wishes = _wishes(studio)
                button = gr.Button("Create", variant="primary", elem_id="create")
                made_file = gr.DownloadButton(DOWNLOAD, visible=False, elem_id="made-row")
            with gr.Column(scale=4, min_width=320):
                made = gr.HTML(NOTHING_MADE, elem_id="made")
        # what is shown is never of another image
        shown = [seen, seen_file, made, made_file]
        changed = image.change(_nothing, None, shown, queue=False, api_visibility="private")
        changed.then(_told(desk.predict), image, shown[:2], api_name="predict", **model)
        wished = [button.click, wishes[0].submit]
        gr.on(wished, _told(desk.create), [image, *wishes], shown[2:], api_name="create", **model)
    return page.queue(max_size=WAITING)


class _Desk:
    """What visitors ask for, answered with a sheet and its download."""

    def __init__(self, studio: Studio, folder: Path) -> None:
        self.studio, self.folder = studio, folder

    def predict(self, image: str | None) -> tuple[str, Any]:
        """The labels of an image."""
        if image is None:
            return NOTHING_SEEN, gr.DownloadButton(visible=False)
        return self._hand_out("Image", self.studio.label(self._read(image)))

    def create(
        self, image: str | None, prompt: str, strength: float, steps: int, seed: int | None
    ) -> tuple[str, Any]:
        """A labelled variation of an image."""
        if image is None:
            raise InputError("upload an image first, of which to create a variation")
        if seed is None:
            raise InputError("give a seed: 0, or any other whole number")
        pixels = self._read(image)
        return self._hand_out("Created", self.studio.create(pixels, prompt, strength, steps, seed))

    def _read(self, image: str) -> NDArray[np.uint8]:
        return read_upload(image, self.studio.settings.max_side)

    def _hand_out(self, title: str, sample: Sample) -> tuple[str, Any]:
        packed = str(self.studio.pack(sample, self.folder))
        return sheet(title, sample, self.studio.tasks), gr.DownloadButton(
            value=packed, visible=True
        )


def _nothing() -> tuple[Any, ...]:
    hidden = gr.DownloadButton(visible=False)
    return NOTHING_SEEN, hidden, NOTHING_MADE, hidden


def _upload(examples: list[str]) -> gr.Image:
    image = gr.Image(
        label="Image",
        sources=["upload", "clipboard"],
        image_mode=None,
        type="filepath",
        height=260,
        elem_id="upload",
    )
    image.preprocess = _as_file  # what is no image is told by us
    if examples:
        gr.Examples(examples, image, label="Examples", cache_examples=False)
    return image


def _wishes(studio: Studio) -> list[Any]:
    """Prompt, strength, U-Net calls and seed."""
    low, most = min(0.1, studio.strength), studio.settings.max_inference_steps
    return [
        gr.Textbox(label="Prompt", placeholder="What is in the image", max_length=LONGEST_PROMPT),
        gr.Slider(low, 1, studio.strength, step=0.05, label="Strength", elem_id="strength"),
        gr.Slider(1, most, studio.steps, step=1, label="U-Net calls", elem_id="steps"),
        gr.Number(0, label="Seed", precision=0, minimum=0),
    ]


def _as_file(payload: Any) -> str | None:
    """The file a visitor uploaded, as it is."""
    return None if payload is None else payload.path


def _told(answer: Callable[..., Any]) -> Callable[..., Any]:
    """The same, with wrong input told to the visitor."""

    @wraps(answer)  # the API has its names
    def told(*given: Any) -> Any:
        try:
            return answer(*given)
        except InputError as error:
            message = escape(str(error), quote=False)
            raise gr.Error(message[:1].upper() + message[1:], print_exception=False) from error

    return told


def _heading(studio: Studio) -> str:
    names = ", ".join(name.replace("_", " ") for name in studio.tasks)
    return (
        f'<h1>Diff-2-in-1</h1><p class="lead">What <code>{escape(studio.name)}</code> perceives in'
        f" an image, and images it creates: {names}.</p>"
    )


def _examples(studio: Studio) -> list[str]:
    """The images of the folder of examples."""
    if studio.settings.examples is None:
        return []
    folder = Path(studio.settings.examples).expanduser()
    if not folder.is_dir():
        raise InputError(f"--examples {folder}: no such folder")
    files = sorted(str(f) for f in folder.iterdir() if f.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(f"--examples {folder}: no images there: {', '.join(FORMATS)}")
    return files
