"""Captions by BLIP-2 and BLIP of transformers, and new captions from captions."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer, OPTForCausalLM

from d2i1_data.captioning.models import CAPTIONERS
from d2i1_data.captioning.prompts import SHOTS
from d2i1_data.captioning.sampling import seeded_sampling
from d2i1_data.creation.plan import Item, draw
from d2i1_data.sources.captions import read_captions
from tests.d2i1_data.captioning.models import save_blip, save_blip2, save_opt
from tests.made import contents

D2i1 = Callable[..., str]
COUNT = 7
KINDS = {"blip-2": save_blip2, "blip": save_blip}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    saved = {kind: save(folder / kind) for kind, save in KINDS.items()}
    return {**saved, "opt": save_opt(folder / "opt")}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder, rng = tmp_path / "images", np.random.default_rng(0)
    folder.mkdir()
    for n in range(COUNT):
        pixels = rng.integers(0, 256, (3 + n % 2, 4, 3), np.uint8)
        picture = Image.fromarray(pixels).resize((40, 30 + 4 * (n % 2)))
        picture.save(folder / f"{n}.png")
    return folder


def captions(folder: Path) -> dict[str, str]:
    return dict(read_captions(str(folder / "captions.jsonl")))


def written(d2i1: D2i1, images: Path, folder: Path, *flags: object) -> dict[str, str]:
    d2i1("caption", "--source", f"folder:{images}", "--output_dir", folder, *flags)
    return captions(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_captions_are_the_beams_of_lavis_whatever_the_batch(
    kind: str, models: dict[str, Path], images: Path, d2i1: D2i1, tmp_path: Path
) -> None:
    """The expected captions come from transformers alone, one image at a time."""
    processor = AutoProcessor.from_pretrained(models[kind])
    model = CAPTIONERS[kind].from_pretrained(models[kind])
    if kind == "blip-2":
        processor.num_query_tokens, model.config.image_token_index = 4, 31
        assert processor.tokenizer.convert_tokens_to_ids("<image>") == 31
    beams = {"num_beams": 5, "max_new_tokens": 30, "min_new_tokens": 1, "do_sample": False}
    expected = {}
    for n in range(COUNT):
        image = Image.open(images / f"{n}.png")
        inputs = processor(images=image, text="" if kind == "blip-2" else None, return_tensors="pt")
        (ids,) = model.generate(**inputs, **beams)
        expected[str(n)] = processor.decode(ids, skip_special_tokens=True).strip()
    assert len({*expected.values()}) > 3, "random weights must tell the images apart"
    for size in (1, 3, 8):
        folder, flags = tmp_path / f"{size}", ("--model", models[kind], "--batch_size", size)
        assert written(d2i1, images, folder, *flags) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_caption_is_what_follows_the_prompt(
    kind: str, models: dict[str, Path], images: Path, d2i1: D2i1, tmp_path: Path
) -> None:
    flags = ("--model", models[kind], "--max_new_tokens", 9)
    found = written(d2i1, images, tmp_path / "a", *flags, "--prompt", "a photo of")
    assert not any("photo" in one for one in found.values())
    assert any(found.values()) and all(len(one) <= 9 for one in found.values())
    assert found != written(d2i1, images, tmp_path / "b", *flags)


def test_draws_depend_on_id_and_seed_alone(
    models: dict[str, Path], images: Path, d2i1: D2i1, tmp_path: Path
) -> None:
    flags = ("--model", models["blip-2"], "--sample", "--max_new_tokens", 12)
    one = written(d2i1, images, tmp_path / "1", *flags, "--batch_size", 1)
    assert one == written(d2i1, images, tmp_path / "5", *flags, "--batch_size", 5)
    assert len({*one.values()}) == COUNT
    (images / "0.png").unlink()
    assert written(d2i1, images, tmp_path / "less", *flags) == {
        name: text for name, text in one.items() if name != "0"
    }
    other = written(d2i1, images, tmp_path / "seed", *flags, "--seed", 1)
    assert not {*other.values()} & {*one.values()}


def test_seeded_draws_have_the_probabilities_of_the_model() -> None:
    scores = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().repeat(8000, 1)
    names = [str(n) for n in range(len(scores))]
    ids = torch.zeros(len(scores), 1, dtype=torch.long)
    drawn = seeded_sampling(names, 0, 1.0, 1.0)(ids, scores.clone()).argmax(1)
    shares = drawn.bincount(minlength=4) / len(scores)
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.15, 0.05]), atol=0.02)
    drawn = seeded_sampling(names, 0, 1.0, 0.75)(ids, scores.clone()).argmax(1)
    shares = drawn.bincount(minlength=4) / len(scores)
    assert torch.allclose(shares, torch.tensor([0.625, 0.375, 0, 0]), atol=0.02)


def test_an_interrupted_run_continues_to_equal_files(
    models: dict[str, Path], images: Path, d2i1: D2i1, tmp_path: Path
) -> None:
    """It stops at a broken image, and a kill has broken the last line. Another batch is taken."""
    flags = ("--model", models["blip-2"], "--source", f"folder:{images}", "--sample")
    d2i1("caption", *flags, "--output_dir", tmp_path / "whole")
    good, bad = (images / "5.png").read_bytes(), images / "5.png"
    bad.write_bytes(good[:40])
    made = ("caption", *flags, "--output_dir", tmp_path / "made", "--batch_size")
    assert "--on_bad_row skip leaves it out" in d2i1(*made, 2, code=2)
    hidden = tmp_path / "made" / ".captions.jsonl.tmp"
    lines = hidden.read_text().splitlines(keepends=True)
    assert len(lines) == 1 + 4 and not (tmp_path / "made" / "captions.jsonl").exists()
    hidden.write_text("".join(lines[:-1]) + lines[-1][:5])
    bad.write_bytes(good)
    printed = d2i1(*made, 3)
    assert re.search(r"7 captions, up to \d+\.\d\d GB of CPU memory in float32", printed)
    whole, found = contents(tmp_path / "whole"), contents(tmp_path / "made")
    assert found.keys() == whole.keys() == {"captions.jsonl", "run.json"}
    assert found["captions.jsonl"] == whole["captions.jsonl"]
    before = (tmp_path / "made/captions.jsonl").stat().st_mtime_ns
    d2i1(*made, 1)
    assert (tmp_path / "made/captions.jsonl").stat().st_mtime_ns == before, "it was complete"


def test_bad_images_are_left_out_and_listed(
    models: dict[str, Path], images: Path, d2i1: D2i1, tmp_path: Path
) -> None:
    flags = ("--model", models["blip"], "--on_bad_row", "skip")
    whole = written(d2i1, images, tmp_path / "whole", *flags)
    (images / "2.png").write_bytes(b"nothing")
    found = written(d2i1, images, tmp_path / "made", *flags, "--batch_size", 3)
    assert found == {name: text for name, text in whole.items() if name != "2"}
    assert [*json.loads((tmp_path / "made" / "skipped.json").read_text())] == ["2"]


def test_a_folder_of_other_captions_is_not_touched(
    models: dict[str, Path], images: Path, d2i1: D2i1, tmp_path: Path
) -> None:
    flags = ("--model", models["blip"], "--max_new_tokens", 5)
    first = written(d2i1, images, tmp_path / "made", *flags)
    command = ("caption", "--source", f"folder:{images}", "--output_dir", tmp_path / "made")
    error = d2i1(*command, *flags, "--num_beams", 2, code=2)
    assert "holds other captions (num_beams: 5, now 2)" in error and error.count("\n") == 1
    assert captions(tmp_path / "made") == first
    d2i1(*command, *flags, "--sample", "--overwrite")
    assert captions(tmp_path / "made") != first
    error = d2i1("caption", "--source", f"folder:{images}", "--output_dir", images, code=2)
    assert "is not empty, holds no captions" in error


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--model", "opt"), "is a opt, expected one of blip-2, blip"),
        (("--model", "nowhere"), "no such folder, and not a Hub id"),
        (("--model", "blip", "--revision", "main"), "is a folder, which has no revision 'main'"),
        (("--model", "blip", "--max_new_tokens", 600), "reads 512 tokens; expected fewer"),
        (("--model", "blip", "--sample", "--num_beams", 3), "--num_beams has no effect without"),
        (("--model", "blip", "--top_p", 0.5), "--top_p has no effect without --sample"),
        (("--num_beams", 3), "--num_beams has no effect without --model"),
        ((), "no sample has a caption; --model writes captions"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(
    flags: tuple[Any, ...],
    expected: str,
    models: dict[str, Path],
    images: Path,
    d2i1: D2i1,
    tmp_path: Path,
) -> None:
    given = [models.get(flag, flag) for flag in flags]
    command = ("caption", "--source", f"folder:{images}", "--output_dir", tmp_path / "made")
    error = d2i1(*command, *given, code=2)
    assert expected in error.splitlines()[-1]


def test_weights_that_can_run_code_are_refused(
    models: dict[str, Path], images: Path, d2i1: D2i1, tmp_path: Path
) -> None:
    model = tmp_path / "pickled"
    model.mkdir()
    (model / "config.json").write_bytes((models["blip"] / "config.json").read_bytes())
    (model / "pytorch_model.bin").write_bytes(b"...")
    command = ("caption", "--source", f"folder:{images}", "--model", model)
    error = d2i1(*command, "--output_dir", tmp_path / "made", code=2)
    assert "has no .safetensors, only config.json, pytorch_model.bin" in error


# --- new captions ---

STREETS = ["a road with trees", "a street with cars at night", "a road with a bus, a car at noon"]


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    file = tmp_path / "streets.txt"
    file.write_text("\n".join(STREETS))
    return file


def prompts(d2i1: D2i1, file: Path, folder: Path, count: int, *flags: object) -> list[str]:
    command = ("caption", "--source", f"text:{file}", "--output_dir", folder)
    d2i1(*command, "--prompts_from_captions", count, *flags)
    return (folder / "prompts.txt").read_text().splitlines()


def test_new_captions_recombine_phrases(streets: Path, d2i1: D2i1, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    ten = prompts(d2i1, streets, folder, 10)
    assert len({*ten, *STREETS}) == 10 + len(STREETS)
    words = {word.strip(",") for caption in STREETS for word in caption.split()}
    assert {word.strip(",") for caption in ten for word in caption.split()} <= words
    assert prompts(d2i1, streets, folder, 4) == ten[:4]
    assert prompts(d2i1, streets, folder, 10, "--seed", 1) != ten
    assert [*captions(folder).values()] == STREETS
    command = ("caption", "--source", f"text:{streets}", "--output_dir", folder)
    error = d2i1(*command, "--prompts_from_captions", 300, code=2)
    assert re.search(r"3 captions give only \d+ new ones", error)


def test_new_captions_by_a_text_generator(
    models: dict[str, Path], streets: Path, d2i1: D2i1, tmp_path: Path
) -> None:
    """Without padding and batches, transformers draws the same."""
    flags = ("--prompt_model", models["opt"], "--max_new_tokens", 8)
    found = prompts(d2i1, streets, tmp_path / "1", 5, *flags, "--batch_size", 1)
    assert found == prompts(d2i1, streets, tmp_path / "4", 5, *flags, "--batch_size", 4)
    assert found != prompts(d2i1, streets, tmp_path / "seed", 5, *flags, "--seed", 1)
    assert len({*found}) == 5 and all(0 < len(caption) <= 8 for caption in found)
    tokenizer = AutoTokenizer.from_pretrained(models["opt"])
    model = OPTForCausalLM.from_pretrained(models["opt"])
    draws = [draw(Item("prompt", 0), 0, f"shot {n}") for n in range(SHOTS)]
    text = "".join(f"{STREETS[int(one * len(STREETS))]}\n" for one in draws)
    inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=248)
    size = inputs["input_ids"].shape[1]
    drawn = seeded_sampling(["prompt 0"], 0, 1.0, 0.9)
    ids = model.generate(**inputs, logits_processor=drawn, do_sample=False, max_new_tokens=8)
    assert tokenizer.decode(ids[0, size:], skip_special_tokens=True).strip() == found[0]
