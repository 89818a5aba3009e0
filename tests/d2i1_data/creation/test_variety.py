"""What samples may be made with: ranges of strength, prompts, variants, captions alone; quality."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import load_dataset
from PIL import Image

from d2i1_data.checkpoints.pipelines import open_pipeline
from d2i1_data.creation.plan import Item
from d2i1_data.creation.producers import Creator, make_producer
from d2i1_data.creation.settings import CreateSettings
from d2i1_data.dataset.sample import Quality, image_sha256
from d2i1_data.diff2in1.prediction import perceive
from d2i1_data.sources import open_source, random_subset
from tests.made import SEVEN, run, samples, shards

D2i1 = Callable[..., str]


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    file = tmp_path / "captions.txt"
    file.write_text("a room with a red cube\n\n  a room with a blue sphere \n")
    return file


def test_samples_draw_their_strength_from_a_range(
    create: Callable[..., Path], pipeline: Path, tmp_path: Path
) -> None:
    found = samples(create(tmp_path / "ranged", "--strength", "[0.2, 0.9]"))
    strengths = [sample.provenance.strength for sample in found]
    assert len(set(strengths)) == 7 and all(0.2 <= s <= 0.9 for s in strengths)
    assert max(strengths) - min(strengths) > 0.3
    assert all(round(s * 1000) / 1000 == s for s in strengths)  # a timestep
    alone = create(tmp_path / "alone", "--strength", "[0.2, 0.9]", "--batch_size", 1)
    for one, other in zip(found, samples(alone), strict=True):
        assert one.provenance == other.provenance
        assert (abs(one.image.astype(int) - other.image) <= 1).mean() > 0.999


def test_samples_draw_their_prompt(create: Callable[..., Path], tmp_path: Path) -> None:
    prompts = '["{caption}, at night", "a cube"]'
    plain = samples(create(tmp_path / "plain"))
    found = samples(create(tmp_path / "edited", "--prompt", prompts))
    expected = {f"{plain[n].caption}, at night" for n in range(3)} | {"a cube"}
    assert {sample.caption for sample in found} <= expected
    assert "a cube" in {sample.caption for sample in found} != {"a cube"}
    assert not np.array_equal(found[0].image, plain[0].image)


def test_variants_of_every_image(pipeline: Path, tmp_path: Path) -> None:
    source = ("--source", "rooms:train", "--max_source_samples", 2, "--resolution", 32)
    steps = ("--num_inference_steps", 2, "--output_dir", tmp_path / "made")
    run("create", "--pipeline", pipeline, *source, *steps, "--variants", 3)
    found = [(s.provenance.source_id, s.provenance.variant) for s in samples(tmp_path / "made")]
    source = open_source("rooms:train")
    rooms = [source.identity(n) for n in random_subset(len(source), 2)]
    assert found == [(room, variant) for variant in range(3) for room in rooms]


def test_images_from_captions_alone(pipeline: Path, captions: Path, tmp_path: Path) -> None:
    text = ("--source", f"text:{captions}", "--resolution", "24x40", "--variants", 2)
    command = ("create", "--pipeline", pipeline, *text, "--num_inference_steps", 2)
    run(*command, "--output_dir", tmp_path / "made")
    found = samples(tmp_path / "made")
    assert [s.id for s in found] == [
        f"captions-{line:06d}-{variant:03d}" for variant in range(2) for line in (1, 3)
    ]
    assert [s.caption for s in found[:2]] == ["a room with a red cube", "a room with a blue sphere"]
    for sample in found:
        assert sample.size == (24, 40) == sample.targets["depth"].shape
        assert sample.provenance.strength == 1 and sample.provenance.source_sha256 is None
    assert not np.array_equal(found[0].image, found[2].image)
    run(*command, "--output_dir", tmp_path / "single", "--batch_size", 1)
    for one, other in zip(found, samples(tmp_path / "single"), strict=True):
        assert (abs(one.image.astype(int) - other.image) <= 1).mean() > 0.999


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--strength", 0.5), "has no images to keep: use --strength 1"),
        (("--balance", "semseg"), "has no such label map; it has none"),
    ],
)
def test_captions_alone_cannot(
    pipeline: Path, captions: Path, d2i1: D2i1, tmp_path: Path, flags: tuple[object], expected: str
) -> None:
    source = ("--source", f"text:{captions}", "--resolution", 32, "--num_inference_steps", 2)
    where = ("--pipeline", pipeline, "--output_dir", tmp_path / "out")
    assert expected in d2i1("create", *where, *source, *flags, code=2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("act", "spec", "expected"),
    [
        ("create", "text:captions.txt", "captions have no size, give one with --resolution"),
        ("create", "text:nowhere.txt", "no such file"),
        ("create", "text:empty.txt", "holds no caption"),
        ("label", "text:captions.txt", "has no images"),
        ("import", "text:captions.txt", "has no images"),
    ],
)
def test_texts_are_refused(
    pipeline: Path, captions: Path, d2i1: D2i1, act: str, spec: str, expected: str
) -> None:
    (captions.parent / "empty.txt").write_text("\n \n")
    spec = spec.replace("text:", f"text:{captions.parent}/")
    size = () if "give one" in expected else ("--resolution", 32)
    where = () if act == "import" else ("--pipeline", pipeline)
    message = d2i1(
        act, *where, "--source", spec, *size, "--output_dir", captions.parent / "o", code=2
    )
    assert expected in message


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--strength", "[0.8, 0.2]"), "expected a number or [LOW, HIGH]"),
        (("--strength", "[0.2]"), "expected a number or [LOW, HIGH]"),
        (("--strength", "[0, 0.5]"), "expected a number or [LOW, HIGH]"),
        (("--strength", "[0.001, 0.5]"), "2 steps: expected 1 to 1 at strength 0.001"),
        (("--prompt", "{captoin}"), "has {captoin}, only {caption} and {recombined} are allowed"),
        (("--prompt", "50 % {"), "template '50 % {'"),
        (("--variants", 2), "--variants has no effect with --num_samples"),
        (("--prompt", "[]"), "--prompt []: expected"),
        (
            ("--prompt", "{caption:d}"),
            "has {caption:d}, only {caption} and",
        ),
        (("--negative_prompt", "ugly"), "has no effect at --guidance_scale 1"),
        (("--workers", 2), "--workers has no effect without --engine ray"),
        (("--threads", 0), "--threads 0"),
    ],
)
def test_wrong_settings_are_refused(
    pipeline: Path, d2i1: D2i1, tmp_path: Path, flags: tuple[object, ...], expected: str
) -> None:
    where = ("--pipeline", pipeline, "--output_dir", tmp_path / "out")
    assert expected in d2i1("create", *where, *SEVEN, *flags, code=2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "measured"),
    [
        (("--quality", "none"), set()),
        (("--quality", "fast"), {"confidence", "flip"}),
        (("--quality", "full"), {"confidence", "flip", "reencode"}),
        (("--quality", "full", "--labels_from", "image"), {"confidence", "flip"}),
    ],
)
def test_quality_is_what_was_asked_for(
    create: Callable[..., Path], tmp_path: Path, flags: tuple[object, ...], measured: set[str]
) -> None:
    for sample in samples(create(tmp_path / "made", *flags)):
        for scores in sample.quality.values():
            found = {name for name, value in vars(scores).items() if value is not None}
            assert found == measured
            assert scores == Quality() or 0 <= min(filter(None, vars(scores).values())) <= 1


def test_quality_says_what_it_says(
    create: Callable[..., Path], pipeline: Path, tmp_path: Path
) -> None:
    """The scores again, from pictures and public calls alone, where labels come from the image."""
    pipe = open_pipeline(str(pipeline))
    for sample in samples(create(tmp_path / "made", "--labels_from", "image")):
        seen = pipe.predict(sample.image, output_type="pt")
        mirrored = pipe.predict(sample.image[:, ::-1], output_type="pt").predictions
        for name, family in pipe.perception.families.items():
            own, other = (maps[name][0][None] for maps in (seen.predictions, mirrored))
            flip = family.agreement(own, family.flip(other)).item()
            confidence = 1 - seen.uncertainty[name][0].mean().item()
            assert sample.quality[name].flip == pytest.approx(flip, abs=2e-3)
            assert sample.quality[name].confidence == pytest.approx(confidence, abs=1e-4)


def test_confidence_of_every_pixel(create: Callable[..., Path], tmp_path: Path) -> None:
    folder = create(tmp_path / "made", "--confidence_maps")
    assert shards(folder) != shards(create(tmp_path / "plain"))
    for sample in samples(folder):
        assert set(sample.confidence) == set(sample.targets)
        for name, maps in sample.confidence.items():
            assert maps.shape == sample.size
            assert maps.mean() == pytest.approx(sample.quality[name].confidence, abs=0.002)
    for streaming in (False, True):  # for those who do not have this package
        rows = load_dataset(str(folder), split="train", streaming=streaming)
        assert next(iter(rows))["confidence"]["depth"].size == (32, 32)
    assert all(sample.confidence == {} for sample in samples(tmp_path / "plain"))


@pytest.mark.parametrize(
    "flags",
    [("--precision", "bfloat16"), pytest.param(("--compile",), marks=pytest.mark.slow)],
)
def test_faster_ways_give_nearly_the_same(
    create: Callable[..., Path], tmp_path: Path, flags: tuple[object, ...]
) -> None:
    plain, other = (samples(create(tmp_path / str(len(f)), *f)) for f in ((), flags))
    off = np.stack([abs(a.image.astype(int) - b.image) for a, b in zip(plain, other, strict=True)])
    assert off.mean() < 2 and (flags == ("--compile",) or off.any())
    precision = "bfloat16" if "bfloat16" in flags else "float32"
    assert {s.provenance.precision for s in other} == {precision}


def test_flips_of_padded_images(pipeline: Path, photos: Path) -> None:
    """14 x 18 is padded to 16 x 20: what is compared are the same pixels."""
    pipe = open_pipeline(str(pipeline))
    producer = make_producer(
        CreateSettings(
            pipeline=str(pipeline),
            source=f"folder:{photos}",
            resolution="14x18",
            num_inference_steps=2,
            output_dir="",
        )
    )
    assert isinstance(producer, Creator)
    (jobs,) = producer.batches([Item(str(n), 0) for n in range(6)], {})
    batch = producer.decode(producer.denoise(jobs))
    assert batch.latents is not None and batch.latents.shape[2:] == (8, 10)  # of 16 x 20
    with torch.no_grad():
        whole = perceive(pipe, batch.latents.flip(-1), (16, 20))
        found = producer.labels(batch, mirrored=True)
    for name, raw in found.items():
        assert raw.shape[2:] == (14, 18)
        torch.testing.assert_close(raw, whole[name][:, :, :14, 2:])


def test_images_of_one_size_share_a_batch(pipeline: Path, photos: Path, tmp_path: Path) -> None:
    for n in (1, 4):  # every other size stands between two of the first
        Image.new("RGB", (14, 20), (200, n, 0)).save(photos.parent / f"image/{n}.png")
        Image.new("L", (14, 20)).save(photos.parent / f"label/{n}.png")
    given = {"pipeline": str(pipeline), "source": f"folder:{photos}", "output_dir": ""}
    producer = make_producer(CreateSettings(**given, batch_size=3))
    assert isinstance(producer, Creator)
    batches = producer.batches([Item(str(n), 0) for n in range(6)], {})
    found = [[order.item.source_id for order in batch] for batch in batches]
    assert found == [["0", "2", "3"], ["1", "4"], ["5"]]
    command = ("create", "--pipeline", pipeline, "--source", f"folder:{photos}", "--batch_size", 3)
    run(*command, "--num_inference_steps", 2, "--output_dir", tmp_path / "made")
    ids = [sample.id[0] for sample in samples(tmp_path / "made")]
    assert ids == ["0", "2", "3", "1", "4", "5"]


def test_what_is_made_of_created_images_says_so(
    create: Callable[..., Path], pipeline: Path, tmp_path: Path
) -> None:
    created = samples(create(tmp_path / "made"))
    label = ("label", "--pipeline", pipeline, "--source", f"dataset:{tmp_path / 'made'}")
    run(*label, "--output_dir", tmp_path / "again")
    for one, source in zip(samples(tmp_path / "again"), created, strict=True):
        origin = one.provenance
        assert (origin.source_dataset, origin.source_id) == ("made", source.id)
        assert origin.source_sha256 == image_sha256(source.image) and origin.seed is None
    copy = ("import", "--source", f"dataset:{tmp_path / 'made'}", "--output_dir", tmp_path / "copy")
    run(*copy)
    card = (tmp_path / "copy/README.md").read_text()
    assert "7 images created and labelled by one" in card and "synthetic" in card
