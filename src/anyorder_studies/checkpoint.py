"""Results of finished units on disk: append-only, so that a killed run can go on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from anyorder_studies.study import Result, StudyError, Unit


def canonical(value: Any) -> str:
    """JSON text that is the same for equal values, used to recognise a unit."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
    except TypeError as error:
        raise StudyError(f"expected JSON values only, got {value!r}: {error}") from error


class Checkpoint:
    """One JSON line per finished unit, after a first line that says what the units belong to.

    Opening it with the same header keeps what is there; a half-written last line (the process was
    killed while writing) is cut off. Another header means other code, data or scale: those results
    do not belong to this run, and the file starts anew.

    Args:
        path: The file.
        header: Identity of the run, as JSON values.
        fresh: Start anew even if the header fits.
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
        """Append one finished unit; it is on disk when this returns."""
        line = canonical({"unit": unit, "result": result, "seconds": seconds})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        # Read back what the file says, so that a resumed run sees the very same numbers.
        self.done[canonical(unit)] = (json.loads(line)["result"], seconds)


def _complete_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines of the file; cuts off what was being written when a process died."""
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
            f"{path} holds a line that is not JSON ({error}); remove the file or pass --fresh"
        ) from error
