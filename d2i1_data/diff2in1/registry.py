"""The hosts that can be mounted, by name.

A published file holds no registered host, since its pipeline already has one.
"""

from typing import Any

REGISTRY: dict[str, Any] = {}  # name -> class, see `perception.register_host`


def find_host(name: str) -> Any:
    """The class of the host with this name.

    Raises:
        ValueError: if there is none.
    """
    if name not in REGISTRY:
        known = ", ".join(REGISTRY) or "none; the package diff2in1 has them"
        raise ValueError(f"unknown host {name!r}: choose from {known}")
    return REGISTRY[name]


def find_host_class(class_name: str) -> Any:
    """The host that is saved under this class name, or None."""
    return next((host for host in REGISTRY.values() if host.__name__ == class_name), None)
