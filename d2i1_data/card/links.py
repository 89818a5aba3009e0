"""Where things lie on the Hub."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Links:
    """What a card calls things by.

    name: of the thing itself, what it is opened by, None is its folder's name. The others are the
    ids of its siblings, `user/name`, which the card points at, None where there is none.
    checkpoint: the fingerprint of `model`; only where it is that of a dataset's rows, these are
    said to be made with it.
    """

    name: str | None = None
    model: str | None = None
    adapter: str | None = None
    dataset: str | None = None
    space: str | None = None
    checkpoint: str | None = None
