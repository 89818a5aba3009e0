"""Parcel: what one repository of the Hub is to hold, decided from what it holds."""

import json
import re
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from ..errors import InputError
from ..hub import Changes, Held, Kind, Repository

CARD = "README.md"
# what may lie in a repository that nobody has put anything else into, or training pushes to
BARE = re.compile(r"\.gitattributes|README\.md|LICENSE|checkpoint-\d+/.*")
FRONT_MATTER = re.compile(r"\A\s*(---\r?\n.*?\r?\n---\s*)?\Z", re.DOTALL)


class Parcel(ABC):
    """One repository's content.

    kind: of the repository. sign: the file by which a repository is known to be one of ours.
    """

    kind: ClassVar[Kind]
    sign: ClassVar[str]

    def __init__(self, repo_id: str, overwrite: bool = False) -> None:
        self.repository, self.overwrite = Repository(repo_id, self.kind), overwrite

    def changes(self, held: Held) -> Changes:
        """What the repository lacks, its card last.

        Raises InputError where it holds something that must not be replaced.
        """
        if not self.overwrite:
            self.check(held)
        return self.lacking(held)

    @abstractmethod
    def lacking(self, held: Held) -> Changes:
        """The same, of a repository that may be changed."""

    def check(self, held: Held) -> None:
        """Refuse a repository of somebody else's things."""
        refuse_foreign(self.repository, held, self.sign)


def refuse_foreign(repository: Repository, held: Held, sign: str) -> None:
    """Refuse a repository that holds files, but not the one by which ours are known."""
    if sign in held.files:
        return
    foreign = sorted(name for name in held.files if not BARE.fullmatch(name))
    if CARD in held.files and not FRONT_MATTER.match(repository.read(CARD, held).decode()):
        foreign.append(CARD)
    if foreign:
        more = f" and {len(foreign) - 1} more files" if len(foreign) > 1 else ""
        raise InputError(
            f"{repository} holds {foreign[0]}{more}, and no {sign} of ours: choose another name, or"
            " publish into it with --overwrite"
        )


def read_object(repository: Repository, name: str, held: Held) -> dict[str, Any]:
    """The object of a JSON file of a repository, empty where there is none."""
    if name not in held.files:
        return {}
    try:
        found = json.loads(repository.read(name, held))
    except ValueError as error:
        raise InputError(f"{repository}: {name} is not readable as JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{repository}: {name}: expected an object")
    return found
