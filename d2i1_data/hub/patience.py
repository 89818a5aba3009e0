"""Patience with the Hub: what may pass is waited for, what does not is told in one line."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)

from ..errors import InputError

T = TypeVar("T")
logger = logging.getLogger(__name__)

TRIES = 8  # in a row without any progress
FIRST_WAIT, LONGEST_WAIT, TOLD = 1.0, 60.0, 3.0  # seconds
CONFLICTS = (409, 412)  # somebody else's commit came first
TEMPORARY = (*CONFLICTS, 408, 425, 429, 500, 502, 503, 504)
FORBIDDEN = "no right to write there, or its storage is full"
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


class Patience:
    """Waits longer after every failure in a row; the Hub may say for how long."""

    def __init__(self, about: str) -> None:
        self.about, self.failures = about, 0

    def wait(self, error: Exception) -> None:
        """Wait, if it is worth it; raises InputError if it is not, and what is no error of a
        client of the Hub as it is."""
        self.failures += 1
        passes = _temporary(error)
        if not passes and not isinstance(error, OSError | RuntimeError | ValueError):
            raise error
        if not passes or self.failures >= TRIES:
            raise explain(error, self.about) from error
        response = getattr(_http(error), "response", None)
        asked = response.headers.get("Retry-After", "") if response is not None else ""
        wait = float(asked) if asked.isdigit() else FIRST_WAIT * 2 ** (self.failures - 1)
        wait = min(wait, LONGEST_WAIT)
        if wait > TOLD:
            logger.warning("%s: %s; again in %.0f s", self.about, reason(error), wait)
        time.sleep(wait)


def patiently(about: str, call: Callable[[], T]) -> T:
    """What a call answers that may be made again."""
    patience = Patience(about)
    while True:
        try:
            return call()
        except Exception as error:
            patience.wait(error)


def whoami() -> str:
    """The user whose token it is, from the environment or the Hub's own login."""
    return str(patiently(HfApi().endpoint, lambda: HfApi().whoami(cache=True))["name"])


def explain(error: Exception, about: str) -> InputError:
    """An error of the Hub's clients as one line."""
    return error if isinstance(error, InputError) else InputError(f"{about}: {reason(error)}")


def reason(error: Exception) -> str:
    """Why the Hub's clients could not do something, in a line."""
    if isinstance(error, LocalTokenNotFoundError):
        return f"no token of the Hub: {LOG_IN}"
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so the Hub is not asked"
    found = _http(error)
    if found is None:
        hint = f" ({FORBIDDEN})" if "403 Forbidden" in str(error) else ""  # of hf_xet
        return f"{_line(error)}{hint}"
    status = found.response.status_code
    said = found.server_message or _line(found)
    known = {
        401: f"the Hub does not accept the token, or there is none: {LOG_IN}",
        403: f"the Hub refuses (403): {said}",
        404: f"not on the Hub, or hidden from this token ({said})",
    }
    return known.get(status, f"the Hub answers {status}: {said}")


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those behind it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _http(error: Exception) -> HfHubHTTPError | None:
    """The answer of the Hub that an error came from."""
    return next((one for one in _chain(error) if isinstance(one, HfHubHTTPError)), None)


def _temporary(error: Exception) -> bool:
    """Whether it may pass: an answer that says so, or none at all."""
    if any(isinstance(one, OfflineModeIsEnabled) for one in _chain(error)):
        return False
    if (found := _http(error)) is not None:
        return found.response.status_code in TEMPORARY
    lost = (ConnectionError, TimeoutError)
    return any(
        isinstance(one, lost) or type(one).__module__.partition(".")[0] in ("httpx", "httpx2")
        for one in _chain(error)
    )
