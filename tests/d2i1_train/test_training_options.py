"""Options of training: caches, threads, rates, optimisers, the best weights, trackers."""

import copy
import importlib.util
import json
import shutil
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.sources import open_rows
from d2i1_train.cli import main
from d2i1_train.loop.augment import Augmentation
from d2i1_train.loop.batches import seeded
from d2i1_train.loop.cache import Cache
from d2i1_train.loop.checkpoint import read_counters
from d2i1_train.loop.examples import Examples, Use
from d2i1_train.loop.lora import add_lora
from d2i1_train.loop.optimizer import make_optimizer, make_schedule
from d2i1_train.loop.validation import BestCheckpoint, Validation
from d2i1_train.settings import WarmUpSettings
from d2i1_train.theta import make_theta

REAL = ("--source", "rooms:train", "--max_train_samples", 4, "--resolution", 32)
REAL += ("--real_batch_size", 2)
HOST = ("--host", "light", "--width", 16, "--tasks", "normals,depth,semseg")
STEPS = ("--max_train_steps", 4, "--checkpointing_steps", 2)
FULL = ("--train_unet", "full", "--denoise_weight", 0.1)
VALIDATE = ("--validation_source", "rooms:val", "--num_validation_samples", 2)
VALIDATE += ("--validation_steps", 1, "--logging_steps", 1)

Train = Callable[..., Path]


@pytest.fixture(scope="module")
def train(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Warm up four steps; the run's folder. One of the same flags is made once."""
    folder, number = tmp_path_factory.mktemp("options"), count()
    made: dict[tuple[object, ...], Path] = {}

    def train(*flags: object, again: bool = False) -> Path:
        if again or flags not in made:
            made[flags] = folder / str(next(number))
            command = ("warm-up", "--base", tiny_base, *REAL, *HOST, *STEPS)
            report = () if "--report_to" in flags else ("--report_to", "none")
            arguments = (*command, *report, *flags, "--output_dir", made[flags])
            assert main([str(argument) for argument in arguments]) == 0
        return made[flags]

    return train


def theta(folder: Path, step: int = 4) -> dict[str, Tensor]:
    return load_file(folder / f"checkpoint-{step}" / "exploitation.safetensors")


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def settings(**more: object) -> WarmUpSettings:
    fixed = {"source": "rooms:train", "output_dir": "unused", "host": "light"}
    return WarmUpSettings(**{**fixed, **more})  # type: ignore[arg-type]


def examples(pipe: Diff2in1Pipeline, *, flip: bool = False, denoise: bool = False) -> Examples:
    shared = (pipe, make_theta(pipe), pipe.perception_conditioning(), Cache(None))
    return Examples(
        open_rows("rooms:train", "32", 4),
        *shared,
        augment=Augmentation(flip=flip),
        use=Use(denoise=denoise),
    )


# --- the cache ---


def test_cache_makes_a_thing_once(tiny_pipe: Diff2in1Pipeline, tmp_path: Path) -> None:
    made, numbers = [], count()

    def get(cache: Cache, model: AutoencoderKL, *made_of: object) -> float:
        def make() -> Tensor:
            made.append(made_of)
            return torch.tensor([float(next(numbers))])

        return cache.get(model, made_of, make).item()

    one, other = Cache(str(tmp_path / "cache")), Cache(str(tmp_path / "cache"))
    changed, half = copy.deepcopy(tiny_pipe.vae), copy.deepcopy(tiny_pipe.vae).bfloat16()
    with torch.no_grad():
        changed.decoder.conv_out.bias[0] += 1
    found = [get(cache, tiny_pipe.vae, "room", (2, 3)) for cache in (one, other, one)]
    assert found == [0, 0, 0] and len(made) == 1
    assert [get(one, tiny_pipe.vae, "room", (3, 2)), get(other, changed, "room", (2, 3))] == [1, 2]
    assert [get(cache, half, "room", (2, 3)) for cache in (one, other)] == [3, 3]
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == len(made) == 4
    assert list((tmp_path / "cache").rglob("*.tmp")) == []
    assert [get(Cache(None), tiny_pipe.vae, "room", (2, 3)) for _ in range(2)] == [4, 5]


@pytest.mark.parametrize("left", [0, 7, -1])
def test_a_broken_file_is_made_again(
    tiny_pipe: Diff2in1Pipeline, tmp_path: Path, left: int
) -> None:
    cache, wanted = Cache(str(tmp_path)), torch.arange(6.0).reshape(2, 3)
    cache.get(tiny_pipe.vae, ("room",), lambda: wanted)
    (file,) = tmp_path.rglob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:left])
    assert torch.equal(cache.get(tiny_pipe.vae, ("room",), lambda: wanted), wanted)
    assert file.read_bytes() == whole


