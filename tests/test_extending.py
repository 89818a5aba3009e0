"""What docs/extending.md says, done: each example is added to a copy of the packages and used."""

import ast
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image

from d2i1_data.sources import random_subset
from tests.processes import start

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "extending.md"
PACKAGES = ("hub_cards", "d2i1_data", "d2i1_train")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
COMMANDS = """
import json, sys
from d2i1_train.cli import main
for command in json.loads(sys.argv[1]):
    if code := main(command):
        sys.exit(code)
"""

Use = Callable[..., str]


def code_of(heading: str) -> list[str]:
    """The Python blocks of a section of the page."""
    section = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [code for language, code in BLOCK.findall(section) if language == "python"]


def add(tree: Path, code: str) -> Path:
    """Add a block to the tree, where its first line says; the file."""
    first, body = code.split("\n", 1)
    place, _, where = first.removeprefix("# ").partition(": ")
    file = tree / place
    if not where:
        assert not file.exists()
        file.write_text(body)
        return file
    text = file.read_text()
    lines, statements = text.splitlines(), ast.parse(text).body
    if where == "among the imports":
        at = max(one.end_lineno or 0 for one in statements if isinstance(one, ast.ImportFrom))
    else:
        name = where.removeprefix("in ")
        first = {f"{name} =", f"{name}:"} if name != "the tuple" else {"for "}
        value = next(one for one in statements if ast.unparse(one).startswith((*first,)))
        value = getattr(value, "value", value)
        records = next(one for one in ast.walk(value) if isinstance(one, ast.Tuple))
        last = records.elts[-1]
        at, body = last.end_lineno or 0, f"{body.rstrip()},"
        if last.end_lineno == records.end_lineno:  # all in one line
            line = lines[at - 1]
            assert records.lineno == records.end_lineno
            lines[at - 1] = f"{line[: last.end_col_offset]}, {body}{line[last.end_col_offset :]}"
            body = ""
    file.write_text("\n".join([*lines[:at], *body.splitlines(), *lines[at:]]) + "\n")
    return file


@pytest.fixture
def extended(tmp_path: Path) -> Callable[[str], set[str]]:
    """Add the examples of a section to a copy of the packages; the files that it touches."""
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("bases", "__pycache__")
        shutil.copytree(ROOT / package, tmp_path / "tree" / package, ignore=ignored)
    (tmp_path / "tree/d2i1_data/bases").symlink_to(ROOT / "d2i1_data/bases")

    def extend(heading: str) -> set[str]:
        blocks = code_of(heading)
        assert len(blocks) >= 2
        tree = tmp_path / "tree"
        return {str(add(tree, code).relative_to(tree)) for code in blocks}

    return extend


@pytest.fixture
def use(tmp_path: Path) -> Use:
    """Run commands of `d2i1` with the copy, in one process; what they print, errors too."""
    script, log = tmp_path / "commands.py", tmp_path / "log.txt"
    script.write_text(COMMANDS)

    def run(*commands: str, fails: bool = False) -> str:
        arguments = json.dumps([shlex.split(command) for command in commands])
        log.unlink(missing_ok=True)
        process = start(*(script, arguments), log=log, cwd=tmp_path, PYTHONPATH=tmp_path / "tree")
        process.join()
        assert bool(process.exitcode) == fails, log.read_text()
        return log.read_text()

    return run


def test_a_source(
    extended: Callable[[str], set[str]], use: Use, tiny_base: Path, tmp_path: Path
) -> None:
    assert extended("A source") == {
        "d2i1_data/sources/stripes.py",
        "d2i1_data/sources/registry.py",
    }
    use(
        "import --source stripes:test --max_source_samples 3 --output_dir stripes",
        f"warm-up --base {tiny_base} --source stripes --host light --width 16 --resolution 32"
        " --max_train_steps 1 --real_batch_size 2 --output_dir run",
        "evaluate --pipeline run/pipeline --source stripes:test --max_samples 2"
        " --output_file found.json",
        "create --pipeline run/pipeline --source stripes --num_samples 2 --num_inference_steps 1"
        " --resolution 32 --output_dir created",
    )
    rows = load_dataset("parquet", data_files=f"{tmp_path}/stripes/data/*.parquet", split="train")
    assert [row["id"] for row in rows] == [f"stripes-test-{n}" for n in random_subset(6, 3)]
    assert set(np.unique(np.asarray(rows[0]["edges"]))) == {0, 254}
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["source"] == "stripes" and found["split"] == "test"
    assert 0 < found["tasks"]["edges"]["ap"] <= 1
    assert "--source stripes" in (tmp_path / "created/README.md").read_text()
    assert "stripes[:SPLIT]" in use("import --source strips --output_dir no", fails=True)


def test_an_exporter(extended: Callable[[str], set[str]], use: Use, tmp_path: Path) -> None:
    assert extended("An exporter") == {
        "d2i1_data/export/imagefolder.py",
        "d2i1_data/export/registry.py",
    }
    said = use(
        "import --source rooms:test --max_source_samples 3 --output_dir rooms",
        "export rooms --format imagefolder --output_dir captioned",
    )
    rows = load_dataset("imagefolder", data_dir=f"{tmp_path}/captioned", split="train")
    assert len(rows) == 3 and all(text.startswith("a room with") for text in rows["text"]), said
    wrong = use("export rooms --format folder --output_dir no", fails=True)
    assert "coco, yolo, voc, transformers, webdataset, folders, imagefolder" in wrong
    wrong = use("export rooms --format imagefolder --shard_size 2 --output_dir no", fails=True)
    assert "--shard_size has no effect without --format transformers or webdataset" in wrong


