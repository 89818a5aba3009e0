"""Prefetching: threads compute the next results, in order and up to a limit."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetch(
    function: Callable[[T], R], items: Iterable[T], bound: int, threads: int = 1
) -> Iterator[R]:
    """`map`, but threads work on the next items while the caller uses a result.

    Items are drawn in the thread of the caller. So `prefetch(decode, map(draw, ...))` draws the
    next item while a thread decodes the last one. Results come in order. An error is raised at the
    place of its item.

    Args:
        function: called in a thread, once for each item.
        items: its arguments.
        bound: how many results may wait.
        threads: how many work at once.
    """
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > bound:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # also if the caller stops early
            for future in waiting:
                future.cancel()
