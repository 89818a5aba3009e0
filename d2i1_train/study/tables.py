"""Tables of a study: means over seeds, and differences between arms in pairs with one seed."""

import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev

from d2i1_data.tasks import TASKS

from .results import Result, Row, read_spread

PAIRED = ("arm", "baseline", "metric", "difference", "better", "p", "spread over images")


def as_table(rows: Mapping[str, Sequence[Row]]) -> str:
    """Write a Markdown table with a line for each arm: mean ± standard error over seeds.

    Args:
        rows: arm -> metrics of every seed.
    """
    names = list(dict.fromkeys(name for seeds in rows.values() for name in seeds[0]))
    lines = []
    for arm, seeds in rows.items():
        cells = [
            with_error([seed[name] for seed in seeds]) if name in seeds[0] else "\N{EN DASH}"
            for name in names
        ]
        lines.append([arm, *cells])
    return _markdown(["", *names], lines)


def paired_table(pairs: Sequence[tuple[Result, Result]], theta: str) -> str:
    """Write a Markdown table of the differences of arms to their baselines.

    Args:
        pairs: results of an arm and of its baseline with the same seed.
        theta: the theta that is compared.
    """
    groups: dict[tuple[str, str], list[tuple[Result, Result]]] = {}
    for one, other in pairs:
        groups.setdefault((one.cell.arm, other.cell.arm), []).append((one, other))
    lines = []
    for (arm, baseline), seeds in groups.items():
        rows = [(one.row(theta), other.row(theta)) for one, other in seeds]
        spreads = [read_spread(one.cell, baseline) for one, _ in seeds]
        for task in spreads[0]:
            meter = TASKS[task].meter
            name = f"{task} {meter.headline}"
            changes = [after[name] - before[name] for after, before in rows]
            sign = 1 if meter.higher_is_better(meter.headline) else -1
            better = sum(sign * change > 0 for change in changes)
            worse = sum(sign * change < 0 for change in changes)
            images = mean(spread[task].get(meter.headline, math.nan) for spread in spreads)
            count, p = f"{better} of {len(changes)}", f"{sign_test(better, worse):.3g}"
            lines.append([arm, baseline, name, with_error(changes, "+"), count, p, f"{images:.2g}"])
    return _markdown(PAIRED, lines)


def sign_test(better: int, worse: int) -> float:
    """The two-sided p value of a sign test. Ties are left out."""
    count = better + worse
    tail = sum(math.comb(count, k) for k in range(max(better, worse), count + 1))
    return min(1.0, 2 * tail / 2**count)


def with_error(values: Sequence[float], sign: str = "") -> str:
    """Write the mean ± its standard error. A single value has no error.

    Args:
        values: one value for each seed.
        sign: `+` writes the sign of positive means too.
    """
    if len(values) == 1:
        return f"{values[0]:{sign}.4g}"
    error = stdev(values) / math.sqrt(len(values))
    digits = max(0, 1 - math.floor(math.log10(error))) if error > 0 else 3
    return f"{mean(values):{sign}.{digits}f} ± {error:.{digits}f}"


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = "|---" * len(head) + "|"
    written = ["| " + " | ".join(line) + " |" for line in (head, *lines)]
    return "\n".join([written[0].replace("|  |", "| |", 1), rule, *written[1:]]) + "\n"
