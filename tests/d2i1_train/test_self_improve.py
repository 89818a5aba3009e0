"""Self-improving: what moves and what stays, what is believed, and when theta_C follows."""

import json
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from d2i1_data.checkpoints.pipelines import open_pipeline
from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.sources import Rows, open_rows, open_source
from d2i1_train.loop.augment import Augmentation
from d2i1_train.loop.batches import SampleOrder, stack
from d2i1_train.loop.cache import Cache
from d2i1_train.loop.checkpoint import Counters, read_counters
from d2i1_train.loop.examples import Examples, Use
from d2i1_train.objective import objective
from d2i1_train.pseudo_labels import with_pseudo_labels
from d2i1_train.self_improve import mix_samples, open_created_rows
from d2i1_train.settings import SelfImproveSettings
from d2i1_train.theta import Follower, make_theta, twin
from tests.made import run

REAL = (
    *("--source", "rooms:train", "--max_train_samples", 4, "--resolution", 32),
    *("--report_to", "none"),
)
TASKS = ("normals", "depth", "semseg")


def warm_up(base: Path, folder: Path, *flags: object) -> Path:
    host = ("--host", "light", "--width", 16, "--tasks", ",".join(TASKS))
    size = ("--max_train_steps", 3, "--real_batch_size", 2)
    run("warm-up", "--base", base, *REAL, *host, *size, "--output_dir", folder, *flags)
    return folder


