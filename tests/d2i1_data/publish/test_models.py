"""Published pipelines, adapters, Spaces and whole runs."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard, HfApi, ModelCard

from d2i1_data.publish.publish import publish
from d2i1_data.publish.settings import PublishSettings
from tests.hub import Hub
from tests.made import run

ROOT = Path(__file__).resolve().parents[3]
D2i1 = Callable[..., str]


def test_a_pipeline_arrives_as_it_is(hub: Hub, d2i1: D2i1, pipeline: Path) -> None:
    assert d2i1("publish", "--pipeline", pipeline, "--repo_id", "alice/model").split() == [
        f"{hub.url}/alice/model"
    ]
    files = hub.files("alice/model")
    for file in (one for one in pipeline.rglob("*") if one.is_file() and one.name != "README.md"):
        assert files[file.relative_to(pipeline).as_posix()] == file.read_bytes()
    assert 'from_pretrained("alice/model"' in ModelCard.load("alice/model").text


def test_a_model_is_updated(hub: Hub, pipeline: Path, tmp_path: Path) -> None:
    """Old files of components are deleted; checkpoints that training pushed stay."""
    folder = shutil.copytree(pipeline, tmp_path / "model")
    (folder / "unet" / "more.safetensors").write_bytes(b"more")
    run("publish", "--pipeline", folder, "--repo_id", "model")
    HfApi().upload_file(
        path_or_fileobj=b"{}", path_in_repo="checkpoint-1/counters.json", repo_id="alice/model"
    )
    run("publish", "--pipeline", pipeline, "--repo_id", "model")
    files = hub.files("alice/model")
    assert "unet/more.safetensors" not in files and "checkpoint-1/counters.json" in files


def test_less_does_not_replace_a_whole_pipeline(
    hub: Hub, d2i1: D2i1, pipeline: Path, tmp_path: Path
) -> None:
    run("publish", "--pipeline", pipeline, "--repo_id", "model")
    before = hub.files("alice/model")
    folder = shutil.copytree(pipeline, tmp_path / "linked")
    (folder / "vae").rename(tmp_path / "vae")
    (folder / "vae").symlink_to(tmp_path / "vae")
    run("publish", "--pipeline", folder, "--repo_id", "model")  # through the link
    assert hub.files("alice/model").keys() == before.keys()
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    output = d2i1("publish", "--pipeline", folder, "--repo_id", "model", code=2)
    assert "linked: vae/*.safetensors missing" in output
    (folder / "vae").unlink()
    output = d2i1("publish", "--pipeline", folder, "--repo_id", "model", code=2)
    assert "linked: vae/*.safetensors missing" in output
    (folder / "unet" / "more.safetensors").symlink_to(tmp_path / "nothing")
    assert "is a broken link" in d2i1("publish", "--pipeline", folder, "--repo_id", "model", code=2)
    assert hub.files("alice/model").keys() == before.keys()


def test_a_readme_of_their_own_is_not_replaced(hub: Hub, d2i1: D2i1, pipeline: Path) -> None:
    for name, text, code in (("a", "---\nlicense: mit\n---\n", 0), ("b", "# My own text", 2)):
        HfApi().create_repo(f"alice/{name}")
        HfApi().upload_file(
            path_or_fileobj=text.encode(), path_in_repo="README.md", repo_id=f"alice/{name}"
        )
        d2i1("publish", "--pipeline", pipeline, "--repo_id", name, code=code)
    assert hub.files("alice/b")["README.md"] == b"# My own text"


def test_a_file_that_the_hub_ignores_is_an_error(
    hub: Hub, d2i1: D2i1, created: Callable[..., Path]
) -> None:
    HfApi().create_repo("alice/rooms", repo_type="dataset")
    HfApi().upload_file(
        path_or_fileobj=b"*.png\n",
        path_in_repo=".gitignore",
        repo_id="alice/rooms",
        repo_type="dataset",
    )
    flags = ("--repo_id", "rooms", "--overwrite")
    output = d2i1("publish", created(0), *flags, code=2)
    assert "did not accept preview.png; does its .gitignore name it?" in output


def test_somebody_elses_repository_is_refused(
    hub: Hub, d2i1: D2i1, pipeline: Path, created: Callable[..., Path]
) -> None:
    api = HfApi()
    api.create_repo("alice/bert")
    api.upload_file(path_or_fileobj=b"1", path_in_repo="weights.bin", repo_id="alice/bert")
    output = d2i1("publish", "--pipeline", pipeline, "--repo_id", "alice/bert", code=2)
    assert "alice/bert holds weights.bin, and no model_index.json of ours" in output
    index = b'{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "U"]}'
    api.upload_file(path_or_fileobj=index, path_in_repo="model_index.json", repo_id="alice/bert")
    output = d2i1("publish", "--pipeline", pipeline, "--repo_id", "alice/bert", code=2)
    assert "holds a StableDiffusionPipeline" in output
    assert len(hub.repo("alice/bert").commits) == 3
    run("publish", "--pipeline", pipeline, "--repo_id", "alice/bert", "--overwrite")
    assert "weights.bin" in hub.files("alice/bert")

    api.create_repo("alice/texts", repo_type="dataset")
    api.upload_file(
        path_or_fileobj=b"a", path_in_repo="a.txt", repo_id="alice/texts", repo_type="dataset"
    )
    output = d2i1("publish", created(0), "--repo_id", "alice/texts", code=2)
    assert "datasets/alice/texts holds a.txt, and no diff2in1.json of ours" in output


def test_a_space_shows_the_pipeline(hub: Hub, d2i1: D2i1, pipeline: Path) -> None:
    output = d2i1("publish", "--pipeline", pipeline, "--space", "--repo_id", "model").split()
    assert output == [f"{hub.url}/alice/model", f"{hub.url}/spaces/alice/model"]
    files, space = hub.files("alice/model", "space"), hub.repo("alice/model", "space")
    assert space.sdk == "gradio" and len(space.commits) == 2
    picture = b"thumbnail: https://huggingface.co/alice/model/resolve/main/preview.png"
    assert picture in files["README.md"] and "preview.png" in hub.files("alice/model")
    assert b'"alice/model"' in files["app.py"] and b"models:\n- alice/model" in files["README.md"]
    assert files["d2i1_data/app/app.py"] == (ROOT / "d2i1_data/app/app.py").read_bytes()
    assert "spaces/alice/model" in ModelCard.load("alice/model").text

    api = HfApi()
    api.create_repo("alice/theirs", repo_type="space", space_sdk="gradio")
    api.upload_file(
        path_or_fileobj=b"years of work",
        path_in_repo="app.py",
        repo_id="alice/theirs",
        repo_type="space",
    )
    flags = ("--pipeline", "alice/model", "--space", "--repo_id", "theirs")
    assert "spaces/alice/theirs holds app.py" in d2i1("publish", *flags, code=2)
    assert hub.files("alice/theirs", "space")["app.py"] == b"years of work"

    api.upload_file(
        path_or_fileobj=b"", path_in_repo="d2i1_data/old.py", repo_id=space.name, repo_type="space"
    )
    output = d2i1("publish", "--pipeline", "alice/model", "--space", "--repo_id", "model")
    assert output.split() == [f"{hub.url}/spaces/alice/model"]  # the pipeline is there already
    assert hub.files("alice/model", "space") == files


def test_private_is_private(hub: Hub, d2i1: D2i1, created: Callable[..., Path]) -> None:
    run("publish", created(0), "--repo_id", "hidden", "--private")
    assert hub.repo("alice/hidden", "dataset").private
    run("publish", created(0), "--repo_id", "open")
    output = d2i1("publish", created(0), "--repo_id", "open", "--private", code=2)
    assert "datasets/alice/open exists and is public" in output
    flags = ("--repo_id", "open", "--private", "--dry_run")
    assert "exists and is public" in d2i1("publish", created(0), *flags, code=2)
    run("publish", created(0), "--repo_id", "hidden")  # an existing repository stays private
    assert hub.repo("alice/hidden", "dataset").private
    assert not hub.repo("alice/open", "dataset").private


def test_a_dry_run_sends_nothing(hub: Hub, d2i1: D2i1, created: Callable[..., Path]) -> None:
    flags = ("--repo_id", "rooms", "--dry_run", "--private")
    output = d2i1("publish", created(0), *flags)
    size = (created(0) / "data" / "train-00000.parquet").stat().st_size
    assert output.startswith("datasets/alice/rooms (new, private): ")
    assert f"add     data/train-00000.parquet  {size:,}" in output
    assert "run.json" not in output
    assert all(entry.method == "GET" for entry in hub.log)
    run("publish", created(0), "--repo_id", "rooms")
    assert "(exists): 0 files" in d2i1("publish", created(0), "--repo_id", "rooms", "--dry_run")
    output = d2i1("publish", created(1), "--repo_id", "rooms", "--overwrite", "--dry_run")
    assert "replace data/train-00000.parquet" in output


# --- the folder of a run ---


@pytest.fixture(scope="module")
def lora_run(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warm-up with a LoRA, and a dataset its pipeline created, in one folder."""
    folder = tmp_path_factory.mktemp("run") / "lora"
    source = ("--source", "rooms:train", "--max_train_samples", 2, "--resolution", 32)
    train = ("--train_unet", "lora", "--rank", 2, "--max_train_steps", 1, "--real_batch_size", 2)
    host = ("--host", "light", "--width", 16, "--tasks", "normals,depth", "--report_to", "none")
    run("warm-up", "--base", tiny_base, *source, *host, *train, "--output_dir", folder)
    source = ("--source", "rooms:train", "--max_source_samples", 2, "--resolution", 32)
    made = ("--num_inference_steps", 1, "--output_dir", folder / "dataset")
    run("create", "--pipeline", folder / "pipeline", *source, *made)
    return folder


