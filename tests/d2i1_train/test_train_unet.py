"""Three ways to train theta: the host alone, with a LoRA in the U-Net, with the whole U-Net."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from d2i1_data.checkpoints.bases import find_base
from d2i1_data.checkpoints.pipelines import open_pipeline
from d2i1_data.dataset.schema import describe_tasks
from d2i1_data.diff2in1 import Conditioning, Diff2in1Output, Diff2in1Pipeline
from d2i1_data.diff2in1.one_pass import OnePass, one_pass
from d2i1_data.diff2in1.prediction import perceive
from d2i1_data.errors import InputError
from d2i1_data.sources import open_rows, open_source
from d2i1_data.sources.rooms import Rooms
from d2i1_train.loop.augment import Augmentation
from d2i1_train.loop.batches import SampleOrder, seeded, stack
from d2i1_train.loop.cache import Cache
from d2i1_train.loop.checkpoint import load_tensors
from d2i1_train.loop.examples import Examples, Use
from d2i1_train.loop.lora import save_adapter
from d2i1_train.loop.reopen import open_theta, open_trainable
from d2i1_train.objective import objective
from d2i1_train.settings import SelfImproveSettings, WarmUpSettings
from d2i1_train.theta import (
    NOISE_ONLY,
    Follower,
    Theta,
    ThetaOutput,
    make_theta,
    trained_tensors,
    twin,
)
from d2i1_train.warm_up import mount
from tests.made import contents, run
from tests.tiny import save_tiny_base

TASKS = {name: Rooms.tasks[name] for name in ("normals", "depth", "semseg")}
REAL = ("--source", "rooms:train", "--max_train_samples", 4, "--resolution", 32)
REAL += ("--real_batch_size", 2, "--report_to", "none")
HOST = ("--host", "light", "--width", 16, "--tasks", ",".join(TASKS))
WARM = ("warm-up", *REAL, *HOST, "--max_train_steps", 4, "--checkpointing_steps", 2)
LORA = ("--train_unet", "lora", "--use_rslora", "true", "--lora_alpha", 8, "--rank", 4)
FLAGS = {
    "none": (),
    "lora": (*LORA, "--unet_learning_rate", 1e-2),  # enough to see in four steps
    "full": ("--train_unet", "full", "--unet_learning_rate", 2e-3),
}
IMAGE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)

Warm = Callable[[str], Path]
Improve = Callable[..., Path]
Command = Callable[..., str]


@pytest.fixture(scope="module")
def warm(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Warm:
    """The folder of a warm-up of four steps, by what of the U-Net it trained; made once each."""
    folder = tmp_path_factory.mktemp("train-unet")

    def warm(kind: str) -> Path:
        if not (folder / kind).exists():
            run(*WARM, "--base", tiny_base, *FLAGS[kind], "--output_dir", folder / kind)
        return folder / kind

    return warm


@pytest.fixture(scope="module")
def improve(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Improve:
    """Self-improve a warm-up by a step on real samples; the run's folder."""
    folder = tmp_path_factory.mktemp("improve-unet")

    def improve(kind: str, *flags: object) -> Path:
        out = folder / "-".join([kind, *(Path(str(flag)).name for flag in flags)])
        if not out.exists():
            run(*improving(warm(kind) / "pipeline"), *FLAGS[kind][-2:], "--output_dir", out, *flags)
        return out

    return improve


def improving(pipeline: Path) -> tuple[object, ...]:
    return ("self-improve", "--pipeline", pipeline, *REAL, "--max_train_steps", 1)


def mounted(base: Path, kind: str, **more: object) -> Diff2in1Pipeline:
    """What a warm-up begins with."""
    torch.manual_seed(0)
    own = {"rank": 4, "lora_alpha": 8.0, "use_rslora": True} if kind == "lora" else {}
    fixed = {"source": "rooms:train", "output_dir": "", "host": "light", "width": 16}
    settings = WarmUpSettings(**fixed, base=str(base), train_unet=kind, **own, **more)  # type: ignore[arg-type]
    return mount(settings, find_base(str(base)), TASKS)