@pytest.fixture(scope="module")
def loop(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `warm/`, a warm-up of three steps, and `created/`, six samples from it."""
    folder = tmp_path_factory.mktemp("loop")
    pipeline = warm_up(tiny_base, folder / "warm") / "pipeline"
    some = ("--num_samples", 6, "--num_inference_steps", 2, "--shard_size", 6)
    source = ("--source", "rooms:train", "--max_source_samples", 4, "--resolution", 32)
    run("create", "--pipeline", pipeline, *source, *some, "--output_dir", folder / "created")
    return folder


@pytest.fixture(scope="module")
def improve(loop: Path) -> Callable[..., Path]:
    """Self-improve three steps of 2 real and 2 created samples; the new run's folder."""
    number = count()

    def improve(*flags: object) -> Path:
        folder = loop / f"improved-{next(number)}"
        inputs = ("--pipeline", loop / "warm/pipeline", "--created", loop / "created")
        size = ("--max_train_steps", 3, "--real_batch_size", 2, "--follow_every", 4)
        size += ("--alpha", 0.998)
        run("self-improve", *inputs, *REAL, *size, "--output_dir", folder, *flags)
        return folder

    return improve


@pytest.fixture(scope="module")
def improved(improve: Callable[..., Path]) -> Path:
    """The run that others are compared with."""
    return improve()


def theta(folder: Path, name: str) -> dict[str, Tensor]:
    """The tensors of theta_E (`exploitation`) or theta_C (`creation`) after the last step."""
    return load_file(folder / "checkpoint-3" / f"{name}.safetensors")


def perception(folder: Path) -> dict[str, Tensor]:
    """The perception of a run's pipeline, named as in checkpoints."""
    file = folder / "pipeline/perception/diffusion_pytorch_model.safetensors"
    return {f"perception.{name}": tensor for name, tensor in load_file(file).items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def test_theta_c_shares_what_is_frozen_and_gets_no_gradient(tiny_pipe: Diff2in1Pipeline) -> None:
    exploitation = make_theta(tiny_pipe)
    creation = twin(exploitation)
    conditioning = tiny_pipe.encode_prompt([""])
    rooms, families = open_source("rooms:train"), tiny_pipe.perception.families
    shared = (tiny_pipe, exploitation, conditioning, Cache(None))
    real = Examples(Rows(rooms, [0], {}), *shared, augment=Augmentation())
    created = Examples(Rows(rooms, [1], {}), *shared, augment=Augmentation(), use=Use(created=True))
    batch = stack([real.get(0, False), created.get(0, False)], torch.device("cpu"))
    belief = creation(batch.latents[batch.created], conditioning, batch.size).raw
    targets = with_pseudo_labels(families, belief, batch.targets, batch.created, batch.inside)
    answer = exploitation(batch.latents, conditioning, batch.size, targets=targets)
    objective(dict.fromkeys(families, 1.0), answer)[0].backward()

    pairs = list(zip(exploitation.named_parameters(), creation.parameters(), strict=True))
    for (name, own), followed in pairs:
        assert not followed.requires_grad and followed.grad is None, name
        assert (own.data_ptr() == followed.data_ptr()) == name.startswith("unet."), name
        assert (own.grad is not None) == name.startswith("perception."), name
    assert any(own.grad is not None and own.grad.abs().sum() > 0 for (_, own), _ in pairs)
    assert not creation.training and not any(target.requires_grad for target in targets.values())


def test_belief_replaces_created_targets_only(tiny_pipe: Diff2in1Pipeline) -> None:
    exploitation = make_theta(tiny_pipe)
    conditioning, rooms = tiny_pipe.encode_prompt([""]), open_source("rooms:train")
    shared = (tiny_pipe, exploitation, conditioning, Cache(None))
    parts = [
        Examples(
            Rows(rooms, [n], {}), *shared, augment=Augmentation(flip=True), use=Use(created=n == 1)
        )
        for n in (0, 1)
    ]
    batch = stack([part.get(0, True) for part in parts], torch.device("cpu"))
    raw = exploitation(batch.latents[batch.created], conditioning, batch.size).raw
    families = tiny_pipe.perception.families
    assert batch.created.tolist() == [1]
    targets = with_pseudo_labels(families, raw, batch.targets, batch.created, batch.inside)
    for name, family in families.items():
        assert torch.equal(targets[name][0], batch.targets[name][0])
        assert torch.equal(targets[name][1], family.finish(raw[name])[0])
        assert not family.valid(batch.targets[name][1:]).any()  # stored labels never get here


def test_alpha_one_never_follows(improve: Callable[..., Path], loop: Path) -> None:
    folder = improve("--alpha", 1, "--follow_every", 1)
    assert equal(theta(folder, "creation"), perception(loop / "warm"))
    assert equal(perception(folder), perception(loop / "warm"))
    assert not equal(theta(folder, "exploitation"), perception(loop / "warm"))


def test_alpha_zero_copies(improve: Callable[..., Path]) -> None:
    folder = improve("--alpha", 0, "--follow_every", 1)
    assert equal(theta(folder, "creation"), theta(folder, "exploitation"))


def test_normal_run_moves_both_thetas_apart(improved: Path, loop: Path) -> None:
    before = perception(loop / "warm")
    creation, exploitation = theta(improved, "creation"), theta(improved, "exploitation")
    assert not equal(creation, before)
    assert not equal(exploitation, before)
    assert not equal(creation, exploitation)
    assert equal(creation, perception(improved))  # theta_C is what is published

    def distance(one: dict[str, Tensor]) -> float:
        return sum((one[name] - before[name]).square().sum().item() for name in before)

    assert distance(creation) < 0.01 * distance(exploitation)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_frozen_parts_stay_as_in_the_base(
    improved: Path, loop: Path, tiny_base: Path, part: str
) -> None:
    def weights(folder: Path) -> dict[str, Tensor]:
        (file,) = (folder / part).glob("*.safetensors")
        return load_file(file)

    for folder in (loop / "warm", improved):
        assert equal(weights(folder / "pipeline"), weights(tiny_base))


def test_stored_labels_of_created_images_are_not_used(
    improve: Callable[..., Path], improved: Path, loop: Path
) -> None:
    other = shutil.copytree(loop / "created", loop / "other-labels")
    (shard,) = (other / "data").glob("*.parquet")
    table = pq.read_table(shard)
    for name in TASKS:
        stored = table[name].to_pylist()
        turned = [*stored[1:], stored[0]]
        assert turned != stored
        place, field = table.schema.get_field_index(name), table.schema.field(name)
        table = table.set_column(place, field, pa.array(turned, field.type))
    pq.write_table(table, shard)
    assert equal(
        theta(improve("--created", other), "exploitation"), theta(improved, "exploitation")
    )
    alone = improve("--created", "none")
    assert not equal(theta(alone, "exploitation"), theta(improved, "exploitation"))


@pytest.mark.parametrize(
    ("samples", "followed"),
    [
        ([39], [0]),
        ([40], [1]),
        ([100], [2]),
        ([30, 100, 5], [0, 3, 3]),
        ([16] * 5, [0, 0, 1, 1, 2]),
    ],
)
def test_follower_counts_and_weighs(
    tiny_pipe: Diff2in1Pipeline, samples: list[int], followed: list[int]
) -> None:
    exploitation = make_theta(tiny_pipe)
    creation = twin(exploitation)
    with torch.no_grad():
        for parameter in exploitation.perception.parameters():
            parameter += torch.randn_like(parameter)
    before = [p.detach().double() for p in creation.perception.parameters()]
    follower = Follower(alpha=0.9, every=40)
    for size, expected in zip(samples, followed, strict=True):
        follower.follow(creation, exploitation, size)
        assert follower.followed == expected
    assert follower.consumed == sum(samples)
    kept = 0.9 ** followed[-1]
    own = exploitation.perception.parameters()
    for old, new, target in zip(before, creation.perception.parameters(), own, strict=True):
        expected = kept * old + (1 - kept) * target.detach().double()
        torch.testing.assert_close(new.double(), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("flags", [(), ("--gradient_accumulation_steps", 3)])
def test_real_only_arm_follows_at_the_same_steps(
    improve: Callable[..., Path], flags: tuple[object, ...]
) -> None:
    flags = ("--follow_every", 5, *flags)
    both, alone = improve(*flags), improve("--created", "none", *flags)
    counters = [read_counters(f / "checkpoint-3") for f in (both, alone)]
    consumed = 12 * (3 if len(flags) > 2 else 1)
    assert counters[0] == Counters(step=3, consumed=consumed, followed=consumed // 5)
    assert counters[1] == counters[0]


def test_real_only_arm_draws_the_same_real_samples(loop: Path) -> None:
    pipe = open_pipeline(str(loop / "warm/pipeline"))
    shared = (pipe, make_theta(pipe), pipe.encode_prompt([""]))
    real = open_rows("rooms:train", None, 4)
    draws = []
    for created in ("none", str(loop / "created")):
        settings = SelfImproveSettings(
            source="rooms:train", output_dir="", pipeline="", created=created, real_batch_size=2
        )
        draws.append(mix_samples(settings, real, open_created_rows(settings), *shared))
    orders = [mix.orders for mix in draws]
    assert [[size for _, size in own] for own in orders] == [[2], [2, 2]]
    (real_only, _), ((real_too, _), (made, _)) = orders[0][0], orders[1]
    for position in range(12):
        alone, both = real_only.at(position), real_too.at(position)
        assert not alone.created and not both.created
        assert torch.equal(alone.latents, both.latents)
        assert torch.equal(alone.targets["semseg"], both.targets["semseg"])
        assert made.at(position).created
    epochs = [[real_only.at(start + n).latents.sum().item() for n in range(4)] for start in (0, 4)]
    assert len(set(epochs[0])) == 4 and epochs[0] != epochs[1]  # every epoch all, in another order


def test_real_and_created_samples_are_drawn_in_orders_of_their_own(
    tiny_pipe: Diff2in1Pipeline,
) -> None:
    rows, conditioning = open_rows("rooms:train", "32", 4), tiny_pipe.encode_prompt([""])
    shared = (rows, tiny_pipe, make_theta(tiny_pipe), conditioning, Cache(None))
    orders = []
    for created in (False, True):
        draws = SampleOrder(
            [Examples(*shared, augment=Augmentation(), use=Use(created=created))], 0
        )
        drawn = [draws.at(position).latents.sum().item() for position in range(12)]
        orders.append([drawn[start : start + 4] for start in (0, 4, 8)])
    real, made = orders
    assert real != made
    assert [sorted(epoch) for epoch in real] == [sorted(epoch) for epoch in made]


WHOLE = ("--real_batch_size", 4)
# not one by one: a lone sample's convolutions round otherwise, and so may turn a believed class
DIVIDED = ("--real_batch_size", 2, "--gradient_accumulation_steps", 2)
UNCLIPPED = ("--max_grad_norm", 1e6)  # clipping would hide gradients of another scale


@pytest.mark.parametrize("stage", ["warm-up", "self-improve"])
def test_accumulation_changes_only_rounding(
    improve: Callable[..., Path], tiny_base: Path, tmp_path: Path, stage: str
) -> None:
    def trained(*flags: object) -> Path:
        if stage == "self-improve":
            # CutMix takes rectangles from the same micro-batch
            alone = ("--cutmix", 0, "--real_cutmix", 0)
            return improve("--fresh_optimizer", *alone, *flags)
        return warm_up(tiny_base, tmp_path / str(len(flags)), *flags)

    whole, divided = trained(*WHOLE, *UNCLIPPED), trained(*DIVIDED, *UNCLIPPED)
    one, other = theta(whole, "exploitation"), theta(divided, "exploitation")
    difference = torch.cat([(one[name] - other[name]).abs().flatten() for name in one])
    # AdamW divides by the gradient's size, so that of a vanishing one is all rounding
    assert difference.max() < 1e-4 and (difference > 1e-5).float().mean() < 1e-3
    states = [
        torch.load(f / "checkpoint-3/optimizer.bin", weights_only=True) for f in (whole, divided)
    ]
    for key, moments in states[0]["state"].items():
        again = states[1]["state"][key]["exp_avg"]
        torch.testing.assert_close(moments["exp_avg"], again, atol=1e-4, rtol=1e-3)


def test_optimiser_state_is_carried_over(
    improve: Callable[..., Path], improved: Path, loop: Path
) -> None:
    lonely = shutil.copytree(loop / "warm/pipeline", loop / "lonely/pipeline")
    fresh = theta(improve("--fresh_optimizer"), "exploitation")
    assert not equal(fresh, theta(improved, "exploitation"))
    alone = improve("--pipeline", lonely, "--fresh_optimizer")  # as if downloaded
    assert equal(theta(alone, "exploitation"), fresh)


def test_missing_checkpoint_names_the_way_out(
    d2i1: Callable[..., str], loop: Path, tmp_path: Path
) -> None:
    lonely = shutil.copytree(loop / "warm/pipeline", tmp_path / "pipeline")
    inputs = ("--pipeline", lonely, "--created", "none", *REAL)
    message = d2i1("self-improve", *inputs, "--output_dir", tmp_path / "out", code=2)
    assert "--fresh_optimizer" in message and str(tmp_path) in message


def test_union_draws_from_both_kinds_in_one_order(
    improve: Callable[..., Path], improved: Path
) -> None:
    union = improve("--mix", "union")
    assert not equal(theta(union, "exploitation"), theta(improved, "exploitation"))
    counters = [
        json.loads((f / "checkpoint-3/counters.json").read_text()) for f in (union, improved)
    ]
    assert counters[0] == counters[1]
