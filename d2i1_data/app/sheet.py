"""A sheet: a sample on the page, its picture beside its labels and how sure they are."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

import hub_cards

from ..dataset.sample import Quality, Sample
from ..dataset.schema import from_row, to_row
from ..diff2in1.families import CONFIDENCE, Legend, encode_png
from ..tasks import Task

SMALL = 256  # pixels a side; smaller pictures are enlarged with their pixels sharp
CLASSES = 24  # that a legend lists
TOLD = ("strength", "steps", "guidance", "seed", "labels_from", "host")  # of provenance
SCORES = {"confidence": "confidence", "flip": "agreement when mirrored"}


def sheet(title: str, sample: Sample, tasks: Mapping[str, Task]) -> str:
    """A sample as HTML, with its pictures within: as it is stored, so that one who downloads and
    opens it finds what was shown. What it says is text and nothing else."""
    sample = from_row(to_row(sample, tasks), tasks)
    told = asdict(sample.provenance)
    facts = {key: told[key] for key in (TOLD if sample.provenance.steps else TOLD[-2:])}
    return hub_cards.render(
        "sheet.html.jinja",
        title=title,
        image=_address(encode_png(sample.image)),
        height=sample.size[0],
        width=sample.size[1],
        caption=sample.caption,
        unsure={"entries": [("", "sure"), ("", "unsure")], "ramp": "#000,#fff"},
        small=max(sample.size) < SMALL,
        facts={key.replace("_", " "): value for key, value in facts.items()},
        maps=[_map(sample, task) for task in tasks.values()],
    )


def _map(sample: Sample, task: Task) -> dict[str, Any]:
    """What the page shows of one task."""
    target, family = sample.targets[task.name], task.family
    unsure = 1 - np.asarray(sample.confidence[task.name], np.float32)
    quality = asdict(sample.quality.get(task.name, Quality()))
    legend = family.legend(target)
    return {
        "name": task.name.replace("_", " "),
        "label": _address(encode_png(family.colorize(target))),
        "legend": _legend(legend),
        "more": max(0, 0 if legend.ramp else len(legend.entries) - CLASSES),
        "unsure": family.unsure,
        "uncertainty": _address(encode_png(CONFIDENCE.colorize(unsure))),
        "scores": {
            SCORES[k]: f"{v:.2f}" for k, v in quality.items() if k in SCORES and v is not None
        },
    }


def _legend(legend: Legend) -> dict[str, Any]:
    def css(colour: tuple[int, ...]) -> str:
        return f"rgb({','.join(map(str, colour))})"

    return {
        "entries": [(css(colour), text) for colour, text in legend.entries[:CLASSES]],
        "ramp": ",".join(css(colour) for colour in legend.ramp),
    }


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode()}"
