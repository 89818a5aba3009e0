"""The app: a page that shows what a pipeline perceives in an image, and creates variations."""

import os
import signal
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import InputError
from .settings import AppSettings

LARGEST_FILE = "50mb"


def app(settings: AppSettings) -> None:
    """Serve the page until the process is interrupted or told to end; its address is printed.

    What visitors upload and download lies in a temporary folder, which goes with the process.
    """
    with TemporaryDirectory(prefix="diff2in1-") as folder:
        # gradio looks at both when it is imported
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
    from .studio import Studio

    page = build_page(Studio(settings), folder)
    try:
        _, address, public = page.launch(
            server_name=settings.host,
            server_port=settings.port,
            share=settings.share,
            max_file_size=LARGEST_FILE,
            ssr_mode=False,
            footer_links=["api", "settings"],
            theme=THEME,
            css=CSS,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:  # gradio's own for a port that is taken, or an unknown host
        raise InputError(f"the page cannot be served: {error}") from error
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or the folder would stay
    told = f"{address} and {public}" if public else address
    print(f"{settings.pipeline} is served at {told}, until Ctrl-C", flush=True)
    page.block_thread()
