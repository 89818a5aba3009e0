"""How sources are spelled, and what the base class does for all of them."""

import pickle
from collections.abc import Iterable, Mapping

import numpy as np
import pytest

from d2i1_data.dataset.sample import Sample
from d2i1_data.errors import InputError
from d2i1_data.registry import find, load
from d2i1_data.sources import (
    SOURCES,
    Source,
    Spec,
    parse_resolution,
    parse_spec,
    random_subset,
)
from d2i1_data.sources.registry import labelled_source_forms, source_forms
from d2i1_data.sources.resize import ResizedSource
from d2i1_data.sources.rooms import Rooms
from d2i1_data.tasks import SALIENCY, Task


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("rooms", Spec("rooms", None, None)),
        ("rooms:val", Spec("rooms", None, "val")),
        ("folder:a/b.yaml", Spec("folder", "a/b.yaml", None)),
        ("folder:b.yaml:train", Spec("folder", "b.yaml", "train")),
        ("dataset:alice/rooms:test", Spec("dataset", "alice/rooms", "test")),
        ("text:a:b.txt", Spec("text", "a:b.txt", None)),  # texts have no splits
    ],
)
def test_a_spec_is_read_and_written(text: str, spec: Spec) -> None:
    assert parse_spec(text) == spec
    assert str(spec) == text


@pytest.mark.parametrize("text", ["", "roms", "folder", "folder:", "dataset::train", "text"])
def test_a_wrong_spec_names_all_forms(text: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_spec(text)
    assert repr(text) in str(raised.value)
    assert all(kind.form in str(raised.value) for kind in SOURCES.values())


def test_every_record_names_a_source() -> None:
    for kind in SOURCES.values():
        assert issubclass(load(kind.target), Source)
        assert kind.form in source_forms()
        assert (kind.form in labelled_source_forms()) == kind.images
    with pytest.raises(InputError, match=r"--kind 'x': choose from rooms, folder"):
        find(SOURCES, "x", "--kind")


class Squares(Source):
    """Three images; the second is unusable."""

    name = "squares"
    tasks: Mapping[str, Task] = {SALIENCY.name: SALIENCY}
    fingerprint = "0"

    def __len__(self) -> int:
        return 3

    def identity(self, index: int) -> str:
        return f"square-{index}"

    def read(self, index: int, tasks: Iterable[str]) -> Sample:
        if index == 1:
            raise InputError("square-1 is round")
        self.note("squares read", self.identity(index))
        image, size = np.full((8, 12, 3), 40 * index, np.uint8), (8, 12)
        targets = {name: np.ones(size, np.float32) for name in tasks}
        return Sample(self.identity(index), image, targets)


def test_the_base_class_iterates_limits_and_skips() -> None:
    squares = Squares()
    assert squares[0].targets.keys() == {"saliency"} and not squares.picture(0).targets
    with pytest.raises(IndexError):
        squares[3]
    with pytest.raises(InputError, match="is round"):
        list(squares)
    assert squares.usable_rows(2).usable == random_subset(3, 2)
    rows = squares.usable_rows(None, "skip")
    assert rows.usable == [0, 2] and rows.skipped == {"square-1": "square-1 is round"}
    assert [sample.id for sample in rows.samples()] == ["square-0", "square-2"]
    assert squares.notes == {"squares read": 2}  # once a sample
    assert pickle.loads(pickle.dumps(squares)).notes == squares.notes


def test_a_resized_source_is_the_same_source() -> None:
    size = parse_resolution("6")
    assert size == 6
    resized = ResizedSource(Squares(), size)
    assert (resized.name, len(resized), resized.fingerprint) == ("squares", 3, "0")
    assert resized[2].size == (4, 6) and resized[2].targets["saliency"].shape == (4, 6)
    assert not resized.picture(2).targets and resized.picture(2).size == (4, 6)
    assert isinstance(ResizedSource(resized, 3).original, Squares)
    assert isinstance(Rooms().original, Rooms)
