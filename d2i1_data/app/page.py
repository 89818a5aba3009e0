"""The page: Gradio's controls around a pipeline session. The only file that needs gradio."""

from collections.abc import Callable
from functools import wraps
from html import escape
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

import hub_cards

from ..dataset.sample import Sample
from ..diff2in1.pictures import FORMATS, SUFFIXES
from ..errors import InputError
from ..inspection.photo import read_photo
from .sample_view import sample_html
from .session import MAX_PROMPT, PipelineSession

FILE_LIFETIME = 3600  # seconds, for uploads and downloads
QUEUE_SIZE = 32  # visitors that may wait
DOWNLOAD = "Download the row"
CREATION_INPUTS = (  # name, allowed types, types in words; a client of the API may send anything
    ("prompt", (str,), "text"),
    ("strength", (int, float), "a number"),
    ("steps", (int,), "a whole number"),
    ("seed", (int,), "a whole number"),
)
NO_LABELS = '<div class="hint">The labels of the image appear here.</div>'
NOTHING_CREATED = '<div class="hint">The created image and its labels appear here.</div>'
CREATE_HEADING = (
    '<h2>Create a variation</h2><p class="lead">The pipeline adds noise to the image, up to the'
    " strength. Then it removes the noise, guided by the prompt, and labels the result.</p>"
)
CSS = (hub_cards.FOLDER / "app.css").read_text()
SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"]
MONO = ["ui-monospace", "SF Mono", "Menlo", "DejaVu Sans Mono", "monospace"]
THEME = gr.themes.Default(  # fonts of the visitor's machine, so no other server is contacted
    primary_hue="slate", neutral_hue="gray", radius_size="sm", font=SANS, font_mono=MONO
).set(body_text_color_subdued="*neutral_500")  # contrast of at least 4.5 : 1 on white
ANNOUNCE = 'element.ariaLive = "polite"'  # screen readers read new content


