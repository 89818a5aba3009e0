"""Measure the images that schedulers create on rooms.

python scripts/measure_schedulers.py --images 96
"""

import argparse
import json
from pathlib import Path

import torch

from d2i1_data.checkpoints.bases import find_base
from d2i1_data.diff2in1 import HOSTS, Diff2in1Pipeline
from d2i1_data.diff2in1.families import CONFIDENCE
from d2i1_data.diff2in1.schedulers import SCHEDULERS, choose_scheduler
from d2i1_data.sources.rooms import Rooms
from d2i1_train.scratch.generation import Generation

CALLS = (5, 10, 15, 25, 50)


def main() -> None:
    """Print a Markdown table with a row for each scheduler and number of calls."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="rooms")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--guidance_scale", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output_file", type=Path, help="JSON; what it has is not measured again")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    # the labels are not used, so the host is not trained
    task = {"unused": CONFIDENCE.config()}
    pipe = Diff2in1Pipeline.from_base(find_base(options.base), next(iter(HOSTS)), task, width=16)
    pipe.set_progress_bar_config(disable=True)
    pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    generation = Generation(Rooms("test"), options.images, pipe.stride)
    found: dict[str, dict[str, float]] = {}
    if options.output_file and options.output_file.is_file():
        found = json.loads(options.output_file.read_text())
    found["real"] = generation.real()
    print("| | calls | Fréchet, 0.6 | Fréchet, 1 | obeyed |\n|---|---|---|---|---|")
    for name in SCHEDULERS:
        choose_scheduler(pipe, name)
        for calls in CALLS:
            generation.calls, key = calls, f"{name}, {calls}"
            if key not in found:
                varied, _ = generation.vary(pipe, "base")
                invented, _ = generation.invent(pipe, options.guidance_scale, "base")
                found[key] = varied | invented
            end = f"at_1_guidance_{options.guidance_scale:g}"
            names = ("frechet_at_0.6", f"frechet_{end}", f"probe_{end}")
            values = " | ".join(f"{found[key][one]:g}" for one in names)
            print(f"| `{name}` | {calls} | {values} |", flush=True)
            if options.output_file:
                options.output_file.write_text(json.dumps(found, indent=2))
    print(json.dumps(found["real"]))


if __name__ == "__main__":
    main()
