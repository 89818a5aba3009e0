"""Write to the Hub, with retries and errors of one line. An interrupted upload can continue.

A repository is synced in rounds: read its state, send some of the changes, read the state again.
So it does not matter if a process is killed, an answer is lost or somebody else commits: the next
round compares again and sends what is still missing.
"""

from .download import download, snapshot
from .errors import describe_error
from .repository import Changes, Content, Kind, RemoteState, Repository, size_of
from .retry import no_answer, with_retries

__all__ = [
    "Changes",
    "Content",
    "Kind",
    "RemoteState",
    "Repository",
    "describe_error",
    "download",
    "no_answer",
    "size_of",
    "snapshot",
    "with_retries",
]
