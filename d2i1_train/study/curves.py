"""Curves of a study: how the scores of both thetas change during self-improving."""

import math
from pathlib import Path
from statistics import mean

from d2i1_data.dataset.files import atomic_file
from d2i1_data.tasks import TASKS

from .results import Result
from .work import THETA, THETA_C, THETA_E

STYLES = {THETA_C: "-", THETA_E: "--"}

Curve = dict[int, float]  # step -> mean over seeds


def mean_curves(results: list[Result], task: str) -> dict[tuple[str, str], Curve]:
    """Average the headline metric of a task over seeds.

    Args:
        results: results of all cells. Curves start with the warm-up of their arm.
        task: name of the task.

    Returns:
        (arm, theta) -> curve. Arms without this task have none.
    """
    values: dict[tuple[str, str], dict[int, list[float]]] = {}
    starts: dict[tuple[str, int], float] = {}
    metric = TASKS[task].meter.headline
    for result in results:
        for theta, steps in result.scores.items():
            scored = {step: one.get(task, {}) for step, one in steps.items()}
            known = {step: own[metric] for step, own in scored.items() if metric in own}
            place = result.cell.group, result.cell.seed
            if theta == THETA:
                starts |= dict.fromkeys([place], known[0]) if 0 in known else {}
                continue
            if known and place in starts:
                known = {0: starts[place], **known}
            for step, value in known.items():
                curve = values.setdefault((result.cell.arm, theta), {})
                curve.setdefault(step, []).append(value)
    return {
        key: {step: mean(seeds) for step, seeds in curve.items()} for key, curve in values.items()
    }


def plot_curves(results: list[Result], file: Path) -> None:
    """Draw the curves of all arms as a PNG, a panel for each task."""
    from matplotlib.figure import Figure

    found = {name: mean_curves(results, name) for name in TASKS}
    panels = {name: curves for name, curves in found.items() if curves}
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    arms = list(dict.fromkeys(arm for curves in panels.values() for arm, _ in curves))
    lines = math.ceil(len(arms) / columns)  # of the legend
    figure = Figure((4 * columns + 0.3, 3 * rows + 0.2 * lines + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for panel in list(axes)[len(panels) :]:
        panel.remove()
    for panel, (name, curves) in zip(figure.axes, panels.items(), strict=True):
        for (arm, theta), curve in curves.items():
            label = arm if theta == THETA_C else None
            colour, steps = f"C{arms.index(arm) % 10}", list(curve)
            (line,) = panel.plot(steps, list(curve.values()), STYLES[theta], label=label)
            line.set(color=colour, linewidth=1.5, marker=".", markersize=4)
        meter = TASKS[name].meter
        best = "higher" if meter.higher_is_better(meter.headline) else "lower"
        panel.set_title(f"{name} {meter.headline}, {best} is better", fontsize=9)
        panel.set_xlabel("step", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=7)
    legend.set_frame_on(False)
    caption = "solid: theta_C; dashed: theta_E; mean over seeds"
    figure.suptitle(caption, fontsize=8, color="0.3")
    with atomic_file(file) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
