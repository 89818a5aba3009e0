"""Batches of mixed sizes: one size each, from the seed alone, each sample equally often."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from d2i1_data import Diff2in1Pipeline
from d2i1_data.checkpoints.pipelines import open_pipeline
from d2i1_data.sources import open_rows
from d2i1_train.loop.augment import Augmentation
from d2i1_train.loop.batches import SampleOrder, stack
from d2i1_train.loop.cache import Cache
from d2i1_train.loop.examples import REAL, Examples, Use
from d2i1_train.loop.mix import Bucket, Mix, assign, make_buckets
from d2i1_train.theta import make_theta
from tests.made import run

CPU = torch.device("cpu")
WIDE, TALL, LARGE = (16, 32), (32, 16), (32, 32)
# height and width of the pictures; the base pads them to multiples of 4
SIZES = [*[(14, 30)] * 4, *[(30, 14)] * 3, (30, 30), (16, 32), (29, 31)]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `folder` source of ten pictures of several sizes with class labels; its YAML file."""
    folder = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    for part in ("image", "label"):
        (folder / part).mkdir()
    for n, size in enumerate(SIZES):
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(image).save(folder / "image" / f"{n}.png")
        label = rng.integers(0, 3, size, np.uint8)
        Image.fromarray(label).save(folder / "label" / f"{n}.png")
    (folder / "mixed.yaml").write_text(
        "name: mixed\ncolumns: {image: image, semseg: label}\n"
        "classes: {semseg: {names: [sky, road, tree]}}\n"
    )
    return folder / "mixed.yaml"


def order_of(source: str, pipe: Diff2in1Pipeline, use: Use = REAL, **view: bool) -> SampleOrder:
    rows, theta = open_rows(source), make_theta(pipe)
    shared = (rows, pipe, theta, pipe.perception_conditioning(), Cache(None))
    return SampleOrder([Examples(*shared, augment=Augmentation(**view), use=use)], 0)


def drawn(mix: Mix, turn: int, order: int = 0) -> list[tuple[SampleOrder, int]]:
    """What one of the orders of a mix gives to a turn."""
    places = mix.places(turn)
    start = sum(size for _, size in mix.orders[:order])
    return places[start : start + mix.orders[order][1]]


def members(places: list[tuple[SampleOrder, int]]) -> list[int]:
    """The numbers of the samples at these places."""
    found = []
    for order, position in places:
        epoch, place = divmod(position, len(order))
        found.append(order.permutation(epoch)[place])
    return found


def test_buckets_join_rare_sizes_where_least_is_padded() -> None:
    sizes = [WIDE] * 4 + [TALL] * 3 + [LARGE] + [(16, 28)]
    joined = make_buckets(sizes, 2)
    assert joined == [Bucket((16, 32), [0, 1, 2, 3, 8]), Bucket((32, 32), [4, 5, 6, 7])]
    assert len(make_buckets(sizes, 1)) == 4
    assert make_buckets(sizes, 6) == [Bucket((32, 32), list(range(9)))]


def test_other_samples_join_the_bucket_that_fits_them() -> None:
    buckets = [Bucket(WIDE, [0, 1]), Bucket(TALL, [2, 3])]
    assert assign([TALL, (16, 28), TALL], buckets) == [Bucket(WIDE, [1]), Bucket(TALL, [0, 2])]
    assert assign([WIDE, WIDE], buckets) == [Bucket(WIDE, [0, 1]), Bucket(LARGE, [0, 1])]