def test_cached_latents_are_of_their_padding(tiny_pipe: Diff2in1Pipeline, tmp_path: Path) -> None:
    """Bases may share an autoencoder and differ in stride: a deeper U-Net."""
    rows, conditioning = open_rows("rooms:train", "36", 1), tiny_pipe.perception_conditioning()
    shapes = []
    for stride in (4, 32):
        tiny_pipe.stride = stride
        shared = (tiny_pipe, make_theta(tiny_pipe), conditioning)
        for cache in (str(tmp_path), None):
            example = Examples(rows, *shared, Cache(cache), augment=Augmentation()).get(0, False)
            shapes.append(tuple(example.latents.shape[1:]))
    assert shapes == [(18, 18), (18, 18), (32, 32), (32, 32)]


def test_a_cache_changes_nothing_and_saves_the_autoencoder(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, encode = [], AutoencoderKL.encode

    def counted(self: AutoencoderKL, x: Tensor, *rest: object, **more: object) -> object:
        encoded.append(len(x))
        return encode(self, x, *rest, **more)

    monkeypatch.setattr(AutoencoderKL, "encode", counted)
    flags = (*FULL, "--cache_dir", tmp_path / "cache")
    first, calls = train(*flags), len(encoded)
    second = train(*flags, again=True)
    assert calls > 1 and len(encoded) == calls + 1  # the picture of the card
    assert differing(theta(first), theta(second)) == []
    assert differing(theta(first), theta(train(*FULL))) == []


# --- loading ---


@pytest.mark.parametrize("flags", [(), FULL])
def test_threads_change_nothing(train: Train, flags: tuple[object, ...]) -> None:
    threaded = train(*flags, "--dataloader_num_workers", 2)
    assert differing(theta(threaded), theta(train(*flags))) == []


def test_threads_do_not_share_the_tokenizer_at_once(
    tiny_pipe: Diff2in1Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps padding and truncation as a state: another's call in between changes the ids."""
    tokenizer, inside, most = type(tiny_pipe.tokenizer), [0], [0]
    call = tokenizer.__call__

    def slowly(self: object, *texts: object, **options: object) -> object:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.02)
        try:
            return call(self, *texts, **options)
        finally:
            inside[0] -= 1

    part = examples(tiny_pipe, denoise=True)
    monkeypatch.setattr(tokenizer, "__call__", slowly)
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda n: part.draw(n, seeded(n)), range(4)))
    assert len({example.caption for example in drawn}) > 1
    assert most == [1]


