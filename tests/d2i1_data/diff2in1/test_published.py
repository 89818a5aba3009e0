"""A published checkpoint: it loads with and without this package, and says what it said before."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig

from d2i1_data.checkpoints.bases import find_base
from d2i1_data.checkpoints.files import fingerprint
from d2i1_data.diff2in1 import Base, Diff2in1Output, Diff2in1Pipeline
from d2i1_data.diff2in1.join import join_modules
from d2i1_data.errors import InputError
from tests.made import contents
from tests.tiny import MOUNTS, mount_tiny

IMAGE = np.random.default_rng(0).integers(0, 256, (18, 22, 3), np.uint8)

STRANGER = """
import os
import sys
import traceback

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("d2i1_data", "d2i1_train"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Hidden())
image, *folders = sys.argv[1:]

import numpy as np
import torch
from diffusers import DiffusionPipeline

def use(folder, again, out):
    pipe = DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)
    pipe.set_progress_bar_config(disable=True)
    found = pipe.predict(np.load(image))
    generator = torch.Generator().manual_seed(0)
    created = pipe(np.load(image), "a room", num_inference_steps=2, generator=generator)
    np.savez(
        out,
        created=np.asarray(created.images[0]),
        **{name: maps[0] for name, maps in found.predictions.items()},
    )
    pipe.save_pretrained(again)
    assert not [name for name in sys.modules if name.startswith("d2i1_")]

for folder in folders:  # each in a process of its own; the libraries are imported once
    child = os.fork()
    if not child:
        try:
            use(f"{folder}/pipeline", f"{folder}/again", f"{folder}/found.npz")
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.fixture(scope="module", params=MOUNTS)
def pipe(tiny_base: Path, request: pytest.FixtureRequest) -> Diff2in1Pipeline:
    """Every host in turn, on the tiny base; tests must not change it."""
    return mount_tiny(tiny_base, request.param)