@pytest.mark.parametrize("size", [2, 3])
def test_a_batch_has_one_size_and_samples_take_equal_turns(
    mixed: Path, tiny_pipe: Diff2in1Pipeline, size: int
) -> None:
    mix = Mix([(order_of(f"folder:{mixed}", tiny_pipe), size)])
    turns = 10 * 3 // size * size  # several epochs
    batches = [mix.places(turn) for turn in range(turns)]
    shapes = set()
    for places in batches:
        batch = stack([order.at(position) for order, position in places], CPU)
        shapes.add(batch.size)
    assert len(shapes) > 1
    counts = Counter(n for places in batches for n in members(places))
    assert len(counts) == 10 and max(counts.values()) - min(counts.values()) <= 2
    # a turn alone decides its samples: neither earlier turns nor the process matter
    again = Mix([(order_of(f"folder:{mixed}", tiny_pipe), size)])
    for turn in reversed(range(turns)):
        assert members(again.places(turn)) == members(batches[turn])


def test_padding_is_grey_and_unknown(mixed: Path, tiny_pipe: Diff2in1Pipeline) -> None:
    tiny_pipe.perception.families["semseg"] = (
        open_rows(f"folder:{mixed}").source.tasks["semseg"].family
    )
    examples = order_of(f"folder:{mixed}", tiny_pipe).parts[0]
    plain, padded = examples.get(0, False), examples.get(0, False, (24, 40))
    assert plain.inside.shape[1:] == (16, 32) and padded.inside.shape[1:] == (24, 40)
    assert padded.inside.sum() == plain.inside.sum() == 14 * 30
    assert torch.equal(padded.targets["semseg"][:, :16, :32], plain.targets["semseg"])
    assert (padded.targets["semseg"][:, 16:] == 255).all()
    same = examples.get(0, False, (16, 32))
    assert torch.equal(same.latents, plain.latents)


def test_one_size_or_one_sample_keeps_the_plain_order(
    mixed: Path, tiny_pipe: Diff2in1Pipeline
) -> None:
    for source, size in ((f"folder:{mixed}", 1), ("rooms:val", 2)):
        order = order_of(source, tiny_pipe)
        mix = Mix([(order, size)])
        for turn in (0, 7, 31):
            assert mix.places(turn) == [(order, turn * size + n) for n in range(size)]


def test_real_samples_are_the_same_whatever_is_created(
    mixed: Path, tiny_pipe: Diff2in1Pipeline
) -> None:
    for size in (1, 2):
        real = order_of(f"folder:{mixed}", tiny_pipe)
        alone = Mix([(real, size)])
        made = order_of("rooms:val", tiny_pipe, Use(created=True))  # all of another size
        made.parts[0].rows.usable[5:] = []
        both = Mix([(real, size), (SampleOrder(made.parts, 0), 2)])
        for turn in range(30):
            assert members(drawn(both, turn)) == members(drawn(alone, turn))
            assert len({order.size for order, _ in both.places(turn)}) == 1


HOST = ("--host", "light", "--width", 16)
SIZE = ("--report_to", "none", "--real_batch_size", 2)


def test_both_stages_train_on_mixed_sizes_and_resume(
    tiny_base: Path, mixed: Path, tmp_path: Path
) -> None:
    source = ("--source", f"folder:{mixed}")
    few, all_ = ("--max_train_steps", 2), ("--max_train_steps", 4)
    run(
        "warm-up",
        "--base",
        tiny_base,
        *source,
        *HOST,
        *SIZE,
        *few,
        "--output_dir",
        tmp_path / "warm",
    )
    pipeline = ("--pipeline", tmp_path / "warm/pipeline")
    run("label", *pipeline, *source, "--output_dir", tmp_path / "labelled")
    improve = ("self-improve", *pipeline, *source, "--created", tmp_path / "labelled", *SIZE)
    run(*improve, *all_, "--output_dir", tmp_path / "whole")
    run(*improve, *few, "--output_dir", tmp_path / "parts")
    resumed = ("--resume_from_checkpoint", "latest", "--dataloader_num_workers", 2)
    run(*improve, *all_, *resumed, "--output_dir", tmp_path / "parts")
    one, other = (
        load_file(tmp_path / name / "checkpoint-4/exploitation.safetensors")
        for name in ("whole", "parts")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)
    # the usual longer side of the pictures
    assert open_pipeline(str(pipeline[1])).config.default_processing_resolution == 30
