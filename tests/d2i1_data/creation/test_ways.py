"""Datasets that mix ways to create, and prompts with new captions."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from d2i1_data.creation.plan import Item, read_plan
from d2i1_data.creation.producers import Creator, make_producer
from d2i1_data.creation.recombination import split_caption
from d2i1_data.creation.settings import CreateSettings
from tests.made import SEVEN, contents, rows, run, samples

D2i1 = Callable[..., str]
WAYS = [
    {"share": 2, "strength": 0.3},
    {"strength": [0.8, 0.9], "prompt": "{recombined}"},
    {"share": 0.5, "prompt": ["a cube", "{caption}, at night"]},
]


def creator(pipeline: Path, **more: object) -> Creator:
    given = {"source": "rooms:train", "resolution": "32", "num_inference_steps": 2}
    settings = {**given, "pipeline": str(pipeline), "output_dir": "", **more}
    producer = make_producer(CreateSettings(**settings))
    assert isinstance(producer, Creator)
    return producer


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    file = tmp_path / "captions.txt"
    file.write_text("".join(f"a room with a cone {n}, a box {n}\n" for n in range(8)))
    return file


def test_shares_are_met(pipeline: Path) -> None:
    producer, count = creator(pipeline, ways=WAYS, max_source_samples=3), 4000
    items = [Item(f"image-{n}", n % 3) for n in range(count)]
    found = Counter(producer.ways.index(producer.way(item)) for item in items)
    for number, share in enumerate((2 / 3.5, 1 / 3.5, 0.5 / 3.5)):
        bound = 4 * (share * (1 - share) / count) ** 0.5
        assert abs(found[number] / count - share) < bound
    for item in items[:100]:
        low, high = producer.way(item).strength or (0.6, 0.6)
        assert low <= producer.strength(item) <= high


def test_a_sample_decides_its_way(pipeline: Path) -> None:
    producer = creator(pipeline, ways=WAYS)
    other = creator(pipeline, ways=WAYS, seed=1)
    larger = creator(pipeline, ways=[way | {"share": 10 * way.get("share", 1)} for way in WAYS])
    items = [Item(f"image-{n}", 0) for n in range(50)]
    ways = [producer.ways.index(producer.way(item)) for item in items]
    assert [larger.ways.index(larger.way(item)) for item in items] == ways
    assert [other.ways.index(other.way(item)) for item in items] != ways


def test_strengths_and_captions_follow_the_ways(
    create: Callable[..., Path], pipeline: Path, tmp_path: Path
) -> None:
    flags = ("--ways", json.dumps(WAYS), "--num_samples", 24)
    found = samples(create(tmp_path / "made", *flags))
    producer = creator(pipeline, ways=WAYS, max_source_samples=3)
    own = {s.id: s.caption for s in (producer.source[row] for row in producer.rows)}
    phrases = {phrase for text in own.values() for phrase in split_caption(str(text)).phrases}
    ways = Counter[int]()
    for sample in found:
        origin, caption = sample.provenance, str(sample.caption)
        original = own[str(origin.source_id)]
        assert origin.strength is not None
        way = producer.ways.index(producer.way(Item(str(origin.source_id), origin.variant or 0)))
        ways[way] += 1
        if way == 0:
            assert (origin.strength, caption) == (0.3, original)
        elif way == 1:
            assert 0.8 <= origin.strength <= 0.9
            assert phrases.issuperset(split_caption(caption).phrases)
        else:
            assert origin.strength == 0.6
            assert caption in ("a cube", f"{original}, at night")
    assert set(ways) == {0, 1, 2}
    alone = create(tmp_path / "alone", *flags, "--batch_size", 1)
    for one, other in zip(found, samples(alone), strict=True):
        assert (one.provenance, one.caption) == (other.provenance, other.caption)
        assert (abs(one.image.astype(int) - other.image) <= 1).mean() > 0.999


def test_one_way_changes_nothing(create: Callable[..., Path], tmp_path: Path) -> None:
    plain = create(tmp_path / "plain", "--strength", "[0.2, 0.9]", "--prompt", "[a, b]")
    same = "[{strength: [0.2, 0.9], prompt: [a, b]}]"
    assert rows(create(tmp_path / "same", "--ways", same)) == rows(plain)
    facts = json.loads((plain / "plan.json").read_text())
    assert not {"ways", "captions", "max_source_samples"} & {*facts}


def test_made_again_and_verified(create: Callable[..., Path], tmp_path: Path, d2i1: D2i1) -> None:
    flags = ("--ways", json.dumps(WAYS), "--seed", 2)
    folder = create(tmp_path / "made", *flags)
    before = contents(folder)
    (folder / "data/train-00001.parquet").unlink()
    assert contents(create(folder, *flags)) == before
    assert "7 rows made again, equal byte for byte" in d2i1(
        *("create", "--verify", folder, "--rows", 7)
    )
    other = ("--pipeline", read_run_pipeline(folder), *SEVEN, "--seed", 2, "--output_dir", folder)
    message = d2i1("create", *other, "--ways", "[{strength: 0.3}]", code=2)
    assert "another dataset (" in message and "ways: [" in message
    assert contents(folder) == before


def read_run_pipeline(folder: Path) -> str:
    return json.loads((folder / "run.json").read_text())["settings"]["pipeline"]


def test_new_captions_look_at_no_other_rows(
    pipeline: Path, captions: Path, tmp_path: Path, d2i1: D2i1
) -> None:
    """Of eight lines, two are used; all new captions have phrases of these two."""
    text = ("--source", f"text:{captions}", "--resolution", 16, "--max_source_samples", 2)
    command = ("create", "--pipeline", pipeline, *text, "--num_inference_steps", 1)
    more = ("--num_samples", 80, "--prompt", "{recombined}", "--output_dir", tmp_path / "made")
    run(*command, *more)
    found = samples(tmp_path / "made")
    lines = captions.read_text().splitlines()
    used = {lines[int(str(s.provenance.source_id)[-6:]) - 1] for s in found}
    assert len(used) == 2
    phrases = {phrase for line in used for phrase in split_caption(line).phrases}
    own = {phrase for s in found for phrase in split_caption(str(s.caption)).phrases}
    assert own == phrases and len({s.caption for s in found}) == 12  # all pairs of four phrases
    assert "equal byte for byte" in d2i1("create", "--verify", tmp_path / "made")


def test_changed_captions_are_found(pipeline: Path, photos: Path, d2i1: D2i1) -> None:
    captions, folder = photos.parent / "captions", photos.parent / "made"
    captions.mkdir()
    for n in range(6):
        (captions / f"{n}.txt").write_text(f"a street with tree {n}")
    content = photos.read_text().partition("caption:")[0]
    photos.write_text(f"{content}caption: {{folder: captions}}\n")
    command = ("create", "--pipeline", pipeline, "--source", f"folder:{photos}")
    more = ("--num_inference_steps", 2, "--ways", '[{prompt: "{recombined}"}, {prompt: a cube}]')
    run(*command, *more, "--output_dir", folder)
    assert "captions" in read_plan(folder).facts
    (captions / "4.txt").write_text("a street with a car")
    message = d2i1("create", "--verify", folder, code=2)
    assert "was made from another plan: captions: " in message
    message = d2i1(*command, *more, "--output_dir", folder, code=2)
    assert "another dataset (captions: " in message
    (captions / "4.txt").unlink()
    message = d2i1(*command, *more, "--output_dir", photos.parent / "other", code=2)
    assert "4.txt" in message and "--on_bad_row skip leaves it out" in message
    skip = ("--on_bad_row", "skip", "--output_dir", photos.parent / "fewer")
    run(*command, *more, *skip)
    assert len(samples(photos.parent / "fewer")) == 5
    assert "byte for byte" in d2i1("create", "--verify", photos.parent / "fewer")


def test_without_captions_there_are_no_new_ones(pipeline: Path, photos: Path, d2i1: D2i1) -> None:
    shutil.rmtree(photos.parent / "label")
    source = ("--source", f"folder:{photos.parent / 'image'}", "--prompt", "{recombined}")
    where = ("--pipeline", pipeline, "--output_dir", photos.parent / "out")
    expected = "{recombined} in a prompt: source image has no caption in the 6 rows"
    assert expected in d2i1("create", *where, *source, code=2)
    assert not (photos.parent / "out").exists()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--ways", "[]"), "--ways []: expected at least one way"),
        (("--ways", "[{weight: 2}]"), "way 1: unknown key 'weight', expected share, strength"),
        (("--ways", "[{}, {share: 0}]"), "way 2: share 0: expected a number above 0"),
        (("--ways", "[{share: .nan}]"), "way 1: share nan: expected a number above 0"),
        (("--ways", "[{share: many}]"), "way 1: share 'many': expected a number above 0"),
        (("--ways", "[{strength: 2}]"), "way 1: strength 2: expected more than 0, at most 1"),
        (("--ways", "[{strength: [0.9, 0.1]}]"), "expected a number or [LOW, HIGH]"),
        (("--ways", "[{strength: true}]"), "strength True: expected a number or [LOW, HIGH]"),
        (("--ways", "[{strength: 0.001}]"), "2 steps: expected 1 to 1 at strength 0.001"),
        (("--ways", "[{prompt: []}]"), "way 1: prompt []: expected a prompt"),
        (("--ways", "[{prompt: 3}]"), "way 1: prompt 3: expected a prompt"),
        (("--ways", '[{prompt: "{colour}"}]'), "only {caption} and {recombined} are allowed"),
        (("--ways", "{share: 1}"), "expected a list of mappings"),
        (("--ways", "[{strength: 0.5}]", "--strength", 1), "--strength has no effect"),
        (("--ways", "[{prompt: cube}]", "--prompt", "box"), "--prompt has no effect"),
    ],
)  # fmt: skip
def test_wrong_ways_are_refused(
    pipeline: Path, d2i1: D2i1, tmp_path: Path, flags: tuple[object, ...], expected: str
) -> None:
    where = ("--pipeline", pipeline, "--output_dir", tmp_path / "out")
    message = d2i1("create", *where, *SEVEN, *flags, code=2)
    assert expected in message and message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_captions_alone_need_full_strength_in_every_way(
    pipeline: Path, captions: Path, d2i1: D2i1
) -> None:
    source = ("--source", f"text:{captions}", "--resolution", 16, "--num_inference_steps", 2)
    where = ("--pipeline", pipeline, "--output_dir", captions.parent / "out")
    ways = ("--ways", "[{}, {strength: [0.5, 1]}]")
    message = d2i1("create", *where, *source, *ways, code=2)
    assert "has no images to keep: use strength 1" in message
