"""Acts: all commands of `d2i1`, one record each. Help, errors and tables of the docs use them.

To add an act, add its settings, its function and one line of `RECORDS`. `as_markdown`
writes the table of the documentation.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from d2i1_data.app.settings import AppSettings
from d2i1_data.captioning.settings import CaptionSettings
from d2i1_data.creation.settings import (
    CreateSettings,
    ImportSettings,
    LabelSettings,
    VerifySettings,
)
from d2i1_data.export.settings import ExportSettings
from d2i1_data.inspection.settings import JudgeSettings, PredictSettings, ReportSettings
from d2i1_data.publish.settings import PublishSettings

from .arguments import read_settings
from .scratch.settings import BaseSettings
from .settings import (
    DemoSettings,
    EnvSettings,
    EvaluateSettings,
    SelfImproveSettings,
    WarmUpSettings,
)
from .study.settings import StudySettings


class Act(NamedTuple):
    """One command.

    Args:
        name: name of the act, as typed after `d2i1`.
        function: `module:function`. The module is imported when the act runs.
        settings: dataclass of the settings. The first line of its docstring is the help line.
        script: file in `scripts/` for `accelerate launch`; None if there is none.
        positional: the setting whose values need no flag, None if there is none.
    """

    name: str
    function: str
    settings: type[Any]
    script: str | None = None
    positional: str | None = None

    @property
    def help(self) -> str:
        """One line that says what the act does."""
        return (self.settings.__doc__ or "").splitlines()[0]

    def read(self, arguments: Sequence[str]) -> Any:
        """Read the settings of the act, see `arguments.read_settings`."""
        return read_settings(self.settings, arguments, f"d2i1 {self.name}", self.positional)


RECORDS = (
    Act("demo", "d2i1_train.demo:demo", DemoSettings, "demo.py"),
    Act("base", "d2i1_train.scratch.base:base", BaseSettings, "base.py"),
    Act(
        "import", "d2i1_data.inspection.importing:import_source", ImportSettings, "import_source.py"
    ),
    Act("caption", "d2i1_data.captioning.caption:caption", CaptionSettings),
    Act("warm-up", "d2i1_train.warm_up:warm_up", WarmUpSettings, "warm_up.py"),
    Act("create", "d2i1_data.creation.create:create", CreateSettings, "create.py"),
    Act("create --verify", "d2i1_data.creation.verify:verify", VerifySettings, "create.py"),
    Act("label", "d2i1_data.creation.create:label", LabelSettings, "label.py"),
    Act(
        "predict",
        "d2i1_data.inspection.predict:predict",
        PredictSettings,
        "predict.py",
        positional="images",
    ),
    Act(
        "self-improve",
        "d2i1_train.self_improve:self_improve",
        SelfImproveSettings,
        "self_improve.py",
    ),
    Act("evaluate", "d2i1_train.evaluate:evaluate", EvaluateSettings, "evaluate.py"),
    Act(
        "report",
        "d2i1_data.inspection.report.report:report",
        ReportSettings,
        "report.py",
        positional="dataset",
    ),
    Act(
        "judge",
        "d2i1_data.inspection.judge:judge",
        JudgeSettings,
        "judge.py",
        positional="dataset",
    ),
    Act(
        "export",
        "d2i1_data.export.export:export",
        ExportSettings,
        "export.py",
        positional="dataset",
    ),
    Act(
        "publish",
        "d2i1_data.publish.publish:publish",
        PublishSettings,
        "publish.py",
        positional="dataset",
    ),
    Act("app", "d2i1_data.app.app:app", AppSettings, "app.py"),
    Act("study", "d2i1_train.study.study:study", StudySettings, "study.py"),
    Act("env", "d2i1_train.environment:env", EnvSettings),
)
ACTS = {act.name: act for act in RECORDS}


def overview() -> str:
    """The text of `d2i1 --help`."""
    return "\n".join(
        [
            "usage: d2i1 ACT [--config FILE.yaml] [--FLAG VALUE ...]",
            "",
            *(f"  {act.name:16} {act.help}" for act in RECORDS),
            "",
            "d2i1 ACT --help lists the flags of an act. d2i1 --version prints the version.",
        ]
    )


def as_markdown() -> str:
    """A table of all acts for the documentation."""
    lines = ["| command | what it does | script |", "|---|---|---|"]
    for act in RECORDS:
        script = f"`scripts/{act.script}`" if act.script else ""
        lines.append(f"| `d2i1 {act.name}` | {act.help} | {script} |")
    return "\n".join(lines) + "\n"
