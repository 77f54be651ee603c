"""Updates as numbers: the log of a run, from which every update can be computed again.

An update of MeZO is a few numbers: seed, step, slopes and the settings of that step. A block
receives it when it is next in memory. On disk the log is the record of the run: an update counts
from the moment its line is complete.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from anyorder.engine import Engine
from anyorder.files import write_whole
from anyorder.offload.tensorfile import OffloadError
from anyorder.points.directions import Seeded

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Move:
    """The update of one step: ``x <- x - lr * (mean_i slopes[i] * z_i + weight_decay * x)``.

    Attributes:
        seed: seed of the run.
        step: step of the directions.
        slopes: slope along each direction; none for a skipped step, which moves nothing.
        lr: learning rate.
        weight_decay: decay of parameters with at least two axes.
    """

    seed: int
    step: int
    slopes: tuple[float, ...]
    lr: float
    weight_decay: float

    def apply_(self, targets: Mapping[str, Tensor], engine: Engine) -> None:
        """Move parameters in place, with the arithmetic of MeZO."""
        if not self.slopes:
            return
        keep = 1.0 - self.lr * self.weight_decay
        for target in targets.values():
            if keep != 1.0 and target.ndim > 1:
                target.mul_(keep)
        for index, slope in enumerate(self.slopes):
            scale = -slope / len(self.slopes)
            Seeded(self.seed, self.step, index).add_all_(targets, scale * self.lr, engine)


class Moves:
    """The moves of a run, in memory and, if there is a file, also there.

    Args:
        path: the file, or ``None``.
        model: identifies the model, so that a log is not continued with another one.
        resume: read the file; otherwise :meth:`begin` starts a new one.

    Attributes:
        last: what was recorded beside the last move.
    """

    def __init__(self, path: Path | None = None, model: str = "", *, resume: bool = False) -> None:
        self._path = path
        self._first = 0  # number of the first move that is still in memory
        self._moves: list[Move] = []
        self.last: dict[str, Any] = {}
        self._head = json.dumps({"format": FORMAT, "model": model}) + "\n"
        if path is not None and resume:
            self._read(path, model)

    def begin(self) -> None:
        """Start a new file; from now on the folder holds a run."""
        if self._path is not None:
            write_whole(self._path, self._head)

    def __len__(self) -> int:
        """Number of moves since the start of the run."""
        return self._first + len(self._moves)

    def since(self, done: int) -> list[Move]:
        """The moves after the first ``done``."""
        return self._moves[done - self._first :]

    def forget(self, done: int) -> None:
        """Drop the first ``done`` moves from memory, because nothing needs them any more."""
        self._moves = self.since(done)
        self._first = done

    def append(self, move: Move, record: Mapping[str, Any]) -> None:
        """Add a move and what is recorded beside it; it counts once it is on disk.

        Raises:
            OffloadError: it could not be written; nothing was added.
        """
        if self._path is not None:
            line = {"number": len(self), **asdict(move), "record": dict(record)}
            _append(self._path, (json.dumps(line) + "\n").encode())
        self._moves.append(move)
        self.last = dict(record)

    def _read(self, path: Path, model: str) -> None:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise OffloadError(
                f"cannot read {path}: {error.strerror}; expected the folder of an earlier run. "
                "Write resume=False to start a new one"
            ) from error
        # A line without its end was being written when the process was killed.
        whole, _, rest = data.rpartition(b"\n")
        lines = whole.split(b"\n")
        head = _parsed(path, lines[0])
        if head.get("format") != FORMAT or head.get("model") != model:
            raise OffloadError(
                f"{path} belongs to another model, other blocks or another storage; resume with "
                "the same ones, or choose another folder"
            )
        for number, line in enumerate(lines[1:]):
            found = _parsed(path, line)
            if found.get("number") != number:
                raise OffloadError(
                    f"{path}: expected move {number}, got {found.get('number')!r}; lines are "
                    "missing or in another order. Restore the file from a copy"
                )
            self._moves.append(_move(path, found))
            self.last = found["record"]
        if rest:
            os.truncate(path, len(whole) + 1)


def _parsed(path: Path, line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise OffloadError(f"{path} is damaged: {line[:40]!r} is not a move; restore a copy")
    return found


def _move(path: Path, found: Mapping[str, Any]) -> Move:
    numbers = [*found["slopes"], found["lr"], found["weight_decay"]]
    if not all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers):
        raise OffloadError(f"{path}: move {found['number']} holds {numbers}; expected numbers")
    return Move(
        found["seed"], found["step"], tuple(found["slopes"]), found["lr"], found["weight_decay"]
    )


def _append(path: Path, line: bytes) -> None:
    """Append a line durably, or leave the file as it is."""
    before = path.stat().st_size
    try:
        with path.open("ab", buffering=0) as file:
            written = file.write(line)
            if written != len(line):
                raise OSError(28, "No space left on device")
            os.fsync(file.fileno())
    except OSError as error:
        os.truncate(path, before)
        raise full(path, error) from error


def full(path: Path, error: OSError) -> OffloadError:
    """The error for a file that cannot be written."""
    return OffloadError(
        f"cannot write {path}: {error.strerror or error}. Nothing is lost: free disk space and "
        "call step() again, or resume later with resume=True"
    )
