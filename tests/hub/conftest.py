"""What the tests of the Hub share: both ways to send large files, plain requests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, constants, get_session
from huggingface_hub.errors import HfHubHTTPError

from tests.hub import Hub

Ask = Callable[..., Any]


@pytest.fixture
def api(hub: Hub) -> HfApi:
    """A client that is logged in as alice."""
    return HfApi()


@pytest.fixture(params=["xet", "lfs"])
def sending(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How large files travel."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", request.param == "lfs")
    return request.param


def written(folder: Path, contents: dict[str, bytes]) -> Path:
    """A folder with these files."""
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def ask(hub: Hub) -> Ask:
    """A plain request, by alice unless another token or none is given; the response."""

    def ask(method: str, path: str, token: str | None = hub.token, **sent: Any) -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= sent.pop("headers", {})
        return get_session().request(method, hub.url + path, headers=headers, **sent)

    return ask


def refused(status: int, said: str, function: Any, *given: Any, **named: Any) -> HfHubHTTPError:
    """The error of a call that must fail."""
    with pytest.raises(HfHubHTTPError, match=said) as raised:
        function(*given, **named)
    assert raised.value.response.status_code == status
    return raised.value