def test_only_the_first_rows_are_kept(
    tiny_pipe: Diff2in1Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = examples(tiny_pipe).get(0, False).nbytes
    for rows, flip in ((0, False), (1, False), (3, False), (2, True)):
        memory = rows * size * (1 + flip) + 1
        monkeypatch.setattr("d2i1_train.loop.examples.MEMORY", memory)
        part = examples(tiny_pipe, flip=flip)
        for index in (3, 2, 1, 0):
            part.get(index, False)
        whole = {index for (index, *_), example in part.kept.items() if example.pyramid}
        assert whole == {*range(rows)}
        plain = part.get(3, False)._replace(pyramid=None).nbytes
        kept = {index for index in range(4) if (index + 1) * (1 + flip) * plain <= memory}
        assert {index for index, *_ in part.kept} == kept


@pytest.mark.parametrize("flags", [(), FULL])
def test_little_memory_changes_only_rounding(
    train: Train,
    tiny_pipe: Diff2in1Pipeline,
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[object, ...],
) -> None:
    roomy, whole = theta(train(*flags)), examples(tiny_pipe).get(0, False)
    size = whole._replace(pyramid=None).nbytes if flags else whole.nbytes
    for rows in (0, 2):  # none fits, and the first two in both views
        monkeypatch.setattr("d2i1_train.loop.examples.MEMORY", rows * 2 * size)
        tight = theta(train(*flags, again=True))
        parts = [(tight[name] - tensor).abs().flatten() for name, tensor in roomy.items()]
        difference = torch.cat(parts)
        if flags:
            assert difference.max() == 0
        else:  # two samples' pyramid rounds not as each one's, and AdamW divides by small gradients
            assert difference.max() < 1e-3 and (difference > 1e-5).double().mean() < 1e-3


# --- rates and optimisers ---


@pytest.mark.parametrize(
    ("name", "expected"),  # at steps 0, 1, 2, 4, 6 and 10 of 10, the first two warming up
    [
        ("constant", [1, 1, 1, 1, 1, 1]),
        ("constant_with_warmup", [0, 0.5, 1, 1, 1, 1]),
        ("linear", [0, 0.5, 1, 0.75, 0.5, 0]),
        ("cosine", [0, 0.5, 1, 0.85355, 0.5, 0]),
        ("cosine_with_restarts", [0, 0.5, 1, 0.5, 1, 0]),
        ("polynomial", [0, 0.5, 1, 0.5625, 0.25, 0]),
    ],
)
def test_schedules(tiny_pipe: Diff2in1Pipeline, name: str, expected: list[float]) -> None:
    more = {"lr_num_cycles": 2, "lr_power": 2.0, "max_train_steps": 10}
    own = settings(lr_scheduler=name, lr_warmup_steps=2, **more)
    rate = make_schedule(make_optimizer(make_theta(tiny_pipe), own), own)
    assert [rate(step) for step in (0, 1, 2, 4, 6, 10)] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("rates", [(1e-4, 1e-3), (0.0, 1e-3), (1e-3, 1e-3)])
def test_unet_and_host_have_rates_of_their_own(
    tiny_pipe: Diff2in1Pipeline, rates: tuple[float, float]
) -> None:
    tiny_pipe.register_to_config(trained_unet="full")
    own = make_theta(tiny_pipe)
    optimizer = make_optimizer(own, settings(unet_learning_rate=rates[0], learning_rate=rates[1]))
    found = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in own.named_parameters():
        if parameter.requires_grad:
            assert found.pop(id(parameter)) == rates[not name.startswith("unet.")], name
    assert found == {}


def test_a_rate_of_zero_leaves_the_unet_alone(train: Train, tiny_base: Path) -> None:
    found = theta(train(*FULL, "--unet_learning_rate", 0))
    base = load_file(tiny_base / "unet/diffusion_pytorch_model.safetensors")
    for name, tensor in found.items():
        if name.startswith("unet."):
            assert torch.equal(tensor, base[name.removeprefix("unet.")]), name
    moved = differing(found, theta(train(*FULL)))
    assert any(name.startswith("unet.") for name in moved)
    first = theta(train(*FULL, "--unet_learning_rate", 0), 2)
    assert differing(first, found) == [name for name in found if name.startswith("perception.")]


def test_moments_in_8_bit(train: Train, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    folder = train(*FULL, "--use_8bit_adam", "true")
    stored = torch.load(folder / "checkpoint-4/optimizer.bin", weights_only=True)["state"].values()
    moments = [state["__bnb_optimizer_quant_state__"]["state1"] for state in stored]
    assert {one.dtype for one in moments if one.numel() >= 4096} == {torch.uint8}
    assert len(moments) == len([name for name in theta(folder) if "running" not in name])
    assert differing(theta(folder), theta(train(*FULL))) != []
    for name, tensor in theta(train(*FULL)).items():
        torch.testing.assert_close(theta(folder)[name], tensor, atol=1e-2, rtol=0)

    resumed = shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(resumed / "checkpoint-4")
    shutil.rmtree(resumed / "pipeline")
    flags = (*FULL, "--use_8bit_adam", "true", "--resume_from_checkpoint", "latest")
    base = json.loads((folder / "run.json").read_text())["settings"]["base"]
    command = ("warm-up", "--base", base, *REAL, *HOST, *STEPS, "--report_to", "none", *flags)
    assert main([str(part) for part in (*command, "--output_dir", resumed)]) == 0
    assert differing(theta(resumed), theta(folder)) == []

    flags = ("--denoise_weight", 0.1, "--use_8bit_adam", "true", "--report_to", "none")
    command = (
        "self-improve",
        "--pipeline",
        folder / "pipeline",
        *REAL,
        "--max_train_steps",
        1,
        *flags,
    )
    assert main([str(part) for part in (*command, "--output_dir", tmp_path / "improved")]) == 0
    carried = torch.load(tmp_path / "improved/checkpoint-1/optimizer.bin", weights_only=True)
    assert {state["step"] for state in carried["state"].values()} == {5}


@pytest.mark.parametrize("before", ["true", "false"])
def test_moments_of_another_precision_are_not_carried_over(
    train: Train, tmp_path: Path, d2i1: Callable[..., str], before: str
) -> None:
    pytest.importorskip("bitsandbytes")
    folder = train(*FULL, *(("--use_8bit_adam", "true") if before == "true" else ()))
    now = "false" if before == "true" else "true"
    flags = ("--denoise_weight", 0.1, "--use_8bit_adam", now, "--report_to", "none")
    command = ("self-improve", "--pipeline", folder / "pipeline", *REAL, *STEPS, *flags)
    message = d2i1(*command, "--output_dir", tmp_path / "out", code=2)
    assert "--fresh_optimizer" in message


# --- validation ---


@pytest.fixture(scope="module")
def validated(train: Train) -> Path:
    """Rates so high that the last weights are not the best."""
    rates = ("--learning_rate", 3, "--best_metric", "depth.abs_rel")
    return train(*VALIDATE, *rates, "--report_to", "tensorboard")


@pytest.fixture(scope="module")
def events(validated: Path) -> EventAccumulator:
    return EventAccumulator(str(validated / "logs/warm-up")).Reload()


def test_the_best_weights_are_published(validated: Path, events: EventAccumulator) -> None:
    logged = {event.step: event.value for event in events.Scalars("theta/depth/abs_rel")}
    assert list(logged) == [1, 2, 3, 4]
    best = json.loads((validated / "best/best.json").read_text())
    step = min(logged, key=logged.__getitem__)
    assert (best["step"], best["metric"]) == (step, "depth.abs_rel") and step < 4
    assert best["value"] == pytest.approx(logged[step], rel=1e-5)
    assert read_counters(validated / "best").step == step
    kept = load_file(validated / "best/exploitation.safetensors")
    file = validated / "pipeline/perception/diffusion_pytorch_model.safetensors"
    published = {f"perception.{name}": tensor for name, tensor in load_file(file).items()}
    assert differing(kept, published) == [] and differing(kept, theta(validated)) != []


def test_tensorboard_shows_figures_and_pictures(events: EventAccumulator) -> None:
    tags = events.Tags()
    tasks = ("normals", "depth", "semseg")
    assert {"lr/host", "theta/depth/abs_rel", *(f"loss/{n}" for n in tasks)} <= {*tags["scalars"]}
    assert tags["images"] == ["theta/validation"]
    picture = events.Images("theta/validation")[-1]
    assert picture.step == 4 and picture.width > 10 * 32 and picture.height >= 2 * 32


@pytest.mark.parametrize("higher", [False, True])
def test_best_weights_follow_the_metric(tmp_path: Path, higher: bool) -> None:
    best = BestCheckpoint(tmp_path, "depth", "abs_rel", higher)
    assert not best.is_saved()
    best.folder.mkdir()
    saved = []
    for step, value in enumerate([float("nan"), 0.5, float("nan"), 0.7, 0.3, 0.5]):
        if better := best.better({"depth": {"abs_rel": value}}):
            (best.folder / "counters.json").touch()  # a checkpoint with this file is complete
            (best.folder / "best.json").write_text(json.dumps(better))
            saved.append(step)
    assert saved == ([0, 1, 3] if higher else [0, 1, 4]) and best.is_saved()
    other = BestCheckpoint(tmp_path, "depth", "rmse", higher)  # not comparable: starts again
    assert not other.is_saved()
    for value in (0.0, 9.0):
        assert other.better({"depth": {"rmse": value}}) == {"metric": "depth.rmse", "value": value}


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (("--best_metric", "depth.delta9", *VALIDATE), ["depth.abs_rel", "semseg.miou"]),
        (("--best_metric", "abs_rel", *VALIDATE), ["depth.abs_rel"]),
        (("--best_metric", "depth.abs_rel"), ["--validation_source"]),
    ],
)
def test_a_metric_that_is_not_measured_is_refused(
    d2i1: Callable[..., str],
    tiny_base: Path,
    tmp_path: Path,
    flags: tuple[object, ...],
    names: list[str],
) -> None:
    command = ("warm-up", "--base", tiny_base, *REAL, *HOST, "--report_to", "none", *flags)
    message = d2i1(*command, "--output_dir", tmp_path / "out", code=2).lower()
    assert all(name in message for name in names) and not (tmp_path / "out").exists()


