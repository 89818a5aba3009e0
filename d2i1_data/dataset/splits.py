"""Splits: the parts of a dataset, such as train and val. No source image is in two of them."""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence

from ..errors import InputError

TRAIN = "train"  # the split that everything reads unless a flag says otherwise
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
FORM = "expected names and shares that add up to 1, with train among them: train=0.9,val=0.1"


def is_name(name: object) -> bool:
    """Whether a split may have this name, which becomes part of file names."""
    return isinstance(name, str) and bool(NAME.fullmatch(name)) and name != "all"


def read_splits(text: str) -> dict[str, float]:
    """Read the value of `--splits`, such as `train=0.9,val=0.1`.

    Returns:
        Name -> share of the source images, in the given order.

    Raises:
        InputError: if it has another form.
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = (word.strip() for word in part.partition("="))
        try:
            number = float(share)
        except ValueError:
            number = math.nan
        if not is_name(name) or name in shares or not 0 < number <= 1:
            raise InputError(f"--splits {text!r}: cannot use {part.strip()!r}; {FORM}")
        shares[name] = number
    if TRAIN not in shares or abs(sum(shares.values()) - 1) > 1e-6:
        raise InputError(f"--splits {text!r}: {FORM}")
    return shares


def draw_splits(origins: Sequence[str], shares: Mapping[str, float]) -> list[str]:
    """Choose the split of each sample. All samples of one source image get the same.

    The choice depends only on the ids of the source images. So another dataset of the same images
    has the same splits.

    Args:
        origins: the id of the source image of each sample.
        shares: share of the source images in each split. The largest one gets the rest, and each
            gets at least one image.

    Raises:
        InputError: if there are fewer source images than splits.
    """
    images = sorted({*origins}, key=lambda name: hashlib.sha256(name.encode()).digest())
    if len(images) < len(shares):
        raise InputError(
            f"--splits: {len(images)} source images are too few for {len(shares)} splits"
        )
    rest = len(images) - len(shares)
    sizes = {name: 1 + int(share * rest + 1e-6) for name, share in shares.items()}
    largest = max(shares, key=shares.__getitem__)
    sizes[largest] += len(images) - sum(sizes.values())
    split_of, start = dict[str, str](), 0
    for name, size in sizes.items():
        split_of |= dict.fromkeys(images[start : start + size], name)
        start += size
    return [split_of[origin] for origin in origins]
