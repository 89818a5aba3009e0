"""Loading: threads load the examples of the next micro-batch."""

from concurrent.futures import Future, ThreadPoolExecutor

from .examples import Example
from .mix import Mix


class Loader:
    """Loads the examples of micro-batches. A turn numbers the micro-batches of all processes.

    Args:
        threads: number of threads that load the next micro-batch of this process while the current
            one trains. With 0 it is loaded when it is needed.
        stride: distance between the turns of one process, which is the number of processes.
    """

    def __init__(self, threads: int, stride: int) -> None:
        self.stride = stride
        self.pool = ThreadPoolExecutor(threads) if threads else None
        self.pending: dict[int, list[Future[Example]]] = {}  # by turn

    def load(self, mix: Mix, turn: int) -> list[Example]:
        """Return the examples of a turn, and begin to load those of the next turn.

        Args:
            mix: the samples of each micro-batch.
            turn: number of the micro-batch.
        """
        if self.pool is None:
            return [order.at(place) for order, place in mix.places(turn)]
        for current in (turn, turn + self.stride):
            if current not in self.pending:
                places = mix.places(current)
                self.pending[current] = [self.pool.submit(o.at, place) for o, place in places]
        return [future.result() for future in self.pending.pop(turn)]

    def close(self) -> None:
        """Stop the threads."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