def some_lora(base: Path, **more: object) -> Diff2in1Pipeline:
    """With a LoRA that changes something, without training."""
    pipe = mounted(base, "lora", **more)
    with torch.no_grad():
        for name, parameter in pipe.unet.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    pipe.unet.eval()
    return pipe


def trained_in_memory(base: Path, folder: Path, kind: str) -> Diff2in1Pipeline:
    """The pipeline as it was when a warm-up ended: nothing fused, nothing loaded from it."""
    pipe = mounted(base, kind)
    theta = make_theta(pipe)
    load_tensors(folder / "checkpoint-4/exploitation.safetensors", theta, theta)
    theta.eval()
    return pipe


def untrained(base: Path) -> Diff2in1Pipeline:
    pipe = Diff2in1Pipeline.from_base(str(base), "light", describe_tasks(TASKS), width=16)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def adapter(folder: Path, base: Path) -> Diff2in1Pipeline:
    pipe = Diff2in1Pipeline.from_adapter(str(folder / "adapter"), base=str(base))
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def features(unet: UNet2DConditionModel, conditioning: Conditioning) -> OnePass:
    generator = torch.Generator().manual_seed(1)
    channels = unet.config.in_channels
    return one_pass(unet, torch.randn(2, channels, 8, 12, generator=generator), 0, conditioning)


def same(one: OnePass, other: OnePass) -> bool:
    pairs = zip([one.noise, *one.pyramid], [other.noise, *other.pyramid], strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def create(pipe: Diff2in1Pipeline, create_with: str | None, labels_from: str = "latent") -> object:
    return pipe(
        IMAGE,
        "a room",
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(7),
        labels_from=labels_from,  # type: ignore[arg-type]
        create_with=create_with,  # type: ignore[arg-type]
        output_type="pt",
    )


def equal(one: dict[str, list[Tensor]], other: dict[str, list[Tensor]]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name][0], other[name][0]) for name in one)


def see(pipe: Diff2in1Pipeline, image: object = IMAGE) -> dict[str, list[Tensor]]:
    return pipe.predict(image, output_type="pt").predictions


# --- the adapter that a LoRA leaves ---


def test_plain_diffusers_loads_the_very_features(warm: Warm, tiny_base: Path) -> None:
    folder = warm("lora")
    plain = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    conditioning = adapter(folder, tiny_base).encode_prompt(["", "a room"])
    before = features(plain.unet, conditioning)
    plain.load_lora_weights(folder / "adapter")
    loaded, ours = features(plain.unet, conditioning), adapter(folder, tiny_base).unet
    assert same(loaded, features(trained_in_memory(tiny_base, folder, "lora").unet, conditioning))
    assert same(loaded, features(ours, conditioning))
    assert (loaded.noise - before.noise).abs().max() > 1e-3
    pairs = zip(loaded.pyramid, before.pyramid, strict=True)
    assert all((one - other).abs().max() > 1e-3 for one, other in pairs)


def test_adapter_holds_the_tensors_of_the_checkpoint(warm: Warm, tiny_base: Path) -> None:
    stored = load_file(warm("lora") / "checkpoint-4/exploitation.safetensors")
    theta = make_theta(adapter(warm("lora"), tiny_base))
    found = trained_tensors(theta, theta)
    assert found.keys() == stored.keys() and any("lora_B" in name for name in found)
    assert [name for name in found if not torch.equal(found[name], stored[name])] == []