@pytest.fixture(scope="module")
def folder(pipe: Diff2in1Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "pipeline"
    pipe.save_pretrained(folder)
    return folder


def assert_same(one: Diff2in1Output, other: Diff2in1Output) -> None:
    assert one.predictions.keys() == other.predictions.keys()
    for name, maps in one.predictions.items():  # torch rounds by where a tensor lies in memory
        np.testing.assert_allclose(maps[0], other.predictions[name][0], rtol=1e-5, atol=1e-5)


def saved_files(folder: Path) -> dict[str, bytes]:
    """Every file but the tokenizer's, which transformers completes with defaults on loading, and
    the hashes, which include those files."""
    files = contents(folder)
    left_out = ("tokenizer/", "hashes.json")
    return {name: data for name, data in files.items() if not name.startswith(left_out)}


# --- what is written ---


def test_index_names_the_classes(pipe: Diff2in1Pipeline, folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "Diff2in1Pipeline"
    assert index["perception"] == ["diff2in1", type(pipe.perception).__name__]
    # the Hub's loader takes each list for a component [library, class]
    lists = {name for name, value in index.items() if isinstance(value, list)}
    parts = {"vae", "text_encoder", "tokenizer", "unet", "base_unet", "scheduler", "perception"}
    assert lists == parts
    assert index["base"] == "base"  # a name: where it lay on this machine is nobody's business


def test_code_travels_along(folder: Path) -> None:
    for name in ("pipeline.py", "perception/diff2in1.py"):
        source = (folder / name).read_text()
        compile(source, name, "exec")
        assert "from ." not in source and "import ." not in source


def test_no_path_of_this_machine_is_written(folder: Path, tiny_base: Path) -> None:
    for file in folder.rglob("*.json"):
        assert "_name_or_path" not in file.read_text(), file
        assert str(tiny_base.parent) not in file.read_text(), file


def test_config_knows_the_tasks(pipe: Diff2in1Pipeline, folder: Path) -> None:
    config = json.loads((folder / "perception" / "config.json").read_text())
    families = pipe.perception.families
    assert config["tasks"] == {name: family.config() for name, family in families.items()}


# --- loading with this package ---


def test_round_trip(pipe: Diff2in1Pipeline, folder: Path) -> None:
    loaded = Diff2in1Pipeline.from_pretrained(folder)
    assert type(loaded.perception) is type(pipe.perception)
    assert_same(pipe.predict(IMAGE), loaded.predict(IMAGE))


def test_diffusers_finds_our_class(pipe: Diff2in1Pipeline, folder: Path) -> None:
    loaded = DiffusionPipeline.from_pretrained(folder)
    assert type(loaded) is Diff2in1Pipeline
    assert type(loaded.perception) is type(pipe.perception)
    assert_same(pipe.predict(IMAGE), loaded.predict(IMAGE))


def test_saving_again_writes_the_same_files(folder: Path, tmp_path: Path) -> None:
    Diff2in1Pipeline.from_pretrained(folder).save_pretrained(tmp_path / "again")
    first, again = saved_files(folder), saved_files(tmp_path / "again")
    assert first.keys() == again.keys()
    assert [name for name in first if first[name] != again[name]] == []


def test_settings_travel_along(tiny_pipe: Diff2in1Pipeline, tmp_path: Path) -> None:
    settings = {"default_strength": 0.4, "default_processing_resolution": 16}
    tiny_pipe.register_to_config(**settings)
    tiny_pipe.save_pretrained(tmp_path)
    loaded = Diff2in1Pipeline.from_pretrained(tmp_path)
    assert settings.items() <= dict(loaded.config).items()


# --- loading without it ---


@pytest.fixture(scope="module")
def strangers(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For every host, its pipeline as saved and what a process without our package does with it."""
    folder = tmp_path_factory.mktemp("strangers")
    for mount in MOUNTS:
        mount_tiny(tiny_base, mount).save_pretrained(folder / mount / "pipeline")
    np.save(folder / "image.npy", IMAGE)
    (folder / "empty").mkdir()
    homes = {"HF_HOME": str(folder / "hf"), "HF_MODULES_CACHE": str(folder / "modules")}
    places = [folder / "image.npy", *(folder / mount for mount in MOUNTS)]
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, *map(str, places)],
        cwd=folder / "empty",
        env={**os.environ, **homes},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return folder


@pytest.mark.parametrize("mount", MOUNTS)
def test_a_stranger_needs_only_diffusers(tiny_base: Path, strangers: Path, mount: str) -> None:
    """In a process where our packages cannot be imported."""
    pipe, folder = mount_tiny(tiny_base, mount), strangers / mount
    found = np.load(folder / "found.npz")
    for name, maps in pipe.predict(IMAGE).predictions.items():
        np.testing.assert_allclose(maps[0], found[name], rtol=1e-5, atol=1e-5)
    generator = torch.Generator().manual_seed(0)
    created = pipe(IMAGE, "a room", num_inference_steps=2, generator=generator)
    np.testing.assert_array_equal(np.asarray(created.images[0]), found["created"])

    first, again = saved_files(folder / "pipeline"), saved_files(folder / "again")
    assert first.keys() == again.keys()
    assert [name for name in first if first[name] != again[name]] == []
    assert_same(
        pipe.predict(IMAGE), Diff2in1Pipeline.from_pretrained(folder / "again").predict(IMAGE)
    )


# --- what is refused ---


@pytest.mark.parametrize(
    ("part", "layers"), [("unet", ["to_q", "to_k"]), ("text_encoder", ["q_proj", "v_proj"])]
)
def test_an_adapter_that_is_not_fused_is_refused(
    tiny_pipe: Diff2in1Pipeline, tmp_path: Path, part: str, layers: list[str]
) -> None:
    getattr(tiny_pipe, part).add_adapter(LoraConfig(r=2, target_modules=layers))
    with pytest.raises(ValueError, match=f"{part} has a LoRA adapter"):
        tiny_pipe.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_fused_adapter_is_saved(tiny_pipe: Diff2in1Pipeline, tmp_path: Path) -> None:
    before = tiny_pipe.predict(IMAGE)
    config = LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    tiny_pipe.unet.add_adapter(config)
    tiny_pipe.fuse_lora(components=["unet"])
    tiny_pipe.unload_lora_weights()
    tuned = tiny_pipe.predict(IMAGE)
    assert not np.array_equal(before.predictions["depth"][0], tuned.predictions["depth"][0])
    tiny_pipe.save_pretrained(tmp_path)
    assert_same(tuned, Diff2in1Pipeline.from_pretrained(tmp_path).predict(IMAGE))


PACKAGE = {
    "__init__": "",
    "low": '"""Low."""\n\nimport math\n\nLIMIT = 3\n\n\ndef area(r):\n    return math.pi * r * r\n',
    "high": '"""High."""\n\nfrom .low import LIMIT, area\n\n\ndef capped(r):\n'
    "    return min(area(r), LIMIT)\n",
    "twice": '"""Twice."""\n\nfrom .low import LIMIT\n\n\ndef area(r):\n    return LIMIT * r\n',
    "again": '"""Again."""\n\nfrom .low import area\n\nLIMIT = 4\n',
    "typed": '"""Typed."""\n\nfrom .low import area\n\nLIMIT: int = 4\n',
    "imported": '"""Imported."""\n\nfrom statistics import mean as math\n\nfrom .low import area\n',
    "renamed": '"""Renamed."""\n\nfrom .low import area as surface\n',
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "shapes").mkdir()
    for name, source in PACKAGE.items():
        (tmp_path / "shapes" / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "shapes"]:
        monkeypatch.delitem(sys.modules, name)
    return "shapes"


def test_joined_modules_run_alone(package: str) -> None:
    source = join_modules(f"{package}.high")
    names: dict[str, object] = {}
    exec(source, names)
    assert names["__doc__"] == "High."
    assert names["capped"](0.5) == pytest.approx(np.pi / 4)  # type: ignore[operator]
    assert names["capped"](9) == 3  # type: ignore[operator]


@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        ("twice", "area is defined by both shapes.low and shapes.twice"),
        ("again", "LIMIT is defined by both shapes.low and shapes.again"),
        ("typed", "LIMIT is defined by both shapes.low and shapes.typed"),
        ("imported", "math is defined by both statistics.mean and math"),
        ("renamed", "cannot rename"),
    ],
)
def test_joining_refuses(package: str, entry: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        join_modules(f"{package}.{entry}")


# --- opening what others wrote ---


@pytest.mark.parametrize("part", ["text_encoder", "scheduler"])
@pytest.mark.parametrize("kept", ["index", "folder"])
def test_an_incomplete_base_is_refused(
    tiny_base: Path, tmp_path: Path, part: str, kept: str
) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    assert find_base(str(base)) == Base(str(base))
    if kept == "index":
        shutil.rmtree(base / part)
    else:
        index = json.loads((base / "model_index.json").read_text())
        index[part] = [None, None]
        (base / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=f": {part} missing"):
        find_base(str(base))


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no model_index\.json"):
        find_base(str(tmp_path))


@pytest.mark.parametrize("name", ["no/such/folder", "./nothing", "/nothing", "nothing"])
def test_no_folder_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_base(name)


def change_weight(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def change_config(folder: Path) -> None:
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(file.read_text().replace("scaled_linear", "linear"))


def rename_weight(folder: Path) -> None:
    (folder / "vae").rename(folder / "vae2")


@pytest.mark.parametrize("change", [change_weight, change_config, rename_weight])
def test_fingerprint_follows_the_contents(tiny_base: Path, tmp_path: Path, change: object) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "elsewhere")
    assert fingerprint(base) == fingerprint(tiny_base)
    (base / "README.md").write_text("words")  # not part of what computes
    assert fingerprint(base) == fingerprint(tiny_base)
    change(base)  # type: ignore[operator]
    assert fingerprint(base) != fingerprint(tiny_base)