def test_all_of_a_run_is_linked(hub: Hub, d2i1: D2i1, lora_run: Path) -> None:
    output = d2i1("publish", "--run", lora_run, "--repo_id", "alice/all").split()
    ends = ["datasets/alice/all", "alice/all-adapter", "alice/all"]
    assert output == [f"{hub.url}/{end}" for end in ends]
    cards = {
        "dataset": DatasetCard.load("alice/all"),
        "adapter": ModelCard.load("alice/all-adapter"),
        "model": ModelCard.load("alice/all"),
    }
    assert "alice/all-adapter" in cards["model"].text
    assert "datasets/alice/all" in cards["model"].text + cards["adapter"].text
    assert "alice/all" in cards["dataset"].text
    assert "lora" in cards["adapter"].data.tags
    output = d2i1("publish", "--adapter", lora_run / "adapter", "--repo_id", "alice/all", code=2)
    assert "alice/all holds a whole pipeline" in output


def test_errors_come_before_anything_is_sent(
    hub: Hub, d2i1: D2i1, lora_run: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(lora_run, tmp_path / "broken")
    (broken / "pipeline" / "model_index.json").write_text('{"_class_name": "Other"}')
    output = d2i1("publish", "--run", broken, "--repo_id", "alice/all", code=2)
    assert "is a Other, expected a Diff2in1Pipeline" in output
    (broken / "pipeline" / "model_index.json").write_text("{")
    output = d2i1("publish", "--run", broken, "--repo_id", "alice/all", code=2)
    assert "model_index.json: not readable as JSON" in output
    (tmp_path / "empty").mkdir()
    output = d2i1("publish", "--run", tmp_path / "empty", "--repo_id", "alice/all", code=2)
    assert "holds none of pipeline, adapter, dataset" in output
    for flags, wrong in (
        ((), "nothing to publish"),
        (("--dataset", broken / "dataset", "--append", "--overwrite"), "exclude each other"),
        (("--pipeline", broken / "pipeline", "--append"), "--append needs a --dataset"),
        (("--dataset", broken / "dataset", "--space"), "--space needs a --pipeline"),
        (("--dataset", broken / "dataset", "--results", "x.json"), "--results has no effect"),
        (("--adapter", lora_run / "pipeline"), "is a whole pipeline; publish it with --pipeline"),
        (("--pipeline", lora_run / "adapter"), "is an adapter; publish it with --adapter"),
        (("--pipeline", "runs/mistyped"), "neither a folder nor a pipeline on the Hub"),
        (("--pipeline", tmp_path / "mistyped"), "no such folder, and not a Hub id"),
    ):
        assert wrong in d2i1("publish", "--repo_id", "alice/all", *flags, code=2)
    for name in ("a/b/c", "alice/..", "alice/a--b", "../x"):
        output = d2i1("publish", broken / "dataset", "--repo_id", name, code=2)
        assert f"repository {name!r}: " in output and output.count("\n") == 1
    assert not [entry for entry in hub.log if entry.method != "GET"]


def test_the_function_does_the_same(hub: Hub, created: Callable[..., Path]) -> None:
    output = publish(PublishSettings(repo_id="alice/rooms", dataset=str(created(0))))
    assert output == f"{hub.url}/datasets/alice/rooms"
    table = pq.read_table(created(0) / "data" / "train-00000.parquet", columns=["id"])
    assert load_dataset("alice/rooms", split="train")["id"][:3] == table["id"].to_pylist()
