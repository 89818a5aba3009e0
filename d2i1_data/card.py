"""The cards of datasets and checkpoints, filled from what was really made."""

import json
from collections.abc import Mapping
from dataclasses import fields
from itertools import chain, islice
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets.info import DatasetInfo, DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCardData, ModelCardData

import hub_cards

from .diff2in1.families import LabelMap
from .preview import preview
from .sample import Quality
from .schema import FEATURES, from_row
from .tasks import Task
from .write import dataset_shards, write_text

PREVIEWS = 8

SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}


def write_card(folder: Path, act: str, tasks: Mapping[str, Task], facts: Mapping[str, Any]) -> None:
    """Write README.md and preview.png of a dataset folder whose shards are complete."""
    shards = (pq.ParquetFile(shard) for shard in dataset_shards(folder))
    groups = chain.from_iterable(shard.iter_batches(PREVIEWS) for shard in shards)
    rows = list(islice(chain.from_iterable(group.to_pylist() for group in groups), PREVIEWS))
    preview([from_row(row, tasks) for row in rows], tasks).save(folder / "preview.png")
    write_text(folder / "README.md", dataset_card(folder, act, tasks, facts))


def dataset_card(
    folder: Path, act: str, tasks: Mapping[str, Task], facts: Mapping[str, Any]
) -> str:
    """The text of README.md: metadata for the Hub, then what people want to know.

    act: `import`, `label` or `create`, because truth must not be called a model's opinion, nor one
    that was imported truth.
    """
    title = f"Diff-2-in-1: {', '.join(tasks)}"
    shards = dataset_shards(folder)
    count = sum(pq.read_metadata(shard).num_rows for shard in shards)
    columns = pq.read_table(shards, columns=["quality", "provenance"])
    shown = [_task(task, columns["quality"]) for task in tasks.values()]
    kinds = pc.struct_field(columns["provenance"], "kind")
    created = pc.sum(pc.equal(kinds, "created")).as_py() or 0
    body = _render(
        "dataset.md.jinja",
        title=title,
        count=count,
        created=created,
        act=act,
        tasks=shown,
        facts=facts,
        load_path=folder.name,
    )
    licences = pc.struct_field(columns["provenance"], "licence").unique().to_pylist()
    made = ["synthetic"] if created else []
    data = DatasetCardData(
        pretty_name=title,
        license=(licences[0] if len(licences) == 1 else None) or "other",
        annotations_creators=["machine-generated"] if made else ["other"],
        size_categories=[next((v for k, v in SIZES.items() if count < k), "n>1M")],
        task_categories=sorted({c for task in tasks.values() for c in task.categories}),
        tags=[*made, "diff2in1", *sorted({tag for t in tasks.values() for tag in t.tags})],
    )
    size = sum(shard.stat().st_size for shard in shards)
    splits = SplitDict({"train": SplitInfo("train", num_bytes=size, num_examples=count)})
    info = DatasetInfo(features=FEATURES, splits=splits, download_size=size, dataset_size=size)
    DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    configs = {"data_files": [{"split": "train", "path": "data/train-*.parquet"}]}
    MetadataConfigs({"default": configs}).to_dataset_card_data(data)
    return f"---\n{data.to_yaml()}\n---\n\n{body}"


def write_model_card(
    folder: Path,
    name: str,
    tasks: Mapping[str, Task],
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """README.md of a saved pipeline or adapter.

    name: what it is opened by. config: the pipeline's. facts: of its training.
    """
    title = f"Diff-2-in-1: {', '.join(tasks)}"
    index = json.loads((folder / "model_index.json").read_text())
    adapter = "unet" not in index
    data = ModelCardData(
        library_name="diffusers",
        model_name=title,
        base_model=config["base"] if "/" in str(config["base"]) else None,
        base_model_relation="adapter" if adapter else None,
        pipeline_tag="image-to-image",
        tags=[
            "diff2in1",
            *(["lora"] if adapter else []),
            *sorted({tag for t in tasks.values() for tag in t.tags}),
        ],
    )
    body = _render(
        "model.md.jinja",
        title=title,
        tasks=[_described(task) for task in tasks.values()],
        base=config["base"],
        host=index["perception"][1],
        adapter=adapter,
        trained_unet=config["trained_unet"],
        create_with=config["default_create_with"],
        strength=config["default_strength"],
        load_path=name,
        facts=facts,
    )
    write_text(folder / "README.md", f"---\n{data.to_yaml()}\n---\n\n{body}")


def _render(template: str, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(hub_cards.FOLDER), undefined=jinja2.StrictUndefined
    )
    return environment.get_template(template).render(**values)


def _described(task: Task) -> dict[str, Any]:
    """What templates say of a task itself."""
    names = task.family.names if isinstance(task.family, LabelMap) else None
    own = {"name": task.name, "sentence": task.sentence, "names": names}
    return own | {"unsure": task.family.unsure}


def _task(task: Task, quality: pa.ChunkedArray) -> dict[str, Any]:
    """A task and its mean quality."""

    def mean(score: str) -> str:
        known = pc.mean(pc.struct_field(quality, [task.name, score])).as_py()
        return "not measured" if known is None else f"{known:.3f}"

    return _described(task) | {score.name: mean(score.name) for score in fields(Quality)}
