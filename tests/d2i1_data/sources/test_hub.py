"""Data sets of the Hub: pictures and arrays, downloaded or streamed, and what is refused."""

import pickle
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import yaml
from datasets import Array2D, Array3D, Features, Value
from huggingface_hub import HfApi, constants
from PIL import Image

from d2i1_data.errors import InputError
from d2i1_data.sources import open_source
from d2i1_data.sources.ade20k import NAMES
from d2i1_data.sources.hub import MAPPINGS, shipped_mappings
from d2i1_data.sources.source import Source
from tests.hub import Hub
from tests.made import rows, run

SIZE = (6, 8)
COUNT = 5
PICTURES = Features(
    {"photo": datasets.Image(), "ids": datasets.Image(), "metres": datasets.Image()}
    | {"name": Value("string"), "text": Value("string")}
)
ARRAYS = Features(
    {"photo": Array3D((3, *SIZE), "float32"), "ids": Array2D(SIZE, "int64")}
    | {"metres": Array3D((1, *SIZE), "float32"), "vectors": Array3D((3, *SIZE), "float32")}
)
COLUMNS: dict[str, Any] = {
    "image": "photo",
    "semseg": "ids",
    "depth": {"column": "metres", "scale": 1},
}
CLASSES = {"semseg": {"names": ["sky", "road"], "ignore": [2, -1]}}


def pictures(number: int) -> dict[str, Any]:
    """A row of pictures. Class ids are the number of the pixel modulo 3."""
    photo = np.full((*SIZE, 3), number, np.uint8)
    ids = (np.arange(48).reshape(SIZE) % 3).astype(np.uint8)
    metres = np.full(SIZE, number + 0.5, np.float32)
    stored = {"photo": photo, "ids": ids, "metres": metres}
    texts = {"name": f"street {number}", "text": f"the street {number}"}
    return {key: Image.fromarray(value) for key, value in stored.items()} | texts


def arrays(number: int) -> dict[str, Any]:
    """A row of arrays, channels first. The vectors face right, and red is stored negatively."""
    vectors = np.zeros((3, *SIZE), np.float32)
    vectors[0, 1:] = -0.98  # resized
    return {
        "photo": np.full((3, *SIZE), number / 255, np.float32),
        "ids": np.arange(48).reshape(SIZE) % 3 - 1,
        "metres": np.full((1, *SIZE), number + 0.5, np.float32),
        "vectors": vectors,
    }


def send(name: str, made: list[dict[str, Any]], features: Features, folder: str = "data") -> None:
    """A data set in two Parquet files of small row groups."""
    client = HfApi()
    client.create_repo(name, repo_type="dataset", exist_ok=True)
    for part, some in enumerate((made[:3], made[3:])):
        file = Path(constants.HF_HOME) / "part.parquet"
        datasets.Dataset.from_list(some, features=features).to_parquet(file, batch_size=2)
        place = f"{folder}/train-{part:05d}-of-00002.parquet"
        client.upload_file(
            path_or_fileobj=file, path_in_repo=place, repo_id=name, repo_type="dataset"
        )


def opened(folder: Path, part: str = "", **content: Any) -> Source:
    given = {"dataset": "alice/streets", "columns": COLUMNS, "classes": CLASSES, **content}
    (folder / "x.yaml").write_text(yaml.safe_dump(given))
    return open_source(f"hub:{folder / 'x.yaml'}{part}")


def downloaded() -> list[Path]:
    return [*Path(constants.HF_HUB_CACHE).rglob("*.parquet")]


@pytest.mark.parametrize("streaming", [False, True])
def test_pictures(hub: Hub, tmp_path: Path, streaming: bool) -> None:
    send("alice/streets", [pictures(number) for number in range(COUNT)], PICTURES)
    text = {"caption": {"column": "text"}, "id": "name", "licence": "cc0-1.0"}
    source = opened(tmp_path, streaming=streaming, **text)
    assert bool(downloaded()) != streaming
    assert [source.identity(row) for row in range(COUNT)] == [f"street {n}" for n in range(COUNT)]
    for row in (4, 0, 2, 3, 1):  # in any order
        sample = source[row]
        assert sample.image.shape == (*SIZE, 3) and (sample.image == row).all()
        expected = np.arange(48).reshape(SIZE) % 3
        np.testing.assert_array_equal(
            sample.targets["semseg"], np.where(expected == 2, 255, expected)
        )
        assert (sample.targets["depth"] == row + 0.5).all()
        assert sample.caption == f"the street {row}"
        origin = sample.provenance
        assert (origin.source_dataset, origin.licence) == ("alice/streets", "cc0-1.0")
    assert not source.picture(0).targets
    again = pickle.loads(pickle.dumps(source))  # in another process
    assert again[3].id == source[3].id and again.fingerprint == source.fingerprint
    assert opened(tmp_path, streaming=not streaming, **text).fingerprint == source.fingerprint