def test_header_says_rank_and_alpha_and_no_path(warm: Warm, tiny_base: Path) -> None:
    folder = warm("lora") / "adapter"
    with safe_open(folder / "pytorch_lora_weights.safetensors", "pt") as file:
        header = file.metadata()
    metadata = json.loads(header["lora_adapter_metadata"])
    values = (metadata["unet.r"], metadata["unet.lora_alpha"], metadata["unet.use_rslora"])
    assert values == (4, 8, True)
    assert metadata["unet.target_modules"] == sorted(
        metadata["unet.target_modules"]
    )  # not by chance
    texts = [f.read_text() for f in folder.rglob("*") if f.suffix in (".json", ".md")]
    assert len(texts) == 5
    for text in (str(header), *texts):
        assert str(tiny_base.parent) not in text and str(warm("lora").parent) not in text


@pytest.mark.parametrize("layers", ["conv1,conv2", "ff.net.0.proj,ff.net.2", "time_emb_proj"])
def test_every_kind_of_layer_makes_the_round_trip(
    tiny_base: Path, tmp_path: Path, layers: str
) -> None:
    pipe = some_lora(tiny_base, lora_layers=layers)
    save_adapter(pipe, tmp_path / "adapter")
    conditioning = pipe.encode_prompt(["", ""])
    own = features(pipe.unet, conditioning)
    assert same(own, features(adapter(tmp_path, tiny_base).unet, conditioning))
    assert not same(own, features(untrained(tiny_base).unet, conditioning))


def test_an_adapter_trained_with_dropout_predicts_without(tiny_base: Path, tmp_path: Path) -> None:
    pipe = some_lora(tiny_base, lora_dropout=0.5)
    save_adapter(pipe, tmp_path / "adapter")
    loaded = adapter(tmp_path, tiny_base)
    assert not any(module.training for module in loaded.unet.modules())
    assert equal(see(loaded), see(loaded)) and equal(see(loaded), see(pipe))


def test_only_a_fused_pipeline_is_saved_and_says_the_same(
    warm: Warm, tiny_base: Path, tmp_path: Path
) -> None:
    fused, apart = open_pipeline(str(warm("lora") / "pipeline")), adapter(warm("lora"), tiny_base)
    latents = fused.encode_image(torch.rand(1, 3, 32, 32) * 2 - 1)
    one, other = perceive(fused, latents, (32, 32)), perceive(apart, latents, (32, 32))
    plain = perceive(untrained(tiny_base), latents, (32, 32))
    for name, raw in one.items():
        torch.testing.assert_close(raw, other[name], atol=1e-4, rtol=0)
        assert (raw - plain[name]).abs().max() > 1e-3
    found, again = see(fused), see(apart)
    for name in ("normals", "depth"):
        torch.testing.assert_close(found[name][0], again[name][0], atol=1e-4, rtol=0)
    assert (found["semseg"][0] != again["semseg"][0]).float().mean() < 0.01
    with pytest.raises(ValueError, match="fuse_lora"):
        apart.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


# --- whose U-Net creates ---


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_base_creates_as_if_untrained(warm: Warm, tiny_base: Path, kind: str) -> None:
    pipe = open_pipeline(str(warm(kind) / "pipeline"))
    plain = create(untrained(tiny_base), "base")
    based, own = create(pipe, "base", "image"), create(pipe, "theta", "image")
    assert torch.equal(based.images[0], plain.images[0])
    assert (own.images[0] - plain.images[0]).abs().max() > 1e-3
    assert torch.equal(create(pipe, None).images[0], plain.images[0])  # the default
    for output in (based, own):
        image = (output.images[0] * 255).round().byte().permute(1, 2, 0).numpy()
        assert equal(output.predictions, see(pipe, image))  # theta labels, whoever created


