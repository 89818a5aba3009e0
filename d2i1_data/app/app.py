"""The app: a page that shows what a pipeline predicts for an image, and creates variations."""

import os
import signal
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import InputError
from .settings import AppSettings

MAX_FILE_SIZE = "50mb"


def app(settings: AppSettings) -> None:
    """Serve the page and print its address, until the process is interrupted.

    Uploads and downloads are in a temporary folder, which is deleted at the end.

    Raises:
        InputError: if gradio is not installed, or the page cannot be served.
    """
    with TemporaryDirectory(prefix="diff2in1-") as folder:
        # gradio reads both variables when it is imported
        os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=folder)
        try:
            _serve(settings, Path(folder))
        finally:
            del os.environ["GRADIO_TEMP_DIR"]


def _serve(settings: AppSettings, folder: Path) -> None:
    try:
        from .page import CSS, THEME, build_page
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise InputError("gradio is not installed: pip install 'diff2in1[app]'") from error
    from .session import PipelineSession

    page = build_page(PipelineSession(settings), folder)
    try:
        _, address, public = page.launch(
            server_name=settings.server_name,
            server_port=settings.server_port,
            share=settings.share,
            max_file_size=MAX_FILE_SIZE,
            ssr_mode=False,
            footer_links=["api", "settings"],
            theme=THEME,
            css=CSS,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:  # gradio raises it if the port is taken or the address unknown
        raise InputError(f"the page cannot be served: {error}") from error
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the folder is deleted
    addresses = f"{address} and {public}" if public else address
    print(f"{settings.pipeline} is served at {addresses}, until Ctrl-C", flush=True)
    page.block_thread()
