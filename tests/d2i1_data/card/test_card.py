"""Cards of datasets: facts of the folder, metadata for the Hub, and escaped texts."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt

from d2i1_data.card import Links, dataset_card, write_card
from d2i1_data.card.dataset import SIZES, size_category
from d2i1_data.card.licence import metadata, read_licence
from d2i1_data.card.text import code_block, is_repository
from d2i1_data.dataset.record import RunRecord, read_run, write_run
from d2i1_data.dataset.sample import Provenance, Quality, Sample
from d2i1_data.dataset.schema import METADATA, Schema
from d2i1_data.dataset.shards import ShardRecord, shard_path, write_metadata, write_shard
from d2i1_data.errors import InputError
from d2i1_data.sources.rooms import CLASSES
from d2i1_data.tasks import TASKS
from d2i1_train.acts import ACTS
from hub_cards import REPOSITORY
from tests.hub.cards import WORDS
from tests.made import run, samples
from tests.pages import HOSTILE, Page, snippets


def make_dataset(folder: Path, text: str = "word", **given: Any) -> Path:
    """A dataset of two samples with `text` in every field that may hold a text."""
    tasks = {name: TASKS[name] for name in ("normals", "semseg")}
    tasks["semseg"] = tasks["semseg"].with_classes([text, "other"])
    own = {
        **dict.fromkeys(("source_dataset", "licence", "base", "checkpoint", "fingerprint"), text),
        **dict.fromkeys(("host", "scheduler", "precision", "negative_prompt"), text),
        **{"kind": "created", "source_id": text, "strength": 0.5, "steps": 2, "seed": 1, **given},
    }
    image = np.zeros((4, 6, 3), np.uint8)
    targets = {"semseg": np.ones((4, 6), np.uint8)}
    quality = {"semseg": Quality(0.5, 0.75)}
    one = Sample("a", image, targets, text, Provenance(**own), quality)
    rows = [one, replace(one, id=text)]

    record = ShardRecord({text: text}, {text: 3}, text)
    write_shard(shard_path(folder, 0), rows, Schema.of(tasks), lambda: record)
    write_metadata(folder, Schema.of(tasks))
    command = ["--source", f"folder:{text}/x.yaml:{text}", "--pipeline", text]
    command += ["--prompt", json.dumps([text, "{caption}"]), "--negative_prompt", text]
    write_run(folder, RunRecord("create", command, {}))
    write_card(folder)
    return folder


@pytest.fixture(scope="session")
def made(create: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven created rooms, with settings that need quoting."""
    flags = ("--strength", "[0.4, 0.8]", "--prompt", '["{caption}", "it\'s {caption}, at night"]')
    return create(tmp_path_factory.mktemp("card") / "created", *flags, "--seed", 3)


# --- facts ---


def test_rows_of_several_checkpoints_name_all_of_them(tmp_path: Path) -> None:
    """After an append; one of them was a folder when it created, and was published since."""
    own, more, unknown = "a" * 64, "b" * 64, "c" * 64
    makers = ((None, own), ("user/more", more), (None, unknown))
    folders = [
        make_dataset(tmp_path / str(n), checkpoint=name, fingerprint=digest)
        for n, (name, digest) in enumerate(makers)
    ]
    links = Links(name="user/data", model="user/own", checkpoint=own)
    alone = dataset_card(folders[0], links)
    assert "Made with [user/own](https://huggingface.co/user/own)." in alone
    shards = [shard_path(folder, 0) for folder in folders]
    text = dataset_card(folders[0], links, [*shards, shards[1]])
    named = [f"[user/{name}](https://huggingface.co/user/{name})" for name in ("more", "own")]
    listed = [f"{named[0]} (4 rows)", f"{named[1]} (2 rows)"]
    listed.append(f"<code>checkpoint {unknown[:12]}</code> (2 rows)")
    assert f"Made with {', '.join(listed)}." in text and "Model:" not in text
    for one in listed:
        assert f"| checkpoint | {one} |" in text


def test_the_card_says_what_to_install_and_where_the_code_is(made: Path) -> None:
    text = (made / "README.md").read_text()
    assert re.search(r"^pip install 'datasets>=\d+\.\d+' 'pillow>=\d+'$", text, re.M)
    assert f"([code]({REPOSITORY}))" in text


