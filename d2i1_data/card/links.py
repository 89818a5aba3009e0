"""Where things lie on the Hub."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Links:
    """Ids of repositories, `user/name`, None where there is none.

    name: what the thing of the card is opened by; None is its folder's name. The others are its
    siblings, which its card points at.
    """

    name: str | None = None
    model: str | None = None
    adapter: str | None = None
    dataset: str | None = None
    space: str | None = None
