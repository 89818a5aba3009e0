"""Writing to the Hub: retried, resumable at any point, with errors of one line.

A repository is synced in rounds: read its state, send some of the changes, read the state again.
So a killed process, a lost answer and a commit of somebody else all end in the same way: the next
round finds what is left to do.
"""

from .errors import describe_error
from .repository import Changes, Content, Kind, RemoteState, Repository, size_of
from .retry import with_retries

__all__ = [
    "Changes",
    "Content",
    "Kind",
    "RemoteState",
    "Repository",
    "describe_error",
    "size_of",
    "with_retries",
]
