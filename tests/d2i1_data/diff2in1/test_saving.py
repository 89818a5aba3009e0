"""What stands outside the model room: its registry of hosts, its format version, its card."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging

import d2i1_data
from d2i1_data.card.text import host_name
from d2i1_data.checkpoints.pipelines import open_pipeline
from d2i1_data.diff2in1 import HOSTS, Diff2in1Pipeline, Perception, register_host
from d2i1_data.diff2in1.hosts import Light
from d2i1_data.diff2in1.saving import FORMAT_VERSION
from d2i1_data.errors import InputError
from tests.hub import Hub

IMAGE = np.random.default_rng(0).integers(0, 256, (18, 22, 3), np.uint8)


# --- hosts ---


class Slim(Light):
    """A host that was added while the program runs."""

    name: ClassVar = "slim"


@pytest.fixture
def slim() -> Iterator[type[Perception]]:
    yield register_host(Slim)
    del HOSTS["slim"]


def test_every_host_has_its_name() -> None:
    assert {name: host.name for name, host in HOSTS.items()} == {name: name for name in HOSTS}
    assert next(iter(HOSTS.values())) is Light


@pytest.mark.usefixtures("slim")
def test_a_host_is_added_at_run_time(
    tiny_pipe: Diff2in1Pipeline, tiny_base: Path, tmp_path: Path, d2i1: Callable[..., str]
) -> None:
    tasks = {name: family.config() for name, family in tiny_pipe.perception.families.items()}
    pipe = Diff2in1Pipeline.from_base(str(tiny_base), "slim", tasks, width=16)
    pipe.save_pretrained(tmp_path / "pipeline")
    loaded = DiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    assert type(loaded.perception) is Slim and host_name("Slim") == "slim"
    flags = ("--source", "rooms:train", "--max_train_samples", 2, "--resolution", 32)
    host = ("--base", tiny_base, "--host", "slim", "--width", 16, "--report_to", "none")
    steps = ("--max_train_steps", 1, "--real_batch_size", 2, "--output_dir", tmp_path / "run")
    d2i1("warm-up", *flags, *host, *steps)
    assert "slim" in (tmp_path / "run/pipeline/README.md").read_text()


def test_what_is_not_registered_is_refused(tiny_base: Path) -> None:
    with pytest.raises(ValueError, match="unknown host 'slim': choose from light, bae, idisc, vpd"):
        Diff2in1Pipeline.from_base(str(tiny_base), "slim", {})


@pytest.mark.usefixtures("slim")
def test_two_hosts_cannot_have_one_name() -> None:
    class Other(Light):
        name: ClassVar = "slim"

    with pytest.raises(ValueError, match="'slim' is registered already, as Slim"):
        register_host(Other)
    assert HOSTS["slim"] is Slim


# --- embedded bases ---


def test_an_embedded_base_is_found_by_its_name(
    tiny_pipe: Diff2in1Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_base: Path
) -> None:
    tasks = {name: family.config() for name, family in tiny_pipe.perception.families.items()}
    (tmp_path / "mine").symlink_to(tiny_base)
    monkeypatch.setattr("d2i1_data.diff2in1.checkpoint.EMBEDDED", tmp_path)
    pipe = Diff2in1Pipeline.from_base("mine", "light", tasks, width=16)
    assert pipe.config.base == "mine"


# --- format ---


def test_a_folder_states_its_format(tiny_pipe: Diff2in1Pipeline, tmp_path: Path) -> None:
    tiny_pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["format_version"] == FORMAT_VERSION == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("default_processing_resolution", 10**30),
        ("default_strength", 0),
        ("default_strength", "much"),
        ("default_num_inference_steps", 2.5),
        ("default_guidance_scale", float("nan")),
    ],
)
def test_impossible_defaults_are_refused(
    tiny_pipe: Diff2in1Pipeline, name: str, value: object
) -> None:
    parts = {**tiny_pipe.components, name: value}
    with pytest.raises(ValueError, match=f"{name} .*: expected a number above"):
        Diff2in1Pipeline(**parts)


@pytest.mark.parametrize("version", [2, "1", None])
def test_a_newer_format_is_refused(
    tiny_pipe: Diff2in1Pipeline, tmp_path: Path, version: object
) -> None:
    tiny_pipe.save_pretrained(tmp_path)
    file = tmp_path / "model_index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format_version": version}))
    wrong = rf"format version {version!r}, this version of diff2in1 opens up to 1: update"
    with pytest.raises(InputError, match=rf"pipeline {tmp_path}: {wrong}"):
        open_pipeline(str(tmp_path))
    with pytest.raises(ValueError, match=wrong):
        Diff2in1Pipeline.from_pretrained(tmp_path)
    (tmp_path / "unet").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=rf"adapter {tmp_path}: {wrong}"):
        Diff2in1Pipeline.from_adapter(str(tmp_path))


# --- card ---


def test_a_pipeline_without_a_card_writer_says_so(
    hub: Hub,
    tiny_pipe: Diff2in1Pipeline,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert d2i1_data.Diff2in1Pipeline is Diff2in1Pipeline  # hands the writer in
    assert Diff2in1Pipeline.card_writer is not None
    diffusers_logging.enable_propagation()
    logging.getLogger("d2i1_data").setLevel(logging.WARNING)
    tiny_pipe.push_to_hub("carded")
    assert "No card" not in caplog.text and "README.md" in hub.files("alice/carded")
    monkeypatch.setattr(Diff2in1Pipeline, "card_writer", None)
    tiny_pipe.push_to_hub("bare")
    diffusers_logging.disable_propagation()
    assert "No card is pushed" in caplog.text and "README.md" not in hub.files("alice/bare")
