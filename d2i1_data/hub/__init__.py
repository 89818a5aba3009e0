"""Writing to the Hub: patiently, resumable at any point, and what goes wrong in one line.

A repository is brought to what it should hold by looking at what it holds, sending some of what
differs, and looking again. So an interruption, an answer that was lost, or somebody else's commit
in between all end the same way: the next look tells what is left to do.
"""

from .patience import patiently, reason
from .repository import Changes, Content, Held, Kind, Repository, size_of

__all__ = [
    "Changes",
    "Content",
    "Held",
    "Kind",
    "Repository",
    "patiently",
    "reason",
    "size_of",
]
