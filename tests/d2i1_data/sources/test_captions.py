"""`--captions`: captions from a file take the place of those of the source, in every act."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from d2i1_data.errors import InputError
from d2i1_data.sources import open_source
from tests.made import SEVEN, run, samples

D2i1 = Callable[..., str]


def write(file: Path, captions: dict[str, str]) -> Path:
    lines = (json.dumps({"id": name, "caption": text}) for name, text in captions.items())
    file.write_text("\n".join(lines))
    return file


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """Captions of all rooms, and of something else."""
    count = len(open_source("rooms:train"))
    rooms = {f"rooms-train-{n:05d}": f"a hall, number {n}" for n in range(count)}
    return write(tmp_path / "captions.jsonl", {**rooms, "elsewhere": "a sea"})


def test_captions_replace_those_of_the_source(captions: Path) -> None:
    plain, source = open_source("rooms:train"), open_source("rooms:train", captions=str(captions))
    assert plain[5].caption != "a hall, number 5" == source[5].caption
    assert (source[5].image == plain[5].image).all()
    assert source[5].targets.keys() == {*plain.tasks}
    assert source.fingerprint != plain.fingerprint


def test_only_captions_of_the_source_change_its_fingerprint(captions: Path, tmp_path: Path) -> None:
    def opened(**changed: str) -> str:
        found = {"rooms-train-00000": "one", "rooms-train-00001": "two", **changed}
        file = write(tmp_path / "other.jsonl", found)
        return open_source("rooms:train", captions=str(file)).fingerprint

    assert opened() == opened(elsewhere="three") != opened(**{"rooms-train-00000": "three"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"id": "rooms-train-00000"}', 'line 1: \'{"id": "rooms-train-00000"}\', expected {"id"'),
        ('{"id": "a", "caption": "b"}\n\n[]', "line 3: '[]', expected"),
        ('{"id": "a", "caption": "b"}\n{', "line 2: no JSON"),
        ('{"id": "a", "caption": "b"}', "the first are 'a' in the file and 'rooms-train-00000' in"),
        ('{"id": "a", "caption": "b"}\n{"id": "a", "caption": "c"}', "another caption of 'a'"),
        ("", "no id is one of source rooms"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(text: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "captions.jsonl"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        open_source("rooms:train", captions=str(file))
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_a_row_without_a_caption_is_a_bad_row(d2i1: D2i1, tmp_path: Path) -> None:
    file = write(tmp_path / "captions.jsonl", {"rooms-val-00000": "a hall"})
    flags = ("--source", "rooms:val", "--max_source_samples", 2, "--subset_seed", "null")
    command = ("import", *flags, "--captions", file, "--output_dir", tmp_path / "made")
    assert "has no caption of 'rooms-val-00001'; --on_bad_row skip" in d2i1(*command, code=2)
    d2i1(*command, "--on_bad_row", "skip", "--overwrite")
    assert [sample.caption for sample in samples(tmp_path / "made")] == ["a hall"]


def test_images_without_captions_get_a_column(d2i1: D2i1, photos: Path, tmp_path: Path) -> None:
    images = photos.parent / "image"
    file = write(tmp_path / "captions.jsonl", {f"{n}": f"number {n}" for n in range(6)})
    command = ("import", "--source", f"folder:{images}", "--output_dir", tmp_path / "made")
    d2i1(*command, "--captions", file)
    assert [one.caption for one in samples(tmp_path / "made")] == [f"number {n}" for n in range(6)]
    write(file, {f"{n}": "another" for n in range(6)})
    assert "source_fingerprint" in d2i1(*command, "--captions", file, code=2)


def test_created_samples_are_made_from_them(
    d2i1: D2i1, pipeline: Path, captions: Path, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    flags = ("--captions", captions, "--prompt", "{caption}, at night")
    run("create", "--pipeline", pipeline, *SEVEN, *flags, "--output_dir", made)
    for sample in samples(made):
        number = int(str(sample.provenance.source_id).rpartition("-")[2])
        assert sample.caption == f"a hall, number {number}, at night"
    assert "equal byte for byte" in d2i1("create", "--verify", made, "--rows", 2)
    moved = captions.rename(tmp_path / "moved.jsonl")
    assert "no such file" in d2i1("create", "--verify", made, "--rows", 2, code=2)
    d2i1("create", "--verify", made, "--rows", 2, "--captions", moved)
    assert "captions.jsonl" in (made / "README.md").read_text()
    assert str(tmp_path) not in (made / "README.md").read_text()


def test_training_learns_to_denoise_with_them(
    d2i1: D2i1, tiny_base: Path, captions: Path, tmp_path: Path
) -> None:
    """With denoise_weight the U-Net sees the captions; nothing else in training reads them."""
    source = ("--source", "rooms:train", "--max_train_samples", 2, "--resolution", 32)
    host = ("--host", "light", "--width", 16, "--tasks", "normals", "--base", tiny_base)
    size = ("--max_train_steps", 1, "--real_batch_size", 2, "--report_to", "none")
    unet = ("--train_unet", "full", "--denoise_weight", 1, "--random_flip", "false")

    def weights(name: str, *flags: object) -> bytes:
        folder = tmp_path / name
        run("warm-up", *source, *host, *size, *unet, *flags, "--output_dir", folder)
        return (folder / "pipeline/unet/diffusion_pytorch_model.safetensors").read_bytes()

    with_captions = weights("made", "--captions", captions)
    assert weights("plain") != with_captions
    resumed = (*source, *host, *size, *unet, "--output_dir", tmp_path / "made")
    resumed = ("warm-up", *resumed, "--resume_from_checkpoint", "latest")
    assert "samples of source" in d2i1(*resumed, code=2)
    training = json.loads((tmp_path / "made/pipeline/training.json").read_text())
    assert training["stages"][0]["settings"]["captions"] == "captions.jsonl"
    command = ("warm-up", *source, *host, *size, "--captions", captions)
    error = d2i1(*command, "--output_dir", tmp_path / "none", code=2)
    assert "--captions has no effect without --denoise_weight" in error
