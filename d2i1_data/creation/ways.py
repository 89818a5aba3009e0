"""Ways to create: each has a share of the samples, and its own strength and prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from string import Formatter
from typing import Any

from ..checks import check_template
from ..errors import InputError

KEYS = ("share", "strength", "prompt")
WORDS = ("caption", "recombined")  # the words in braces that a prompt may have
Range = tuple[float, float]


@dataclass(frozen=True)
class Way:
    """A way to create samples.

    Attributes:
        share: how many samples are created in this way, relative to the shares of the other ways.
        strength: the lowest and the highest strength. None is the default of the checkpoint.
        prompts: the prompts to draw from.
    """

    share: float
    strength: Range | None
    prompts: list[str]


def read_ways(given: Sequence[Mapping[str, Any]], own: Way) -> list[Way]:
    """Read the value of `--ways`.

    Args:
        given: mappings with any of `share`, `strength` and `prompt`.
        own: what the command gives. Its strength and prompts are used where a way has none.

    Raises:
        InputError: if there is no way, or a key or value is wrong.
    """
    if not given:
        raise InputError("--ways []: expected at least one way")
    ways = []
    for number, values in enumerate(given, 1):
        where, strength, prompts = f"--ways: way {number}", own.strength, own.prompts
        if unknown := [key for key in values if key not in KEYS]:
            raise InputError(f"{where}: unknown key {unknown[0]!r}, expected {', '.join(KEYS)}")
        share = values.get("share", 1)
        if not (_is_number(share) and 0 < share < inf):
            raise InputError(f"{where}: share {share!r}: expected a number above 0")
        if "strength" in values:
            strength = read_strength(values["strength"], f"{where}: strength")
        if "prompt" in values:
            prompts = read_prompts(values["prompt"], f"{where}: prompt")
        ways.append(Way(share, strength, prompts))
    return ways


def read_strength(value: Any, where: str) -> Range:
    """The lowest and the highest strength of a number or of [LOW, HIGH].

    Raises:
        InputError: if it is neither, or outside (0, 1].
    """
    if _is_number(value):
        if not 0 < value <= 1:
            raise InputError(f"{where} {value}: expected more than 0, at most 1")
        return value, value
    ends = value if isinstance(value, list) else []
    if len(ends) != 2 or not all(map(_is_number, ends)) or not 0 < ends[0] <= ends[1] <= 1:
        raise InputError(f"{where} {value}: expected a number or [LOW, HIGH], both in (0, 1]")
    return ends[0], ends[1]


def read_prompts(value: Any, where: str) -> list[str]:
    """The prompts of one prompt or of a list of prompts.

    Raises:
        InputError: if it is neither, the list is empty, or a prompt has an unknown word in braces.
    """
    prompts = value if isinstance(value, list) else [value]
    if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise InputError(f"{where} {value}: expected a prompt, or a list of prompts")
    for prompt in prompts:
        check_template(prompt, WORDS, where)
    return prompts


def has_word(prompt: str, word: str) -> bool:
    """Whether a prompt has a word in braces."""
    return any(word == name for _, name, _, _ in Formatter().parse(prompt))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
