"""The demo: the whole method on rooms, beside two trainings on real labels only."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from d2i1_data.checkpoints.files import fingerprint
from d2i1_data.creation.create import create
from d2i1_data.creation.settings import CreateSettings
from d2i1_data.dataset.files import require_folder, write_json, write_png
from d2i1_data.dataset.preview import PREVIEW, grid
from d2i1_data.dataset.record import RUN
from d2i1_data.errors import InputError
from d2i1_data.inspection.evaluation.measure import bootstrap, compute_metrics
from d2i1_data.sources import open_source
from d2i1_data.tasks import TASKS

from .arguments import read_settings
from .loop.reopen import open_theta
from .self_improve import self_improve
from .settings import DemoSettings, SelfImproveSettings, WarmUpSettings
from .study.processes import begin
from .study.scoring import HeldOut
from .warm_up import warm_up

RESULTS = "results.json"
REAL_ONLY, DROPOUT = "real-only", "real-only, dropout"
BASELINES = (REAL_ONLY, DROPOUT)
ARMS = (*BASELINES, "self-improve")
REOPEN = """
import sys, numpy as np
from datasets import load_dataset
from d2i1_data import Diff2in1Pipeline
rows = load_dataset(sys.argv[1], split="train")
pipe = Diff2in1Pipeline.from_pretrained(sys.argv[2])
output = pipe.predict(rows[0]["image"])
np.savez(sys.argv[3], count=len(rows), **{k: v[0] for k, v in output.predictions.items()})
"""


def demo(settings: DemoSettings) -> dict[str, Any]:
    """Warm up, create, self-improve, train two real-only baselines, and evaluate all.

    The first baseline trains on as it is. The second has the feature dropout of self-improving on
    its real samples. Both train in a second process, while this one creates and self-improves.

    Returns:
        The content of results.json.

    Raises:
        InputError: if the folder holds something else.
    """
    folder = Path(settings.output_dir)
    _claim(folder, settings.overwrite)
    seconds: dict[str, float] = {}

    with _timed("warm-up", seconds):
        warmed = warm_up(warm_up_settings(settings, folder))
    baselines = [self_improve_settings(settings, folder, warmed, "none", a) for a in BASELINES]
    with _in_another_process(baselines) as wait:
        with _timed("create", seconds):
            dataset = create(create_settings(settings, folder, warmed))
        with _timed("self-improve", seconds):
            self_improve(self_improve_settings(settings, folder, warmed, str(dataset), ARMS[-1]))
        with _timed("wait for the baselines", seconds):
            wait()
    shutil.copytree(folder / "self-improve" / "pipeline", folder / "pipeline")
    with _timed("evaluate", seconds):
        table, verdict = compare(folder, settings.held_out)
    with _timed("reopen", seconds):
        reopened = reopen(folder)
    show_created(folder, dataset)
    results = {
        # the checkpoint and the data of the metrics; cards read this file, see `d2i1_data.card`
        "source": "rooms",
        "split": "test",
        "samples": settings.held_out,
        "fingerprint": fingerprint(folder / "pipeline"),
        "tasks": table["self-improve theta_C"],
        "table": table,
        "verdict": verdict,
        "reopened": reopened,
        "seconds": seconds,
    }
    write_json(folder / RESULTS, results)
    print(as_text(results, folder))
    return results


def _claim(folder: Path, overwrite: bool) -> None:
    """Accept a new folder; with `overwrite`, empty the folder of an earlier demo."""
    require_folder(folder)
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / "warm-up" / RUN).is_file():
            raise InputError(
                f"{folder} is not empty and holds no demo: choose another --output_dir"
            )
        if not overwrite:
            raise InputError(f"{folder} holds a demo already: repeat it with --overwrite")
        shutil.rmtree(folder)


def warm_up_settings(settings: DemoSettings, folder: Path) -> WarmUpSettings:
    """Settings of the warm-up of a demo in a folder."""
    preset = read_settings(WarmUpSettings, ["--config=rooms", f"--output_dir={folder / 'warm-up'}"])
    return replace(
        preset,
        max_train_samples=settings.real,
        subset_seed=settings.seed,
        max_train_steps=settings.warm_up_steps,
        checkpointing_steps=settings.warm_up_steps,
        seed=settings.seed,
    )


def create_settings(settings: DemoSettings, folder: Path, warmed: Path) -> CreateSettings:
    """Settings of the creation from a warmed-up pipeline."""
    return CreateSettings(
        pipeline=str(warmed),
        source="rooms:train",
        max_source_samples=settings.real,
        subset_seed=settings.seed,
        num_samples=settings.created,
        ways=[{"strength": settings.strength}, {"strength": 1, "prompt": "{recombined}"}],
        num_inference_steps=settings.num_inference_steps,
        output_dir=str(folder / "dataset"),
        seed=settings.seed,
    )


def self_improve_settings(
    settings: DemoSettings, folder: Path, warmed: Path, created: str, arm: str
) -> SelfImproveSettings:
    """Settings of the second stage: self-improving, or one of the baselines."""
    own = SelfImproveSettings(
        pipeline=str(warmed),
        source="rooms:train",
        max_train_samples=settings.real,
        created=created,
        max_train_steps=settings.self_improve_steps,
        checkpointing_steps=settings.self_improve_steps,
        output_dir=str(_folder(folder, arm)),
        seed=settings.seed,
        subset_seed=settings.seed,
    )
    if arm not in BASELINES:
        return own
    dropout = own.feature_dropout if arm == DROPOUT else 0.0
    return replace(own, created="none", real_feature_dropout=dropout)


@contextmanager
def _in_another_process(
    baselines: Sequence[SelfImproveSettings],
) -> Iterator[Callable[[], list[Path]]]:
    """Train the baselines in a second process. Both processes have half of the threads each.

    Yields:
        A function that waits for the baselines.
    """
    before = torch.get_num_threads()
    threads = max(before // 2, 1)
    torch.set_num_threads(threads)
    with ProcessPoolExecutor(1, get_context("spawn"), begin, (threads,)) as pool:
        running = [pool.submit(self_improve, one) for one in baselines]
        try:
            yield lambda: [one.result() for one in running]
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(before)


def _folder(folder: Path, arm: str) -> Path:
    return folder / arm.replace(", ", "-")


@contextmanager
def _timed(act: str, seconds: dict[str, float]) -> Iterator[None]:
    print(f"\n== {act}", flush=True)
    start = time.perf_counter()
    yield
    seconds[act] = round(time.perf_counter() - start, 1)


def compare(folder: Path, held_out: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Score the warm-up, and theta_E and theta_C of all arms.

    Args:
        folder: folder of the demo.
        held_out: number of rooms to score on.

    Returns:
        The metrics of each model by task, and for each baseline the difference of self-improving
        from it in each task.
    """
    test = HeldOut("rooms:test", held_out)  # every seed of the demo has the same rooms
    models = {"warm-up": ("warm-up", "creation")}
    for arm in ARMS:
        models |= {f"{arm} theta_E": (arm, "exploitation"), f"{arm} theta_C": (arm, "creation")}
    sums, table = {}, {}
    for name, (arm, theta) in models.items():
        pipe = open_theta(str(_folder(folder, arm) / "pipeline"), theta)
        tasks, sums[name] = test.tasks(pipe), test.measure(pipe)
        table[name] = compute_metrics(
            tasks, {key: value.sum(0) for key, value in sums[name].items()}
        )
    improved = sums["self-improve theta_C"]
    verdict = {
        arm: {
            name: bootstrap(task, sums[f"{arm} theta_C"][name], improved[name])
            for name, task in tasks.items()
        }
        for arm in BASELINES
    }
    return table, verdict