def test_an_adapter_creates_without_its_lora_and_labels_with_it(
    warm: Warm, tiny_base: Path
) -> None:
    pipe, fused = adapter(warm("lora"), tiny_base), open_pipeline(str(warm("lora") / "pipeline"))
    before = see(pipe)
    based = create(pipe, "base")
    assert torch.equal(based.images[0], create(untrained(tiny_base), "base").images[0])
    assert equal(see(pipe), before)
    assert not torch.equal(create(pipe, "theta").images[0], based.images[0])
    wanted = create(fused, "base").predictions
    pipe.unet.disable_adapters()
    without = pipe.predict(IMAGE, output_type="pt").predictions
    for name in ("normals", "depth"):
        torch.testing.assert_close(based.predictions[name][0], wanted[name][0], atol=1e-4, rtol=0)
        assert (without[name][0] - before[name][0]).abs().max() > 1e-3  # such a slip would show


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_last_step_needs_theta_to_create(warm: Warm, kind: str) -> None:
    pipe = open_pipeline(str(warm(kind) / "pipeline"))
    with pytest.raises(ValueError, match="reads theta's features"):
        create(pipe, "base", "last_step")
    assert create(pipe, "theta", "last_step").predictions.keys() == TASKS.keys()


def test_without_the_base_only_theta_creates(
    warm: Warm, tiny_base: Path, tmp_path: Path, d2i1: Command
) -> None:
    alone = open_pipeline(str(warm("full") / "pipeline"), base_unet=None)
    with pytest.raises(ValueError, match="holds only the trained U-Net"):
        create(alone, "base")
    flags = (*FLAGS["full"], "--create_with", "theta", "--output_dir", tmp_path / "warm")
    run(*WARM, "--base", tiny_base, *flags)
    folder = tmp_path / "warm/pipeline"
    assert not (folder / "base_unet").exists()
    pipe = open_pipeline(str(folder))
    assert torch.equal(create(pipe, None).images[0], create(alone, "theta").images[0])
    command = ("create", "--pipeline", folder, "--source", "rooms:train", "--num_samples", 1)
    out = ("--create_with", "base", "--output_dir", tmp_path / "created")
    assert "base_unet" in d2i1(*command, *out, code=2)
    assert not (tmp_path / "created").exists()


@pytest.mark.parametrize("create_with", ["base", "theta"])
def test_rows_say_whose_unet_created_them(warm: Warm, tmp_path: Path, create_with: str) -> None:
    some = ("--num_samples", 2, "--num_inference_steps", 2, "--max_source_samples", 2)
    command = ("create", "--pipeline", warm("lora") / "pipeline", "--source", "rooms:train", *some)
    flags = () if create_with == "base" else ("--create_with", create_with)
    run(*command, "--resolution", 32, *flags, "--output_dir", tmp_path / "created")
    created = open_source(f"dataset:{tmp_path}/created")
    assert [created[n].provenance.create_with for n in range(2)] == [create_with] * 2
    assert json.loads((tmp_path / "created/plan.json").read_text())["create_with"] == create_with


# --- what is trained, and what it costs ---


def draw_examples(pipe: Diff2in1Pipeline, theta: Theta, *, denoise: bool) -> Examples:
    rows, conditioning = open_rows("rooms:train", "32", 4), pipe.perception_conditioning()
    return Examples(
        rows,
        pipe,
        theta,
        conditioning,
        Cache(None),
        augment=Augmentation(),
        use=Use(denoise=denoise),
    )


