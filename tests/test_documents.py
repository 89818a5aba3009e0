"""The documents: every command and snippet runs, every table and link agrees with the code.

A block runs in an empty folder with a little real data. A comment `<!-- not run: REASON -->` above
a block says why a test cannot run it; its commands must then at least be accepted by the parsers.
"""

import re
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from datasets import Dataset
from huggingface_hub import HfApi
from PIL import Image

from d2i1_data.diff2in1 import HOSTS
from d2i1_data.export.registry import exporter_table
from d2i1_data.sources import open_source
from d2i1_data.sources.registry import origin_table, source_table
from d2i1_data.tasks import TASKS
from d2i1_data.tasks.protocols import protocol_table
from d2i1_train.acts import ACTS, as_markdown
from d2i1_train.cli import main
from d2i1_train.presets.files import preset_names
from tests.documents.calls import act_and_flags, check, record
from tests.documents.reading import (
    DOCUMENTS,
    INLINE,
    ROOT,
    Block,
    read_anchors,
    read_blocks,
    read_links,
    read_names,
    read_prose,
    read_table,
)
from tests.documents.sizes import TINY_SD15, replaced, small
from tests.hub import Hub
from tests.made import run
from tests.test_architecture import ROOMS

# --- what lies in the folder of a document before its first block ---

GIVEN = {  # folder -> fixture that makes it
    "README.md": {"runs/demo": "demo_run"},
    "creating.md": {"runs/warm-up": "streets_run", "runs/better": "streets_run"},
    "export.md": {"runs/created": "created"},
    "commands.md": {"runs/demo": "demo_run"},
    "predicting.md": {"runs/demo": "demo_run"},
    "hub.md": {"runs/demo": "demo_run", "runs/created": "created", "runs/more": "more"},
}

# a path in this repository that stands for no other name
PATH = re.compile(r"(d2i1_data|d2i1_train|hub_cards|scripts|tests|docs)/[a-z0-9_/.]*")

# --- running ---


def run_shell(block: Block, folder: Path, tiny_base: Path) -> None:
    calls, exports = record(block, folder)
    with pytest.MonkeyPatch.context() as patched:
        for name, value in exports.items():
            patched.setenv(name, value)
        for call in calls:
            check(call)
            if block.not_run:
                continue
            program, *words = call.words
            if [program, *words[:2]] == ["python", "-m", "d2i1_train"]:
                program, words = "d2i1", words[2:]
            assert program == "d2i1", f"{call}: cannot be run here, say why"
            run_command(words, tiny_base)


def run_command(words: list[str], tiny_base: Path) -> None:
    act, flags = act_and_flags(words)
    if flags == ["--help"]:
        with pytest.raises(SystemExit, match="0"):
            main(words)
    elif act in ACTS:
        run(act.partition(" ")[0], *small(act, flags, tiny_base))
    else:
        run(*words)


def run_yaml(block: Block, folder: Path) -> None:
    """Keep a YAML file under the name in its first line; a source must open and be readable."""
    content = replaced(block.text)
    first = content.partition("\n")[0]
    assert first.startswith("# ") and first.endswith(".yaml"), f"{block}: begin with # NAME.yaml"
    file = folder / first.removeprefix("# ")
    file.write_text(content)
    keys = yaml.safe_load(content)
    if "columns" in keys:
        kind = "hub" if "dataset" in keys else "folder"
        sample = open_source(f"{kind}:{file}:train")[0]
        assert sample.caption and sample.targets