def test_validation_is_without_dropout(tiny_pipe: Diff2in1Pipeline) -> None:
    own = settings(train_unet="lora", lora_dropout=0.5, resolution="32")
    own.validation_source, own.num_validation_samples = "rooms:val", 2
    add_lora(tiny_pipe.unet, own)
    with torch.no_grad():
        for name, parameter in tiny_pipe.unet.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    tiny_pipe.register_to_config(trained_unet="lora")
    make_theta(tiny_pipe)
    image = next(open_rows("rooms:val", "32", 1).samples()).image
    modes = [module.training for module in tiny_pipe.unet.modules()]
    one, other = (tiny_pipe.predict(image, output_type="pt") for _ in range(2))
    assert not torch.equal(one.predictions["depth"][0], other.predictions["depth"][0])
    validation = Validation(own, tiny_pipe)
    assert validation.score(tiny_pipe) == validation.score(tiny_pipe)
    assert validation.picture(tiny_pipe).tobytes() == validation.picture(tiny_pipe).tobytes()
    assert [module.training for module in tiny_pipe.unet.modules()] == modes
    assert all(modes) and tiny_pipe.perception.training and not tiny_pipe.vae.training


# --- trackers ---


def test_wandb_gets_figures_and_pictures(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = train(*VALIDATE, "--report_to", "wandb")
    wandb.teardown()  # its service writes the last of the log
    (own,) = folder.glob("wandb/offline-run-*")
    assert list((own / "files").glob("media/images/theta/validation_*.png"))
    (log,) = own.glob("run-*.wandb")
    assert all(name in log.read_bytes() for name in (b"loss/depth", b"theta/depth/abs_rel"))


def test_trackio_gets_figures_and_pictures(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))  # read as it is imported
    trackio = pytest.importorskip("trackio")
    assert tmp_path == trackio.utils.TRACKIO_DIR
    train(*VALIDATE, "--report_to", "trackio")
    with closing(sqlite3.connect(tmp_path / "warm-up.db")) as database:
        rows = database.execute("select step, metrics from metrics").fetchall()
    found = {(step, name) for step, metrics in rows for name in json.loads(metrics)}
    names = ("lr/host", "loss/depth", "theta/depth/abs_rel", "theta/validation")
    assert {(step, name) for step in (1, 2, 3, 4) for name in names} <= found
    pictures = list((tmp_path / "media/warm-up").rglob("*.png"))
    assert len(pictures) == 4 and Image.open(pictures[0]).width > 10 * 32


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb", "trackio"])
def test_a_missing_tracker_names_its_extra(
    d2i1: Callable[..., str],
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tracker: str,
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == tracker else find(name, *more),
    )
    command = ("warm-up", "--base", tiny_base, *REAL, *HOST, "--report_to", tracker)
    message = d2i1(*command, "--output_dir", tmp_path / "out", code=2)
    assert f"pip install 'diff2in1[{tracker}]'" in message and not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED"])