def test_arrays(hub: Hub, tmp_path: Path) -> None:
    send("alice/streets", [arrays(number) for number in range(COUNT)], ARRAYS)
    columns = COLUMNS | {"normals": {"column": "vectors", "axes": "-r+g+b"}}
    for streaming in (False, True):
        source = opened(tmp_path, columns=columns, streaming=streaming)
        sample = source[4]
        assert sample.id == "train-00000004"
        assert (sample.image == 4).all() and sample.image.dtype == np.uint8
        expected = np.arange(48).reshape(SIZE) % 3 - 1
        np.testing.assert_array_equal(
            sample.targets["semseg"], np.where(expected < 0, 255, expected)
        )
        assert (sample.targets["depth"] == 4.5).all()
        assert (sample.targets["normals"][0] == 0).all()
        assert (sample.targets["normals"][1:] == (1, 0, 0)).all()


def test_an_import_of_a_stream_is_that_of_a_download(hub: Hub, tmp_path: Path) -> None:
    send("alice/streets", [pictures(number) for number in range(COUNT)], PICTURES)
    for streaming in (True, False):
        opened(tmp_path, streaming=streaming)
        out = tmp_path / f"out {streaming}"
        run("import", "--source", f"hub:{tmp_path / 'x.yaml'}:train", "--output_dir", out)
    one, other = (rows(tmp_path / f"out {streaming}") for streaming in (True, False))
    assert one == other and len(one) == COUNT
    assert "hub:x.yaml:train" in (tmp_path / "out True" / "README.md").read_text()


def test_a_loading_script_is_refused_with_the_way_around(hub: Hub, tmp_path: Path) -> None:
    client, converted = HfApi(), {"repo_type": "dataset", "revision": "refs/convert/parquet"}
    client.create_repo("alice/script", repo_type="dataset")
    script = {"path_or_fileobj": b"raise SystemExit\n", "path_in_repo": "script.py"}
    client.upload_file(**script, repo_id="alice/script", repo_type="dataset")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="needs a loading script") as caught:
        opened(tmp_path, dataset="alice/script")
    assert "`revision: refs/convert/parquet`" in str(caught.value)
    assert "`folder:`" in str(caught.value) and "\n" not in str(caught.value)

    client.create_branch("alice/script", branch=converted["revision"], repo_type="dataset")
    client.delete_file("script.py", repo_id="alice/script", **converted)  # type: ignore[arg-type]
    file = tmp_path / "0000.parquet"
    for config, value in (("one", 1), ("two", 2)):
        row = pictures(value)
        datasets.Dataset.from_list([row], features=PICTURES).to_parquet(file)
        for split in ("train", "validation"):
            place = f"{config}/{split}/0000.parquet"
            client.upload_file(
                path_or_fileobj=file, path_in_repo=place, repo_id="alice/script", **converted
            )  # type: ignore[call-overload]
    way = {"dataset": "alice/script", "revision": "refs/convert/parquet", "data_dir": "two"}
    source = opened(tmp_path, ":validation", **way)
    assert len(source) == 1 and (source[0].image == 2).all()


def test_files_of_other_kinds_are_downloaded(hub: Hub, tmp_path: Path) -> None:
    client, folder = HfApi(), tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        Image.fromarray(np.full((4, 6, 3), number, np.uint8)).save(folder / f"{number}.png")
    lines = ["file_name,said", "0.png,nothing", "1.png,something"]
    (folder / "metadata.csv").write_text("\n".join(lines))
    client.create_repo("alice/photos", repo_type="dataset")
    client.upload_folder(repo_id="alice/photos", repo_type="dataset", folder_path=folder)
    way = {"columns": {"image": "image"}, "classes": {}, "caption": {"column": "said"}}
    source = opened(tmp_path, dataset="alice/photos", **way)
    found = {sample.caption: int(sample.image.max()) for sample in source}
    assert found == {"nothing": 0, "something": 1}
    local = opened(tmp_path, dataset="photos", **way)  # a folder beside the YAML file
    assert {sample.caption: int(sample.image.max()) for sample in local} == found
    with pytest.raises(InputError, match="only Parquet can be streamed"):
        opened(tmp_path, dataset="alice/photos", streaming=True, **way)


