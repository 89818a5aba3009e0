"""New captions from captions at hand: recombined phrases, or the answers of a text generator."""

from collections.abc import Callable, Sequence

from ..creation.plan import Item, draw
from ..creation.recombination import Recombination
from ..errors import InputError
from .lines import Lines, batches
from .models import Writer

SHOTS = 8  # captions at hand that a text generator continues
MOST = 50  # candidates for each new caption
PURPOSE = "prompt"  # names the draws

Candidates = Callable[[Sequence[int]], list[str]]  # numbers of candidates -> candidates


def recombined(captions: Sequence[str], seed: int) -> Candidates:
    """Candidates from the phrases of captions, see `creation.recombination`."""
    recombination = Recombination(captions)
    return lambda numbers: [recombination.caption(Item(PURPOSE, n), seed) for n in numbers]


def written(captions: Sequence[str], seed: int, writer: Writer) -> Candidates:
    """Candidates from a text generator. Each continues a list of captions drawn at random."""

    def some(number: int) -> list[str]:
        draws = (draw(Item(PURPOSE, number), seed, f"shot {n}") for n in range(SHOTS))
        return [captions[int(one * len(captions))] for one in draws]

    return lambda numbers: writer.answer(
        [f"{PURPOSE} {n}" for n in numbers], [some(n) for n in numbers]
    )


def new_captions(
    captions: Sequence[str], count: int, candidates: Candidates, lines: Lines, batch_size: int
) -> list[str]:
    """Make captions that differ from the captions at hand and from one another.

    Fewer are the first of more.

    Args:
        captions: the captions at hand.
        count: how many to make.
        candidates: makes candidates by their numbers.
        lines: the candidates so far; gets all further ones.
        batch_size: number of candidates that are made at once.

    Raises:
        InputError: if too few candidates are new.
    """
    old = set(captions)
    found = dict.fromkeys(one for one in lines.results if one and one not in old)
    left = range(len(lines.results), MOST * count)
    for numbers in batches(left, batch_size):
        if len(found) >= count:
            break
        made = candidates(numbers)
        lines.add(made)
        found.update(dict.fromkeys(one for one in made if one and one not in old))
    if len(found) < count:
        raise InputError(
            f"--prompts_from_captions {count}: {len(captions)} captions give only {len(found)} new"
            f" ones in {MOST * count} draws; expected a smaller number, or more captions"
        )
    return list(found)[:count]
