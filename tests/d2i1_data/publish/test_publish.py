"""Publishing: the files on the Hub, their order, and what is replaced only on request."""

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_dataset
from huggingface_hub import DatasetCard, HfApi, ModelCard

from d2i1_data.publish.publish import publish
from d2i1_data.publish.settings import PublishSettings
from d2i1_data.sources import open_source
from tests.hub import Hub
from tests.made import run, samples

ROOT = Path(__file__).resolve().parents[3]
D2i1 = Callable[..., str]
STAYS_HERE = ("run.json", "skipped.json", "logs/")


@pytest.fixture(scope="module")
def created(
    create: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Datasets of seven samples in three shards, by seed."""
    made: dict[int, Path] = {}

    def by(seed: int) -> Path:
        if seed not in made:
            made[seed] = create(tmp_path_factory.mktemp("created") / f"seed-{seed}", "--seed", seed)
        return made[seed]

    return by


def data(hub: Hub, repo_id: str = "alice/rooms") -> dict[str, bytes]:
    """The shards of a repository."""
    files = hub.files(repo_id, "dataset")
    return {name: files[name] for name in sorted(files) if name.startswith("data/")}


def shard_bytes(*folders: Path) -> list[bytes]:
    return [file.read_bytes() for one in folders for file in sorted((one / "data").iterdir())]


# --- datasets ---


def test_a_dataset_arrives_as_it_is(hub: Hub, d2i1: D2i1, created: Callable[..., Path]) -> None:
    folder = created(0)
    output = d2i1("publish", folder, "--repo_id", "rooms")  # under the user whose token it is
    assert output.split() == [f"{hub.url}/datasets/alice/rooms"]
    files = hub.files("alice/rooms", "dataset")
    for name in ("plan.json", "diff2in1.json", "preview.png", *data(hub)):
        assert files[name] == (folder / name).read_bytes()
    assert len(data(hub)) == 3
    assert not [name for name in files if name.startswith(STAYS_HERE)]

    rows = load_dataset("alice/rooms", split="train")
    local = load_dataset(str(folder), split="train")
    assert rows.features == local.features
    assert rows["id"][:] == local["id"][:]
    streamed = list(load_dataset("alice/rooms", split="train", streaming=True))
    for one, other, third in zip(local, rows, streamed, strict=True):
        assert one == other == third  # pictures are compared by their pixels
    some = load_dataset("alice/rooms", split="train", columns=["id", "depth"], streaming=True)
    assert [sorted(row) for row in some] == [["depth", "id"]] * 7


def test_our_own_readers_open_it(hub: Hub, created: Callable[..., Path]) -> None:
    run("publish", created(0), "--repo_id", "rooms")
    ours = list(open_source("dataset:alice/rooms"))
    assert [one.id for one in ours] == [one.id for one in samples(created(0))]


def test_the_card_names_the_repository(hub: Hub, created: Callable[..., Path]) -> None:
    run("publish", created(0), "--repo_id", "rooms")
    card = DatasetCard.load("alice/rooms")
    assert 'name = "alice/rooms"' in card.text
    assert card.data.dataset_info["splits"][0]["num_examples"] == 7
    assert card.data.configs[0]["data_files"][0]["path"] == "data/train-*.parquet"


def test_hostile_names_stay_words(hub: Hub, photos: Path) -> None:
    """Class names, captions, name and licence of a source add no path, key or HTML element."""
    hostile = "---\nlicense: mit\n---\n</code><script>alert(1)</script> | [x](http://evil) {{ 7 }}"
    described = yaml.safe_load(photos.read_text())
    described |= {"name": "../../" + hostile, "licence": hostile}
    described["classes"]["semseg"]["names"] = [hostile, "../../etc", "tree"]
    described["caption"]["template"] = "</td> | {classes}"
    photos.write_text(yaml.safe_dump(described))
    folder = photos.parent / "imported"
    run("import", "--source", f"folder:{photos}", "--output_dir", folder)
    run("publish", folder, "--repo_id", "rooms")
    files = hub.files("alice/rooms", "dataset")
    assert set(files) - {".gitattributes", "data/train-00000.parquet"} == {
        *("README.md", "diff2in1.json", "plan.json", "preview.png")
    }
    card = DatasetCard.load("alice/rooms")
    assert card.data.license in (None, "other") and "<script" not in card.text
    assert "](http://evil)" not in card.text and "\n---\n" not in card.text
    assert len(load_dataset("alice/rooms", split="train")) == 6


def test_shards_come_first_and_the_card_last(
    hub: Hub, created: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("d2i1_data.hub.repository.FILES_A_COMMIT", 2)
    run("publish", created(0), "--repo_id", "rooms")
    trees = [set(commit.tree) for commit in reversed(hub.repo("alice/rooms", "dataset").commits)]
    history = [after - before for before, after in pairwise(trees)]
    order = [name for group in history for name in sorted(group)]
    assert order[:4] == ["data/train-00000.parquet", "diff2in1.json", *sorted(data(hub))[1:]]
    assert "README.md" in history[-1] and len(history) == 4


def test_published_again_nothing_is_sent(hub: Hub, created: Callable[..., Path]) -> None:
    run("publish", created(0), "--repo_id", "rooms")
    sent, commits = dict(hub.sent), len(hub.repo("alice/rooms", "dataset").commits)
    run("publish", created(0), "--repo_id", "rooms")
    assert dict(hub.sent) == sent
    assert len(hub.repo("alice/rooms", "dataset").commits) == commits


def test_a_dataset_grows(hub: Hub, created: Callable[..., Path], tmp_path: Path) -> None:
    """A shard is added to a folder without a plan, such as a download."""
    folder = shutil.copytree(created(0), tmp_path / "growing")
    (folder / "plan.json").unlink()
    last = (folder / "data" / "train-00002.parquet").rename(tmp_path / "last")
    run("publish", folder, "--repo_id", "rooms")
    last.rename(folder / "data" / "train-00002.parquet")
    run("publish", folder, "--repo_id", "rooms")
    assert list(data(hub).values()) == shard_bytes(folder)
    assert len(load_dataset("alice/rooms", split="train")) == 7
    assert set(hub.sent.values()) == {1}


def test_other_samples_are_replaced_only_on_request(
    hub: Hub, d2i1: D2i1, created: Callable[..., Path]
) -> None:
    run("publish", created(0), "--repo_id", "rooms")
    before = hub.files("alice/rooms", "dataset")
    output = d2i1("publish", created(1), "--repo_id", "rooms", code=2)
    assert "datasets/alice/rooms holds other samples" in output
    assert "--append" in output and "--overwrite" in output and output.count("\n") == 1
    assert hub.files("alice/rooms", "dataset") == before


def test_append_adds_and_deletes_nothing(hub: Hub, created: Callable[..., Path]) -> None:
    run("publish", created(0), "--repo_id", "rooms")
    before = data(hub)
    for _ in range(2):  # the second time nothing is left to do
        run("publish", created(1), "--repo_id", "rooms", "--append")
        assert data(hub).items() >= before.items()
        assert list(data(hub).values()) == shard_bytes(created(0), created(1))
    files = hub.files("alice/rooms", "dataset")
    assert files["plan.json"] == (created(0) / "plan.json").read_bytes()
    assert files["plan-00003.json"] == (created(1) / "plan.json").read_bytes()
    rows = load_dataset("alice/rooms", split="train")  # which checks the counts of the card
    assert len(rows) == 14
    assert {row["seed"] for row in rows["provenance"]} == {0, 1}
    run("publish", created(0), "--repo_id", "rooms")  # nothing to do, so no flag is needed
    assert len(data(hub)) == 6


def test_append_continues_where_it_was_stopped(
    hub: Hub, created: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, d2i1: D2i1
) -> None:
    monkeypatch.setattr("d2i1_data.hub.repository.FILES_A_COMMIT", 1)
    run("publish", created(0), "--repo_id", "rooms")
    settings = ("publish", created(1), "--repo_id", "rooms", "--append")
    at = len(hub.repo("alice/rooms", "dataset").commits)
    hub.quota = sum(map(len, hub.files("alice/rooms", "dataset").values())) + 2 * max(
        map(len, shard_bytes(created(1)))
    )
    d2i1(*settings, code=2)
    assert len(hub.repo("alice/rooms", "dataset").commits) > at
    assert 3 < len(data(hub)) < 6
    hub.quota = None
    run(*settings)
    assert list(data(hub).values()) == shard_bytes(created(0), created(1))
    assert max(hub.sent[name] for name in hub.sent) <= 2


def test_append_refuses_other_classes(
    hub: Hub, d2i1: D2i1, created: Callable[..., Path], tmp_path: Path
) -> None:
    run("publish", created(0), "--repo_id", "rooms")
    folder = shutil.copytree(created(1), tmp_path / "other")
    metadata = json.loads((folder / "diff2in1.json").read_text())
    metadata["tasks"]["semseg"]["names"][0] = "lava"
    (folder / "diff2in1.json").write_text(json.dumps(metadata))
    output = d2i1("publish", folder, "--repo_id", "rooms", "--append", code=2)
    assert "tasks or classes differ in semseg" in output
    assert len(data(hub)) == 3


def test_overwrite_replaces(hub: Hub, created: Callable[..., Path]) -> None:
    for seed, flag in ((0, "--append"), (1, "--append"), (2, "--overwrite")):
        run("publish", created(seed), "--repo_id", "rooms", flag)
    assert list(data(hub).values()) == shard_bytes(created(2))
    assert [name for name in hub.files("alice/rooms", "dataset") if "plan" in name] == ["plan.json"]
    assert len(load_dataset("alice/rooms", split="train")) == 7


def test_append_to_what_datasets_pushed(hub: Hub, created: Callable[..., Path]) -> None:
    """`Dataset.push_to_hub` has its own names of shards; ours get the next numbers."""
    run("publish", created(0), "--repo_id", "rooms")
    load_dataset("alice/rooms", split="train").push_to_hub("alice/rooms")
    assert list(data(hub)) == ["data/train-00000-of-00001.parquet"]
    run("publish", created(1), "--repo_id", "rooms", "--append")
    numbers = [name.removeprefix("data/train-")[:5] for name in sorted(data(hub))]
    assert numbers == ["00000", "00001", "00002", "00003"]
    assert len(load_dataset("alice/rooms", split="train")) == 14
    run("publish", created(2), "--repo_id", "rooms", "--overwrite")
    assert list(data(hub).values()) == shard_bytes(created(2))


def test_two_append_at_once(
    hub: Hub, created: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else appends before our commit: their shards stay, ours come after them."""
    monkeypatch.setattr("d2i1_data.hub.retry.FIRST_WAIT", 0.01)
    run("publish", created(0), "--repo_id", "rooms")
    commit, raced = HfApi.create_commit, []

    def race(self: HfApi, *arguments: object, **options: object) -> object:
        if not raced:
            raced.append(True)
            run("publish", created(1), "--repo_id", "rooms", "--append")
        return commit(self, *arguments, **options)

    monkeypatch.setattr(HfApi, "create_commit", race)
    run("publish", created(2), "--repo_id", "rooms", "--append")
    assert raced
    assert list(data(hub).values()) == shard_bytes(created(0), created(1), created(2))
    assert len(load_dataset("alice/rooms", split="train")) == 21


def test_an_unfinished_dataset_is_refused(
    hub: Hub, d2i1: D2i1, created: Callable[..., Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(created(0), tmp_path / "part")
    (folder / "data" / "train-00001.parquet").unlink()
    assert "1 shards are missing" in d2i1("publish", folder, "--repo_id", "rooms", code=2)
    shutil.rmtree(folder / "data")
    assert "no shards of ours" in d2i1("publish", folder, "--repo_id", "rooms", code=2)
    assert "no such folder" in d2i1("publish", tmp_path / "no", "--repo_id", "rooms", code=2)
    assert not hub.log or all(entry.method == "GET" for entry in hub.log)


# --- models ---


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
    assert "link to nothing" in d2i1("publish", "--pipeline", folder, "--repo_id", "model", code=2)
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
    assert "did not take preview.png; does its .gitignore name it?" in output


def test_equal_and_moved_shards(hub: Hub, created: Callable[..., Path], tmp_path: Path) -> None:
    folder = shutil.copytree(created(0), tmp_path / "moved")
    (folder / "plan.json").unlink()
    first, second, third = sorted((folder / "data").iterdir())
    third.unlink()
    shutil.copy(first, third)  # equal to the first
    run("publish", folder, "--repo_id", "rooms")
    assert list(data(hub).values()) == shard_bytes(folder)
    assert len(load_dataset("alice/rooms", split="train")) == 9
    second.rename(tmp_path / "kept")
    shutil.copy(created(1) / "data" / first.name, first)  # another one in its place
    shutil.copy(tmp_path / "kept", folder / "data" / "train-00003.parquet")
    run("publish", folder, "--repo_id", "rooms", "--append")
    assert set(shard_bytes(folder)) <= set(data(hub).values())
    assert load_dataset("alice/rooms", split="train").num_rows == 3 * len(data(hub))


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
        ((), "nothing named"),
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