def test_sharding_is_refused_in_one_line(
    d2i1: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{kind}", "true")
    flags = ("--config", "rooms", "--max_train_samples", 1, "--output_dir", tmp_path / "out")
    message = d2i1("warm-up", *flags, code=2)
    assert kind in message and "eight_gpus.yaml" in message and message.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", [("--rank", 8), ("--lora_dropout", 0.1), ("--use_rslora",)])
def test_what_is_of_a_lora_is_refused_without_one(
    d2i1: Callable[..., str], tmp_path: Path, flag: tuple[object, ...]
) -> None:
    run = ("--config", "rooms", "--output_dir", tmp_path / "out")
    message = d2i1("warm-up", *run, *flag, code=2)
    assert f"{flag[0]} has no effect without --train_unet lora" in message


def test_a_run_that_stopped_before_its_first_validation_ends(
    d2i1: Callable[..., str], train: Train, tiny_base: Path
) -> None:
    """Its last checkpoint is there, the best weights are not: it publishes the last."""
    flags = (*VALIDATE, "--best_metric", "depth.rmse")
    folder = train(*flags)
    shutil.rmtree(folder / "best")
    shutil.rmtree(folder / "pipeline")
    command = ("warm-up", "--base", tiny_base, *REAL, *HOST, *STEPS, "--report_to", "none", *flags)
    d2i1(*command, "--output_dir", folder, "--resume_from_checkpoint", "latest")
    file = folder / "pipeline/perception/diffusion_pytorch_model.safetensors"
    published = {f"perception.{name}": tensor for name, tensor in load_file(file).items()}
    assert differing(theta(folder), published) == []
    training = json.loads((folder / "pipeline/training.json").read_text())
    assert "best_metric" not in training["stages"][-1]["validation"]


def test_a_card_tells_of_a_lora_only_where_there_is_one(train: Train) -> None:
    assert "lora" not in (train() / "pipeline/README.md").read_text().lower()
