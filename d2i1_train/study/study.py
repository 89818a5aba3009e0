"""Study: compare arms over several seeds. What they share is computed once."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from d2i1_data.dataset.files import write_json, write_text
from d2i1_data.inspection.evaluation.sparsification import Curve, plot
from d2i1_data.tasks import TASKS

from .cost import Waves, describe, estimate, make_waves
from .curves import plot_curves
from .plan import CREATED, WARM_UPS, Cell, Plan, compared, make_plan
from .processes import Job, run_jobs
from .results import Result, Row, check_results, is_compared, read_results, write_tidy
from .settings import StudySettings
from .tables import as_table, paired_table
from .training_mean import check_tasks, training_means
from .work import SPARSIFICATION, THETA, THETA_C, THETA_E, compare

OVER_SEEDS = "mean ± standard error over seeds"
PAIRED = f"""## Differences of theta_C to the baselines

Differences in pairs with the same seed: {OVER_SEEDS}, the number of seeds in which the arm is
better, and the p value of a two-sided sign test. The spread over images is the standard deviation
of a bootstrap over test images, averaged over seeds.
"""


def study(settings: StudySettings) -> Path:
    """Compute everything that is missing, and write tables and figures.

    Returns:
        The file of the Markdown tables.

    Raises:
        InputError: if settings or data are wrong, or an arm has a result with other settings.
            Everything that is complete stays.
    """
    plan, folder = make_plan(settings), Path(settings.output_dir)
    missing = check_results(plan, settings)
    check_tasks([cell.warm_up.settings for cell in plan.cells], settings.test)
    means = {} if plan.two_stages else training_means(settings, plan.cells)
    threads = settings.threads or max(1, (os.cpu_count() or 1) // settings.workers)
    for work in (*plan.shared(WARM_UPS), *plan.shared(CREATED)):
        work.folder.parent.mkdir(parents=True, exist_ok=True)
        write_json(work.folder.parent / "settings.json", {work.name: compared(work.settings)})
    _run(make_waves(plan, settings, missing), settings.workers, threads)
    pairs = plan.pairs()
    jobs = [
        Job(f"{cell.arm}, seed {cell.seed}", compare, (cell, baselines, settings))
        for cell, baselines in pairs
        if not is_compared(cell, baselines, settings)
    ]
    list(run_jobs(jobs, settings.workers, threads))
    results = read_results(plan)
    write_tidy(results, folder / "results.csv")
    if plan.two_stages:
        text = _tables(results, pairs)
        plot_curves(results, folder / "curves.png")
    else:
        text = as_table(means | _rows(results, THETA))
        _plot_sparsification(plan, settings)
    table = folder / "table.md"
    write_text(table, text)
    print(text)
    return table


def _run(waves: Waves, workers: int, threads: int) -> None:
    """Compute what is missing."""
    print(f"study: left to do: {describe(waves, workers)}", flush=True)
    for pieces in waves.values():
        left = {piece.job.name: piece for piece in pieces if piece.missing}
        for job in run_jobs([piece.job for piece in left.values()], workers, threads):
            left[job.name].missing = False
            print(f"study: finished {job.name}; left: {estimate(waves, workers)}", flush=True)


def _rows(results: Sequence[Result], theta: str) -> dict[str, list[Row]]:
    """The lines of a table: arm -> metrics of every seed. A warm-up has one theta only."""
    rows: dict[str, list[Row]] = {}
    for result in results:
        rows.setdefault(result.cell.arm, []).append(result.row(theta))
    return rows


def _tables(results: Sequence[Result], pairs: Sequence[tuple[Cell, list[Cell]]]) -> str:
    """The tables of a study of self-improving."""
    parts = [
        f"## {theta} after the last step: {OVER_SEEDS}\n\n{as_table(_rows(results, theta))}"
        for theta in (THETA_C, THETA_E)
    ]
    found = {(result.cell.arm, result.cell.seed): result for result in results}
    paired = [
        (found[cell.arm, cell.seed], found[baseline.arm, baseline.seed])
        for cell, baselines in pairs
        for baseline in baselines
    ]
    return "\n".join([*parts, PAIRED, paired_table(paired, THETA_C)])


def _plot_sparsification(plan: Plan, settings: StudySettings) -> None:
    """Draw the sparsification curves of every arm's first seed."""
    panels: dict[str, dict[str, Curve]] = {}
    for cell in plan.cells:
        if cell.seed == settings.seeds[0]:
            for task, one in json.loads((cell.folder / SPARSIFICATION).read_text()).items():
                panels.setdefault(task, {})[cell.arm] = Curve(**one)
    plot(panels, TASKS, Path(settings.output_dir) / "sparsification.png")
