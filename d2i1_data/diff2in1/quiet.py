"""Silence while this package is imported: libraries warn about parts of theirs that it never uses.

`end_silence` gives the loggers their levels back.
"""

import logging

LOUD = (
    "transformers.utils.import_utils",  # image processors without torchvision
    "bitsandbytes.backends.cpu.ops",  # its CPU kernels without the package `kernels`
)
_levels = {name: logging.getLogger(name).level for name in LOUD}
for _name in LOUD:
    logging.getLogger(_name).setLevel(logging.ERROR)


def end_silence() -> None:
    """Let the libraries warn as before."""
    for name, level in _levels.items():
        logging.getLogger(name).setLevel(level)
