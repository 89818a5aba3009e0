"""New captions: split at connecting words, made of phrases at hand, decided by the sample."""

from collections import Counter

import pytest

from d2i1_data.creation.plan import Item
from d2i1_data.creation.recombination import Recombination, split_caption
from d2i1_data.sources import open_source

ITEMS = [Item(f"image-{n}", variant) for n in range(100) for variant in range(3)]
STREETS = ["a street with building, sky, road", "a street with tree", "a road with car, sky"]


def recombined(captions: list[str], seed: int = 0) -> list[str]:
    recombination = Recombination(captions)
    return [recombination.caption(item, seed) for item in ITEMS]


@pytest.mark.parametrize(
    ("caption", "head", "phrases"),
    [
        ("a room with a, b and c", "a room", "with: a, with: b, with: c"),
        ("a street with building, sky", "a street", "with: building, with: sky"),
        ("A man near a car\nand a cat, at night.", "A man", "near: a car, near: a cat, at: night"),
        ("a cup on top of a. It is, and with b", "a cup", "on top of: a, .: It is, with: b"),
        ("a room with a cone, a cone and a box", "a room", "with: a cone, with: a box"),
        ("a bandwidth of 5,000 Hz", "a bandwidth of 5,000 Hz", ""),
        ("sky, road or tree", "sky", ": road, : tree"),
        ("sunset", "sunset", ""),
    ],
)  # fmt: skip
def test_captions_are_split_at_connecting_words(caption: str, head: str, phrases: str) -> None:
    parts = split_caption(caption)
    found = zip(parts.slots, parts.phrases, strict=True)
    assert parts.head == head
    assert ", ".join(f"{slot.preposition}: {phrase}" for slot, phrase in found) == phrases


@pytest.mark.parametrize("captions", [STREETS, None], ids=["streets", "rooms"])
def test_new_captions_have_only_parts_of_the_captions_at_hand(captions: list[str] | None) -> None:
    rooms = open_source("rooms:train", "16")
    captions = captions or [str(rooms[n].caption) for n in range(24)]
    parts = [split_caption(caption) for caption in captions]
    frames = [[slot.connector for slot in one.slots] for one in parts]
    phrases = {phrase for one in parts for phrase in one.phrases}
    found = recombined(captions)
    for caption in found:
        own = split_caption(caption)
        assert own.head in {one.head for one in parts} and phrases.issuperset(own.phrases)
        assert len(set(own.phrases)) == len(own.phrases)
        assert [slot.connector for slot in own.slots] in frames
    assert {phrase for caption in found for phrase in split_caption(caption).phrases} == phrases
    assert len({*found} - {*captions}) > len(captions)


def test_a_sample_and_a_seed_decide_the_caption() -> None:
    found = recombined(STREETS)
    assert recombined(STREETS) == found != recombined(STREETS, seed=1)
    assert found[:3] == [
        "a street with sky, tree",
        "a street with car",
        "a street with sky, road, building",
    ]  # published datasets depend on it
    assert Recombination(STREETS).caption(ITEMS[7], 0) == found[7]


def test_frequent_phrases_are_frequent() -> None:
    captions = ["a room with a cone"] * 9 + ["a room with a box"]
    share = Counter(recombined(captions))["a room with a cone"] / len(ITEMS)
    assert 0.82 < share < 0.98  # 0.9, 4.6 standard deviations


def test_a_phrase_keeps_its_preposition() -> None:
    found = set(recombined(["a road at night", "a street with trees, cars", "a road with mud"]))
    assert "a street at night" in found and "a road with cars, mud" in found
    assert not any("with night" in caption or "at trees" in caption for caption in found)


def test_a_phrase_after_two_prepositions_comes_once() -> None:
    captions = ["a cat with a ball on a mat", "a cat with a mat"]
    assert {*recombined(captions)} == {*captions, "a cat with a ball"}


def test_a_caption_that_cannot_be_split_stays_whole() -> None:
    found = set(recombined(["Sunset.", "a road with trees"]))
    assert found == {"Sunset.", "a road with trees", "Sunset with trees"}


def test_the_fingerprint_is_that_of_the_captions() -> None:
    fingerprints = {Recombination(captions).fingerprint for captions in (STREETS, STREETS[:2])}
    assert len(fingerprints) == 2 and Recombination(STREETS).fingerprint in fingerprints
