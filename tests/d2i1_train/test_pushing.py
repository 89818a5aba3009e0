"""--push_to_hub: checkpoints on the Hub while training goes on, the pipeline in the end."""

import json
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from safetensors.torch import load_file

from d2i1_data.diff2in1 import Diff2in1Pipeline
from tests.hub import Hub
from tests.made import contents

D2i1 = Callable[..., str]


@pytest.fixture
def train(tiny_base: Path, d2i1: D2i1) -> Callable[..., str]:
    """A warm-up of six steps, a checkpoint every second one."""

    def train(folder: Path, *flags: object, code: int = 0) -> str:
        source = ("--source", "rooms:train", "--max_train_samples", 2, "--resolution", 32)
        host = ("--host", "light", "--width", 16, "--tasks", "normals", "--report_to", "none")
        steps = ("--max_train_steps", 6, "--checkpointing_steps", 2, "--real_batch_size", 2)
        where = ("--base", tiny_base, "--output_dir", folder, "--push_to_hub")
        return d2i1("warm-up", *where, *source, *host, *steps, *flags, code=code)

    return train


def checkpoints(hub: Hub, repo_id: str) -> set[str]:
    return {m[1] for name in hub.files(repo_id) if (m := re.match(r"(checkpoint-\d+)/", name))}


def test_checkpoints_and_the_pipeline_arrive(
    hub: Hub, train: Callable[..., str], tmp_path: Path
) -> None:
    train(tmp_path / "warm")
    files = hub.files("alice/warm")
    ours = contents(tmp_path / "warm")
    last = {name: data for name, data in ours.items() if name.startswith("checkpoint-6/")}
    assert last and last.items() <= files.items()
    weights = "perception/diffusion_pytorch_model.safetensors"
    assert files[weights] == ours[f"pipeline/{weights}"]
    assert not (tmp_path / "warm" / ".push").exists()
    assert not [name for name in files if "run.json" in name or name.startswith("logs/")]
    assert Diff2in1Pipeline.from_pretrained("alice/warm").perception.families.keys() == {"normals"}
    assert all(hub.token.encode() not in data for data in [*files.values(), *ours.values()])


def test_the_loop_does_not_wait(hub: Hub, train: Callable[..., str], tmp_path: Path) -> None:
    """With a slow Hub the steps are done long before the first checkpoint is there; the newest
    takes the place of those that waited."""
    hub.delay = 0.3
    train(tmp_path / "slow", "--hub_model_id", "alice/other", "--hub_private_repo")
    assert hub.repo("alice/other").private
    written = (tmp_path / "slow" / "checkpoint-6" / "counters.json").stat().st_mtime
    commits = [c for c in hub.repo("alice/other").commits if c.title.startswith("checkpoint-")]
    assert [c.title for c in commits] == ["checkpoint-6", "checkpoint-2"]  # newest first
    assert datetime.fromisoformat(commits[-1].date).timestamp() > written


def test_the_limit_holds_on_the_hub(hub: Hub, train: Callable[..., str], tmp_path: Path) -> None:
    train(tmp_path / "few", "--checkpoints_total_limit", 1)
    assert checkpoints(hub, "alice/few") == {"checkpoint-6"}


def test_another_machine_goes_on(hub: Hub, train: Callable[..., str], tmp_path: Path) -> None:
    train(tmp_path / "one" / "warm")
    whole = load_file(tmp_path / "one" / "warm" / "checkpoint-6" / "exploitation.safetensors")
    for name in sorted(checkpoints(hub, "alice/warm") - {"checkpoint-2"}):
        HfApi().delete_folder(name, "alice/warm")
    assert checkpoints(hub, "alice/warm") == {"checkpoint-2"}
    train(tmp_path / "two" / "warm", "--resume_from_checkpoint", "latest")
    resumed = tmp_path / "two" / "warm"
    assert json.loads((resumed / "checkpoint-2" / "counters.json").read_text())["step"] == 2
    again = load_file(resumed / "checkpoint-6" / "exploitation.safetensors")
    assert whole.keys() == again.keys()
    assert all((whole[name] == again[name]).all() for name in whole)


def test_a_wrong_token_ends_it_before_it_begins(
    hub: Hub, train: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "wrong" * 7)
    assert "does not accept the token" in train(tmp_path / "warm", code=2)
    assert not (tmp_path / "warm").exists()


def test_a_hub_that_goes_away_costs_nothing(
    hub: Hub, train: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, d2i1: D2i1
) -> None:
    monkeypatch.setattr("d2i1_data.hub.FIRST_WAIT", 0.001)
    hub.fail("POST", r".*/commit/.*", 503, times=10_000, headers={"Retry-After": "0"})
    said = train(tmp_path / "warm", code=2)
    assert "is complete, but not on the Hub" in said and "d2i1 publish --run" in said
    hub.faults.clear()
    d2i1("publish", "--run", tmp_path / "warm", "--repo_id", "alice/warm")
    assert "model_index.json" in hub.files("alice/warm")


def test_flags_that_say_nothing_are_refused(train: Callable[..., str], d2i1: D2i1) -> None:
    flags = ("--host", "light", "--source", "rooms:train", "--output_dir", "unused")
    said = d2i1("warm-up", *flags, "--hub_model_id", "alice/x", code=2)
    assert "--hub_model_id says nothing without --push_to_hub" in said
