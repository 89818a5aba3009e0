"""Parcel: what one repository of the Hub is to hold, decided from what it holds."""

import re
from abc import ABC, abstractmethod
from typing import ClassVar

from ..errors import InputError
from ..hub import Changes, Held, Kind, Repository

CARD = "README.md"
# what may lie in a repository that nobody has put anything else into, or training pushes to
BARE = re.compile(r"\.gitattributes|README\.md|LICENSE|checkpoint-\d+/.*")


class Parcel(ABC):
    """One repository's content.

    kind: of the repository. sign: the file by which a repository is known to be one of ours.
    """

    kind: ClassVar[Kind]
    sign: ClassVar[str]

    def __init__(self, repo_id: str, overwrite: bool = False) -> None:
        self.repository, self.overwrite = Repository(repo_id, self.kind), overwrite

    @abstractmethod
    def changes(self, held: Held) -> Changes:
        """What the repository lacks, its card last.

        Raises InputError where it holds something that must not be replaced.
        """

    def check(self, held: Held) -> None:
        """Refuse a repository of somebody else's things."""
        if not self.overwrite:
            refuse_foreign(self.repository, held, self.sign)


def refuse_foreign(repository: Repository, held: Held, sign: str) -> None:
    """Refuse a repository that holds files, but not the one by which ours are known."""
    foreign = sorted(name for name in held.files if not BARE.fullmatch(name))
    if foreign and sign not in held.files:
        more = f" and {len(foreign) - 1} more files" if len(foreign) > 1 else ""
        raise InputError(
            f"{repository} holds {foreign[0]}{more}, and no {sign} of ours: choose another name, or"
            " publish into it with --overwrite"
        )
