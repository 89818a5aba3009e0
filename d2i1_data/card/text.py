"""Text of others in a card: whatever a name says, it stays words."""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

import hub_cards

from ..diff2in1.hosts import HOSTS
from ..tasks import Task
from .links import Links

LONGEST = 200  # characters of a name
# what Markdown, HTML and the Hub's mathematics read as more than itself: a full stop before a
# letter can make a link, what begins a line a list
MARKS = re.compile(r"[^\w\s,.;()/%'?-]|_|\.(?=[a-zA-Z])|^-|^\d+(?=[.)](?:\s|$))", re.ASCII)
NUMBER = re.compile(r"[-+\d.,e]+")


class Written(str):
    """Markdown of our own, which templates take as it is."""


def plain(text: object) -> str:
    """One line without control characters, cut where it is very long."""
    kept = (" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in str(text))
    line = " ".join("".join(c for c in kept if unicodedata.category(c)[0] != "C").split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def escaped(text: object) -> Written:
    """Any text as words within a line or a cell: every mark as the number of its character."""

    def numbers(found: re.Match[str]) -> str:
        return "".join(f"&#{ord(c)};" if c.isascii() else c for c in found[0])

    return Written(MARKS.sub(numbers, plain(text)))


def code(text: object) -> Written:
    """Any text in the type of code; with backticks some of it could come out of the span."""
    return Written(f"<code>{escaped(text)}</code>")


def listed(parts: Iterable[object]) -> Written:
    """Any texts, with commas between them."""
    return Written(", ".join(p if isinstance(p, Written) else escaped(p) for p in parts))


def counted(number: int, noun: str) -> str:
    """So many of a thing."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def literal(text: str) -> Written:
    """A string as Python and JSON write it, in ASCII, for a block of code."""
    return Written(json.dumps(text))


def fenced(text: str, language: str = "") -> Written:
    """A block of code that ends where we end it, and shows all that is in it."""
    text = "".join(c for c in text if c == "\n" or unicodedata.category(c)[0] != "C")
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Written(f"{fence}{language}\n{text.strip()}\n{fence}")


def table(heads: Sequence[object], rows: Iterable[Sequence[object]]) -> Written:
    """A table whose cells stay cells; numbers stand to the right."""
    rows = list(rows)

    def line(cells: Iterable[object]) -> str:
        return "| " + " | ".join(c if isinstance(c, Written) else escaped(c) for c in cells) + " |"

    numeric = (all(NUMBER.fullmatch(str(row[n])) for row in rows) for n in range(len(heads)))
    ruler = "|" + "|".join("---:" if right else "---" for right in numeric) + "|"
    return Written("\n".join([line(heads), ruler, *map(line, rows)]))


def is_repository(name: object) -> bool:
    """Whether it can be the id of a repository on the Hub, `user/name`."""
    try:
        validate_repo_id(str(name))
    except HFValidationError:
        return False
    return str(name).count("/") == 1


def linked(name: str, kind: str = "") -> Written:
    """A link to a repository on the Hub; kind: `datasets/` or `spaces/`."""
    if not is_repository(name):
        return code(name)
    return Written(f"[{escaped(name)}](https://huggingface.co/{kind}{name})")


def classes(tasks: Mapping[str, Task]) -> dict[str, Written]:
    """The classes of each task that has classes, with their ids."""
    return {
        name: listed(f"{n} {one}" for n, one in enumerate(task.family.names))
        for name, task in tasks.items()
        if task.family.names
    }


def title(tasks: Iterable[str]) -> Written:
    """What a card stands under."""
    return Written(f"Diff-2-in-1: {', '.join(tasks)}")


def citations(bases: Iterable[str], hosts: Iterable[str]) -> Written:
    """BibTeX of the paper, of Stable Diffusion for bases of the Hub, and of hosts with a paper."""
    base = ["base"] if any(map(is_repository, bases)) else []
    names = ("diff2in1", *base, *(host for host in hosts if host in HOSTS))
    files = (hub_cards.FOLDER / "citations" / f"{name}.bib" for name in names)
    return fenced(
        "\n\n".join(file.read_text().strip() for file in files if file.is_file()), "bibtex"
    )


def render(
    template: str, folder: Path, links: Links, tasks: Mapping[str, Task], **values: Any
) -> str:
    """A template of `hub_cards`, of a thing in a folder that knows these tasks; every value is
    escaped that is not `Written`."""
    environment = hub_cards.environment(
        finalize=lambda value: value if isinstance(value, Written) else escaped(value)
    )
    environment.globals.update(
        code=code,
        counted=counted,
        fenced=fenced,
        linked=linked,
        listed=listed,
        literal=literal,
        number="{:,}".format,
        table=table,
        written=Written,
    )
    values |= {"links": links, "name": links.name or folder.resolve().name}
    values |= {"title": title(tasks), "tasks": [*tasks.values()], "classes": classes(tasks)}
    text = environment.get_template(template).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
