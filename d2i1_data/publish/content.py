"""The wanted content of a repository, compared with its present content."""

import re
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from ..checks import parse_json
from ..errors import InputError
from ..hub import Changes, Kind, RemoteState, Repository

CARD = "README.md"
# files of a repository that is still empty, or that training pushes to
NEUTRAL = re.compile(r"\.gitattributes|README\.md|LICENSE|(checkpoint-\d+|best)/.*")
FRONT_MATTER = re.compile(r"\A\s*(---\r?\n.*?\r?\n---\s*)?\Z", re.DOTALL)


class RepositoryContent(ABC):
    """The content that a repository should have.

    Attributes:
        kind: kind of the repository.
        marker: a file that every repository of ours has. It tells ours from others.
    """

    kind: ClassVar[Kind]
    marker: ClassVar[str]

    def __init__(self, repo_id: str, overwrite: bool = False) -> None:
        """Name the repository.

        Args:
            repo_id: `user/name`, or a name alone.
            overwrite: also change a repository that holds something else.
        """
        self.repository, self.overwrite = Repository(repo_id, self.kind), overwrite

    def changes(self, state: RemoteState) -> Changes:
        """The changes that the repository needs. Its card comes last.

        Args:
            state: what the repository holds.

        Raises:
            InputError: if the repository holds something that must not be replaced.
        """
        if not self.overwrite:
            self.check(state)
        return self.difference(state)

    @abstractmethod
    def difference(self, state: RemoteState) -> Changes:
        """The changes that the repository needs. This does not check for foreign files."""

    def check(self, state: RemoteState) -> None:
        """Raise InputError for a repository that holds files of somebody else."""
        refuse_foreign(self.repository, state, self.marker)


def refuse_foreign(repository: Repository, state: RemoteState, marker: str) -> None:
    """Raise InputError for a repository that holds files, but not our marker file."""
    if marker in state.files:
        return
    foreign = sorted(name for name in state.files if not NEUTRAL.fullmatch(name))
    if CARD in state.files and not FRONT_MATTER.match(repository.read(CARD, state).decode()):
        foreign.append(CARD)
    if foreign:
        more = f" and {len(foreign) - 1} more files" if len(foreign) > 1 else ""
        raise InputError(
            f"{repository} holds {foreign[0]}{more}, and no {marker} of ours: choose another name,"
            " or publish into it with --overwrite"
        )


def read_object(repository: Repository, name: str, state: RemoteState) -> dict[str, Any]:
    """The object in a JSON file of a repository, empty if there is no such file."""
    if name not in state.files:
        return {}
    try:
        content = parse_json(repository.read(name, state))
    except ValueError as error:
        raise InputError(f"{repository}: {name} is not readable as JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{repository}: {name}: expected an object")
    return content
