"""Records the moves of an optimizer as it takes steps."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from anyorder.optimizer import Optimizer
from anyorder.points.directions import Direction, Seeded
from anyorder.seed_log.fingerprint import buffers_of, fingerprint, parameters_of, weights_of
from anyorder.seed_log.format import (
    DECAY,
    Encoder,
    End,
    Header,
    Move,
    Record,
    Run,
    SeedLog,
    SeedLogError,
    Step,
    read,
    write,
)
from anyorder.seed_log.replay import Player, replay


def record(optimizer: Optimizer, path: str | Path) -> Recorder:
    """Start a log of the steps that an optimizer takes from now on.

    Args:
        optimizer: a method whose steps are moves along seeded directions, such as MeZO; its
            weights are the base of the log.
        path: the new file.

    Returns:
        The recorder, also usable in a ``with`` block. Call ``close()`` after the last step: it
        writes the fingerprint of the final weights, without which a log counts as unfinished.

    Raises:
        SeedLogError: the method takes other steps, or the file exists or cannot be written.

    Example:
        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> from anyorder import MeZO
        >>> from anyorder.seed_log import record, replay
        >>> model = torch.nn.Linear(3, 1)
        >>> base = {name: value.clone() for name, value in model.state_dict().items()}
        >>> path = Path(tempfile.mkdtemp()) / "run.seedlog"
        >>> optimizer = MeZO(model, lr=0.1)
        >>> with record(optimizer, path):
        ...     for _ in range(5):
        ...         loss = optimizer.step(lambda: model(torch.ones(1, 3)).square().sum())
        >>> again = torch.nn.Linear(3, 1)
        >>> again.load_state_dict(base)
        <All keys matched successfully>
        >>> replay(path, again)
        5
        >>> torch.equal(again.weight, model.weight)
        True
    """
    _refuse(optimizer)
    if optimizer.steps:
        _complain(optimizer, f"has taken {optimizer.steps} steps; start the log before the first")
    base = fingerprint(weights_of(optimizer))
    write(Path(path), SeedLog(Header(base, _trained(optimizer))))
    return Recorder(optimizer, Path(path), read(path))


def resume(optimizer: Optimizer, path: str | Path) -> Recorder:
    """Repeat a log on the base model and go on recording where it ends.

    A resumed run equals an uninterrupted one, bit for bit, if it gets the same batches. A last
    record of which only a part was written is removed from the file; so is the end of a finished
    log.

    Args:
        optimizer: a new optimizer on the base model. Its steps, skipped steps and counted values
            become those of the log.
        path: the file.

    Raises:
        SeedLogError: as :func:`record` and :func:`~anyorder.seed_log.replay`.
    """
    _refuse(optimizer)
    if optimizer.steps:
        _complain(optimizer, "has taken steps; make a new one on the base model")
    log = read(path)
    if _trained(optimizer) != log.header.groups:
        raise SeedLogError(f"{path} is the log of other parameters or other parameter groups")
    replay(log, weights_of(optimizer), unfinished=True, engine=optimizer.engine.mode)
    steps = log.steps
    optimizer.steps = len(steps)
    optimizer.skips = max([0, *(step.number + 1 - len(steps) for step in steps)])
    optimizer.calls.values = sum(step.values for step in steps)
    return Recorder(optimizer, Path(path), log)


class Recorder:
    """Appends every step of an optimizer to a log; made by :func:`record` and :func:`resume`.

    Each step is written at once and survives a killed process; :meth:`sync` waits until the file
    also survives a power failure. Copies of two small parameters are replayed with every step: if
    something else changes the weights, the step raises.

    Attributes:
        path: the file.
        dropped: bytes of an incomplete last record that were removed.
    """

    def __init__(self, optimizer: Optimizer, path: Path, log: SeedLog) -> None:
        self.path, self.dropped = path, log.dropped
        self._optimizer, self._weights = optimizer, weights_of(optimizer)
        self._header = log.header
        runs = [each for each in log.records if isinstance(each, Run)]
        self._run = runs[-1] if runs else None
        last = log.records[-1] if log.records else None
        number = last.number if isinstance(last, Step) else -1
        self._encoder = Encoder(len(log.header.groups), log.checksum, number)
        self._steps, self._values = optimizer.steps, optimizer.calls.values
        self._pending: list[Move] = []
        self._number, self._next = -1, self._run
        self._buffers = buffers_of(self._weights)
        self._checked_buffers = False
        self._observe()
        try:
            self._file = os.open(path, os.O_RDWR)
            os.ftruncate(self._file, log.size)
            self._size = os.lseek(self._file, 0, os.SEEK_END)
        except OSError as error:
            raise SeedLogError(f"cannot write {path}: {error.strerror or error}") from error
        self._hook = optimizer.register_step_post_hook(self._after_step)
        optimizer.on_move = self._on_move

    def sync(self) -> None:
        """Wait until all steps are on the disk."""
        os.fsync(self._file)

    def close(self) -> None:
        """Write the fingerprint of the weights as the end of the log, and stop recording."""
        if self._file < 0:
            return
        self._same_buffers()
        self._append(End(fingerprint(self._weights)))
        self.sync()
        self.detach()

    def detach(self) -> None:
        """Stop recording without an end; :func:`resume` can go on later."""
        if self._file >= 0:
            self._hook.remove()
            self._optimizer.on_move = None
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        """Return the recorder."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Close the log; after an exception only stop recording."""
        if kind is None:
            self.close()
        else:
            self.detach()

    # Hooks ---------------------------------------------------------------------------------

    def _on_move(self, direction: Direction | None, factors: list[float]) -> None:
        """Keep a move until its step is complete."""
        optimizer = self._optimizer
        if direction is None:
            self._pending.append(Move(DECAY, tuple(factors)))
            return
        if not isinstance(direction, Seeded):
            for weight, term in self._terms(direction):
                self._on_move(term, [factor * weight for factor in factors])
            return
        kind = type(optimizer).__name__
        run = Run(kind, _version(), direction.seed, direction.law)
        if self._number >= 0 and (self._number, self._next) != (direction.step, run):
            _complain(optimizer, "moves along directions of several seeds or steps in one step")
        self._number, self._next = direction.step, run
        self._pending.append(Move(direction.index, tuple(map(float, factors))))

    def _terms(self, direction: Direction) -> Sequence[tuple[float, Direction]]:
        """The terms of a sum, which is applied one after the other."""
        terms = getattr(direction, "terms", None)
        if terms is None:
            kind = type(direction).__name__
            _complain(self._optimizer, f"moves along a {kind} direction, not along a seeded one")
        return terms

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """Write the step, unless it was skipped."""
        if optimizer.steps == self._steps:
            return
        if self._number < 0:
            self._number, self._next = (
                optimizer.steps + optimizer.skips - 1,
                self._next or Run(type(optimizer).__name__, _version(), optimizer.seed, "normal"),
            )
        values = optimizer.calls.values - self._values
        step = Step(self._number, values, tuple(self._pending))
        self._check(step)
        if self._next != self._run:
            assert self._next is not None
            self._append(self._next, step)
            self._run = self._next
        else:
            self._append(step)
        self._steps, self._values = optimizer.steps, optimizer.calls.values
        self._pending, self._number = [], -1

    def _append(self, *records: Record | End) -> None:
        content = b"".join(map(self._encoder.record, records))
        try:
            written = os.write(self._file, content)
        except OSError as error:
            os.ftruncate(self._file, self._size)
            raise SeedLogError(f"cannot write {self.path}: {error.strerror or error}") from error
        if written < len(content):
            os.ftruncate(self._file, self._size)
            raise SeedLogError(f"cannot write {self.path}: the disk is full")
        self._size += written

    # Checks --------------------------------------------------------------------------------

    def _observe(self) -> None:
        """Copy a small vector and a small matrix, to be moved as the log says."""
        known = parameters_of(self._weights)
        trained = [name for names in self._header.groups for name in names]
        vectors = [name for name in trained if known[name].ndim <= 1]
        matrices = [name for name in trained if known[name].ndim > 1]
        self._seen = {
            name: known[name].detach().clone()
            for names in (vectors, matrices)
            for name in sorted(names, key=lambda n: known[n].numel())[:1]
        }
        self._player = Player(self._header, self._seen, self._optimizer.engine)

    def _check(self, step: Step) -> None:
        assert self._next is not None
        self._player.play([self._next, step])
        now = parameters_of(self._weights)
        for name, seen in self._seen.items():
            if not _same_bits(seen, now[name]):
                _complain(
                    self._optimizer,
                    f"or something else has changed {name} by more than moves along seeded "
                    "directions",
                )
        if not self._checked_buffers:
            self._same_buffers()
            self._checked_buffers = True

    def _same_buffers(self) -> None:
        if buffers_of(self._weights) != self._buffers:
            raise SeedLogError(
                "the closure changes buffers of the model (batch normalization?), which a seed log "
                "cannot repeat; put these modules into evaluation mode with .eval()"
            )


