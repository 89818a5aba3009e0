"""Plans: which samples in which shards, made with what; folders that are ours and that are not."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from d2i1_data.creation.plan import (
    PLAN,
    Item,
    Plan,
    claim_folder,
    draw,
    noise_seed,
    plan_shards,
    read_plan,
)
from d2i1_data.dataset.schema import Schema
from d2i1_data.dataset.shards import shard_path, write_shard
from d2i1_data.diff2in1.families import LabelMap
from d2i1_data.errors import InputError
from d2i1_data.sources import open_source, random_subset
from d2i1_data.sources.rooms import Rooms
from tests.made import contents

FACTS = {"act": "create", "seed": 0, "strength": [0.4, 0.6]}
SCHEMA = Schema.real(Rooms.tasks)
PLAN_A = Plan(FACTS, [[Item("a", 0)], [Item("b", 0)]], SCHEMA)


def planned(plan: Plan, **facts: Any) -> Plan:
    return Plan(plan.facts | facts, plan.shards, plan.schema)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A folder whose data/ holds the two shards of `PLAN_A`."""
    for n in range(2):
        write_shard(shard_path(tmp_path / "shards", n), [Rooms("val", (8, 8))[n]], SCHEMA)
    return tmp_path / "shards"


def test_all_images_come_once_before_their_next_variants() -> None:
    rooms = open_source("rooms:val")
    shards = plan_shards(rooms, range(3), 7, 4)
    assert [len(shard) for shard in shards] == [4, 3]
    items = [item for shard in shards for item in shard]
    assert [item.source_id for item in items] == [rooms.identity(n % 3) for n in range(7)]
    assert [item.variant for item in items] == [0, 0, 0, 1, 1, 1, 2]


def test_fewer_samples_than_images_take_images_at_random() -> None:
    rooms = open_source("rooms:val")
    rows = random_subset(500, 100, 3)
    few, more = (
        {item.source_id for item in plan_shards(rooms, rows, count, 64, None, 3)[0]}
        for count in (8, 20)
    )
    first = {rooms.identity(row) for row in rows[:20]}
    assert few < more < {rooms.identity(row) for row in rows} and more != first


def test_ids_must_be_unique() -> None:
    class Twins(Rooms):
        def identity(self, index: int) -> str:
            return f"twin-{index // 2}"

    with pytest.raises(InputError, match=r"2 ids occur twice, such as twin-0"):
        plan_shards(Twins("val"), range(4), 4, 4)


def test_balance_shows_rare_classes_as_often_as_it_can() -> None:
    rooms, count = open_source("rooms:val"), 40
    family = rooms.tasks["semseg"].family
    assert isinstance(family, LabelMap)
    shows = {
        rooms.identity(n): family.present(rooms[n].targets["semseg"], 0.01) for n in range(count)
    }
    least = {}
    for how in (None, "semseg"):
        shards = plan_shards(rooms, range(count), 220, 64, how)
        items = [item for shard in shards for item in shard]
        assert len(set(items)) == 220  # an image comes again as its next variant
        least[how] = min(Counter(c for item in items for c in shows[item.source_id]).values())
    assert least["semseg"] > 1.3 * least[None]


def test_balance_begins_with_images_at_random() -> None:
    rooms, rows = open_source("rooms:val", "16"), range(24)

    def chosen(count: int, subset_seed: int | None) -> list[Item]:
        (items,) = plan_shards(rooms, rows, count, 64, "semseg", subset_seed)
        return items

    few = chosen(6, 3)
    assert few == chosen(12, 3)[:6] != chosen(6, 4)
    first = chosen(6, None)
    assert {item.source_id for item in few} - {item.source_id for item in first}
    assert first == chosen(24, 3)[:6] == chosen(24, 4)[:6]  # nothing is left to choose


@pytest.mark.parametrize("name", ["depth", "human_parsing", "colour"])
def test_balance_wants_a_label_map_of_the_source(name: str) -> None:
    with pytest.raises(InputError, match=f"--balance {name}: .*it has semseg"):
        plan_shards(open_source("rooms:val"), range(4), 4, 4, name)


