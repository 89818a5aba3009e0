"""--push_to_hub: checkpoints on the Hub while training goes on, the pipeline in the end."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
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
    """With a slow Hub, training ends long before the first checkpoint has arrived. The newest
    checkpoint replaces those that wait."""
    hub.delay = 0.3
    train(tmp_path / "slow", "--hub_model_id", "alice/other", "--hub_private_repo")
    assert hub.repo("alice/other").private
    written = (tmp_path / "slow" / "checkpoint-6" / "counters.json").stat().st_mtime
    commits = [c for c in hub.repo("alice/other").commits if c.title.startswith("checkpoint-")]
    titles = [c.title for c in reversed(commits)]
    assert titles in (["checkpoint-2", "checkpoint-6"], sorted(titles)) and len(titles) > 1
    assert datetime.fromisoformat(commits[-1].date).timestamp() > written


def test_the_limit_holds_on_the_hub(hub: Hub, train: Callable[..., str], tmp_path: Path) -> None:
    train(tmp_path / "few", "--checkpoints_total_limit", 1)
    assert checkpoints(hub, "alice/few") == {"checkpoint-6"}


def test_another_machine_resumes(hub: Hub, train: Callable[..., str], tmp_path: Path) -> None:
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


def test_the_best_checkpoint_is_pushed_too(
    hub: Hub, train: Callable[..., str], tmp_path: Path
) -> None:
    best = ("--validation_source", "rooms:val", "--num_validation_samples", 2)
    best += ("--validation_steps", 1, "--best_metric", "normals.mean")
    ours = tmp_path / "one" / "warm"
    train(ours, *best)
    files = {f"best/{name}": data for name, data in contents(ours / "best").items()}
    pushed = hub.files("alice/warm")
    assert {name: data for name, data in pushed.items() if name.startswith("best/")} == files
    train(tmp_path / "two" / "warm", *best, "--resume_from_checkpoint", "latest")
    again = contents(tmp_path / "two" / "warm" / "best")
    assert again == contents(ours / "best")
    assert "holds checkpoints of another run" in train(tmp_path / "three" / "warm", *best, code=2)
    latest = ("--resume_from_checkpoint", "latest", "--max_train_steps", 8)
    train(tmp_path / "two" / "warm", *latest)
    assert not [name for name in hub.files("alice/warm") if name.startswith("best/")]


def test_a_wrong_token_is_refused_before_training(
    hub: Hub, train: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "wrong" * 7)
    assert "does not accept the token" in train(tmp_path / "warm", code=2)
    assert not (tmp_path / "warm").exists()


def test_a_token_without_write_access_is_refused(
    hub: Hub, train: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    HfApi().create_repo("alice/warm")
    for token in (hub.read_token, hub.bob_token):
        monkeypatch.setenv("HF_TOKEN", token)
        output = train(tmp_path / "warm", "--hub_model_id", "alice/warm", code=2)
        assert "alice/warm: the Hub refuses (403)" in output
    assert not (tmp_path / "warm").exists()


def test_checkpoints_of_another_run_stay(
    hub: Hub, train: Callable[..., str], tmp_path: Path
) -> None:
    train(tmp_path / "one" / "warm")
    before = hub.files("alice/warm")
    output = train(tmp_path / "two" / "warm", "--checkpoints_total_limit", 1, code=2)
    assert "alice/warm holds checkpoints of another run" in output
    assert hub.files("alice/warm") == before and not (tmp_path / "two" / "warm").exists()


def test_only_a_complete_checkpoint_is_fetched(
    hub: Hub, train: Callable[..., str], tmp_path: Path
) -> None:
    train(tmp_path / "one" / "warm")
    file = tmp_path / "one" / "warm" / "checkpoint-6" / "exploitation.safetensors"
    for name in ("checkpoint-9", "checkpoint-0012"):
        HfApi().upload_file(
            path_or_fileobj=file, path_in_repo=f"{name}/{file.name}", repo_id="alice/warm"
        )
    train(tmp_path / "two" / "warm", "--resume_from_checkpoint", "latest", "--max_train_steps", 7)
    assert (tmp_path / "two" / "warm" / "checkpoint-7").is_dir()


def test_a_lora_is_also_pushed_alone(
    hub: Hub, train: Callable[..., str], tiny_base: Path, tmp_path: Path
) -> None:
    train(tmp_path / "lora", "--train_unet", "lora", "--rank", 2)
    assert "pytorch_lora_weights.safetensors" in hub.files("alice/lora-adapter")
    assert "unet/config.json" in hub.files("alice/lora")
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    whole = Diff2in1Pipeline.from_pretrained("alice/lora").predict(image)
    apart = Diff2in1Pipeline.from_adapter("alice/lora-adapter", str(tiny_base)).predict(image)
    (one,), (other,) = whole.predictions["normals"], apart.predictions["normals"]
    np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.slow
def test_one_of_two_processes_pushes(hub: Hub, tiny_base: Path, tmp_path: Path) -> None:
    source = ("--source", "rooms:train", "--max_train_samples", "2", "--resolution", "32")
    host = ("--host", "light", "--width", "16", "--tasks", "normals", "--report_to", "none")
    steps = ("--max_train_steps", "2", "--checkpointing_steps", "1", "--real_batch_size", "1")
    where = ("--base", str(tiny_base), "--output_dir", str(tmp_path / "two"), "--push_to_hub")
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2")
    script = str(Path(__file__).parents[3] / "scripts" / "warm_up.py")
    subprocess.run([*torchrun, script, *where, *source, *host, *steps], check=True)
    assert "checkpoint-2" in checkpoints(hub, "alice/two")
    assert {"random_states_0.pkl", "random_states_1.pkl"} <= {
        name.rpartition("/")[2] for name in hub.files("alice/two")
    }
    assert "model_index.json" in hub.files("alice/two")
    assert len([c for c in hub.repo("alice/two").commits if "Publish" in c.title]) == 1


def test_a_failing_hub_does_not_stop_training(
    hub: Hub, train: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, d2i1: D2i1
) -> None:
    monkeypatch.setattr("d2i1_data.hub.retry.FIRST_WAIT", 0.001)
    hub.fail("POST", r".*/commit/.*", 503, times=10_000, headers={"Retry-After": "0"})
    output = train(tmp_path / "warm", code=2)
    assert "is complete, but not on the Hub" in output and "d2i1 publish --run" in output
    hub.faults.clear()
    d2i1("publish", "--run", tmp_path / "warm", "--repo_id", "alice/warm")
    assert "model_index.json" in hub.files("alice/warm")


def test_flags_without_effect_are_refused(train: Callable[..., str], d2i1: D2i1) -> None:
    flags = ("--host", "light", "--source", "rooms:train", "--output_dir", "unused")
    output = d2i1("warm-up", *flags, "--hub_model_id", "alice/x", code=2)
    assert "--hub_model_id has no effect without --push_to_hub" in output