@pytest.mark.parametrize("denoises", [False, True])
@pytest.mark.parametrize("kind", ["none", "lora", "full"])
def test_what_is_trained_gets_a_gradient_and_nothing_else(
    tiny_base: Path, kind: str, denoises: bool
) -> None:
    pipe = mounted(tiny_base, kind)
    theta = make_theta(pipe, denoises=denoises)
    trained = {name for name, p in theta.unet.named_parameters() if p.requires_grad}
    everything = {name for name, _ in theta.unet.named_parameters()}
    expected = {
        "none": set(),
        "lora": {name for name in everything if "lora_" in name},
        "full": {n for n in everything if denoises or n.split(".")[0] not in NOISE_ONLY},
    }
    assert trained == expected[kind]
    assert (trained == everything) == (kind == "full" and denoises)
    examples = draw_examples(pipe, theta, denoise=denoises)
    batch = stack([examples.draw(n, seeded(n)) for n in range(2)], torch.device("cpu"))
    conditioning, families = pipe.perception_conditioning(), pipe.perception.families
    seen = (batch.latents, conditioning, batch.size, batch.pyramid)
    answer = theta(*seen, batch.targets, batch.noised)
    weights = dict.fromkeys([*families, "denoise"], 1.0)
    objective(weights, answer, batch.noised)[0].backward()
    for name, parameter in theta.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.grad is not None and "lora_A" not in name:  # lora_B begins with zeros
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", ["none", "lora", "full"])
def test_theta_c_costs_what_is_trained_once_more(tiny_base: Path, kind: str) -> None:
    def cost(*modules: nn.Module) -> int:
        tensors = [t for m in modules for t in (*m.parameters(), *m.buffers())]
        return sum({t.data_ptr(): t.nbytes for t in tensors}.values())

    theta = make_theta(mounted(tiny_base, kind))
    trained = sum(p.nbytes for p in theta.parameters() if p.requires_grad)
    buffers = sum(buffer.nbytes for buffer in theta.buffers())
    assert cost(theta, twin(theta)) == cost(theta) + trained + buffers
    assert cost(theta) > trained + buffers  # in each way something is shared


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_twin_follows_in_the_unet_too(tiny_base: Path, kind: str) -> None:
    theta = make_theta(mounted(tiny_base, kind))
    creation = twin(theta)
    with torch.no_grad():
        for parameter in theta.parameters():
            if parameter.requires_grad:
                parameter += torch.randn_like(parameter)
    own, followed = trained_tensors(theta, theta), trained_tensors(creation, theta)
    moved = {name for name in own if not torch.equal(own[name], followed[name])}
    assert moved == {name for name, p in theta.named_parameters() if p.requires_grad}
    assert any(name.startswith("unet.") for name in moved)
    Follower(alpha=0.0, every=1).follow(creation, theta, 1)
    assert all(torch.equal(own[name], followed[name]) for name in own)


# --- on to self-improving ---


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_self_improving_finds_what_to_train_and_goes_on(
    warm: Warm, improve: Improve, kind: str
) -> None:
    folder, fresh = improve(kind), improve(kind, "--fresh_optimizer")
    before = load_file(warm(kind) / "checkpoint-4/exploitation.safetensors")
    found = load_file(folder / "checkpoint-1/exploitation.safetensors")
    again = load_file(fresh / "checkpoint-1/exploitation.safetensors")
    assert found.keys() == again.keys() == before.keys()
    moved = [n for n in found if n.startswith("unet.") and not torch.equal(found[n], before[n])]
    assert moved and any(not torch.equal(found[name], again[name]) for name in moved)
    for out, steps in ((folder, 5), (fresh, 1)):
        optimizer = torch.load(out / "checkpoint-1/optimizer.bin", weights_only=True)
        assert {int(state["step"]) for state in optimizer["state"].values()} == {steps}


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_parameters_keep_their_order_on_reopening(warm: Warm, tiny_base: Path, kind: str) -> None:
    def names(pipe: Diff2in1Pipeline) -> list[str]:
        return [name for name, p in make_theta(pipe).named_parameters() if p.requires_grad]

    reopened, _ = open_trainable(str(warm(kind) / "pipeline"))
    assert names(reopened) == names(mounted(tiny_base, kind))


def test_a_fused_lora_needs_its_adapter(warm: Warm, tmp_path: Path, d2i1: Command) -> None:
    folder = shutil.copytree(warm("lora"), tmp_path / "warm")
    shutil.move(folder / "adapter", tmp_path / "elsewhere")
    message = d2i1(*improving(folder / "pipeline"), "--output_dir", tmp_path / "out", code=2)
    assert "adapter" in message and not (tmp_path / "out").exists()


