"""The card of a pipeline or an adapter, made from its folder and from measured results."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from ..checkpoints.files import read_index
from ..checkpoints.training_record import (
    Stage,
    TrainingRecord,
    TrainingRows,
    read_training,
)
from ..dataset.files import write_text
from ..dataset.preview import PREVIEW
from ..dataset.schema import read_tasks
from ..tasks import Task
from . import command, licence
from .links import Links
from .results import Results, model_index, read_results, tables, tables_of_classes
from .text import (
    Markdown,
    address,
    citations,
    code,
    comma_list,
    host_name,
    is_repository,
    render,
    title,
)


def write_model_card(folder: Path, links: Links | None = None) -> None:
    """Write README.md of a saved pipeline or adapter."""
    write_text(folder / "README.md", model_card(folder, links))


def model_card(folder: Path, links: Links | None = None, results: Sequence[Path] = ()) -> str:
    """The text of README.md: metadata for the Hub, then text for people.

    Args:
        folder: a saved pipeline or adapter.
        links: repositories that the card names.
        results: files that `d2i1 evaluate --output_file` wrote for this checkpoint, or the
            `results.json` of a demo.

    Raises:
        InputError: if results belong to another checkpoint, or a file of the folder is not ours.
    """
    links = links or Links()
    index = read_index(folder, "pipeline")
    perception = json.loads((folder / "perception" / "config.json").read_text())
    tasks = read_tasks(perception["tasks"], str(folder))
    training = read_training(folder)
    measured = [read_results(file, folder) for file in results]
    base, host = index.get("base"), host_name(str(index["perception"][1]))
    stages = training.stages
    validation = stages[-1].validation if stages else None
    body = render(
        "model.md.jinja",
        folder,
        links,
        tasks,
        base=base,
        findable=is_repository(base) or bool(training.base_embedded),
        published=is_repository(base),
        host=host,
        adapter="unet" not in index,
        trained_unet=index.get("trained_unet", "none"),
        create_with=index.get("default_create_with", "base"),
        strength=index.get("default_strength", 0.6),
        resolution=index.get("default_processing_resolution"),
        predicted=[[code(n), Markdown(t.sentence), t.family.unsure] for n, t in tasks.items()],
        stages=[stage.stage for stage in stages],
        training=_training(stages),
        sources=list(dict.fromkeys(stage.source.name for stage in stages)),
        commands=[_command(stage) for stage in stages],
        leaks=[one for stage in stages if (one := stage.created) and one.held_out],
        pictured=[*(validation.tasks if validation else tasks)],
        validated=validation is not None,
        preview=(folder / PREVIEW).is_file(),
        results=tables(measured, validation),
        class_results=tables_of_classes(measured),
        licence=training.base_licence,
        format_version=index.get("format_version"),
        citations=citations([base] if base else [], [host]),
    )
    data = _metadata(tasks, index, training, links, measured)
    if (folder / PREVIEW).is_file():
        data["thumbnail"] = address(links.name, "", PREVIEW)
    return f"---\n{data.to_yaml()}\n---\n\n{body}"


def _metadata(
    tasks: Mapping[str, Task],
    index: Mapping[str, Any],
    training: TrainingRecord,
    links: Links,
    measured: Sequence[Results],
) -> ModelCardData:
    """Metadata for the Hub. The arXiv id is not part of it: the Hub finds the link in the text."""
    adapter, base = "unet" not in index, index.get("base")
    on_hub = is_repository(base)
    trained = index.get("trained_unet", "none") != "none"
    # The Hub has no word for an unchanged base. Without a relation it assumes a finetune.
    relation = "adapter" if adapter else "finetune" if trained else None
    stages = training.stages
    used = [rows.name for stage in stages for rows in (stage.source, stage.created) if rows]
    own = links.dataset if any(stage.created for stage in stages) else None
    datasets = dict.fromkeys(filter(None, (own, *filter(is_repository, used))))
    results = model_index(measured, tasks)
    return ModelCardData(
        library_name="diffusers",
        pipeline_tag=_pipeline_tag(tasks),
        model_name=title(tasks, links.name) if results else None,
        eval_results=results or None,
        base_model=base if on_hub else None,
        base_model_relation=relation if on_hub else None,
        datasets=list(datasets) or None,
        tags=[
            "diff2in1",
            *(["lora"] if adapter else []),
            *sorted({tag for task in tasks.values() for tag in task.tags}),
        ],
        **licence.metadata([training.base_licence]),
    )


def _pipeline_tag(tasks: Mapping[str, Task]) -> str:
    """The task of the Hub if all our tasks belong to the same one, otherwise image-to-image."""
    (first, *more) = {task.categories[0] for task in tasks.values()}
    return "image-to-image" if more or first == "other" else first


def _command(stage: Stage) -> str:
    """The command of a stage; its output folder has the name of the stage."""
    return command.shell_command(stage.stage, [*stage.command, "--output_dir", stage.stage])


def _training(stages: Sequence[Stage]) -> list[list[str]]:
    """Data and length of the training: one row for each fact, one column for each stage."""
    facts: dict[str, list[str]] = {
        "real data": [_data(stage.source) for stage in stages],
        "created data": [_data(stage.created) for stage in stages],
        "steps": [f"{stage.steps:,}" for stage in stages],
        "samples drawn": [
            ", ".join(f"{n:,} {kind}" for kind, n in stage.seen.items()) for stage in stages
        ],
        "processes": [str(stage.processes) for stage in stages],
        "versions": [
            comma_list(f"{name} {number}" for name, number in stage.versions.items())
            for stage in stages
        ],
    }
    return [[name, *cells] for name, cells in facts.items() if any(cells)]


def _data(rows: TrainingRows | None) -> str:
    """One source of training data; empty if there is none."""
    if rows is None:
        return ""
    split = f", split {rows.split}" if rows.split is not None else ""
    licence = f", licence {rows.licence}" if rows.licence is not None else ""
    return f"{rows.name}{split}, {rows.rows:,} samples{licence}"
