"""The page: Gradio's controls around a studio. The only file that needs gradio."""

from collections.abc import Callable
from functools import wraps
from html import escape
from pathlib import Path
from reprlib import repr as brief
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

import hub_cards

from ..dataset.sample import Sample
from ..errors import InputError
from .sheet import sheet
from .studio import LONGEST_PROMPT, Studio
from .upload import FORMATS, read_upload

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
KEPT = 3600  # seconds, of what visitors upload and download
WAITING = 32  # visitors
DOWNLOAD = "Download the row"
WISHES = (  # and what each may be; who asks by the API may ask for anything
    ("prompt", (str,), "text"),
    ("strength", (int, float), "a number"),
    ("steps", (int,), "a whole number"),
    ("seed", (int,), "a whole number"),
)
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
).set(body_text_color_subdued="*neutral_500")  # 4.5 : 1 and more on white
SPOKEN = 'element.ariaLive = "polite"'  # what is new is read out


def build_page(studio: Studio, folder: Path) -> gr.Blocks:
    """The page of a studio. folder: where downloads lie; gradio's temporary one, which it empties.

    Its API has `predict` and `create`, each giving a sheet as HTML and a zip of the row.
    """
    examples, desk = _examples(studio), _Desk(studio, folder)
    about = {"title": f"Diff-2-in-1: {studio.name}", "analytics_enabled": False}
    with gr.Blocks(**about, delete_cache=(KEPT // 6, KEPT)) as page:
        gr.HTML(_heading(studio))
        on_page = gr.State([])
        with gr.Row(elem_classes="part"):
            with gr.Column(scale=1, min_width=240):
                image = _upload(examples)
                seen_file = gr.DownloadButton(DOWNLOAD, visible=False, elem_id="seen-row")
            with gr.Column(scale=4, min_width=320):
                seen = gr.HTML(NOTHING_SEEN, elem_id="seen", js_on_load=SPOKEN)
        gr.HTML(CREATING)
        with gr.Row(elem_classes="part"):
            with gr.Column(scale=1, min_width=240):
                wishes = _wishes(studio)
                button = gr.Button("Create", variant="primary", elem_id="create")
                made_file = gr.DownloadButton(DOWNLOAD, visible=False, elem_id="made-row")
            with gr.Column(scale=4, min_width=320):
                made = gr.HTML(NOTHING_MADE, elem_id="made", js_on_load=SPOKEN)
        # What is shown is never of another image. Gradio forgets what is asked for while the same
        # is being answered: here every image is looked at, and of wishes the last comes true.
        looked, asked = [image, on_page], [image, *wishes, on_page]
        shown, wished = [seen, seen_file, made, made_file], [button.click, wishes[0].submit]
        changed = image.change(_clear, looked, shown, queue=False, api_visibility="private")
        predict, create = (
            {"fn": _told(fn), "concurrency_limit": 1, "concurrency_id": "model"}
            for fn in (desk.predict, desk.create)
        )
        changed.then(**predict, inputs=looked, outputs=shown[:2], trigger_mode="multiple")
        gr.on(wished, **create, inputs=asked, outputs=shown[2:], trigger_mode="always_last")
    return page.queue(max_size=WAITING)


class _Desk:
    """What visitors ask for, answered with a sheet and its download.

    on_page: the image on the page that asks, as it is by now, in a list; empty where the API asks.
    """

    def __init__(self, studio: Studio, folder: Path) -> None:
        self.studio, self.folder = studio, folder

    def predict(self, image: str | None, on_page: list[str | None]) -> Any:
        """The labels of an image."""
        if image is None:
            return NOTHING_SEEN, gr.DownloadButton(visible=False)
        return self._answer("Image", image, on_page, self.studio.label)

    def create(
        self,
        image: str | None,
        prompt: str,
        strength: float,
        steps: int,
        seed: int,
        on_page: list[str | None],
    ) -> Any:
        """A labelled variation of an image."""
        if image is None:
            raise InputError("upload an image first, of which to create a variation")
        wishes = (prompt, strength, steps, seed)
        for (name, kinds, meant), wish in zip(WISHES, wishes, strict=True):
            if type(wish) not in kinds:
                given = "nothing" if wish is None else brief(wish)
                raise InputError(f"{name}: got {given}, expected {meant}")
        return self._answer(
            "Created", image, on_page, lambda pixels: self.studio.create(pixels, *wishes)
        )

    def _answer(
        self,
        title: str,
        image: str,
        on_page: list[str | None],
        make: Callable[[NDArray[np.uint8]], Sample],
    ) -> Any:
        """What is made of an image; nothing where that is no longer on the page."""
        if on_page not in ([], [image]):
            return gr.skip()
        sample = make(read_upload(image, self.studio.settings.max_side))
        packed = str(self.studio.pack(sample, self.folder))
        if on_page not in ([], [image]):
            return gr.skip()
        row = gr.DownloadButton(value=packed, visible=True)
        return sheet(title, sample, self.studio.tasks), row


def _clear(image: str | None, on_page: list[str | None]) -> tuple[Any, ...]:
    """Nothing is shown of an image that is new on a page."""
    on_page[:] = [image]
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
    wishes: list[Any] = [
        gr.Textbox(label="Prompt", placeholder="What is in the image", max_length=LONGEST_PROMPT),
        gr.Slider(low, 1, studio.strength, step=0.05, label="Strength", elem_id="strength"),
        gr.Slider(1, most, studio.steps, step=1, label="U-Net calls", elem_id="steps"),
        gr.Number(0, label="Seed", precision=0, minimum=0),
    ]
    for wish in wishes:
        wish.preprocess = _as_given  # what is no such wish is told by us
    return wishes


def _as_given(payload: Any) -> Any:
    return payload


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
