"""Measure what ensembles of views predict on rooms, for docs/predicting.md.

python scripts/measure_ensembles.py --pipeline runs/demo/pipeline
"""

import argparse

import numpy as np
import torch
from numpy.typing import NDArray

from d2i1_data.checkpoints.pipelines import open_pipeline
from d2i1_data.inspection.judge import spearman
from d2i1_data.sources.rooms import Rooms
from d2i1_data.tasks import TASKS

NAMES = ("normals", "depth", "semseg")


def main() -> None:
    """Print a Markdown table: mean error, and in brackets its rank correlation with uncertainty."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pipeline", required=True)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--split", default="test")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pipe, rooms = open_pipeline(options.pipeline), Rooms(options.split)
    samples = [rooms[n] for n in range(options.images)]
    print(f"| `ensemble_size` | {' | '.join(NAMES)} |\n|---|---|---|---|")
    for size in (1, 2, 4):
        output = pipe.predict([sample.image for sample in samples], ensemble_size=size)
        cells = []
        for name in NAMES:
            found, unsure = [], []
            for n, sample in enumerate(samples):
                truth = np.asarray(sample.targets[name])
                wrong, known = errors(name, output.predictions[name][n], truth)
                found.append(wrong[known])
                unsure.append(output.uncertainty[name][n][known])
            error, doubt = np.concatenate(found), np.concatenate(unsure)
            cells.append(f"{error.mean():.4f} ({spearman(doubt, error):.2f})")
        print(f"| {size} | {' | '.join(cells)} |", flush=True)


def errors(
    name: str, prediction: NDArray[np.generic], truth: NDArray[np.generic]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The error of every pixel, and where the truth is known: degrees, relative, 1 if wrong."""
    family = TASKS[name].family
    one, other = (family.to_tensor(each)[None] for each in (prediction, truth))
    known = family.valid(other)
    if name == "normals":
        cosine = (one * other).sum(1, keepdim=True).clamp(-1, 1)
        error = torch.rad2deg(torch.acos(cosine))
    elif name == "depth":
        error = (one - other).abs() / torch.where(known, other, 1.0)
    else:
        error = (one != other).float()
    return error[0, 0].double().numpy(), known[0, 0].numpy()


if __name__ == "__main__":
    main()
