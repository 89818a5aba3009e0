"""JSON with lists that are too long for memory."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any


class JsonList:
    """A list that is kept in a file instead of memory, for `write_object`.

    Args:
        file: an empty, open file that only this list uses.
    """

    def __init__(self, file: IO[str]) -> None:
        self.file, self.count = file, 0

    def __len__(self) -> int:
        return self.count

    def add(self, item: Any) -> None:
        """Append an item."""
        self.file.write((", " if self.count else "") + json.dumps(item))
        self.count += 1

    def copy_to(self, out: IO[str]) -> None:
        """Write the whole list to another file."""
        self.file.seek(0)
        out.write("[")
        shutil.copyfileobj(self.file, out)
        out.write("]")


def write_object(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object.

    Args:
        file: a new file.
        content: keys and values; a value may be a `JsonList`.
    """
    with file.open("x") as out:
        for place, (key, value) in enumerate(content.items()):
            out.write(f"{', ' if place else '{'}{json.dumps(key)}: ")
            if isinstance(value, JsonList):
                value.copy_to(out)
            else:
                json.dump(value, out)
        out.write("}\n")
