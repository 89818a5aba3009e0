"""Helpers of the tests of the Hub: calls that must fail, folders to upload."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import HfHubHTTPError

Ask = Callable[..., Any]


def refused(status: int, said: str, function: Any, *given: Any, **named: Any) -> HfHubHTTPError:
    """The error of a call that must fail."""
    with pytest.raises(HfHubHTTPError, match=said) as raised:
        function(*given, **named)
    assert raised.value.response.status_code == status
    return raised.value


def written(folder: Path, contents: dict[str, bytes]) -> Path:
    """A folder with these files."""
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
