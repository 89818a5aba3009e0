"""Cards as web pages, and hostile names that try to become markup or code."""

from html.parser import HTMLParser
from typing import Any

from huggingface_hub import RepoCard
from markdown_it import MarkdownIt

HOSTILE = [
    "<script>alert(1)</script>",
    "</code></td></tr></table><img src=x onerror=alert(1)>",
    "a | b | c",
    "`x` ```\n```\n# heading",
    "---\nlicense: mit\n---",
    "[here](https://evil.example) ![x](https://evil.example/x.png)",
    "<https://evil.example> https://evil.example www.evil.example",
    "{{ 7 * 7 }} {% for x in y %}",
    "**bold** _it_ ~~no~~ $$\\pi$$ \\(x\\)",
    "- item\n1. item\n> quote\n\n    code\n\n[a]: https://evil.example",
    "&lt;b&gt; &#60;b&#62;",
    "key: value # comment, 'single' \"double\" \\",
    "# ünïcode 😀 \u202eltr\u202c \x00\x1b[31m",
    "!!python/object/apply:os.system ['true']",
]


def snippets(card: str) -> list[str]:
    """The blocks of Python in a card."""
    return [part.split("\n```")[0] for part in card.split("```python\n")[1:]]


class Page(HTMLParser):
    """A card as a browser renders it: its elements with their attributes, and all text."""

    def __init__(self, card: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[Any, ...]]] = []
        self.words = ""
        body = RepoCard(card).text
        self.feed(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(body))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data
