"""The command line: wrong input ends with code 2 and one line, and leaves what is there alone."""

import ast
import inspect
import json
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d2i1_train.acts import ACTS, RECORDS, as_markdown
from d2i1_train.cli import main
from d2i1_train.presets.files import find_settings_file, preset_names
from tests.made import contents

TRAIN = "--max_train_steps 1 --real_batch_size 6 --report_to none --output_dir {tmp}/out"
MOUNT = f"warm-up --base {{base}} --host light --width 16 {TRAIN}"
WARM = f"{MOUNT} --source folder:{{photos}}"
CREATE = "create --source rooms:train --num_samples 1 --output_dir {tmp}/out"
IMPROVE = "self-improve --source rooms:train --max_train_samples 1 --resolution 32 " + TRAIN
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
RANGE = "expected more than 0, at most 1"
MANY = "--strength 0.6 --num_inference_steps 700"


@pytest.fixture(scope="module")
def pipeline(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline for the classes of rooms."""
    folder = tmp_path_factory.mktemp("cli") / "warm"
    flags = "--host light --width 16 --source rooms:train --max_train_samples 1 --tasks semseg"
    size = "--max_train_steps 1 --real_batch_size 1 --report_to none --resolution 32"
    command = f"warm-up --base {tiny_base} {flags} {size} --output_dir {folder}"
    assert main(command.split()) == 0
    return folder / "pipeline"


def save(file: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels.astype(np.uint8)).save(file)


def spoil(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text().replace(old, new))


# what is wrong, put into a folder that holds photos/; base is a good base
WRONG: dict[str, Callable[[Path, Path], object]] = {
    "": lambda folder, base: None,
    "folder gone": lambda folder, base: shutil.rmtree(folder / "photos/label"),
    "label gone": lambda folder, base: (folder / "photos/label/4.png").unlink(),
    "broken image": lambda folder, base: (folder / "photos/image/3.png").write_bytes(b"\x89PNG"),
    "other aspect": lambda folder, base: save(folder / "photos/label/3.png", np.zeros((28, 28))),
    "class 7": lambda folder, base: save(folder / "photos/label/3.png", np.full((28, 40), 7)),
    "source key": lambda folder, base: spoil(folder / "photos/photos.yaml", "licence", "licens"),
    "config key": lambda folder, base: (folder / "mine.yaml").write_text("max_train_step: 3\n"),
    "config list": lambda folder, base: (folder / "mine.yaml").write_text("- 3\n"),
    "config bytes": lambda folder, base: (folder / "mine.yaml").write_bytes(b"seed: \xff\n"),
    "config deep": lambda folder, base: (folder / "mine.yaml").write_text("[" * 10_000),
    "no text encoder": lambda folder, base: shutil.copytree(
        base, folder / "base", ignore=shutil.ignore_patterns("text_encoder")
    ),
    "foreign folder": lambda folder, base: shutil.copytree(folder / "photos", folder / "out"),
    "a file": lambda folder, base: (folder / "out").write_text("years of work"),
}


@pytest.mark.parametrize(
    ("wrong", "command", "message"),
    [
        ("", f"{MOUNT} --source folder:{{tmp}}/none.yaml", "no such file: {tmp}/none.yaml"),
        ("folder gone", WARM, "no such folder: {tmp}/photos/label"),
        ("label gone", WARM, "1 of 6 images have no semseg, the first is '4'"),
        ("broken image", WARM, "photos/image/3.png: not a readable image"),
        (
            "other aspect",
            WARM,
            "photos/label/3.png: semseg is 28x28; its image has another aspect ratio",
        ),
        ("class 7", WARM, "photos/label/3.png: semseg holds class id 7, allowed are 0 to 2"),
        ("source key", WARM, "unknown key 'licens', did you mean 'licence'?"),
        ("config key", f"{WARM} --config {{tmp}}/mine.yaml", "did you mean max_train_steps?"),
        ("config list", f"{WARM} --config {{tmp}}/mine.yaml", "expected `key: value` lines"),
        ("config bytes", f"{WARM} --config {{tmp}}/mine.yaml", "mine.yaml: not readable as YAML"),
        ("config deep", f"{WARM} --config {{tmp}}/mine.yaml", "mine.yaml: not readable as YAML"),
        ("", f"{WARM} --config no-such", "no such file; presets are"),
        ("", f"{WARM} --config {'a' * 999}", "no such file; presets are"),
        ("", f"{WARM} --base {'a' * 999}", "aaa: File name too long"),
        ("", f"{WARM} --max_train_stepz 3", "did you mean --max_train_steps?"),
        ("", f"{WARM} --max_train 3", "did you mean --max_train_steps?"),
        ("", "warmup --output_dir {tmp}/out", "no act 'warmup', did you mean warm-up?"),
        ("", f"{WARM} --max_train_steps x", "max_train_steps"),
        ("", f"{WARM} --mixed_precision fp8", "fp16"),
        ("", "warm-up --source rooms --output_dir {tmp}/out", "host"),
        ("no text encoder", f"{WARM} --base {{tmp}}/base", "text_encoder missing"),
        ("", f"{WARM} --base {{tmp}}/none", "no such folder"),
        ("foreign folder", WARM, "{tmp}/out is not empty and holds no run"),
        ("foreign folder", f"{CREATE} --pipeline {{pipeline}}", "is not empty and holds no plan"),
        ("foreign folder", "base --source folder:{photos} --output_dir {tmp}/out", "not empty"),
        ("a file", WARM, "{tmp}/out is a file"),
        ("a file", f"{CREATE} --pipeline {{pipeline}}", "{tmp}/out is a file"),
        ("", f"{CREATE} --pipeline {{base}}", "is a StableDiffusionPipeline, expected a Diff2in1"),
        ("", f"{CREATE} --pipeline {{tmp}}/photos", "no model_index.json there"),
        ("", f"{CREATE} --pipeline {{pipeline}} --strength 1.5", f"strength 1.5: {RANGE}"),
        ("", f"{CREATE} --pipeline {{pipeline}} --strength 0", f"strength 0.0: {RANGE}"),
        (
            "",
            f"{CREATE} --pipeline {{pipeline}} {MANY}",
            "700 steps: expected 1 to 600 at strength",
        ),
        ("", f"{CREATE} --pipeline {{pipeline}} --num_samples 0", "--num_samples 0: expected at"),
        ("", "import --source rooms --output_dir {tmp}/out --num_samples 1", "flag --num_samples"),
        ("", "label --source rooms --output_dir {tmp}/out --num_samples 1", "flag --num_samples"),
        ("", f"{WARM} --width 20", "width 20: expected a multiple of 16"),
        ("", f"{WARM} --host heavy", "unknown host 'heavy': choose from light"),
        ("", f"{WARM} --tasks norms", "unknown task 'norms', choose from normals"),
        ("", f"{WARM} --tasks depth", "source photos has no labels of depth, it has semseg"),
        ("", f"{MOUNT} --source roms", "source 'roms': expected one of rooms"),
        ("", f"{MOUNT} --source rooms:dev", "no split 'dev': choose from train, val, test"),
        ("", f"{MOUNT} --source dataset:{{tmp}}/photos", "was it written by d2i1 create?"),
        ("", f"{WARM} --resolution large", "resolution 'large': expected a number"),
        ("", "evaluate --pipeline {pipeline} --source folder:{photos}", "has other classes"),
        ("", "evaluate --resolution 32", "unknown flag --resolution"),
    ],
)
def test_wrong_input_is_message_in_one_line(
    d2i1: Callable[..., str],
    tiny_base: Path,
    photos: Path,
    pipeline: Path,
    tmp_path: Path,
    wrong: str,
    command: str,
    message: str,
) -> None:
    places = {"base": tiny_base, "photos": photos, "pipeline": pipeline, "tmp": tmp_path}
    WRONG[wrong](tmp_path, tiny_base)
    folders = (tmp_path, tiny_base, pipeline)
    before = [contents(folder) for folder in folders]
    error = d2i1(*command.format(**places).split(), code=2)
    lines = [line for line in re.split(r"[\r\n]+", error) if line and "%|" not in line]
    assert len(lines) == 1, error
    assert lines[0].startswith(f"d2i1 {command.split()[0]}: error: ")
    assert message.format(**places) in lines[0]
    for folder, old in zip(folders, before, strict=True):
        new = contents(folder)
        assert {name: new.get(name) for name in old} == old
        assert all(name.startswith("out/") for name in new.keys() - old.keys())


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (f"{WARM} --host heavy", "unknown host 'heavy'"),
        (f"{WARM} --width 20", "width 20"),
        (f"{WARM} --validation_source rooms:dev", "no split 'dev'"),
        (f"{WARM} --validation_source rooms:val", "rooms has other classes"),
        (f"{CREATE} --pipeline {{pipeline}} --strength 1.5", "strength 1.5"),
        (f"{CREATE} --pipeline {{pipeline}} {MANY}", "700 steps"),
        (f"{IMPROVE} --pipeline {{pipeline}} --created {{tmp}}/photos", "was it written by"),
        (f"{IMPROVE} --pipeline {{pipeline}} --created {{tmp}}/none", "dataset {tmp}/none"),
        (f"{IMPROVE} --pipeline {{tmp}}/lonely/pipeline", "no checkpoint-N with an"),
        (f"{IMPROVE} --pipeline {{pipeline}} --validation_source rooms:dev", "no split 'dev'"),
        (f"{IMPROVE} --pipeline {{pipeline}} --validation_source folder:{{tmp}}/x.yaml", "no such"),
        (
            f"{IMPROVE} --pipeline {{pipeline}} --validation_source folder:{{photos}}",
            "photos has other classes",
        ),
    ],
)
def test_a_failed_start_claims_no_folder(
    d2i1: Callable[..., str],
    tiny_base: Path,
    photos: Path,
    pipeline: Path,
    tmp_path: Path,
    command: str,
    message: str,
) -> None:
    places = {"base": tiny_base, "photos": photos, "pipeline": pipeline, "tmp": tmp_path}
    if "lonely" in command:
        shutil.copytree(pipeline, tmp_path / "lonely/pipeline")
    assert message.format(**places) in d2i1(*command.format(**places).split(), code=2)
    assert not (tmp_path / "out").exists()


def test_a_command_typed_twice_changes_nothing(
    d2i1: Callable[..., str], tiny_base: Path, photos: Path, tmp_path: Path
) -> None:
    places = {"base": tiny_base, "photos": photos, "tmp": tmp_path}
    command = WARM.format(**places).split()
    d2i1(*command)
    assert (tmp_path / "out/pipeline/model_index.json").is_file()
    before = contents(tmp_path / "out")
    message = d2i1(*command, code=2)
    assert "--resume_from_checkpoint latest" in message
    assert contents(tmp_path / "out") == before


def test_bad_rows_are_skipped_on_request_and_listed(
    d2i1: Callable[..., str], tiny_base: Path, photos: Path, tmp_path: Path
) -> None:
    WRONG["class 7"](tmp_path, tiny_base)
    command = ("import", "--source", f"folder:{photos}", "--output_dir", tmp_path / "out")
    d2i1(*command, code=2)
    d2i1(*command, "--overwrite", "--on_bad_row", "skip")
    skipped = json.loads((tmp_path / "out/skipped.json").read_text())
    assert list(skipped) == ["3"] and "3.png" in skipped["3"]


def test_flags_override_files_in_any_order(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 5\nlearning_rate: 0.5\noutput_dir: there\n")
    flags = ["--host", "light", "--source", "rooms", "--seed", "7"]
    settings = ACTS["warm-up"].read(["--config", str(file), *flags])
    assert (settings.seed, settings.learning_rate, settings.output_dir) == (7, 0.5, "there")
    assert settings.max_train_steps == 1000


@pytest.mark.parametrize(
    ("switch", "expected"),
    [
        (["--overwrite"], True),
        (["--overwrite", "--seed", "1"], True),
        (["--overwrite", "false"], False),
        (["--overwrite=true"], True),
        ([], False),
    ],
)
def test_switches_need_no_value(switch: list[str], expected: bool) -> None:
    flags = ["--pipeline", "p", "--source", "rooms", "--output_dir", "there"]
    assert ACTS["create"].read([*flags, *switch]).overwrite is expected


@pytest.mark.parametrize("act", ACTS)
def test_every_act_has_help(act: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*act.split(), "--help"])
    assert stopped.value.code == 0
    assert f"usage: d2i1 {act}" in capfd.readouterr().out


@pytest.mark.parametrize("module", ["d2i1_train", "d2i1_train.cli"])
def test_overview_lists_every_act(module: str) -> None:
    command = [sys.executable, "-m", module, "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line[2:] for line in shown.stdout.splitlines() if line.startswith("  ")]
    assert [line.split("  ")[0].strip() for line in lines] == [*ACTS]
    assert shown.stderr == ""


def test_every_act_is_in_the_table_and_its_script_runs_it() -> None:
    rows = as_markdown().splitlines()[2:]
    for act, row in zip(RECORDS, rows, strict=True):
        assert row.startswith(f"| `d2i1 {act.name}` | {act.help} |")
        if act.script:
            name = act.name.removesuffix(" --verify")
            text = (SCRIPTS / act.script).read_text()
            assert f'main(["{name}", *sys.argv[1:]])' in text and f"`scripts/{act.script}`" in row
    launched = {file.name for file in SCRIPTS.glob("*.py") if "d2i1_train.cli" in file.read_text()}
    assert {act.script for act in RECORDS if act.script} == launched - {"benchmark.py"}


@pytest.mark.parametrize(
    ("act", "headings"),
    [
        ("warm-up", "Model, LoRA (with --train_unet lora), Data, Optimisation, Augmentation,"),
        ("self-improve", "Created samples, Labels of created samples and perturbations,"),
        ("self-improve", "perturbations, Model: theta_C follows theta_E, Data, Optimisation,"),
        ("warm-up", "Augmentation, Validation, Checkpoints, Hub, Logging"),
        ("create", "Created images, Labels and computation, Source, Files and processes"),
        ("evaluate", "Prediction, Scoring"),
        ("base", "Autoencoder, U-Net and text encoder"),
        ("predict", "Prediction"),
    ],
)
def test_help_has_headings_with_the_essential_settings_first(
    act: str, headings: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([act, "--help"])
    shown = capfd.readouterr().out
    found = re.findall(r"^(\S[^\n]*):$", shown, re.M)
    assert found[:2] == ["options", "Essential settings"]
    assert headings.rstrip(",") in ", ".join(found)
    flags = re.findall(r"^  --(\w+)", shown, re.M)
    names = [field.name for field in fields(ACTS[act].settings)]
    assert sorted(set(flags) - {"config", "print_config"}) == sorted(names)
    essential = shown.partition("Essential settings:")[2].partition(f"{found[2]}:")[0]
    for field in fields(ACTS[act].settings):
        if field.default is field.default_factory is MISSING:
            assert f"--{field.name}" in essential


@pytest.mark.parametrize("act", ACTS)
def test_every_setting_has_a_help_text(act: str) -> None:
    settings = ACTS[act].settings
    for kind in (settings, *settings.__mro__[1:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body
        for field, following in zip(body, [*body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and "ClassVar" not in ast.unparse(field):
                assert isinstance(following, ast.Expr), f"{kind.__name__}: {ast.unparse(field)}"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a.png", "b.png", "--pipeline", "p"], ["a.png", "b.png"]),
        (["--pipeline", "p", "a.png", "--flip", "b.png"], ["a.png", "b.png"]),
        (["--pipeline=p", "--flip", "false", "a b.png"], ["a b.png"]),
    ],
)
def test_images_need_no_flag(arguments: list[str], expected: list[str]) -> None:
    settings = ACTS["predict"].read([*arguments, "--output_dir", "there"])
    assert settings.images == expected and settings.pipeline == "p"
    assert settings.flip is ("--flip" in arguments and "false" not in arguments)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("warm-up rooms --output_dir there", "'rooms' has no flag"),
        ("report one two", "one two: expected one dataset, got 2"),
        ("report -x one", "unknown flag -x"),
    ],
)
def test_values_without_a_flag_are_refused(
    d2i1: Callable[..., str], command: str, message: str
) -> None:
    assert message in d2i1(*command.split(), code=2)


@pytest.mark.parametrize("preset", preset_names())
def test_presets_are_settings_of_the_act_they_name(preset: str) -> None:
    text = find_settings_file(preset).read_text()
    commands = re.findall(r"^#.*d2i1 (\S+) (--config .*)", text, re.M)
    assert commands
    for act, arguments in commands:
        assert preset in arguments.split()
        assert ACTS[act].read(arguments.split()).output_dir


def test_later_files_override_earlier_ones_and_flags_all(tmp_path: Path) -> None:
    contents = {
        "one": "seed: 1\nlearning_rate: 0.1\nreal_batch_size: 3\n"
        "color_jitter: {hue: 0.1, tint: 0.2}",
        "two": "seed: 2\nlearning_rate: 0.2\ncolor_jitter: {gamma: 0.3}\nresolution: null",
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.yaml").write_text(content)
    files = [str(tmp_path / "one.yaml"), f"--config={tmp_path / 'two.yaml'}"]
    given = ["--host", "light", "--source", "rooms", "--output_dir", "there", "--resolution", "32"]
    orders = (
        ["--config", *files, *given, "--seed", "7"],
        [*given, "--seed", "7", "--config", *files],
        ["--config", files[0], "--seed", "7", *given, files[1]],
    )
    for arguments in orders:
        settings = ACTS["warm-up"].read(arguments)
        assert (settings.seed, settings.resolution) == (7, "32")
        assert (settings.learning_rate, settings.real_batch_size) == (0.2, 3)
        assert settings.color_jitter == {"gamma": 0.3}
    turned = ["--config", str(tmp_path / "two.yaml"), "--config", files[0], *given]
    settings = ACTS["warm-up"].read(turned)
    assert (settings.seed, settings.color_jitter) == (1, {"hue": 0.1, "tint": 0.2})


def test_a_config_without_a_file_is_message(d2i1: Callable[..., str]) -> None:
    assert "--config" in d2i1("warm-up", "--seed", 1, "--config", code=2)
