"""Stores results of finished units in an append-only file, so that a killed run can be resumed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from anyorder_studies.study import Result, StudyError, Unit


def canonical(value: Any) -> str:
    """Return JSON text that is the same for equal values; it identifies a unit."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
    except TypeError as error:
        raise StudyError(f"expected JSON values only, got {value!r}: {error}") from error


class Checkpoint:
    """A file with a header line that identifies the run, and one JSON line per finished unit.

    Opening it with the same header keeps its results; an incomplete last line (the process was
    killed while writing) is removed. A different header means other code, data or scale: those
    results do not belong to this run, and the file is reset.

    Args:
        path: The file.
        header: Identity of the run, as JSON values.
        fresh: Reset the file even if the header matches.
    """

    def __init__(self, path: Path, header: dict[str, Any], *, fresh: bool = False) -> None:
        self.path = path
        self.done: dict[str, tuple[Result, float]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [] if fresh else _complete_lines(path)
        if lines and lines[0] == json.loads(canonical(header)):
            for line in lines[1:]:
                self.done[canonical(line["unit"])] = (line["result"], float(line["seconds"]))
        else:
            path.write_text(canonical(header) + "\n", encoding="utf-8")

    def add(self, unit: Unit, result: Result, seconds: float) -> None:
        """Append one finished unit; it is flushed to disk before this returns."""
        line = canonical({"unit": unit, "result": result, "seconds": seconds})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        # Read back what was written, so that a resumed run sees exactly the same numbers.
        self.done[canonical(unit)] = (json.loads(line)["result"], seconds)


def _complete_lines(path: Path) -> list[dict[str, Any]]:
    """Return all complete lines of the file; remove an incomplete last line."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) != len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except json.JSONDecodeError as error:
        raise StudyError(
            f"{path} contains a line that is not JSON ({error}); remove the file or pass --fresh"
        ) from error
