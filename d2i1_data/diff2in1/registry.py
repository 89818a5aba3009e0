"""The hosts that can be mounted, by name.

The code in a published checkpoint registers no host, because its pipeline already has one.
"""

from typing import Any

REGISTRY: dict[str, Any] = {}  # name -> class, see `perception.register_host`


def find_host(name: str) -> Any:
    """The class of the host with this name.

    Raises:
        ValueError: if there is no such host.
    """
    if name not in REGISTRY:
        choices = ", ".join(REGISTRY) or "none; the package diff2in1 has them"
        raise ValueError(f"unknown host {name!r}: choose from {choices}")
    return REGISTRY[name]


def find_host_class(class_name: str) -> Any:
    """The class of the host with this class name, None if there is none."""
    return next((host for host in REGISTRY.values() if host.__name__ == class_name), None)