def test_the_shipped_descriptions_can_be_read(hub: Hub, tmp_path: Path) -> None:
    assert len(shipped_mappings()) >= 3
    for name in shipped_mappings():
        content = yaml.safe_load((MAPPINGS / f"{name.replace('/', '--')}.yaml").read_text())
        assert content["dataset"] == name
        with pytest.raises(InputError, match=f"data set {name}: neither a folder nor on the Hub"):
            open_source(f"hub:{name}")
    content = yaml.safe_load((MAPPINGS / "zhoubolei--scene_parse_150.yaml").read_text())
    names = [name.strip() for name in " ".join(NAMES.split()).split(",")]
    assert content["classes"]["semseg"]["stored"] == ["other", *names]
    ids = Image.fromarray(np.array([[0, 1], [2, 150]], np.uint8))
    row = {"image": Image.new("RGB", (2, 2)), "annotation": ids}
    features = Features({"image": datasets.Image(), "annotation": datasets.Image()})
    send("alice/ade", [row] * 4, features)
    for key in ("revision", "data_dir"):
        del content[key]
    sample = opened(tmp_path, **content | {"dataset": "alice/ade"})[0]
    np.testing.assert_array_equal(sample.targets["semseg"], [[255, 0], [1, 149]])
    assert sample.caption == "a scene with wall, building, flag"
    with pytest.raises(InputError, match="no description is shipped but of sayakpaul/nyu_depth_v2"):
        open_source("hub:alice/ade")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no data set": ({"dataset": "alice/none"}, "data set alice/none: neither a folder nor on the"),
    "no id": ({"dataset": "none"}, "not a Hub id of the form user/name"),
    "no split": ({"split": "test"}, "no split 'test', only train"),
    "no configuration": ({"config": "other"}, "cannot be loaded: BuilderConfig 'other' not found"),
    "no column": ({"columns": {"image": "picture"}}, "no column 'picture', only photo, ids"),
    "a text": ({"columns": {"image": "text"}}, "image is str, expected a picture or an array"),
    "a folder": ({"columns": {"image": {"folder": "x"}}}, "'column' is missing"),
    "captions in a folder": ({"caption": {"folder": "x"}}, "has no `folder`, give `column`"),
    "an unknown key": ({"configs": "x"}, "unknown key 'configs', did you mean 'config'?"),
    "ids twice": ({"id": "text"}, "text has 'x' twice"),
    "a class too many": ({"classes": {"semseg": {"names": ["sky"]}}}, "semseg holds class id 1"),
}


@pytest.fixture(scope="module")
def same() -> list[dict[str, Any]]:
    return [pictures(number) | {"text": "x"} for number in range(2)]


@pytest.mark.parametrize(("changes", "told"), REFUSED.values(), ids=REFUSED)
def test_wrong_descriptions_are_refused(
    hub: Hub, tmp_path: Path, same: list[dict[str, Any]], changes: dict[str, Any], told: str
) -> None:
    file = tmp_path / "part.parquet"
    datasets.Dataset.from_list(same, features=PICTURES).to_parquet(file)
    client = HfApi()
    client.create_repo("alice/streets", repo_type="dataset")
    place = {"path_in_repo": "data/train-00000-of-00001.parquet", "repo_id": "alice/streets"}
    client.upload_file(path_or_fileobj=file, repo_type="dataset", **place)
    with pytest.raises(InputError) as caught:
        opened(tmp_path, **{"streaming": True, **changes})[0]
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_rows_that_name_files_of_this_machine_are_refused(hub: Hub, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    Image.new("RGB", (4, 4)).save(secret)
    kind = {"bytes": Value("binary"), "path": Value("string")}
    row = {"photo": {"bytes": None, "path": str(secret)}}
    send("alice/streets", [row] * 4, Features({"photo": kind}))
    with pytest.raises(InputError, match="a row that names a file of this machine"):
        opened(tmp_path, columns={"image": "photo"}, classes={}, streaming=True)[0]


def test_a_silent_hub_is_told_at_once(hub: Hub, tmp_path: Path) -> None:
    hub.fail("GET", "/api/whoami-v2", 0)
    with pytest.raises(InputError, match="alice/streets: the Hub does not answer: "):
        opened(tmp_path)