def test_the_base_may_have_moved(
    warm: Warm, improve: Improve, tiny_base: Path, tmp_path: Path, d2i1: Command
) -> None:
    folder, moved = shutil.copytree(warm("lora"), tmp_path / "warm"), tmp_path / "moved"
    record = json.loads((folder / "run.json").read_text())
    record["settings"]["base"] = str(tmp_path / "gone")
    (folder / "run.json").write_text(json.dumps(record))
    shutil.copytree(tiny_base, moved)
    command = (*improving(folder / "pipeline"), *FLAGS["lora"][-2:])
    assert "gone" in d2i1(*command, "--output_dir", tmp_path / "out", code=2)
    run(*command, "--base", moved, "--output_dir", tmp_path / "out")
    one, other = tmp_path / "out/checkpoint-1", improve("lora") / "checkpoint-1"
    for name in ("exploitation.safetensors", "creation.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_both_thetas_are_reopened(warm: Warm, improve: Improve, tmp_path: Path, kind: str) -> None:
    folder = improve(kind, "--alpha", 1, "--follow_every", 1)
    pipeline = str(folder / "pipeline")
    own = make_theta(open_theta(pipeline, "exploitation"))
    stored = load_file(folder / "checkpoint-1/exploitation.safetensors")
    found = trained_tensors(own, own)
    assert found.keys() == stored.keys()
    assert all(torch.equal(found[name], stored[name]) for name in stored)
    scores = {}
    for name, path in (("exploitation", folder), ("creation", folder), ("warm", warm(kind))):
        flags = ("--theta", name) if name != "warm" else ()
        source = ("--source", "rooms:test", "--max_samples", 2, "--processing_resolution", 32)
        file = tmp_path / f"{name}.json"
        run("evaluate", "--pipeline", path / "pipeline", *source, *flags, "--output_file", file)
        scores[name] = json.loads(file.read_text())["tasks"]
    assert scores["creation"] == scores["warm"] != scores["exploitation"]  # alpha 1 never follows


# --- resuming, and recomputing activations ---


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_resumed_equals_uninterrupted(
    warm: Warm, tiny_base: Path, tmp_path: Path, kind: str
) -> None:
    whole, folder = warm(kind), shutil.copytree(warm(kind), tmp_path / "run")
    for name in ("checkpoint-4", "pipeline", "adapter"):
        shutil.rmtree(folder / name, ignore_errors=name == "adapter")
    more = ("--resume_from_checkpoint", "latest", "--output_dir", folder)
    run(*WARM, "--base", tiny_base, *FLAGS[kind], *more)
    for part in ("checkpoint-4", "pipeline", "adapter"):
        one, other = contents(whole / part), contents(folder / part)
        for files in (one, other):
            files.pop("random_states_0.pkl", None)  # nothing is drawn from these states
            files.pop("manifest.json", None)  # it has the hash of these states
            # safetensors writes the two entries of this header in any order
            files.pop("pytorch_lora_weights.safetensors", None)
            if part == "adapter":
                files.pop("hashes.json", None)  # it has the hash of this file
        assert one.keys() == other.keys()
        assert [name for name in one if one[name] != other[name]] == []
    if kind == "lora":
        one, other = (
            load_file(f / "adapter/pytorch_lora_weights.safetensors") for f in (whole, folder)
        )
        assert one.keys() == other.keys() and all(
            torch.equal(one[name], other[name]) for name in one
        )


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_recomputed_activations_train_the_same(
    warm: Warm, tiny_base: Path, tmp_path: Path, kind: str
) -> None:
    flags = (*FLAGS[kind], "--gradient_checkpointing", "true", "--output_dir", tmp_path / "run")
    run(*WARM, "--base", tiny_base, *flags)
    one = load_file(warm(kind) / "checkpoint-2/exploitation.safetensors")
    other = load_file(tmp_path / "run/checkpoint-2/exploitation.safetensors")
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=1e-5, rtol=0)


# --- what is refused ---


@pytest.mark.parametrize("layers", ["to_q,to_query", "to_q,to_out", "norm1", ""])
def test_a_layer_that_cannot_get_a_lora_is_named(
    tiny_base: Path, tmp_path: Path, d2i1: Command, layers: str
) -> None:
    flags = (*LORA, "--lora_layers", layers, "--output_dir", tmp_path / "out")
    message = d2i1(*WARM, "--base", tiny_base, *flags, code=2)
    assert "--lora_layers" in message and repr(layers.split(",")[-1]) in message
    assert not (tmp_path / "out").exists()