def test_a_repository_gives_title_and_thumbnail(made: Path) -> None:
    card = DatasetCard(dataset_card(made, Links("alice/my-rooms")))
    assert card.data.pretty_name == "my-rooms" and "\n# my-rooms\n" in card.text
    place = "https://huggingface.co/datasets/alice/my-rooms/resolve/main/preview.png"
    assert card.data.to_dict()["thumbnail"] == place
    alone = DatasetCard(dataset_card(made))
    assert alone.data.pretty_name == "Diff-2-in-1: normals, depth, semseg"
    assert "thumbnail" not in alone.data.to_dict()


def test_metadata_is_what_the_folder_holds(made: Path) -> None:
    card = DatasetCard.load(made / "README.md")
    data = card.data.to_dict()
    assert data["size_categories"] == ["n<1K"]
    assert data["license"] == "other"  # the licence of the tiny base is unknown
    assert data["license_name"] == "cc0-1.0-and-unknown"
    assert data["task_categories"] == ["depth-estimation", "image-segmentation", "other"]
    assert {"synthetic", "diff2in1", "normals-estimation"} <= {*data["tags"]}
    assert data["annotations_creators"] == ["machine-generated"]
    assert data["configs"] == [
        {
            "config_name": "default",
            "data_files": [{"split": "train", "path": "data/train-*.parquet"}],
        }
    ]
    size = sum(file.stat().st_size for file in (made / "data").iterdir())
    split = {"name": "train", "num_bytes": size, "num_examples": 7}
    assert data["dataset_info"]["splits"] == [split]
    assert data["dataset_info"]["download_size"] == size
    assert "source_datasets" not in data and "language" not in data
    assert "arxiv.org/abs/2411.05005" in card.text  # from which the Hub takes the id


@pytest.mark.parametrize(
    ("count", "word"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (999_999, "100K<n<1M"),
        (1_000_000, "1M<n<10M"),
        (10**12 - 1, "100B<n<1T"),
        (10**12, "n>1T"),
        (10**15, "n>1T"),
    ],
)
def test_sizes_are_in_words_of_the_hub(count: int, word: str) -> None:
    assert size_category(count) == word in WORDS["sizes"]
    assert {*SIZES} == {*WORDS["sizes"]} - {"other", "unknown"}


def test_the_text_describes_the_rows(made: Path) -> None:
    page = Page((made / "README.md").read_text())
    assert "7 images created and labelled by one latent diffusion model" in page.words
    assert "No label was made by hand" in page.words
    assert all(f"{n} {name}" in page.words for n, name in enumerate(CLASSES))
    assert "rooms: 7 rows from 3 images, licence cc0-1.0" in page.words
    assert "The terms of the base are not known." in page.words
    strengths = [one.provenance.strength for one in samples(made)]
    assert f"7 values, {min(strengths):g} to {max(strengths):g}" in page.words
    scores = [one.quality["semseg"].flip for one in samples(made)]
    assert f"{np.mean(scores):.3f}" in page.words
    for title in ("Load it", "Quality", "How it was made", "Use and limits", "Citation"):
        assert title in page.words
    assert "More Information Needed" not in page.words and "None" not in page.words
    assert ("img", (("src", "preview.png"), ("alt", "Some samples and their labels"))) in (
        page.elements
    )


def test_the_command_creates_the_same_dataset(made: Path) -> None:
    page = (made / "README.md").read_text()
    typed = page.split("```sh\n")[2].split("\n```")[0]
    name, act, *flags = shlex.split(typed.replace("\\\n", ""))  # as a shell continues lines
    assert (name, act) == ("d2i1", "create")
    settings = ACTS["create"].read(flags)
    record = read_run(made)
    assert record is not None and record.act == "create"
    assert settings.output_dir == "created" and settings.pipeline == "pipeline"
    for key, value in record.settings.items():
        if key != "pipeline":
            assert getattr(settings, key) == value, key


