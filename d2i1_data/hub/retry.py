"""Retries: repeat calls of the Hub that failed with a temporary error."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from huggingface_hub import HfApi
from huggingface_hub.utils import get_session

from .errors import describe_error, http_error, is_temporary, to_input_error

T = TypeVar("T")
logger = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds for a first answer
MAX_TRIES = 8  # in a row without any progress
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds
LOGGED_WAIT = 3.0  # seconds; longer waits are logged, and each time that the Hub does not answer


class Retry:
    """Waits after each failure, longer each time, or as long as the Hub asks for."""

    def __init__(self, about: str) -> None:
        """Begin without failures.

        Args:
            about: what the messages are about, for example a repository.
        """
        self.about, self.failures = about, 0

    def wait(self, error: Exception) -> None:
        """Wait before the next try.

        Raises:
            InputError: if the error is not temporary, or there were too many tries.
            Exception: the error itself, if it does not come from a client of the Hub.
        """
        self.failures += 1
        temporary = is_temporary(error)
        if not temporary and not isinstance(error, OSError | RuntimeError | ValueError):
            raise error
        if not temporary or self.failures >= MAX_TRIES:
            raise to_input_error(error, self.about) from error
        response = getattr(http_error(error), "response", None)
        asked = response.headers.get("Retry-After", "") if response is not None else ""
        wait = float(asked) if asked.isdigit() else FIRST_WAIT * 2 ** (self.failures - 1)
        wait = min(wait, LONGEST_WAIT)
        if wait > LOGGED_WAIT or response is None:
            logger.warning("%s: %s; again in %.0f s", self.about, describe_error(error), wait)
        time.sleep(wait)


def with_retries(about: str, call: Callable[[], T]) -> T:
    """Call a function, and again after a temporary error.

    Args:
        about: what the messages are about, for example a repository.
        call: a function that can safely be called again.

    Returns:
        The result of the function.

    Raises:
        InputError: if the error is not temporary, or there were too many tries.
    """
    retry = Retry(about)
    while True:
        try:
            return call()
        except Exception as error:
            retry.wait(error)


def no_answer() -> Exception | None:
    """Why the Hub does not answer within `PATIENCE`; None if it answers, with whatever status."""
    try:
        get_session().get(f"{HfApi().endpoint}/api/whoami-v2", timeout=PATIENCE)
    except Exception as error:  # the kind depends on the HTTP library of huggingface_hub
        return error
    return None


def whoami() -> str:
    """The name of the user whose token is set."""

    def ask() -> str:
        if error := no_answer():
            raise error
        return str(HfApi().whoami(cache=True)["name"])

    return with_retries(HfApi().endpoint, ask)
