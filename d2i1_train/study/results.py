"""Results of a study: what its cells have written, and the tidy table of all scores."""

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from d2i1_data.dataset.files import write_text
from d2i1_data.dataset.record import read_json
from d2i1_data.errors import InputError
from d2i1_data.inspection.evaluation.measure import table_metrics
from d2i1_data.tasks import TASKS

from .plan import Cell, Plan, Work
from .settings import StudySettings
from .work import RESULT, THETA, VERSUS, Scores

COLUMNS = ("arm", "seed", "theta", "step", "task", "metric", "value")

Row = dict[str, float]  # column of a table -> value


class Result(NamedTuple):
    """The scores of a cell.

    scores: theta -> step -> task -> metric -> value. other: other scores of a warm-up.
    """

    cell: Cell
    scores: dict[str, dict[int, Scores]]
    other: dict[str, float]

    def row(self, theta: str) -> Row:
        """The values that tables show, after the last step.

        Args:
            theta: name of a theta. A warm-up has only one.

        Returns:
            `TASK METRIC` and the names of other scores -> value.
        """
        steps = self.scores.get(theta) or self.scores[THETA]
        metrics = steps[max(steps)]
        return table_metrics({name: TASKS[name] for name in metrics}, metrics) | self.other


def seconds_of(done: Work | Cell) -> float | None:
    """The time that something took, None if it is not complete."""
    file = done.done if isinstance(done, Work) else done.folder / RESULT
    found: float | None = read_json(file).get("seconds")
    return found


def check_results(plan: Plan, study: StudySettings) -> list[Cell]:
    """Find the cells without a result. Baselines with other settings than before are among them.

    Raises:
        InputError: if an arm has a result with other settings.
    """
    missing = []
    for cell in plan.cells:
        stored = read_json(cell.folder / RESULT)
        if stored and (changed := differing(stored.get("of", {}), cell.facts(study))):
            if not cell.built_in:
                raise InputError(
                    f"study: {cell.folder} holds a result with other settings ({changed}): choose"
                    " another name for the arm or another --output_dir, or delete the folder"
                )
            stored = {}
        if not stored:
            missing.append(cell)
    return missing


def differing(old: dict[str, Any], new: dict[str, Any], path: str = "") -> str:
    """Describe the first difference of two settings; empty if there is none."""
    for name in [*new, *(key for key in old if key not in new)]:
        one, other = old.get(name), new.get(name)
        if one == other and (name in old) == (name in new):
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            return differing(one, other, f"{path}{name}.")
        return f"{path}{name}: {one}, now {other}"
    return ""


def read_results(plan: Plan) -> list[Result]:
    """Read the results of all cells."""
    results = []
    for cell in plan.cells:
        stored = read_json(cell.folder / RESULT)
        scores = {
            theta: {int(step): metrics for step, metrics in steps.items()}
            for theta, steps in stored["scores"].items()
        }
        results.append(Result(cell, scores, stored["other"]))
    return results


def read_spread(cell: Cell, baseline: str) -> Scores:
    """Spread over images of the difference to a baseline: task -> metric -> spread."""
    found = read_json(cell.folder / VERSUS)[baseline]["differences"]
    return {
        task: {metric: one.get("spread", math.nan) for metric, one in metrics.items()}
        for task, metrics in found.items()
    }


def is_compared(cell: Cell, baselines: list[Cell], study: StudySettings) -> bool:
    """Whether a cell is compared with its baselines as they are now."""
    found = read_json(cell.folder / VERSUS)
    return {arm: one["of"] for arm, one in found.items()} == {
        baseline.arm: baseline.facts(study) for baseline in baselines
    }


def write_tidy(results: list[Result], file: Path) -> None:
    """Write a CSV file with one score in each line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for result in results:
        writer.writerows(_lines(result))
    write_text(file, text.getvalue())


def _lines(result: Result) -> Iterator[tuple[object, ...]]:
    arm, seed = result.cell.arm, result.cell.seed
    for theta, steps in result.scores.items():
        for step, metrics in steps.items():
            for task, values in metrics.items():
                for metric, value in values.items():
                    yield arm, seed, theta, step, task, metric, value
    for name, value in result.other.items():
        task, _, metric = name.rpartition(" ")
        theta, steps = next(iter(result.scores.items()))
        yield arm, seed, theta, max(steps), task, metric, value
