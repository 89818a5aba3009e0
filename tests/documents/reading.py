"""Reads the Markdown documents of this repository: blocks of code, tables, links and anchors."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "d2i1_data" / "bases").glob("*/README.md"),
    ]
)
FENCE = re.compile(r"```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\n\Z", re.DOTALL)
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
INLINE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """One fenced block of code.

    Attributes:
        line: of the document, from 1; the first line of the code.
        not_run: the reason why a test cannot run it, from the HTML comment above; None: it is run.
    """

    document: Path
    line: int
    language: str
    text: str
    not_run: str | None

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def read_blocks(document: Path) -> list[Block]:
    """All fenced blocks of a document, in order."""
    content = document.read_text()
    blocks = []
    for fence in FENCE.finditer(content):
        comment = NOT_RUN.search(content[: fence.start()])
        line = content.count("\n", 0, fence.start()) + 2
        reason = comment.group(1) if comment else None
        blocks.append(Block(document, line, fence.group(1), fence.group(2), reason))
    return blocks


def read_prose(document: Path) -> str:
    """A document without its blocks of code."""
    return FENCE.sub("", document.read_text())


def read_table(document: Path, header: str) -> list[list[str]]:
    """The cells of the table whose header line begins with `| header |`, row by row."""
    lines = document.read_text().splitlines()
    (start,) = (n for n, line in enumerate(lines) if line.startswith(f"| {header} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def read_names(document: Path, header: str) -> list[str]:
    """The names in backticks in the first column of a table, see `read_table`."""
    return [name for row in read_table(document, header) for name in INLINE.findall(row[0])]


def read_links(document: Path) -> list[str]:
    """The relative links of a document, with their anchors."""
    found = LINK.findall(read_prose(document))
    return [link for link in found if "://" not in link and not link.startswith("mailto:")]


def read_anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a document."""
    return set(_anchors(HEADING.findall(read_prose(document))))


def _anchors(headings: list[str]) -> Iterator[str]:
    seen: dict[str, int] = {}
    for heading in headings:
        plain = LINK.sub(lambda link: link.group(0)[1:].partition("]")[0], heading)
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        count = seen.get(anchor, 0)
        seen[anchor] = count + 1
        yield f"{anchor}-{count}" if count else anchor