def test_denoising_needs_a_trained_unet_and_real_samples(
    tiny_base: Path, tmp_path: Path, d2i1: Command
) -> None:
    flags = ("--denoise_weight", 1, "--output_dir", tmp_path / "out")
    assert "--train_unet" in d2i1(*WARM, "--base", tiny_base, *flags, code=2)
    fixed = {"source": "rooms:train", "output_dir": "", "pipeline": "warm"}
    with pytest.raises(InputError, match="--mix paired"):
        SelfImproveSettings(**fixed, mix="union", denoise_weight=0.1)  # type: ignore[arg-type]


# --- the denoising loss ---


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_denoising_loss_is_that_of_the_papers(tmp_path: Path, prediction: str) -> None:
    pipe = mounted(save_tiny_base(tmp_path / "base", prediction), "full")
    theta = make_theta(pipe, denoises=True)
    examples = draw_examples(pipe, theta, denoise=True)
    drawn = [examples.draw(n, seeded(n)) for n in range(3)]
    batch = stack(drawn, torch.device("cpu"))
    conditioning = pipe.perception_conditioning()
    families, noised = pipe.perception.families, batch.noised
    assert noised is not None
    seen = (batch.latents, conditioning, batch.size, batch.pyramid)
    answer = theta(*seen, batch.targets, noised)
    weights = {**dict.fromkeys(families, 1.0), "denoise": 3.0}
    total, losses = objective(weights, answer, noised)

    config = pipe.scheduler.config
    roots = np.linspace(config.beta_start**0.5, config.beta_end**0.5, 1000)
    kept = torch.from_numpy(np.cumprod(1 - roots**2))[noised.t][:, None, None, None]
    clean, seen, wanted = batch.latents.double(), noised.latents.double(), noised.target.double()
    noise = (seen - kept.sqrt() * clean) / (1 - kept).sqrt()
    assert 0.7 < noise.std() < 1.3 and abs(noise.mean()) < 0.3
    velocity = kept.sqrt() * noise - (1 - kept).sqrt() * clean
    expected = noise if prediction == "epsilon" else velocity
    torch.testing.assert_close(wanted, expected, atol=1e-3, rtol=1e-3)
    with torch.no_grad():
        captions = pipe.encode_prompt([example.caption for example in drawn])
        said = pipe.unet(noised.latents, noised.t, captions.text).sample.double()
    error = (said - wanted).square().mean()
    torch.testing.assert_close(losses["denoise"].double(), error, atol=1e-6, rtol=1e-5)
    rest = sum(losses[name] for name in families)
    torch.testing.assert_close(total.detach(), rest + 3 * losses["denoise"])


def test_noise_is_drawn_anew_every_epoch_and_the_same_again(tiny_base: Path) -> None:
    pipe = mounted(tiny_base, "full")
    examples = draw_examples(pipe, make_theta(pipe, denoises=True), denoise=True)
    draws, again = SampleOrder([examples], 0), SampleOrder([examples], 0)

    def seen(draws: SampleOrder, position: int) -> tuple[str, int, Tensor]:
        example = draws.at(position)
        assert example.noised is not None
        return example.caption, int(example.noised.t), example.noised.latents

    first = [seen(draws, position) for position in range(8)]
    for position in reversed(range(8)):
        caption, t, latents = seen(again, position)
        assert (caption, t) == first[position][:2] and torch.equal(latents, first[position][2])
    assert len({(caption, t) for caption, t, _ in first}) == 8  # two epochs of four
    levels = [int(examples.draw(0, seeded(n)).noised.t) for n in range(3000)]  # type: ignore[union-attr]
    assert min(levels) < 5 and 994 < max(levels) < 1000
    assert abs(np.mean(levels) - 499.5) < 25  # four standard errors are 21


