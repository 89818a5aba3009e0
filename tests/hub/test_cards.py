"""Metadata of cards: what is valid, what is said of the rest."""

import json
from typing import Any

import pytest
import yaml
from huggingface_hub import (
    DatasetCard,
    DatasetCardData,
    EvalResult,
    HfApi,
    ModelCard,
    ModelCardData,
    SpaceCard,
)

from tests.hub import Hub
from tests.hub.calls import Ask


def card(data: Any) -> str:
    return f"---\n{yaml.safe_dump(data)}---\n# A card\n"


def result(**changed: Any) -> dict[str, Any]:
    """A model-index of one result."""
    measured = {
        "task": {"type": "depth-estimation"},
        "dataset": {"type": "alice/rooms", "name": "Rooms", "split": "test"},
        "metrics": [{"type": "abs_rel", "value": 0.1}],
    }
    return {"model-index": [{"name": "m", "results": [{**measured, **changed}]}]}


FEATURES = [{"name": "image", "dtype": "image"}]
SPLITS = [{"name": "train", "num_bytes": 10, "num_examples": 1}]
VALID = [
    ("model", {}),
    ("model", {"license": "openrail++", "language": ["en", "code"], "tags": ["lora", "a b"]}),
    ("model", {"base_model": "a/b", "base_model_relation": "adapter", "datasets": ["a/b"]}),
    ("model", {"pipeline_tag": "depth-estimation", "library_name": "diffusers", "own_key": 1}),
    ("model", result()),
    ("model", result(source={"url": "https://a.b", "name": "a"})),
    ("dataset", {"size_categories": "n<1K", "task_ids": ["semantic-segmentation"]}),
    ("dataset", {"source_datasets": ["original", "extended|a/b"], "license": ["mit", "other"]}),
    ("dataset", {"annotations_creators": ["machine-generated"], "pretty_name": "Rooms"}),
    ("dataset", {"configs": [{"config_name": "default", "data_files": "data/*.parquet"}]}),
    ("dataset", {"dataset_info": {"features": FEATURES, "splits": SPLITS, "download_size": 3}}),
    ("dataset", {"dataset_info": [{"config_name": "a"}, {"config_name": "b"}]}),
    ("space", {"title": "a", "sdk": "gradio", "app_file": "app.py", "colorFrom": "red"}),
]


@pytest.mark.parametrize(("repo_type", "data"), VALID)
def test_valid(ask: Ask, repo_type: str, data: dict[str, Any]) -> None:
    answer = ask("POST", "/api/validate-yaml", json={"content": card(data), "repoType": repo_type})
    assert (answer.status_code, answer.json()["errors"]) == (200, [])
    assert bool(answer.json()["warnings"]) == (data == {})


SPLIT = {"split": "train", "path": 1}
WRONG = [
    ("model", {"license": "free"}, '"license" must be one of [apache-2.0, mit, '),
    ("model", {"license": ["mit", "free"]}, '"license[1]" must be one of'),
    ("model", {"language": "english"}, "\"language\" with value 'english' is not valid"),
    ("model", {"language": ["en", "DE"]}, "\"language[1]\" with value 'DE' is not valid"),
    ("model", {"tags": "lora"}, '"tags" must be an array'),
    ("model", {"tags": ["lora", 1]}, '"tags[1]" must be a string'),
    ("model", {"tags": ["x" * 129]}, '"tags[0]" must have between 1 and 128 characters'),
    ("model", {"pipeline_tag": "surface-normals"}, '"pipeline_tag" must be one of'),
    ("model", {"base_model": "../base"}, '"base_model" with value'),
    ("model", {"base_model": "/home/me/base"}, '"base_model" with value'),
    ("model", {"base_model_relation": "lora"}, '"base_model_relation" must be one of'),
    ("model", {"datasets": ["rooms: train"]}, '"datasets[0]" with value'),
    ("model", {"model-index": "m"}, '"model-index" must be an array'),
    ("model", {"model-index": [{"name": "m"}]}, '"model-index[0].results" is required'),
    ("model", result(task={"type": "normals"}), '.task.type" must be one of'),
    ("model", result(task=None), '.task" is required'),
    ("model", result(dataset={"type": "a/b"}), '.dataset.name" is required'),
    ("model", result(metrics=[{"type": "mse"}]), '.metrics[0].value" is required'),
    ("model", result(source={"name": "a"}), '.source.url" is required'),
    ("dataset", {"size_categories": ["7"]}, '"size_categories[0]" must be one of [n<1K, '),
    ("dataset", {"task_categories": ["normals"]}, '"task_categories[0]" must be one of'),
    ("dataset", {"task_ids": ["depth-estimation"]}, '"task_ids[0]" must be one of'),
    ("dataset", {"annotations_creators": "robot"}, '"annotations_creators" must be one of'),
    ("dataset", {"language_creators": ["no-annotation"]}, '"language_creators[0]" must be one of'),
    ("dataset", {"multilinguality": "many"}, '"multilinguality" must be one of'),
    ("dataset", {"source_datasets": ["copied from b"]}, '"source_datasets[0]" with value'),
    ("dataset", {"configs": {"config_name": "a"}}, '"configs" must be an array'),
    ("dataset", {"configs": [{"data_files": "a"}]}, '"configs[0].config_name" is required'),
    (
        "dataset",
        {"configs": [{"config_name": "a", "data_files": [SPLIT]}]},
        '"configs[0].data_files[0].path" must be a string',
    ),
    ("dataset", {"dataset_info": "a"}, '"dataset_info" must be an object'),
    ("dataset", {"dataset_info": {"features": "a"}}, '"dataset_info.features" must be an array'),
    (
        "dataset",
        {"dataset_info": {"splits": [{"name": "a", "num_examples": "1"}]}},
        '"dataset_info.splits[0].num_examples" must be a number',
    ),
    ("space", {"sdk": "flask"}, '"sdk" must be one of [gradio, '),
    ("space", {"colorTo": "black"}, '"colorTo" must be one of'),
    ("space", {"pinned": "yes"}, '"pinned" must be a boolean'),
    ("model", ["a"], '"metadata" must be an object'),
]


