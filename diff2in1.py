"""The public names of this package: `from diff2in1 import Diff2in1Pipeline`.

`import diff2in1` also makes the pipeline known to diffusers: `DiffusionPipeline.from_pretrained`
then opens our pipelines without remote code. The functions of the commands and their settings are
imported on demand.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from d2i1_data import Diff2in1Pipeline
from d2i1_data.errors import InputError

if TYPE_CHECKING:
    from d2i1_data.app.app import app
    from d2i1_data.app.settings import AppSettings
    from d2i1_data.captioning.caption import caption
    from d2i1_data.captioning.settings import CaptionSettings
    from d2i1_data.creation.create import create, label
    from d2i1_data.creation.settings import (
        CreateSettings,
        ImportSettings,
        LabelSettings,
        VerifySettings,
    )
    from d2i1_data.creation.verify import verify
    from d2i1_data.export.export import export
    from d2i1_data.export.settings import ExportSettings
    from d2i1_data.inspection.importing import import_source
    from d2i1_data.inspection.judge import judge
    from d2i1_data.inspection.predict import predict
    from d2i1_data.inspection.report.report import report
    from d2i1_data.inspection.settings import JudgeSettings, PredictSettings, ReportSettings
    from d2i1_data.publish.publish import publish
    from d2i1_data.publish.settings import PublishSettings
    from d2i1_train.demo import demo
    from d2i1_train.environment import env
    from d2i1_train.evaluate import evaluate
    from d2i1_train.scratch.base import base
    from d2i1_train.scratch.settings import BaseSettings
    from d2i1_train.self_improve import self_improve
    from d2i1_train.settings import (
        DemoSettings,
        EnvSettings,
        EvaluateSettings,
        SelfImproveSettings,
        WarmUpSettings,
    )
    from d2i1_train.study.settings import StudySettings
    from d2i1_train.study.study import study
    from d2i1_train.warm_up import warm_up

__version__ = version("diff2in1")  # of the installed package; pyproject.toml states it
__all__ = [
    "AppSettings",
    "BaseSettings",
    "CaptionSettings",
    "CreateSettings",
    "DemoSettings",
    "Diff2in1Pipeline",
    "EnvSettings",
    "EvaluateSettings",
    "ExportSettings",
    "ImportSettings",
    "InputError",
    "JudgeSettings",
    "LabelSettings",
    "PredictSettings",
    "PublishSettings",
    "ReportSettings",
    "SelfImproveSettings",
    "StudySettings",
    "VerifySettings",
    "WarmUpSettings",
    "app",
    "base",
    "caption",
    "create",
    "demo",
    "env",
    "evaluate",
    "export",
    "import_source",
    "judge",
    "label",
    "predict",
    "publish",
    "report",
    "self_improve",
    "study",
    "verify",
    "warm_up",
]


def __getattr__(name: str) -> Any:
    """The function of a command, or its settings."""
    from d2i1_data.registry import load
    from d2i1_train.acts import RECORDS

    for act in RECORDS:
        if act.settings.__name__ == name:
            return act.settings
        if act.function.endswith(f":{name}"):
            return load(act.function)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