def test_noise_seeds_are_what_they_were() -> None:
    seeds = {noise_seed(*key) for key in (("a", 0, 0), ("a", 1, 0), ("a", 0, 1), ("b", 0, 0))}
    assert len(seeds) == 4 and all(0 <= seed < 2**63 for seed in seeds)
    assert noise_seed("a", 0, 0) == 2240758724620792649  # published datasets depend on it


def test_draws_are_even_and_independent() -> None:
    items = [Item(f"room-{n}", variant) for n in range(1000) for variant in range(2)]
    one, other = (np.array([draw(item, 0, what) for item in items]) for what in ("a", "b"))
    for draws in (one, other):
        assert draws.min() >= 0 and draws.max() < 1
        assert np.abs(np.histogram(draws, 10, (0, 1))[0] - 200).max() < 60  # 4 sigma
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.1
    assert abs(np.corrcoef(one[::2], one[1::2])[0, 1]) < 0.1
    assert draw(items[0], 0, "a") != draw(items[0], 1, "a")
    assert (
        draw(Item("a", 0), 0, "strength") == 0.05002330190978377
    )  # published datasets depend on it


def test_the_same_plan_resumes(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    claim_folder(folder, PLAN_A, overwrite=False)
    shutil.copytree(shards / "data", folder / "data")
    before = contents(folder)
    claim_folder(folder, planned(PLAN_A), overwrite=False)
    assert contents(folder) == before
    assert read_plan(folder) == PLAN_A
    assert json.loads(before[PLAN]) == {
        "format_version": 1,
        **PLAN_A.facts,
        "schema": json.loads(json.dumps(SCHEMA.config())),
        "shards": [[["a", 0]], [["b", 0]]],
    }


def test_another_plan_is_refused_and_nothing_changes(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    claim_folder(folder, PLAN_A, overwrite=False)
    shutil.copytree(shards / "data", folder / "data")
    (folder / "README.md").write_text("the card of the old plan")
    (folder / "preview.png").write_bytes(b"its preview")
    (folder / "data/notes.txt").write_text("mine")
    before = contents(folder)
    other = planned(PLAN_A, seed=1, extra=1)
    expected = r"another dataset \(seed: 0, now 1; extra: none, now 1\).*--overwrite"
    with pytest.raises(InputError, match=expected) as caught:
        claim_folder(folder, other, overwrite=False)
    assert "\n" not in str(caught.value)
    assert contents(folder) == before
    claim_folder(folder, other, overwrite=True)
    assert read_plan(folder) == other
    assert set(contents(folder)) == {PLAN, "data/notes.txt"}  # what is not ours stays


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_foreign_folder_or_file_is_refused(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=f"is not empty and holds no {PLAN}"):
        claim_folder(tmp_path, PLAN_A, overwrite)
    with pytest.raises(InputError, match=r"thesis.txt is a file"):
        claim_folder(tmp_path / "thesis.txt", PLAN_A, overwrite)
    assert contents(tmp_path) == {"thesis.txt": b"years of work"}
    (tmp_path / "empty").mkdir()
    claim_folder(tmp_path / "empty", PLAN_A, overwrite)
    assert list(contents(tmp_path / "empty")) == [PLAN]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "text", ["no JSON", "[1]", "", "null", '{"rooms": "a holiday"}', '{"shards": 3}']
)
def test_a_torn_or_foreign_plan_is_refused(tmp_path: Path, text: str, overwrite: bool) -> None:
    (tmp_path / PLAN).write_text(text)
    (tmp_path / "README.md").write_text("years of work")
    with pytest.raises(InputError, match=f"{PLAN} is no plan of ours"):
        claim_folder(tmp_path, PLAN_A, overwrite)
    assert contents(tmp_path) == {PLAN: text.encode(), "README.md": b"years of work"}


def test_other_samples_are_another_plan(tmp_path: Path) -> None:
    claim_folder(tmp_path, PLAN_A, overwrite=False)
    with pytest.raises(InputError, match="shards: other samples"):
        claim_folder(tmp_path, Plan(PLAN_A.facts, PLAN_A.shards[::-1], SCHEMA), overwrite=False)


def test_many_differences_are_counted() -> None:
    with pytest.raises(InputError, match=r"here differs .* and 2 more$"):
        PLAN_A.check({**PLAN_A.facts, **dict.fromkeys("abcdef", 1)}, SCHEMA, "here")
