"""The hosts Diff-2-in-1 can be mounted on, one file each."""

from .bae import Bae
from .idisc import IDisc
from .light import Light
from .vpd import Vpd

HOSTS = {"light": Light, "bae": Bae, "idisc": IDisc, "vpd": Vpd}

__all__ = ["HOSTS", "Bae", "IDisc", "Light", "Vpd"]
