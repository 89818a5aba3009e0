"""Faults: the next requests of a kind are answered wrongly, or not at all. Serves no route."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass

from tests.hub.wire import Answer

NO_ANSWER = 0  # the status of a connection that is closed instead


@dataclass
class Fault:
    """What to answer, how many times more."""

    method: str
    pattern: str
    answer: Answer
    times: int


class Faults:
    """Those that are still to come, in the order they were asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """One more."""
        re.compile(fault.pattern)
        with self._lock:
            self._pending.append(fault)

    def clear(self) -> None:
        """None any more."""
        with self._lock:
            self._pending.clear()

    def __bool__(self) -> bool:
        """Whether there are any left."""
        with self._lock:
            return any(fault.times for fault in self._pending)

    def take(self, method: str, path: str) -> Answer | None:
        """The wrong answer this request is to get, if any."""
        with self._lock:
            for fault in self._pending:
                if fault.times and fault.method == method and re.search(fault.pattern, path):
                    fault.times -= 1
                    return fault.answer
        return None