def reopen(folder: Path) -> dict[str, Any]:
    """Open dataset and pipeline in a new process, and compare its predictions with those here."""
    file = folder / "reopened.npz"
    arguments = [str(folder / "dataset"), str(folder / "pipeline"), str(file)]
    subprocess.run([sys.executable, "-c", REOPEN, *arguments], check=True, capture_output=True)
    theirs = dict(np.load(file))
    file.unlink()
    count = int(theirs.pop("count"))
    image = open_source(f"dataset:{folder / 'dataset'}")[0].image
    ours = open_theta(str(folder / "pipeline"), "creation").predict(image).predictions
    identical = all(np.array_equal(theirs[name], maps[0]) for name, maps in ours.items())
    return {"rows": count, "identical": identical}


def show_created(folder: Path, dataset: Path, count: int = 6) -> None:
    """Draw preview.png: source images, the images created from them, and their labels."""
    created, rooms = open_source(f"dataset:{dataset}"), open_source("rooms:train")
    row_of = {rooms.identity(row): row for row in range(len(rooms))}
    rows = []
    for n in range(min(count, len(created))):
        sample = created[n]
        source = rooms[row_of[str(sample.provenance.source_id)]]
        labels = [task.family.colorize(sample.targets[k]) for k, task in created.tasks.items()]
        rows.append([source.image, sample.image, *labels])
    write_png(folder / PREVIEW, grid(rows))


def as_text(results: dict[str, Any], folder: Path) -> str:
    """Write the table, the difference between the arms, and the places of the results."""
    columns = {
        name: TASKS[name].meter.table_metrics for name in next(iter(results["table"].values()))
    }
    width = max(len(name) for name in results["table"])
    header = "; ".join(f"{name} {', '.join(metrics)}" for name, metrics in columns.items())
    lines = ["", f"held-out rooms: {header}"]
    for name, values in results["table"].items():
        cells = [values[task][one] for task, metrics in columns.items() for one in metrics]
        lines.append(f"{name:{width}}" + "".join(f"{cell:8.3f}" for cell in cells))
    lines += ["", "theta_C of self-improve; a difference is clear beyond 2 spreads over images:"]
    lines += [difference(arm, values) for arm, values in results["verdict"].items()]
    lines += [""]
    lines += [f"{act:22} {spent:6.1f} s" for act, spent in results["seconds"].items()]
    lines += [f"{'together':22} {sum(results['seconds'].values()):6.1f} s", ""]
    same = "identical" if results["reopened"]["identical"] else "DIFFERENT"
    lines.append(
        f"reopened in a new process: {results['reopened']['rows']} rows, predictions {same}"
    )
    lines.append(f"see {folder / 'preview.png'}, {folder / 'dataset'} and {folder / 'pipeline'}")
    return "\n".join(lines)


def difference(baseline: str, verdict: dict[str, Any]) -> str:
    """Describe the change from a baseline to self-improving, for theta_C of both."""
    parts = []
    for name, values in verdict.items():
        meter = TASKS[name].meter
        change, spread = (values[meter.headline][key] for key in ("difference", "spread"))
        better = (change > 0) == meter.higher_is_better(meter.headline)
        is_clear = abs(change) > 2 * spread
        word = ("better" if better else "worse") if is_clear else "no clear difference"
        parts.append(f"{name} {meter.headline} {change:+.4f} (spread {spread:.4f}): {word}")
    return f"  minus {baseline}: " + "; ".join(parts)