@pytest.mark.parametrize(("repo_type", "data", "said"), WRONG, ids=[said for *_, said in WRONG])
def test_wrong(ask: Ask, repo_type: str, data: Any, said: str) -> None:
    answer = ask("POST", "/api/validate-yaml", json={"content": card(data), "repoType": repo_type})
    errors = [error["message"] for error in answer.json()["errors"]]
    assert (answer.status_code, len(errors), said in errors[0]) == (400, 1, True), errors


def test_invalid_yaml(ask: Ask) -> None:
    content = "---\na: [\n---\n"
    answer = ask("POST", "/api/validate-yaml", json={"content": content, "repoType": "model"})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["message"].startswith("YAML: while parsing")


def test_objects_cannot_be_made_by_yaml(ask: Ask) -> None:
    content = "---\na: !!python/object/apply:os.getcwd []\n---\n"
    answer = ask("POST", "/api/validate-yaml", json={"content": content, "repoType": "model"})
    assert answer.status_code == 400


def test_cards_of_models(hub: Hub, api: HfApi) -> None:
    api.create_repo("alice/m")
    measured = EvalResult("depth-estimation", "alice/rooms", "Rooms", "abs_rel", 0.1)
    data = ModelCardData(license="mit", model_name="m", eval_results=[measured])
    good = ModelCard(f"---\n{data.to_yaml()}\n---\n# m\n")
    good.validate()
    good.push_to_hub("alice/m")
    loaded = ModelCard.load("alice/m")
    assert loaded.data.eval_results[0].metric_value == 0.1
    assert loaded.text.strip() == "# m"

    bad = ModelCard(card({"license": "free"}))
    with pytest.raises(ValueError, match="must be one of") as raised:
        bad.validate()
    assert json.loads(str(raised.value))["errors"]
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        api.upload_file(
            path_or_fileobj=str(bad).encode(), path_in_repo="README.md", repo_id="alice/m"
        )
    assert hub.repo("alice/m").commits[0].title == "Upload README.md with huggingface_hub"
    assert b"license: mit" in hub.files("alice/m")["README.md"]


def test_cards_of_datasets_and_spaces(hub: Hub, api: HfApi) -> None:
    api.create_repo("alice/d", repo_type="dataset")
    api.create_repo("alice/s", repo_type="space", space_sdk="gradio")
    data = DatasetCardData(size_categories=["n<1K"], task_categories=["depth-estimation"])
    DatasetCard(f"---\n{data.to_yaml()}\n---\n").push_to_hub("alice/d", repo_type="dataset")
    SpaceCard(card({"sdk": "gradio", "title": "s"})).push_to_hub("alice/s", repo_type="space")
    assert api.dataset_info("alice/d").card_data.size_categories == ["n<1K"]
    space = api.space_info("alice/s")
    assert (space.sdk, space.card_data.title) == ("gradio", "s")


def test_a_card_without_metadata_draws_a_warning(hub: Hub, api: HfApi) -> None:
    api.create_repo("alice/m")
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        api.upload_file(path_or_fileobj=b"# m", path_in_repo="README.md", repo_id="alice/m")
    assert hub.files("alice/m")["README.md"] == b"# m"
