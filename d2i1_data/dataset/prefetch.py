"""Work in threads beside the consumer's own, in order and within bounds."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetch(
    function: Callable[[T], R], items: Iterable[T], bound: int, threads: int = 1
) -> Iterator[R]:
    """`map`, but threads work on up to `bound` items while the consumer uses an earlier result.

    The items themselves are drawn in the consumer's thread. So with `prefetch(decode, map(draw,
    ...))` the next item is drawn while the last one is decoded. Results come in order, and an
    error comes at the place of its item.
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
        finally:  # also when the consumer goes away
            for future in waiting:
                future.cancel()
