"""The hosts that can be mounted on a base, one file each. A new host needs one more line here."""

from ..perception import HOSTS, register_host
from .bae import Bae
from .idisc import IDisc
from .light import Light
from .vpd import Vpd

for _host in (Light, Bae, IDisc, Vpd):
    register_host(_host)

__all__ = ["HOSTS", "Bae", "IDisc", "Light", "Vpd", "register_host"]
