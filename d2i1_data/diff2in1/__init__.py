"""All code that a published checkpoint needs. Importing the package registers it in diffusers."""

import sys
from typing import TYPE_CHECKING, Any

from .quiet import end_silence  # before the libraries

# isort: split
import diffusers
import diffusers.pipelines

from .backbone import Backbone
from .checkpoint import Base
from .conditioning import Conditioning
from .families import FAMILIES, Family, make_family
from .hosts import HOSTS, register_host
from .one_pass import OnePass, one_pass, pyramid_channels
from .outputs import Diff2in1Output
from .perception import Perception
from .pipeline import Diff2in1Pipeline
from .registry import find_host_class

end_silence()

# With this, diffusers finds `["diff2in1", "Light"]` and `"Diff2in1Pipeline"` without remote code.
diffusers.pipelines.diff2in1 = sys.modules[__name__]
diffusers.Diff2in1Pipeline = Diff2in1Pipeline

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """The class of a registered host, for diffusers."""
        host = find_host_class(name)
        if host is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return host


__all__ = [
    "FAMILIES",
    "HOSTS",
    "Backbone",
    "Base",
    "Conditioning",
    "Diff2in1Output",
    "Diff2in1Pipeline",
    "Family",
    "OnePass",
    "Perception",
    "make_family",
    "one_pass",
    "pyramid_channels",
    "register_host",
]
