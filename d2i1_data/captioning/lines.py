"""Lines of JSON that are kept when a run is killed."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..checks import parse_json
from ..dataset.files import temporary_path


class Lines:
    """The results of a run so far, in a hidden file beside the file that they will become.

    The first line says what the results are made from. Results of anything else, and lines that a
    kill or a power cut has broken, are dropped.

    Args:
        file: the file that the results will become.
        made_from: hash of all that decides the results.
    """

    def __init__(self, file: Path, made_from: str) -> None:
        self.path, self.head = temporary_path(file), {"made_from": made_from}
        self.results = self._read()
        text = "".join(map(_line, (self.head, *self.results)))
        if not self.path.is_file() or self.path.read_text("utf-8", "replace") != text:
            self.path.write_text(text, "utf-8")

    def _read(self) -> list[Any]:
        found = []
        lines = self.path.read_bytes().split(b"\n")[:-1] if self.path.is_file() else []
        for line in lines:
            try:
                found.append(parse_json(line))
            except ValueError:
                break
        return found[1:] if found[:1] == [self.head] else []

    def add(self, results: Sequence[Any]) -> None:
        """Keep more results."""
        with self.path.open("a", encoding="utf-8") as opened:
            opened.writelines(map(_line, results))
        self.results += results

    def drop(self) -> None:
        """Delete the hidden file, when the results are complete."""
        self.path.unlink(missing_ok=True)


def _line(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"


def batches(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    """Split items into batches; the last may be smaller."""
    return (items[start : start + size] for start in range(0, len(items), size))
