"""The wheel as users install it: the demo runs in an empty folder, and its results are checked."""

import json
import os
import shutil
import subprocess
import sys
from email import message_from_string
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard, ModelCard
from safetensors.torch import load_file

from d2i1_data.card import model_card
from d2i1_data.sources import random_subset
from d2i1_data.sources.hub import shipped_mappings
from d2i1_data.sources.rooms import Rooms
from hub_cards import REPOSITORY
from tests.pages import Page

ROOT = Path(__file__).parents[1]
SMALL = (
    *("--real", "6", "--created", "8", "--warm_up_steps", "40", "--self_improve_steps", "20"),
    *("--held_out", "8", "--num_inference_steps", "5"),
)


def run(*command: str, cwd: Path, path: Path) -> str:
    """Run a command that finds our package only in the installed wheel; what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the content of the wheel, built from this tree."""
    dist, target = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("site")
    tree = tmp_path_factory.mktemp("tree") / "diff2in1"  # a copy: builds leave folders behind
    left_out = shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, tree, ignore=left_out)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(dist)]
    subprocess.run([*build, str(tree)], check=True, capture_output=True)
    (wheel,) = dist.glob("diff2in1-*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(wheel)], check=True, capture_output=True)
    return target


@pytest.fixture(scope="module")
def demo(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a small demo, run from the wheel in an empty folder."""
    empty = tmp_path_factory.mktemp("empty")
    where = run(
        sys.executable, "-c", "import d2i1_train as t; print(t.__file__)", cwd=empty, path=installed
    )
    assert where.startswith(str(installed))
    printed = run(
        str(installed / "bin" / "d2i1"),
        "demo",
        "--output_dir",
        "demo",
        *SMALL,
        cwd=empty,
        path=installed,
    )
    assert (
        "minus real-only, dropout: normals mean" in printed and "predictions identical" in printed
    )
    return empty / "demo"


def test_help_works_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    command = str(installed / "bin" / "d2i1")
    assert "--output_dir" in run(command, "demo", "--help", cwd=tmp_path, path=installed)
    (stated,) = installed.glob("diff2in1-*.dist-info")
    version = run(command, "--version", cwd=tmp_path, path=installed).strip()
    assert f"{version.replace(' ', '-')}.dist-info" == stated.name
    for package in ("d2i1_data", "d2i1_train"):
        assert (installed / package / "py.typed").is_file()
    assert (installed / "diff2in1.py").is_file()
    shipped = installed / "d2i1_data/sources/mappings"
    assert len([*shipped.glob("*.yaml")]) == len(shipped_mappings())


def test_the_package_index_can_show_the_readme(installed: Path) -> None:
    """Every link is absolute, and those to our repository lead to files that are there."""
    (stated,) = installed.glob("diff2in1-*.dist-info")
    facts = message_from_string((stated / "METADATA").read_text())
    addresses = dict(one.split(", ") for one in facts.get_all("Project-URL", []))
    assert addresses["Repository"] == REPOSITORY and "Paper" in addresses
    assert facts["Description-Content-Type"] == "text/markdown"
    page = Page(facts.get_payload())
    assert "Measured" in page.words
    links = [dict(own).get("href") or dict(own).get("src") for _, own in page.elements]
    found = [link for link in links if link]
    assert len(found) > 20 and all(link.startswith("https://") for link in found)
    ours = [link.removeprefix(f"{REPOSITORY}/") for link in found if f"{REPOSITORY}/" in link]
    paths = [link.split("/", 2)[2].partition("#")[0] for link in ours]
    assert "docs/demo.png" in paths and all((ROOT / path).is_file() for path in paths)


def test_the_demo_compares_all_arms(demo: Path) -> None:
    results = json.loads((demo / "results.json").read_text())
    arms = [
        "real-only theta_E",
        "real-only theta_C",
        "real-only, dropout theta_E",
        "real-only, dropout theta_C",
        "self-improve theta_E",
        "self-improve theta_C",
    ]
    assert list(results["table"]) == ["warm-up", *arms]
    for figures in results["table"].values():
        assert {"mean", "median", "rmse", "under_11.25", "under_22.5", "under_30"} <= set(
            figures["normals"]
        )
        assert {"rmse", "abs_rel", "delta1"} <= set(figures["depth"])
        assert 0 <= figures["semseg"]["miou"] <= 1
    assert list(results["verdict"]) == ["real-only", "real-only, dropout"]
    for arm, changes in results["verdict"].items():
        before, after = (results["table"][f"{one} theta_C"] for one in (arm, "self-improve"))
        change = after["depth"]["abs_rel"] - before["depth"]["abs_rel"]
        assert changes["depth"]["abs_rel"]["difference"] == pytest.approx(change, rel=1e-6)
    assert results["reopened"] == {"rows": 8, "identical": True}
    assert set(results["seconds"]) >= {"warm-up", "create", "self-improve", "evaluate"}
    assert (demo / "preview.png").stat().st_size > 1000


def test_cards_describe_the_whole_demo(demo: Path) -> None:
    card = ModelCard(model_card(demo / "pipeline", results=[demo / "results.json"]))
    results = json.loads((demo / "results.json").read_text())
    values = {one.metric_name: one.metric_value for one in card.data.eval_results or []}
    for task, figures in results["table"]["self-improve theta_C"].items():
        for name, value in figures.items():
            assert values.get(f"{task} {name}", value) == value
    assert values["normals mean"] == results["table"]["self-improve theta_C"]["normals"]["mean"]
    assert card.data.license == "apache-2.0"  # that of the embedded base
    heads = "| warm-up | real-only theta&#95;E | real-only theta&#95;C |"
    assert f"| rooms test, 8 samples {heads}" in card.text
    lines = card.text.replace(" \\\n   ", "").splitlines()
    (warm_up,) = [line for line in lines if line.startswith("d2i1 warm-up ")]
    for flag in ("--source rooms:train", "--max_train_steps 40", "--max_train_samples 6"):
        assert f" {flag} " in f"{warm_up} "
    (improve,) = [line for line in lines if line.startswith("d2i1 self-improve ")]
    for flag in ("--source rooms:train", "--max_train_steps 20"):
        assert f" {flag} " in f"{improve} "
    made = DatasetCard((demo / "dataset/README.md").read_text())
    assert "- apache-2.0: base" in made.text and "- cc0-1.0: source rooms" in made.text
    assert made.data.license == "other"  # as both apply


def test_the_loop_turns(demo: Path) -> None:
    def weights(file: str) -> dict[str, np.ndarray]:
        return {name: tensor.numpy() for name, tensor in load_file(demo / file).items()}

    warm = weights("warm-up/checkpoint-40/exploitation.safetensors")
    exploitation = weights("self-improve/checkpoint-20/exploitation.safetensors")
    creation = weights("self-improve/checkpoint-20/creation.safetensors")
    for one, other in ((warm, exploitation), (warm, creation), (exploitation, creation)):
        assert max(np.abs(one[name] - other[name]).max() for name in one) > 1e-6


def test_created_rooms_are_neither_copies_nor_labelled_with_the_truth(demo: Path) -> None:
    created = load_dataset(str(demo / "dataset"), split="train")
    rooms = Rooms("train")
    sources = {rooms.identity(n): rooms[n] for n in random_subset(len(rooms), 6)}
    for row in created:
        source = sources[row["provenance"]["source_id"]]
        assert row["provenance"]["kind"] == "created" and row["provenance"]["strength"] >= 0.4
        difference = np.abs(np.asarray(row["image"], float) - source.image).mean()
        assert difference > 2, "a created image equals its source"
        labels = np.asarray(row["semseg"])
        assert (labels != source.targets["semseg"]).mean() > 0.01, "the label is the source's truth"