def build_page(session: PipelineSession, folder: Path) -> gr.Blocks:
    """Build the page of a pipeline.

    Its API has `predict` and `create`. Each returns a sample as HTML and a zip of the row.

    Args:
        session: the pipeline.
        folder: downloads are written here. It is gradio's temporary folder, which gradio cleans.
    """
    examples, handlers = _examples(session), RequestHandlers(session, folder)
    about = {"title": f"Diff-2-in-1: {session.name}", "analytics_enabled": False}
    with gr.Blocks(**about, delete_cache=(FILE_LIFETIME // 6, FILE_LIFETIME)) as page:
        gr.HTML(_heading(session))
        current = gr.State([])
        with gr.Row(elem_classes="part"):
            with gr.Column(scale=1, min_width=240):
                image = _upload(examples)
                label_row = gr.DownloadButton(DOWNLOAD, visible=False, elem_id="labels-row")
            with gr.Column(scale=4, min_width=320):
                labels = gr.HTML(NO_LABELS, elem_id="labels", js_on_load=ANNOUNCE)
        gr.HTML(CREATE_HEADING)
        with gr.Row(elem_classes="part"):
            with gr.Column(scale=1, min_width=240):
                inputs = _creation_inputs(session)
                button = gr.Button("Create", variant="primary", elem_id="create")
                created_row = gr.DownloadButton(DOWNLOAD, visible=False, elem_id="created-row")
            with gr.Column(scale=4, min_width=320):
                created = gr.HTML(NOTHING_CREATED, elem_id="created", js_on_load=ANNOUNCE)
        # The page must never show results of another image. By default, Gradio drops a request
        # while it answers one of the same kind. So every new image is queued ("multiple"), and the
        # last request to create is kept ("always_last").
        outputs = [labels, label_row, created, created_row]
        changed = image.change(
            _clear, [image, current], outputs, queue=False, api_visibility="private"
        )
        predict, create = (
            {"fn": _show_errors(fn), "concurrency_limit": 1, "concurrency_id": "model"}
            for fn in (handlers.predict, handlers.create)
        )
        changed.then(
            **predict, inputs=[image, current], outputs=outputs[:2], trigger_mode="multiple"
        )
        gr.on(
            [button.click, inputs[0].submit],
            **create,
            inputs=[image, *inputs, current],
            outputs=outputs[2:],
            trigger_mode="always_last",
        )
    return page.queue(max_size=QUEUE_SIZE)


class RequestHandlers:
    """Answers requests of the page and of the API with a sample as HTML and its download.

    The argument `current` of the methods is a list with the image that the page shows now. It is
    empty for requests of the API.
    """

    def __init__(self, session: PipelineSession, folder: Path) -> None:
        self.session, self.folder = session, folder

    def predict(self, image: str | None, current: list[str | None]) -> Any:
        """The labels of an image."""
        if image is None:
            return NO_LABELS, gr.DownloadButton(visible=False)
        return self._answer("Image", image, current, self.session.label)

    def create(
        self,
        image: str | None,
        prompt: str,
        strength: float,
        steps: int,
        seed: int,
        current: list[str | None],
    ) -> Any:
        """A labelled variation of an image."""
        if image is None:
            raise InputError("upload an image first; the variation starts from it")
        values = (prompt, strength, steps, seed)
        for (name, kinds, allowed), value in zip(CREATION_INPUTS, values, strict=True):
            if type(value) not in kinds:
                given = "nothing" if value is None else short_repr(value)
                raise InputError(f"{name}: got {given}, expected {allowed}")
        return self._answer(
            "Created", image, current, lambda pixels: self.session.create(pixels, *values)
        )

    def _answer(
        self,
        title: str,
        image: str,
        current: list[str | None],
        make: Callable[[NDArray[np.uint8]], Sample],
    ) -> Any:
        """Make a sample from an image. There is no answer if the page now shows another image."""
        if current not in ([], [image]):
            return gr.skip()
        settings = self.session.settings
        sample = make(read_photo(image, settings.max_side, settings.max_pixels))
        packed = str(self.session.pack(sample, self.folder))
        if current not in ([], [image]):
            return gr.skip()
        row = gr.DownloadButton(value=packed, visible=True)
        return sample_html(title, sample, self.session.tasks), row


def _clear(image: str | None, current: list[str | None]) -> tuple[Any, ...]:
    """Remember the new image of a page, and hide the results of the previous image."""
    current[:] = [image]
    hidden = gr.DownloadButton(visible=False)
    return NO_LABELS, hidden, NOTHING_CREATED, hidden


def _upload(examples: list[str]) -> gr.Image:
    image = gr.Image(
        label="Image",
        sources=["upload", "clipboard"],
        image_mode=None,
        type="filepath",
        height=260,
        elem_id="upload",
    )
    image.preprocess = _path  # so that our own message refuses files that are not images
    if examples:
        gr.Examples(examples, image, label="Examples", cache_examples=False)
    return image


def _creation_inputs(session: PipelineSession) -> list[Any]:
    """Prompt, strength, U-Net calls and seed."""
    low, most = min(0.1, session.strength), session.settings.max_inference_steps
    inputs: list[Any] = [
        gr.Textbox(label="Prompt", placeholder="What the image shows", max_length=MAX_PROMPT),
        gr.Slider(low, 1, session.strength, step=0.05, label="Strength", elem_id="strength"),
        gr.Slider(1, most, session.steps, step=1, label="U-Net calls", elem_id="steps"),
        gr.Number(0, label="Seed", precision=0, minimum=0),
    ]
    for control in inputs:
        control.preprocess = _unchanged  # so that our own messages refuse wrong values
    return inputs


def _unchanged(payload: Any) -> Any:
    return payload


def _path(payload: Any) -> str | None:
    """The path of an uploaded file."""
    return None if payload is None else payload.path


def _show_errors(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a handler so that the page shows its InputErrors."""

    @wraps(handler)  # the API reads the names of its arguments
    def wrapped(*values: Any) -> Any:
        try:
            return handler(*values)
        except InputError as error:
            message = escape(str(error), quote=False)
            raise gr.Error(message[:1].upper() + message[1:], print_exception=False) from error

    return wrapped


def _heading(session: PipelineSession) -> str:
    names = ", ".join(name.replace("_", " ") for name in session.tasks)
    return (
        f'<h1>Diff-2-in-1</h1><p class="lead"><code>{escape(session.name)}</code> labels images and'
        f" creates labelled images. It predicts: {names}.</p>"
    )


def _examples(session: PipelineSession) -> list[str]:
    """The images in the folder of examples."""
    if session.settings.examples is None:
        return []
    folder = Path(session.settings.examples).expanduser()
    if not folder.is_dir():
        raise InputError(f"--examples {folder}: no such folder")
    files = sorted(str(f) for f in folder.iterdir() if f.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(f"--examples {folder}: no images there: {', '.join(FORMATS)}")
    return files
