"""Recombination: new captions from the phrases of captions at hand.

A caption is split at commas and connecting words. `a room with a blue sphere, a red cone and a
table` has the head `a room`, the connectors `with`, `,` and `and`, and three more phrases. A new
caption has the connectors of one caption, the head of any, and phrases of all. A phrase keeps its
preposition: what stood after `at` never stands after `with`.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..sources.source import fingerprint
from .plan import Item, draw

JOINING = ("and", "or")  # a phrase after these, or after a comma, has the preposition before
PREPOSITIONS = (
    *("in front of", "on top of", "next to", "close to", "with", "without", "on", "in", "at"),
    *("near", "beside", "behind", "before", "under", "below", "beneath", "above", "over", "among"),
    *("between", "around", "along", "against", "across", "through", "inside", "outside", "during"),
)
_WORD = "(?:" + "|".join((*JOINING, *PREPOSITIONS)) + ")"
# a comma, semicolon or full stop, or no sign before a connecting word; then all connecting words
_CONNECTOR = re.compile(rf"((?:[,;.] |(?= {_WORD} ) )(?:{_WORD} )*)", re.IGNORECASE)


class Slot(NamedTuple):
    """A place for a phrase: the connector before it, and the preposition that it belongs to."""

    connector: str
    preposition: str


class Parts(NamedTuple):
    """The parts of a caption. A caption that cannot be split is all head."""

    head: str
    slots: list[Slot]
    phrases: list[str]


def split_caption(caption: str) -> Parts:
    """Split a caption at its connectors. A phrase that occurs again is left out."""
    head, *rest = _CONNECTOR.split(" ".join(caption.split()).strip(",;. "))
    parts, preposition = Parts(head, [], []), ""
    for connector, phrase in zip(rest[::2], rest[1::2], strict=True):
        words = connector.lower().strip(",;. ")
        while words.startswith(tuple(f"{word} " for word in JOINING)):
            words = words.partition(" ")[2]
        if words and words not in JOINING:
            preposition = words
        elif connector[0] in ";.":
            preposition = connector[0]  # a new sentence
        if phrase and phrase not in parts.phrases:
            parts.slots.append(Slot(connector, preposition))
            parts.phrases.append(phrase)
    return parts


class Recombination:
    """Makes new captions from the phrases of captions.

    Args:
        captions: the captions whose phrases may occur, at least one. No other caption is looked at.
    """

    def __init__(self, captions: Iterable[str]) -> None:
        self.captions = list(captions)
        self.parts = [split_caption(caption) for caption in self.captions]
        self.phrases: dict[str, list[str]] = defaultdict(list)  # preposition -> its phrases
        for parts in self.parts:
            for slot, phrase in zip(parts.slots, parts.phrases, strict=True):
                self.phrases[slot.preposition].append(phrase)

    @property
    def fingerprint(self) -> str:
        """Hash of the captions."""
        return fingerprint(self.captions)

    def caption(self, item: Item, seed: int) -> str:
        """The new caption of a sample. A caption that cannot be split, if drawn, stays whole.

        Args:
            item: the sample.
            seed: seed of the command.
        """

        def choose(options: Sequence[Any], purpose: str) -> int:
            return int(draw(item, seed, f"recombined {purpose}") * len(options))

        frame = choose(self.parts, "frame")
        slots = self.parts[frame].slots
        if not slots:
            return self.captions[frame]
        text, used = self.parts[choose(self.parts, "head")].head, set[str]()
        for number, slot in enumerate(slots):
            # frequent phrases stay likely, but no phrase occurs twice in one caption
            left = [p for p in self.phrases[slot.preposition] if p not in used]
            if not left:
                continue  # they all stand after other prepositions
            phrase = left[choose(left, f"phrase {number}")]
            used.add(phrase)
            text += slot.connector + phrase
        return text
