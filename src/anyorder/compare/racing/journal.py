"""What a race has done so far: one JSON object per line, appended and never changed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from anyorder.compare.plan.plan import PlanError
from anyorder.compare.store.schema import Outcome, read
from anyorder.compare.store.storage import StorageError
from anyorder.files import write_whole


class Journal:
    """Decisions and finished runs by key.

    Args:
        path: the file; its first line is the plan.
        plan: everything that must be equal for a race to continue, as JSON has it.

    Raises:
        PlanError: the file belongs to another race.
        StorageError: the file cannot be read or written.
    """

    def __init__(self, path: Path, plan: dict[str, Any]) -> None:
        self.path = path
        self._known: dict[str, Any] = {}
        #: Wall-clock seconds up to the last finished run.
        self.elapsed = 0.0
        lines = self._lines()
        if not lines:
            self._guarded(lambda: write_whole(path, json.dumps(plan) + "\n"))
            return
        differing = sorted(
            name for name in plan.keys() | lines[0].keys() if plan.get(name) != lines[0].get(name)
        )
        if differing:
            raise PlanError(
                f"{path.parent} contains another race (it differs in {', '.join(differing)}). "
                "Choose another folder with --out"
            )
        for line in lines[1:]:
            self._known[line["key"]] = line["value"]
            self.elapsed = line["elapsed"]
        # A line that was cut off by a kill is removed before others follow it.
        text = "".join(json.dumps(line) + "\n" for line in lines)
        self._guarded(lambda: write_whole(path, text))

    def _lines(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        if self.path.exists():
            text = self._guarded(lambda: self.path.read_text(encoding="utf-8"))
            for line in text.splitlines():
                with contextlib.suppress(ValueError):
                    found.append(json.loads(line))
        return found

    def decided(self, key: str, decide: Callable[[], Any]) -> Any:
        """Return an earlier decision, or decide now and remember it.

        What is decided by the time that is left must not change when a race continues.
        """
        if key not in self._known:
            self._add(key, json.loads(json.dumps(decide())))
        return self._known[key]

    def outcome(self, key: str) -> Outcome | None:
        """A finished run, or None."""
        stored = self._known.get(key)
        return None if stored is None else read(Outcome, json.dumps(stored), key)

    def finish(self, key: str, outcome: Outcome, elapsed: float) -> None:
        """Store a finished run.

        Args:
            key: its key.
            outcome: the run.
            elapsed: wall-clock seconds of the race so far.
        """
        self.elapsed = elapsed
        self._add(key, asdict(outcome))

    def _add(self, key: str, value: Any) -> None:
        self._known[key] = value
        line = json.dumps({"key": key, "elapsed": self.elapsed, "value": value})

        def append() -> None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())

        self._guarded(append)

    def _guarded(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except OSError as error:
            raise StorageError(
                f"cannot use {self.path}: {error.strerror or error}. Choose another folder with "
                "--out, or free disk space and run the same command again"
            ) from error