def _trained(optimizer: Optimizer) -> tuple[tuple[str, ...], ...]:
    """Names of the trainable parameters by group."""
    return tuple(
        tuple(n for n, p in zip(g["param_names"], g["params"], strict=True) if p.requires_grad)
        for g in optimizer.param_groups
    )


def _same_bits(a: Any, b: Any) -> bool:
    return fingerprint({"": a}) == fingerprint({"": b})


def _version() -> str:
    """The version of the library, whose package lies above this one."""
    return importlib.import_module("anyorder").__version__


def _refuse(optimizer: Optimizer) -> None:
    """Refuse methods whose steps are known to be something else."""
    if optimizer.rules or optimizer.needs != frozenset({"value"}):
        ruled = " and moves by a rule" * bool(optimizer.rules)
        _complain(optimizer, f"needs {', '.join(sorted(optimizer.needs))}{ruled}")
    if optimizer.after is not None:
        _complain(optimizer, "has `after`, which changes weights outside of its moves")
    if optimizer.on_move is not None:
        _complain(optimizer, "is recorded already; close that log first")


def _complain(optimizer: Optimizer, what: str) -> NoReturn:
    raise SeedLogError(
        f"a seed log holds moves along seeded directions, such as those of MeZO, and nothing else; "
        f"{type(optimizer).__name__} {what}"
    )