def test_denoising_is_learnt(tiny_base: Path) -> None:
    pipe = mounted(tiny_base, "full")
    theta = make_theta(pipe, denoises=True)
    draws, found = SampleOrder([draw_examples(pipe, theta, denoise=True)], 0), []
    optimizer = torch.optim.AdamW([p for p in theta.unet.parameters() if p.requires_grad], 2e-3)
    for step in range(80):
        noised = stack([draws.at(4 * step + n) for n in range(4)], torch.device("cpu")).noised
        assert noised is not None
        noise = theta.unet(noised.latents, noised.t, noised.conditioning.text).sample
        loss, losses = objective({"denoise": 1.0}, ThetaOutput({}, {}, noise), noised)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(losses["denoise"].item())
    assert np.mean(found[-20:]) < 0.8 * np.mean(found[:10])


# --- presets ---


@pytest.mark.parametrize("kind", ["frozen", "lora", "full"])
def test_presets_for_stable_diffusion_go_through_both_stages(
    d2i1: Command, tiny_base: Path, tmp_path: Path, kind: str
) -> None:
    """As they are, but for base and size; `full` as its header says."""
    if kind == "full":
        pytest.importorskip("bitsandbytes")
    small = ("--source", "rooms:train", "--max_train_samples", 2, "--resolution", 32)
    small += ("--max_train_steps", 1, "--report_to", "none", "--mixed_precision", "no")
    preset, run = ("--config", f"sd15-{kind}"), tmp_path / "warm"
    d2i1("warm-up", *preset, "--base", tiny_base, *HOST, *small, "--output_dir", run)
    more = ("--use_8bit_adam",) if kind == "full" else ()
    flags = ("--pipeline", run / "pipeline", *more, *small, "--output_dir", tmp_path / "improved")
    d2i1("self-improve", "--config", "sd15-self-improve", *flags)
    assert Diff2in1Pipeline.from_pretrained(tmp_path / "improved/pipeline").predict(IMAGE)


def test_a_lora_of_the_user_creates_with_theta_only(warm: Warm, tiny_base: Path) -> None:
    """The base's U-Net would create without it, and no message would say so."""
    pipe = Diff2in1Pipeline.from_adapter(str(warm("lora") / "adapter"), base=str(tiny_base))
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]), "style")
    with pytest.raises(ValueError, match="ignores your LoRA style"):
        pipe(IMAGE, num_inference_steps=1)
    pipe(IMAGE, num_inference_steps=1, create_with="theta")


def test_an_adapter_on_an_embedded_base_opens_by_itself(d2i1: Command, tmp_path: Path) -> None:
    flags = ("--max_train_samples", 1, "--max_train_steps", 1, "--real_batch_size", 1)
    flags += ("--report_to", "none", "--train_unet", "lora")
    d2i1("warm-up", "--config", "rooms", *flags, "--output_dir", tmp_path / "run")
    pipe = Diff2in1Pipeline.from_adapter(str(tmp_path / "run/adapter"))
    assert pipe.config.base == "rooms" and pipe.predict(IMAGE).predictions


@pytest.mark.parametrize("create_with", ["base", "theta"])
def test_offloading_two_unets_changes_nothing(warm: Warm, create_with: str) -> None:
    def made(offload: bool) -> Diff2in1Output:
        pipe = Diff2in1Pipeline.from_pretrained(warm("full") / "pipeline")
        if offload:
            pipe.enable_model_cpu_offload(device="cpu")
        generator = torch.Generator().manual_seed(0)
        options = {"num_inference_steps": 2, "generator": generator, "output_type": "pt"}
        return pipe(IMAGE, create_with=create_with, **options)

    plain, offloaded = made(False), made(True)
    assert torch.equal(plain.images[0], offloaded.images[0])
    for name, maps in plain.predictions.items():
        assert torch.equal(maps[0], offloaded.predictions[name][0])
