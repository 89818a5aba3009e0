"""A session of the app, and the pipeline behind it."""

from pathlib import Path

import pytest

from d2i1_data.app.session import PipelineSession
from d2i1_data.app.settings import AppSettings
from d2i1_data.diff2in1 import Diff2in1Pipeline
from tests.d2i1_data.app.images import SIDE


@pytest.fixture(scope="package")
def session(pipeline: Path) -> PipelineSession:
    return PipelineSession(
        AppSettings(pipeline=str(pipeline), max_side=SIDE, max_inference_steps=9)
    )


@pytest.fixture(scope="package")
def pipe(pipeline: Path) -> Diff2in1Pipeline:
    pipe = Diff2in1Pipeline.from_pretrained(pipeline)
    pipe.set_progress_bar_config(disable=True)
    return pipe
