"""All that a published checkpoint needs to run. Importing this registers it with diffusers."""

import sys

import diffusers
import diffusers.pipelines

from .checkpoint import Base
from .families import FAMILIES, Family, make_family
from .hosts import HOSTS
from .one_pass import OnePass, one_pass, pyramid_channels
from .perception import Perception
from .pipeline import Diff2in1Output, Diff2in1Pipeline

# So that diffusers finds `["diff2in1", "Light"]` and `"Diff2in1Pipeline"` without remote code.
globals().update({host.__name__: host for host in HOSTS.values()})
diffusers.pipelines.diff2in1 = sys.modules[__name__]
diffusers.Diff2in1Pipeline = Diff2in1Pipeline

__all__ = [
    "FAMILIES",
    "HOSTS",
    "Base",
    "Diff2in1Output",
    "Diff2in1Pipeline",
    "Family",
    "OnePass",
    "Perception",
    "make_family",
    "one_pass",
    "pyramid_channels",
]
