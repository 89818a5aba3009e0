"""Faults: wrong answers, or no answer, to the next requests of a kind. Serves no route."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass

from tests.hub.wire import Answer

NO_ANSWER = 0  # instead of a status: the connection is closed


@dataclass
class Fault:
    """A wrong answer, and the number of times that it is still given."""

    method: str
    pattern: str
    answer: Answer
    times: int


class Faults:
    """The faults that are left, in their order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Add a fault."""
        re.compile(fault.pattern)
        with self._lock:
            self._pending.append(fault)

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._pending.clear()

    def __bool__(self) -> bool:
        """Whether any fault is left."""
        with self._lock:
            return any(fault.times for fault in self._pending)

    def take(self, method: str, path: str) -> Answer | None:
        """The wrong answer for this request, if there is one."""
        with self._lock:
            for fault in self._pending:
                if fault.times and fault.method == method and re.search(fault.pattern, path):
                    fault.times -= 1
                    return fault.answer
        return None
