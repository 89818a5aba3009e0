"""Errors of the Hub's clients: which errors are temporary, and each error in one line."""

from collections.abc import Iterator

from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)

from ..errors import InputError

CONFLICTS = (409, 412)  # somebody else committed first
TEMPORARY = (*CONFLICTS, 408, 425, 429, 500, 502, 503, 504)
FORBIDDEN = "no right to write there, or its storage is full"
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def to_input_error(error: Exception, about: str) -> InputError:
    """An error of the Hub's clients as one line for the user.

    Args:
        error: any error. An `InputError` is returned unchanged.
        about: what the line is about, for example a repository.
    """
    if isinstance(error, InputError):
        return error
    return InputError(f"{about}: {describe_error(error)}")


def describe_error(error: Exception) -> str:
    """Why a client of the Hub failed, in one line."""
    if isinstance(error, LocalTokenNotFoundError):
        return f"no token of the Hub: {LOG_IN}"
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so nothing is read from the Hub"
    answer = http_error(error)
    if answer is None:
        # hf_xet raises its own errors, without a status
        hint = f" ({FORBIDDEN})" if "403 Forbidden" in str(error) else ""
        return f"{_first_lines(error)}{hint}"
    status = answer.response.status_code
    message = answer.server_message or _first_lines(answer)
    texts = {
        401: f"the Hub does not accept the token, or there is none: {LOG_IN}",
        403: f"the Hub refuses (403): {message}",
        404: f"not on the Hub, or hidden from this token ({message})",
    }
    return texts.get(status, f"the Hub answers {status}: {message}")


def http_error(error: Exception) -> HfHubHTTPError | None:
    """The answer of the Hub that caused an error, None if there was no answer."""
    return next((one for one in _causes(error) if isinstance(one, HfHubHTTPError)), None)


def is_temporary(error: Exception) -> bool:
    """Whether a later try may succeed: the status of the Hub says so, or the Hub did not answer."""
    if any(isinstance(one, OfflineModeIsEnabled) for one in _causes(error)):
        return False
    if (answer := http_error(error)) is not None:
        return answer.response.status_code in TEMPORARY
    lost = (ConnectionError, TimeoutError)
    return any(
        isinstance(one, lost) or type(one).__module__.partition(".")[0] in ("httpx", "httpx2")
        for one in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all errors that caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__
