"""Markdown for cards. Foreign texts are escaped, so that they stay plain words."""

import json
import re
import shlex
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

import hub_cards

from ..diff2in1.hosts import HOSTS
from ..diff2in1.registry import find_host_class
from ..tasks import Task
from .links import Links

MAX_LENGTH = 200  # characters of a name
# Special characters of Markdown, HTML and formulas on the Hub. A full stop before a letter can
# start a link. A hyphen or a number at the start of a line can start a list.
MARKS = re.compile(r"[^\w\s,.;()/%'?-]|_|\.(?=[a-zA-Z])|^-|^\d+(?=[.)](?:\s|$))", re.ASCII)
BOUND = re.compile(r"([\w-]+).*?>=([\d.]+)")  # a requirement, such as `torch>=2.6`
NUMBER = re.compile(r"[-+\d.,e]+")


class Markdown(str):
    """Markdown of our own. Templates do not escape it."""


def one_line(text: object) -> str:
    """A text as one line without control characters. A very long text is cut."""
    kept = (" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in str(text))
    line = " ".join("".join(c for c in kept if unicodedata.category(c)[0] != "C").split())
    return line if len(line) <= MAX_LENGTH else line[: MAX_LENGTH - 1] + "…"


def escape(text: object) -> Markdown:
    """Any text as plain words for a line or a table cell.

    Special characters become character references, such as `&#42;`.
    """

    def references(match: re.Match[str]) -> str:
        return "".join(f"&#{ord(c)};" if c.isascii() else c for c in match[0])

    return Markdown(MARKS.sub(references, one_line(text)))


def code(text: object) -> Markdown:
    """Any text as inline code. A backtick in the text cannot end it."""
    return Markdown(f"<code>{escape(text)}</code>")


def comma_list(parts: Iterable[object]) -> Markdown:
    """Any texts with commas between them."""
    return Markdown(", ".join(p if isinstance(p, Markdown) else escape(p) for p in parts))


def counted(number: int, noun: str) -> str:
    """A number and a noun: `1 row`, `2 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def string_literal(text: str) -> Markdown:
    """A string as Python and JSON write it, in ASCII, for a code block."""
    return Markdown(json.dumps(text))


def code_block(text: str, language: str = "") -> Markdown:
    """A code block that shows the whole text. Backticks in the text cannot end it."""
    text = "".join(c for c in text if c == "\n" or unicodedata.category(c)[0] != "C")
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markdown(f"{fence}{language}\n{text.strip()}\n{fence}")


def table(heads: Sequence[object], rows: Iterable[Sequence[object]]) -> Markdown:
    """A table with escaped cells. Columns of numbers are aligned to the right."""
    rows = list(rows)

    def line(cells: Iterable[object]) -> str:
        return "| " + " | ".join(c if isinstance(c, Markdown) else escape(c) for c in cells) + " |"

    numeric = (all(NUMBER.fullmatch(str(row[n])) for row in rows) for n in range(len(heads)))
    ruler = "|" + "|".join("---:" if right else "---" for right in numeric) + "|"
    return Markdown("\n".join([line(heads), ruler, *map(line, rows)]))


def is_repository(name: object) -> bool:
    """Whether a name can be the id of a repository on the Hub, `user/name`."""
    try:
        validate_repo_id(str(name))
    except HFValidationError:
        return False
    return str(name).count("/") == 1


def address(name: str | None, kind: str, file: str) -> str | None:
    """The address of a file on the Hub; None for a name that is no repository.

    Args:
        name: `user/name`.
        kind: as in `link`.
        file: path in the repository.
    """
    if not is_repository(name):
        return None
    return f"https://huggingface.co/{kind}{name}/resolve/main/{file}"


def link(name: str, kind: str = "") -> Markdown:
    """A link to a repository on the Hub; inline code for any other name.

    Args:
        name: `user/name`.
        kind: `datasets/`, `spaces/`, or empty for a model.
    """
    if not is_repository(name):
        return code(name)
    return Markdown(f"[{escape(name)}](https://huggingface.co/{kind}{name})")


def install(*libraries: str) -> Markdown:
    """The command that installs libraries, each in a version that works, as this package asks."""
    found = filter(None, map(BOUND.match, requires("diff2in1") or ()))
    bounds = {str(one[1]): f">={one[2]}" for one in found}
    bounds["diff2in1"] = f">={version('diff2in1')}"
    words = (shlex.quote(f"{name}{bounds.get(name, '')}") for name in libraries)
    return code_block(f"pip install {' '.join(words)}", "sh")


def class_lists(tasks: Mapping[str, Task]) -> dict[str, Markdown]:
    """The classes of each task that has classes, with their ids."""
    return {
        name: comma_list(f"{n} {one}" for n, one in enumerate(task.family.names))
        for name, task in tasks.items()
        if task.family.names
    }


def title(tasks: Iterable[str], name: str | None = None) -> str:
    """The title of a card: the name of the repository, or else the tasks.

    Args:
        tasks: names of the tasks.
        name: `user/name`, None if there is no repository.
    """
    if name and is_repository(name):
        return name.partition("/")[2]
    return f"Diff-2-in-1: {', '.join(tasks)}"


def host_name(class_name: str) -> str:
    """The name of a host, given its class in `model_index.json`. An unknown class is returned."""
    host = find_host_class(class_name)
    return class_name if host is None else str(host.name)


def citations(bases: Iterable[str], hosts: Iterable[str]) -> Markdown:
    """BibTeX entries of the paper, of Stable Diffusion for bases on the Hub, and of hosts.

    Args:
        bases: names of bases.
        hosts: names of hosts; hosts without a paper are left out.
    """
    base = ["base"] if any(map(is_repository, bases)) else []
    names = ("diff2in1", *base, *(host for host in hosts if host in HOSTS))
    files = (hub_cards.FOLDER / "citations" / f"{name}.bib" for name in names)
    return code_block(
        "\n\n".join(file.read_text().strip() for file in files if file.is_file()), "bibtex"
    )


def render(
    template: str, folder: Path, links: Links, tasks: Mapping[str, Task], **values: Any
) -> str:
    """Fill a template of `hub_cards`. Every value is escaped unless it is `Markdown`.

    Args:
        template: file name of the template.
        folder: folder of the dataset or checkpoint.
        links: repositories that the card names.
        tasks: the tasks of the dataset or checkpoint, by name.
        **values: further variables of the template.
    """
    environment = hub_cards.environment(
        finalize=lambda value: value if isinstance(value, Markdown) else escape(value)
    )
    environment.globals.update(
        code=code,
        code_block=code_block,
        comma_list=comma_list,
        counted=counted,
        link=link,
        markdown=Markdown,
        install=install,
        number="{:,}".format,
        repository=hub_cards.REPOSITORY,
        string_literal=string_literal,
        table=table,
    )
    values |= {"links": links, "name": links.name or folder.resolve().name}
    values |= {
        "title": title(tasks, links.name),
        "tasks": [*tasks.values()],
        "classes": class_lists(tasks),
    }
    text = environment.get_template(template).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