@pytest.mark.parametrize(
    "document",
    [file for file in DOCUMENTS if file.name != "extending.md"],  # see tests/test_extending.py
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_commands_and_snippets_run(
    document: Path,
    prepared: Path,
    tiny_base: Path,
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(prepared)
    monkeypatch.setenv("PHOTOS", "data")
    names: dict[str, Any] = {}
    for block in read_blocks(document):
        if block.language == "sh":
            run_shell(block, prepared, tiny_base)
        elif block.language == "yaml":
            run_yaml(block, prepared)
        elif block.language == "python":
            code = compile(replaced(block.text), str(block), "exec")
            if not block.not_run:
                exec(code, names)
        else:
            assert block.language in ("bibtex", "text"), f"{block}: say its language"


@pytest.fixture
def prepared(request: pytest.FixtureRequest, document: Path, tmp_path: Path, streets: Path) -> Path:
    """The folder of a document: its given runs, data, and what lies in a clone."""
    if "sd15" in document.read_text():
        request.getfixturevalue("hub")
        client = HfApi()
        client.create_repo(TINY_SD15)
        client.upload_folder(repo_id=TINY_SD15, folder_path=request.getfixturevalue("tiny_base"))
    if "dataset: alice/streets" in document.read_text():
        request.getfixturevalue("hub")
        send_streets()
    shutil.copytree(streets, tmp_path, dirs_exist_ok=True)
    for name in ("docs", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name, fixture in GIVEN.get(document.name, {}).items():
        shutil.copytree(request.getfixturevalue(fixture), tmp_path / name)
    return tmp_path


def send_streets() -> None:
    """The data set of docs/your_data.md."""
    ids, metres = np.array([[0, 1], [2, 3]], np.uint8), np.ones((2, 2), np.float32)
    pictures = {"photo": np.zeros((2, 2, 3), np.uint8), "metres": metres, "annotation": ids}
    row = {key: Image.fromarray(pixels) for key, pixels in pictures.items()} | {"text": "a street"}
    Dataset.from_list([row]).push_to_hub("alice/streets")


@pytest.fixture(scope="session")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures of streets and homes with labels, README's YAML file, and a photograph."""
    folder, rng = tmp_path_factory.mktemp("streets"), np.random.default_rng(0)
    pixels = np.arange(24 * 32).reshape(24, 32)
    labels = {"label": (pixels % 3).astype(np.uint8), "depth": (pixels + 500).astype(np.uint16)}
    labels["normal"] = np.full((24, 32, 3), (128, 128, 255), np.uint8)
    for place in ("streets", "home", "camvid", "redkitchen"):
        for split in ("train", "val"):
            parts = folder / "data" / place / split
            for part in ("image", *labels):
                (parts / part).mkdir(parents=True)
            for number in range(3):
                image = rng.integers(0, 256, (24, 32, 3), np.uint8)
                Image.fromarray(image).save(parts / "image" / f"{number}.png")
                for part, values in labels.items():
                    Image.fromarray(values).save(parts / part / f"{number}.png")
    (yaml_block,) = (b for b in read_blocks(ROOT / "README.md") if b.language == "yaml")
    run_yaml(yaml_block, folder)
    for photo in ("photo.jpg", "holiday/beach.jpg", "archive/garden.png"):
        (folder / photo).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (36, 48, 3), np.uint8)).save(folder / photo)
    return folder


@pytest.fixture(scope="session")
def created(create: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven created rooms."""
    return create(tmp_path_factory.mktemp("created") / "created")


@pytest.fixture(scope="session")
def more(create: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven other rooms, created by the same pipeline."""
    return create(tmp_path_factory.mktemp("more") / "more", "--seed", 1)


@pytest.fixture(scope="session")
def demo_run(pipeline: Path, created: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a demo leaves, but for its results."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    shutil.copytree(pipeline, folder / "pipeline")
    shutil.copytree(created, folder / "dataset")
    return folder


@pytest.fixture(scope="session")
def streets_run(streets: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warm-up on the streets."""
    folder = tmp_path_factory.mktemp("streets-run") / "run"
    source = ("--source", f"folder:{streets / 'streets.yaml'}:train", "--host", "light")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(streets)
        flags = small("warm-up", [*source, "--output_dir", str(folder)], tiny_base)
        run("warm-up", *flags)
    return folder


# --- tables and names ---


def test_tables_name_what_is_registered() -> None:
    docs = ROOT / "docs"
    rows = {row[0].strip("`"): row[1] for row in read_table(ROOT / "README.md", "act")}
    assert rows == {act.name: act.help.rstrip(".") for act in ACTS.values() if " " not in act.name}
    assert read_names(ROOT / "README.md", "task") == list(TASKS)
    assert read_names(docs / "hosts.md", "`--host`") == list(HOSTS)
    assert exporter_table().strip() in (docs / "export.md").read_text()
    assert set(read_names(docs / "training.md", "preset")) == set(preset_names())
    assert as_markdown() in (docs / "commands.md").read_text()
    assert source_table().strip() in (docs / "creating.md").read_text()
    assert protocol_table() in (docs / "training.md").read_text()
    assert origin_table() in (docs / "datasets.md").read_text()


def test_every_flag_named_in_prose_exists() -> None:
    ours = {field.name for act in ACTS.values() for field in fields(act.settings)}
    theirs = {
        "config",
        "print_config",
        "help",
        "num_processes",
        "config_file",
        "dataset_name",
        "caption_column",
    }
    for document in DOCUMENTS:
        if document.name == "CHANGELOG.md":
            continue  # it names flags that are gone
        for code in INLINE.findall(read_prose(document)):
            named = set(re.findall(r"(?<!\S)--(\w+)", code))
            assert named <= ours | theirs, f"{document.name}: {code}"


def test_contributing_tells_the_rooms_of_the_architecture() -> None:
    content = (ROOT / "CONTRIBUTING.md").read_text()
    groups = ("({})".format(", ".join(line)) if line[1:] else line[0] for line in ROOMS)
    assert " < ".join(groups) in " ".join(content.split())
    folders = (room for line in ROOMS for room in line if (ROOT / "d2i1_data" / room).is_dir())
    assert all(f"`d2i1_data/{room}/`" in content for room in folders)


def test_every_path_named_in_prose_exists() -> None:
    for document in DOCUMENTS:
        for code in INLINE.findall(read_prose(document)):
            path = PATH.fullmatch(code)
            assert not path or (ROOT / code).exists(), f"{document.name}: {code}"


# --- links ---


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for link in read_links(document):
        place, _, anchor = link.partition("#")
        target = (document.parent / place).resolve() if place else document
        assert target.exists() and target.is_relative_to(ROOT), link
        assert not anchor or anchor in read_anchors(target), link


def test_readme_is_short_and_leads_to_every_document() -> None:
    readme = ROOT / "README.md"
    assert len(readme.read_text().splitlines()) <= 150
    linked = {(readme.parent / link.partition("#")[0]).resolve() for link in read_links(readme)}
    assert {file for file in DOCUMENTS if file.is_relative_to(ROOT / "docs")} <= linked


def test_a_reason_belongs_to_a_block() -> None:
    for document in DOCUMENTS:
        reasons = sum(block.not_run is not None for block in read_blocks(document))
        assert document.read_text().count("\n<!-- not run: ") == reasons, document
