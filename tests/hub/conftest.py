"""Clients of the Hub that are logged in, and plain requests."""

from typing import Any

import pytest
from huggingface_hub import HfApi, get_session

from tests.hub import Hub
from tests.hub.calls import Ask


@pytest.fixture
def api(hub: Hub) -> HfApi:
    """A client that is logged in as alice."""
    return HfApi()


@pytest.fixture
def ask(hub: Hub) -> Ask:
    """Send a plain request, by default as alice; returns the response."""

    def ask(method: str, path: str, token: str | None = hub.token, **sent: Any) -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= sent.pop("headers", {})
        return get_session().request(method, hub.url + path, headers=headers, **sent)

    return ask