def label_folder(folder: Path, task: str) -> None:
    """Four images of vertical ramps, and any label of 8 bits for each."""
    rng = np.random.default_rng(0)
    for name in ("image", task):
        (folder / name).mkdir(parents=True)
    for n in range(4):
        ramp = np.linspace(0, 40 * (n + 1), 32).astype(np.uint8)
        Image.fromarray(np.tile(ramp[:, None, None], (1, 32, 3))).save(folder / f"image/{n}.png")
        label = rng.integers(0, 255, (32, 32)).astype(np.uint8)
        Image.fromarray(label).save(folder / task / f"{n}.png")
    columns = "{image: image, " + f"{task}: {task}" + "}"
    (folder / "layout.yaml").write_text(f"columns: {columns}\nname: ramps\n")


def run_task(use: Use, tiny_base: Path, tmp_path: Path, task: str) -> dict[str, float]:
    """Labels of a task are read, learnt, written, reported, scored; its metrics."""
    label_folder(tmp_path / "ramps", task)
    source = "--source folder:ramps/layout.yaml"
    use(
        f"import {source} --output_dir real",
        f"warm-up --base {tiny_base} {source} --host light --width 16 --max_train_steps 1"
        " --real_batch_size 2 --output_dir run",
        f"label --pipeline run/pipeline {source} --quality full --output_dir labelled",
        "report labelled",
        f"self-improve --pipeline run/pipeline {source} --created labelled --max_train_steps 1"
        " --real_batch_size 2 --output_dir improved",
        f"evaluate --pipeline improved/pipeline {source} --output_file found.json",
    )
    stored = f"{tmp_path}/real/data/*.parquet"
    rows = load_dataset("parquet", data_files=stored, split="train")
    for n, row in enumerate(rows):
        label = np.asarray(Image.open(tmp_path / "ramps" / task / f"{n}.png"))
        assert np.array_equal(np.asarray(row[task]), label)
    for card in ("labelled/README.md", "run/pipeline/README.md"):
        assert "255 is unknown" in (tmp_path / card).read_text()
    report = json.loads((tmp_path / "labelled/report/report.json").read_text())
    (maps,) = report["maps"]
    assert maps["name"] == task and maps["compared"]
    assert (tmp_path / f"labelled/report/{task}.png").is_file()
    found: dict[str, float] = json.loads((tmp_path / "found.json").read_text())["tasks"][task]
    return found


def test_a_task(
    extended: Callable[[str], set[str]], use: Use, tiny_base: Path, tmp_path: Path
) -> None:
    assert extended("A task") == {"d2i1_data/tasks/sky.py", "d2i1_data/tasks/__init__.py"}
    assert 0 < run_task(use, tiny_base, tmp_path, "sky")["ap"] <= 1


def test_a_family(
    extended: Callable[[str], set[str]], use: Use, tiny_base: Path, tmp_path: Path
) -> None:
    families, tasks = "d2i1_data/diff2in1/families", "d2i1_data/tasks"
    assert extended("A family") == {
        f"{families}/signed_map.py",
        f"{families}/__init__.py",
        f"{tasks}/slope.py",
        f"{tasks}/__init__.py",
    }
    assert 0 < run_task(use, tiny_base, tmp_path, "slope")["mae"] < 2
    code = (tmp_path / "run/pipeline/perception/diff2in1.py").read_text()
    assert "class SignedMap(Family)" in code  # published with the checkpoint


def test_a_host(
    extended: Callable[[str], set[str]], use: Use, tiny_base: Path, tmp_path: Path
) -> None:
    hosts = "d2i1_data/diff2in1/hosts"
    assert extended("A host") == {f"{hosts}/one_conv.py", f"{hosts}/__init__.py"}
    wrong = use(
        f"warm-up --base {tiny_base} --source rooms --host two_conv --output_dir no", fails=True
    )
    assert "choose from" in wrong and "one_conv" in wrong
    use(
        f"warm-up --base {tiny_base} --source rooms --host one_conv"
        " --host_options '{bias: false}' --tasks normals,semseg --resolution 32"
        " --max_train_steps 1 --real_batch_size 2 --output_dir run",
        "create --pipeline run/pipeline --source rooms --num_samples 2 --num_inference_steps 1"
        " --resolution 32 --output_dir created",
    )
    code = """
from PIL import Image
from d2i1_data import Diff2in1Pipeline
pipe = Diff2in1Pipeline.from_pretrained("run/pipeline")
assert type(pipe.perception).__name__ == "OneConv" and pipe.perception.config.bias is False
print(*pipe.predict(Image.new("RGB", (32, 32))).predictions)
"""
    script, log = tmp_path / "use.py", tmp_path / "used.txt"
    script.write_text(code)
    start(script, log=log, cwd=tmp_path, PYTHONPATH=tmp_path / "tree").join()
    assert log.read_text().splitlines()[-1] == "normals semseg", log.read_text()
    rows = load_dataset("parquet", data_files=f"{tmp_path}/created/data/*.parquet", split="train")
    assert {row["provenance"]["host"] for row in rows} == {"one_conv"}
    assert "one_conv" in (tmp_path / "run/pipeline/README.md").read_text()
