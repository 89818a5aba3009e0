"""The files of a Space: what they say, and that they run where there is nothing else of ours."""

import ast
import os
import shutil
import sys
import tomllib
import urllib.request
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from d2i1_data.errors import InputError
from d2i1_data.publish.space import (
    CARD_FILES,
    GRADIO,
    TRAINING_ONLY,
    modules,
    space_files,
)
from hub_cards import REPOSITORY
from tests.serving import free_port, served

ROOT = Path(__file__).parents[3]
NAME = "alice/rooms"

# Runs app.py where our packages are found in this folder only: an editable install is hidden.
ALONE = """
import runpy, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "d2i1_train":
            raise ImportError(f"{name} is not here")

sys.meta_path[:] = [Hidden(), *(f for f in sys.meta_path if "editable" not in repr(f).lower())]
import d2i1_data, hub_cards
for module in (d2i1_data, hub_cards):
    assert module.__file__.startswith(sys.argv[1]), module.__file__
runpy.run_path("app.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Space as it lies on the Hub."""
    folder = tmp_path_factory.mktemp("space")
    for name, content in space_files(NAME).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else content.read_bytes()
        (folder / name).write_bytes(data)
    return folder


def test_the_card_tells_the_hub_what_to_run(space: Path) -> None:
    _, head, text = (space / "README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(head)
    assert card["sdk"] == "gradio" and card["models"] == [NAME]
    assert "thumbnail" not in card and f"[code]({REPOSITORY})" in text
    assert (space / card["app_file"]).is_file()
    assert card["python_version"] == "3.11" and card["license"] == "apache-2.0"
    assert len(card["short_description"]) <= 60
    assert f"gradio=={card['sdk_version']}" in (ROOT / "constraints.txt").read_text().split()
    assert f"https://huggingface.co/{NAME}" in text and "{{" not in text


def test_the_tests_run_with_the_version_that_is_sent() -> None:
    pytest.importorskip("gradio")
    assert version("gradio") == GRADIO


def test_requirements_are_those_of_the_package(space: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    sent = (space / "requirements.txt").read_text().splitlines()
    left_out = [need for need in project["dependencies"] if need not in sent]
    assert {*sent} <= {*project["dependencies"]}
    assert {need.partition(">")[0].partition("[")[0] for need in left_out} == {*TRAINING_ONLY}
    assert [need.partition(">")[0] for need in project["optional-dependencies"]["app"]] == [
        "gradio"
    ]


def test_what_a_build_left_behind_is_not_asked(
    space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = tmp_path / "diff2in1.egg-info"
    stale.mkdir()
    (stale / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: diff2in1\nVersion: 0.0.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert version("diff2in1") == "0.0.1"
    files = space_files(NAME)
    for name in ("LICENSE", "README.md", "requirements.txt"):
        assert files[name] == (space / name).read_bytes()


def test_only_what_is_of_the_package_is_sent(space: Path, tmp_path: Path) -> None:
    names = ("__init__.py", "page.py", "parts/__init__.py", "parts/view.py")
    strays = ("page (copy).py", "notes.txt", "key.env", "old/page.py", ".checkpoints/page.py")
    for name in (*names, *strays):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [file.relative_to(tmp_path).as_posix() for file in modules(tmp_path)] == [*names]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert [*CARD_FILES] == project["tool"]["setuptools"]["package-data"]["hub_cards"]
    assert (space / "hub_cards/licences.txt").is_file()


def test_what_is_left_out_is_not_imported(space: Path) -> None:
    for file in space.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in getattr(node, "names", [])]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found = {str(name).partition(".")[0] for name in names}
            assert not found & {"d2i1_train", *TRAINING_ONLY}, f"{file} imports {found}"


def test_no_weights_are_sent(space: Path) -> None:
    sizes = {file: file.stat().st_size for file in space.rglob("*") if file.is_file()}
    assert {file.suffix for file in sizes} == {".py", ".jinja", ".css", ".md", ".txt", ".bib", ""}
    assert sum(sizes.values()) < 1_000_000 and (space / "LICENSE").read_text().strip()


@pytest.mark.parametrize("name", ["rooms", "/somewhere/rooms", 'a/b"""', "a/../b", "a/b\nc"])
def test_only_a_pipeline_on_the_hub_can_be_shown(name: str) -> None:
    with pytest.raises(InputError, match="pipeline "):
        space_files(name)


def test_it_runs_alone(space: Path, pipeline: Path, tmp_path: Path) -> None:
    """As on the Hub, but for the pipeline, which is in the cache already."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    kept = tmp_path / "hf" / "hub" / f"models--{NAME.replace('/', '--')}"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0" * 40)
    shutil.copytree(pipeline, kept / "snapshots" / ("0" * 40))
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "GRADIO_"))}
    env |= {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(space)}
    env |= {"GRADIO_SERVER_PORT": str(free_port()), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-P", "-c", ALONE, space]
    with served(command, space, env) as address:
        with urllib.request.urlopen(address) as answer:
            page = answer.read().decode()
        with urllib.request.urlopen(f"{address}gradio_api/info") as answer:
            known = answer.read().decode()
    assert f"Diff-2-in-1: {NAME}" in page
    assert '"/predict"' in known and '"/create"' in known
    assert not list(space.rglob("*.pyi"))
