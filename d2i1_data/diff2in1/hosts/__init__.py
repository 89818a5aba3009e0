"""The hosts Diff-2-in-1 can be mounted on, one file each."""

from .light import Light

HOSTS = {"light": Light}

__all__ = ["HOSTS", "Light"]
