"""A sample on the page: its image, its labels and their uncertainty, as HTML."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

import hub_cards

from ..dataset.sample import Quality, Sample
from ..dataset.schema import Schema
from ..diff2in1.families import CONFIDENCE, Legend, encode_png
from ..tasks import Task

SMALL = 256  # pixels; images with shorter sides are enlarged with sharp pixels
MAX_CLASSES = 24  # classes in a legend
LABEL_FACTS = ("labels_from", "host")  # fields of the provenance
CREATION_FACTS = ("strength", "steps", "guidance", "seed", *LABEL_FACTS)
SCORES = {"confidence": "confidence", "flip": "agreement when mirrored"}


def sample_html(title: str, sample: Sample, tasks: Mapping[str, Task]) -> str:
    """A sample as HTML that contains its pictures.

    The sample is shown as it is stored, so a downloaded row looks the same. All text is escaped.

    Args:
        title: the headline of the sample.
        sample: a sample with maps of confidence.
        tasks: the tasks to show, by name.
    """
    schema = Schema.of(tasks, confidence=True)
    sample = schema.from_row(schema.to_row(sample))
    provenance = asdict(sample.provenance)
    facts = CREATION_FACTS if sample.provenance.steps else LABEL_FACTS
    return hub_cards.render(
        "sample_view.html.jinja",
        title=title,
        image=_data_url(encode_png(sample.image)),
        height=sample.size[0],
        width=sample.size[1],
        caption=sample.caption,
        uncertainty={"entries": [("", "certain"), ("", "uncertain")], "ramp": "#000,#fff"},
        small=max(sample.size) < SMALL,
        facts={key.replace("_", " "): provenance[key] for key in facts},
        maps=[_map(sample, task) for task in tasks.values()],
    )


def _map(sample: Sample, task: Task) -> dict[str, Any]:
    """The values that the template shows for a task."""
    target, family = sample.targets[task.name], task.family
    uncertainty = 1 - np.asarray(sample.confidence[task.name], np.float32)
    quality = asdict(sample.quality.get(task.name, Quality()))
    legend = family.legend(target)
    return {
        "name": task.name.replace("_", " "),
        "label": _data_url(encode_png(family.colorize(target))),
        "legend": _legend(legend),
        "more": max(0, 0 if legend.ramp else len(legend.entries) - MAX_CLASSES),
        "measure": family.unsure,
        "uncertainty": _data_url(encode_png(CONFIDENCE.colorize(uncertainty))),
        "scores": {
            SCORES[k]: f"{v:.2f}" for k, v in quality.items() if k in SCORES and v is not None
        },
    }


def _legend(legend: Legend) -> dict[str, Any]:
    def css(colour: tuple[int, ...]) -> str:
        return f"rgb({','.join(map(str, colour))})"

    return {
        "entries": [(css(colour), text) for colour, text in legend.entries[:MAX_CLASSES]],
        "ramp": ",".join(css(colour) for colour in legend.ramp),
    }


def _data_url(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode()}"
