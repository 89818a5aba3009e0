"""Cost of a study: what is left to compute, and how long it will take."""

from collections.abc import Sequence
from dataclasses import dataclass

from .plan import CREATED, WARM_UPS, Cell, Plan, Work
from .processes import Job
from .results import seconds_of
from .settings import StudySettings
from .work import make, score_warm_up, train

SCORES, TRAININGS = "scores of warm-ups", "trainings"
NAMES = {kind: kind for kind in (WARM_UPS, SCORES, TRAININGS)} | {CREATED: "created datasets"}


@dataclass
class Piece:
    """Something that a study computes once.

    job: computes it. of: what it computes. size: its length, compared with others of its kind.
    """

    job: Job
    of: Work | Cell
    size: int
    missing: bool


Waves = dict[str, list[Piece]]  # kind -> pieces; a kind needs those before it


def make_waves(plan: Plan, settings: StudySettings, missing: Sequence[Cell]) -> Waves:
    """List everything that a study computes, in the order in which it is needed.

    Args:
        plan: the plan.
        settings: settings of the study.
        missing: cells without a result.
    """
    waves: Waves = {kind: [] for kind in (WARM_UPS, CREATED, SCORES, TRAININGS)}
    for kind in (WARM_UPS, CREATED):
        for work in plan.shared(kind):
            name = f"{kind}/{work.folder.parent.name}/{work.folder.name}"
            size = work.settings.max_train_steps if kind == WARM_UPS else 1
            piece = Piece(Job(name, make, (work,)), work, size, seconds_of(work) is None)
            waves[kind].append(piece)
    left = {(cell.arm, cell.seed) for cell in missing}
    for cell in plan.cells:
        name, is_missing = f"{cell.arm}, seed {cell.seed}", (cell.arm, cell.seed) in left
        if cell.self_improve:
            job, size = Job(name, train, (cell, settings)), cell.self_improve.max_train_steps
            waves[TRAININGS].append(Piece(job, cell, size, is_missing))
        else:
            job = Job(name, score_warm_up, (cell, settings, plan.two_stages))
            waves[SCORES].append(Piece(job, cell, 1, is_missing))
    return waves


def describe(waves: Waves, workers: int) -> str:
    """Say in one line what is left to compute, and how long it will take."""
    parts = [
        f"{sum(piece.missing for piece in pieces)} of {len(pieces)} {NAMES[kind]}"
        for kind, pieces in waves.items()
        if pieces
    ]
    return f"{', '.join(parts)}; time: {estimate(waves, workers)}"


def estimate(waves: Waves, workers: int) -> str:
    """Estimate the time of what is left, from the time of what is complete.

    Args:
        waves: everything that the study computes.
        workers: number of processes.
    """
    total, unknown = 0.0, []
    for kind, pieces in waves.items():
        left = sum(piece.size for piece in pieces if piece.missing)
        known = [piece for piece in pieces if not piece.missing]
        if left and not known:
            unknown.append(NAMES[kind])
        elif left:
            spent = sum(seconds_of(piece.of) or 0.0 for piece in known)
            total += left * spent / sum(piece.size for piece in known)
    more = f"unknown before the first of the {', '.join(unknown)}" if unknown else ""
    if more and not total:
        return more
    minutes = f"about {total / workers / 60:.1f} minutes"
    return f"{minutes}, the rest {more}" if more else minutes