def test_the_code_of_the_card_runs(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = snippets((made / "README.md").read_text())
    monkeypatch.chdir(made.parent)
    found: dict[str, Any] = {}
    exec(code, found)
    assert found["rows"].num_rows == 7
    assert "labels that agree most with those of the mirrored image" in code
    least = float(code.split(">= ")[1].split()[0])
    scores = [one.quality["normals"].flip or 0 for one in samples(made)]
    assert least == pytest.approx(np.median(scores), abs=0.006)
    assert len(found["good"]) == sum(score >= least for score in scores)
    assert {*next(iter(found["some"]))} == {"image", "normals", "quality"}


def test_no_path_of_this_machine_is_written(made: Path, photos: Path, tmp_path: Path) -> None:
    run("import", "--source", f"folder:{photos}", "--output_dir", tmp_path / "imported")
    for card in (made / "README.md", tmp_path / "imported/README.md"):
        text = card.read_text()
        assert "/tmp" not in text and str(tmp_path) not in text and "pytest" not in text
    assert "--source folder:photos.yaml" in text


def test_links_change_only_names(made: Path) -> None:
    (checkpoint,) = {one.provenance.fingerprint for one in samples(made)}
    links = Links("alice/rooms", "alice/model", space="alice/space", checkpoint=checkpoint)
    assert dataset_card(made) == (made / "README.md").read_text()
    texts = (dataset_card(made, links=one) for one in (Links(), links))
    alone, linked = (
        [line for line in text.replace(" \\\n    ", " ").splitlines() if "thumbnail: " not in line]
        for text in texts
    )
    changed = {after for before, after in zip(alone, linked, strict=True) if before != after}
    titles = {"pretty_name: rooms", "# rooms"}
    assert titles < changed
    assert all("alice/" in line or "pipeline" in line for line in changed - titles)
    text = "\n".join(linked)
    assert 'name = "alice/rooms"' in text and "--pipeline alice/model" in text
    assert "[alice/model](https://huggingface.co/alice/model)" in text
    assert "Made with [alice/model]" in text
    assert "[alice/space](https://huggingface.co/spaces/alice/space)" in text


def test_made_with_is_for_the_model_of_the_rows_only(made: Path) -> None:
    text = dataset_card(made, Links(model="alice/model", checkpoint="another"))
    assert "Made with" not in text and "Model: [alice/model]" in text
    assert "--pipeline pipeline" in text and dataset_card(made, Links()) == dataset_card(made)


def test_counts_are_those_of_all_shards(made: Path, photos: Path, tmp_path: Path) -> None:
    """A dataset that is appended to: some of its shards lie elsewhere, and are open files."""
    run("import", "--source", f"folder:{photos}", "--output_dir", tmp_path / "imported")
    near = sorted((made / "data").iterdir())
    (far,) = (tmp_path / "imported/data").iterdir()
    with far.open("rb") as file:
        card = DatasetCard(dataset_card(made, shards=[*near, file]))
    (split,) = card.data.dataset_info["splits"]
    assert split["num_examples"] == 13
    assert split["num_bytes"] == sum(one.stat().st_size for one in (*near, far))
    assert "7 images created" in card.text and "6 real images with the labels" in card.text
    assert "No label was made by hand" not in card.text
    assert "photos: 6 rows from 6 images, licence cc0-1.0" in Page(str(card)).words
    assert DatasetCard(dataset_card(made)).data.dataset_info["splits"][0]["num_examples"] == 7


def test_facts_of_one_dataset_are_left_out_for_several(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    shutil.copytree(made, folder)
    run("report", "--dataset", folder)
    alone = dataset_card(folder)
    assert dataset_card(folder, shards=sorted((folder / "data").iterdir())) == alone
    other = make_dataset(tmp_path / "other", "another")
    both = [*sorted((folder / "data").iterdir()), *(other / "data").iterdir()]
    card = dataset_card(folder, shards=both)
    for word in ("\nd2i1 create ", "| versions |", "report/"):
        assert word in alone and word not in card
    assert "preview.png" in card and "| seed | 3 (7), 1 (2) |" in card
    assert "9 images created and labelled by latent diffusion models." in card


def test_one_is_singular(tmp_path: Path) -> None:
    folder, text = make_dataset(tmp_path / "made", seed=0), "1 row from 1 image,"
    shard = shard_path(folder, 0)
    table = pq.read_table(shard)
    pq.write_table(table.slice(0, 1), shard)
    card = dataset_card(folder)
    assert "\n1 image created and labelled" in card and text in card
    assert "| seed | 0 |" in card  # a seed of zero is shown


def test_a_torn_shard_is_named(made: Path, tmp_path: Path) -> None:
    torn = tmp_path / "train-00000.parquet"
    torn.write_bytes(next((made / "data").iterdir()).read_bytes()[:500])
    with pytest.raises(InputError, match=r"train-00000.parquet: not a complete shard"):
        dataset_card(made, shards=[torn])


def test_labelled_and_imported_images_are_not_called_created(
    pipeline: Path, photos: Path, tmp_path: Path
) -> None:
    run("import", "--source", f"folder:{photos}", "--output_dir", tmp_path / "imported")
    label = ("label", "--pipeline", pipeline, "--source", f"folder:{photos}")
    run(*label, "--output_dir", tmp_path / "labelled")
    imported, labelled = (
        DatasetCard.load(tmp_path / name / "README.md") for name in ("imported", "labelled")
    )
    assert "6 real images with their labels" in imported.text and "tree" in imported.text
    assert "6 real images labelled by one latent diffusion model" in labelled.text
    for card in (imported, labelled):
        assert "synthetic" not in card.data.tags and "diff2in1" in card.data.tags
        assert "safety checker" not in card.text and "copies" not in card.text
    assert labelled.data.annotations_creators == ["machine-generated"]
    assert "annotations_creators" not in imported.data.to_dict()  # it is not known who made them
    for word in ("predictions of a model", "by hand", "latent diffusion", "## Quality"):
        assert word not in imported.text
    assert "predictions of a model" in " ".join(labelled.text.split())
    assert "| strength |" not in labelled.text and "| steps |" not in labelled.text


@pytest.mark.parametrize("name", TASKS)
def test_each_task_is_described(name: str, tmp_path: Path) -> None:
    task = TASKS[name]
    sample = Sample("a", np.zeros((4, 6, 3), np.uint8), {})
    write_shard(shard_path(tmp_path, 0), [sample], Schema.of({name: task}))
    write_metadata(tmp_path, Schema.of({name: task}))
    card = DatasetCard(dataset_card(tmp_path))
    assert card.data.task_categories == sorted(task.categories)
    assert {*task.tags} <= {*card.data.tags}
    assert task.sentence in card.text and f'row["{name}"]' in card.text
    assert ("separate objects" in card.text) == bool(task.family.names)


def test_unknown_facts_are_left_out(tmp_path: Path) -> None:
    schema = Schema.real({"normals": TASKS["normals"]})
    write_shard(shard_path(tmp_path, 0), [Sample("a", np.zeros((4, 6, 3), np.uint8), {})], schema)
    write_metadata(tmp_path, schema)
    text = dataset_card(tmp_path)
    data = DatasetCard(text).data.to_dict()
    assert not {"license", "license_name", "source_datasets", "annotations_creators"} & {*data}
    for word in ("Licence", "How it was made", "Quality", "preview.png", "None", " nan"):
        assert word not in text.split("\n---\n", 1)[1].replace("is unknown", ""), word


def test_pictures_of_a_report_are_shown(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    shutil.copytree(made, folder)
    assert "report/" not in dataset_card(folder)
    run("report", "--dataset", folder)
    page = Page(dataset_card(folder))
    shown = {dict(attributes)["src"] for tag, attributes in page.elements if tag == "img"}
    assert shown > {"report/quality.png", "report/normals.png", "report/copies.png"}
    assert all((folder / file).is_file() for file in shown)
    assert "How often each distance occurs" in page.words


def test_only_stored_columns_are_listed(made: Path, tmp_path: Path) -> None:
    task = {"depth": TASKS["depth"]}
    schema = Schema.of(task, captions=False, scores=("flip",), provenance=("kind",))
    sample = Sample("a", np.zeros((4, 6, 3), np.uint8), {})
    write_shard(shard_path(tmp_path, 0), [sample], schema)
    write_metadata(tmp_path, schema)
    for folder in (made, tmp_path):
        card = DatasetCard(dataset_card(folder))
        rows = card.text.split("| column | content |")[1].split("\n\n")[0].splitlines()[2:]
        listed = [re.sub("</?code>|`", "", row.split(" | ")[0].strip("| ")) for row in rows]
        stored = load_dataset(str(folder), split="train").features
        assert {*listed} == {*stored} and len(listed) == len(stored)
        assert {*listed} == {one["name"] for one in card.data.dataset_info["features"]}
        version = json.loads((folder / METADATA).read_text())["format_version"]
        assert f"Format version: {version}." in card.text
    assert "`flip`" in card.text and "`reencode`" not in card.text
    assert "origin of each row: kind |" in card.text and "caption" not in "".join(rows)


# --- licences ---


@pytest.mark.parametrize(
    ("names", "fields"),
    [
        (["cc0-1.0", "cc0-1.0"], {"license": "cc0-1.0"}),
        (["CC-BY-4.0"], {"license": "cc-by-4.0"}),
        (["Our Licence, v2"], {"license": "other", "license_name": "our-licence-v2"}),
        (["openrail++", "mit"], {"license": "other", "license_name": "mit-and-openrail++"}),
        (["cc0-1.0", None], {"license": "other", "license_name": "cc0-1.0-and-unknown"}),
        (["日本"], {"license": "other", "license_name": "custom"}),
        ([None], {}),
        ([], {}),
    ],
)
def test_licences_are_ids_of_the_hub(names: list[str | None], fields: dict[str, str]) -> None:
    assert metadata(names) == fields


def test_created_images_are_under_the_terms_of_source_and_base(tmp_path: Path) -> None:
    card = DatasetCard.load(make_dataset(tmp_path / "a", "mit") / "README.md")
    assert card.data.license == "mit" and "- mit: source mit, base" in card.text
    file = shard_path(tmp_path / "a", 0)
    table = pq.read_table(file)
    table = table.replace_schema_metadata({b"diff2in1": b'{"base_licence": "openrail++"}'})
    pq.write_table(table, file)
    card = DatasetCard(dataset_card(tmp_path / "a"))
    assert card.data.license == "other"
    assert "- mit: source mit" in card.text
    assert "openrail++: base" in Page(str(card)).words
    assert "of the base also apply to created images.\n" in Page(str(card)).words


def test_the_licence_of_a_base_is_read_from_its_card(tmp_path: Path) -> None:
    assert read_licence("rooms") == "apache-2.0"
    assert read_licence(str(tmp_path)) is None
    card = tmp_path / "README.md"
    for front, licence in {
        "license: creativeml-openrail-m": "creativeml-openrail-m",
        "license: other\nlicense_name: house-rules": "house-rules",
        "license: [mit, apache-2.0]": None,
        "license: unknown": None,
        "license: [": None,
        "- license": None,
        "": None,
    }.items():
        card.write_text(f"---\n{front}\n---\nwords\n")
        assert read_licence(str(tmp_path)) == licence, front
    card.write_text("no front matter")
    assert read_licence(str(tmp_path)) is None
    assert read_licence("nobody/nothing") is None  # the Hub cannot be reached from tests


# --- texts stay texts ---


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_breaks_out_of_the_card(text: str, tmp_path: Path) -> None:
    tame = make_dataset(tmp_path / "tame")
    folder = make_dataset(tmp_path / "wild", text)
    card = (folder / "README.md").read_text()
    page, expected = Page(card), Page((tame / "README.md").read_text())
    assert page.elements == expected.elements
    data = DatasetCard(card).data.to_dict()
    assert data["license"] == "other" and data["tags"][0] == "synthetic"
    assert data.keys() <= DatasetCard.load(tame / "README.md").data.to_dict().keys()
    assert not {"\x00", "\x1b", "\u202e"} & {*card}


def test_a_folder_and_repositories_with_hostile_names(tmp_path: Path) -> None:
    tame = make_dataset(tmp_path / "tame")
    for text in (one.replace("/", "÷").replace("\x00", "") for one in HOSTILE):
        folder = tmp_path / text
        shutil.copytree(tame, folder)
        assert Page(dataset_card(folder)).elements == Page(dataset_card(tame)).elements
    wild = Links(*HOSTILE[:5])
    words = Links(*["word"] * 5)
    assert Page(dataset_card(tame, wild)).elements == Page(dataset_card(tame, words)).elements


def test_escaped_texts_read_the_same(tmp_path: Path) -> None:
    text = "a | `b` <c> [d](e) *f* $g$ {{ h }} &amp; i_j"
    page = Page(make_dataset(tmp_path / "made", text).joinpath("README.md").read_text())
    assert f"0 {text}, 1 other" in page.words  # a class
    assert f"{text}: 2 rows from 1 image, licence {text}" in page.words
    assert page.words.count(text) >= 10


def test_a_code_block_cannot_be_ended_by_its_text() -> None:
    for text in ("a\n```\nb", "````\n", "a ````` b", ""):
        rendered = MarkdownIt().parse(f"{code_block(text)}\n\nafter")
        assert [token.type for token in rendered][:2] == ["fence", "paragraph_open"], text
        assert rendered[0].content == f"{text.strip()}\n"


@pytest.mark.parametrize(
    "name", ["a", "a/b/c", "../a", "a/b c", "/a/b", "a/<b>", "a/b\nc", "", "a/b)[c"]
)
def test_other_names_are_no_links(name: str) -> None:
    assert not is_repository(name) and is_repository("user/name-1.0_x")
