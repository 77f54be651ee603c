"""Repeats a log on its base model; continues one from an earlier step; puts two together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from anyorder.engine import Engine, Mode
from anyorder.points.directions import Seeded
from anyorder.seed_log.fingerprint import Weights, fingerprint, parameters_of
from anyorder.seed_log.format import (
    DECAY,
    Header,
    Record,
    Run,
    SeedLog,
    SeedLogError,
    Step,
    read,
    write,
)


def replay(
    log: SeedLog | str | Path,
    model: Weights,
    *,
    until: int | None = None,
    unfinished: bool = False,
    engine: Mode = "auto",
) -> int:
    """Turn the base model into the trained one, bit for bit, in place.

    Args:
        log: a log or its file.
        model: the base model, or its weights by name.
        until: number of steps to repeat; default all.
        unfinished: accept a log without an end, of a run that is still going on or was killed.
        engine: ``auto``, ``eager`` or ``compiled``; the results are equal.

    Returns:
        The number of repeated steps.

    Raises:
        SeedLogError: the log is damaged or has no end, the model is not the one that the log
            starts from (nothing was changed), or the weights at the end are not those of the run.
    """
    found = log if isinstance(log, SeedLog) else read(log)
    count = len(found.steps)
    if until is None and found.digest is None and not unfinished:
        raise SeedLogError(
            f"the log has no end after {count} steps: the run goes on, was killed, or the file was "
            "cut. Write unfinished=True to replay these steps"
        )
    if until is not None and not 0 <= until <= count:
        raise SeedLogError(f"until: expected a number of steps from 0 to {count}, got {until!r}")
    last = count if until is None else until
    check_base(found.header, model)
    Player(found.header, model, Engine(engine)).play(_first(found.records, last))
    if last == count and found.digest is not None and fingerprint(model) != found.digest:
        raise SeedLogError(
            "the weights after the last step are not those of the run. The model was changed; load "
            "its base again. Other versions of the libraries may compute other directions"
        )
    return last


def branch(source: str | Path, step: int, target: str | Path) -> None:
    """Copy the first steps of a log to a new file, from which another run can go on.

    :func:`~anyorder.seed_log.resume` continues it, with other data, settings or another seed.

    Args:
        source: file of the log.
        step: number of steps to copy.
        target: the new file.

    Raises:
        SeedLogError: the log is damaged or has fewer steps, or the file cannot be written.
    """
    log = read(source)
    if not 0 <= step <= len(log.steps):
        raise SeedLogError(f"step: expected 0 to {len(log.steps)}, the steps there are; got {step}")
    write(Path(target), SeedLog(log.header, tuple(_first(log.records, step))))


def merge(first: str | Path, second: str | Path, target: str | Path, model: Weights) -> None:
    """Write a log that applies the steps of one log and then those of another.

    Steps that both begin with are applied once. Without weight decay the result is, up to rounding,
    the base plus both changes, ``base + (first - base) + (second - base)``, in either order. With
    weight decay the second run also decays what the first one learned.

    Args:
        first: a log.
        second: a log of the same base and the same parameter groups.
        target: the new file.
        model: the base model; it holds the merged weights afterwards.

    Raises:
        SeedLogError: a log is damaged, the bases or groups differ, the model is not the base, or
            the file cannot be written.
    """
    one, other = read(first), read(second)
    if one.header.base != other.header.base:
        raise SeedLogError("the logs start from different base weights and cannot be merged")
    if one.header != other.header:
        raise SeedLogError("the logs have different parameter groups and cannot be merged")
    if Path(target).exists():
        raise SeedLogError(f"{target} already exists; choose another file")
    records = (*one.records, *_rest(one.records, other.records))
    merged = SeedLog(one.header, records)
    replay(merged, model, unfinished=True)
    write(Path(target), SeedLog(one.header, records, fingerprint(model)))


def check_base(header: Header, model: Weights) -> None:
    """Refuse a model that a log does not start from.

    Raises:
        SeedLogError: parameters are missing, or a weight differs.
    """
    missing = {name for names in header.groups for name in names} - set(parameters_of(model))
    if missing:
        some = ", ".join(sorted(missing)[:3])
        raise SeedLogError(f"the log moves {len(missing)} parameters unknown to the model: {some}")
    if fingerprint(model) != header.base:
        raise SeedLogError(
            "the model is not the one that the log starts from: a weight, a name, a shape or a "
            "dtype differs. Load the base model, with the same seed for new layers"
        )


class Player:
    """Applies records to weights.

    Args:
        header: names the trained parameters.
        weights: the weights; those that are not there are left out.
        engine: runs the rules.
    """

    def __init__(self, header: Header, weights: Weights, engine: Engine) -> None:
        known = parameters_of(weights)
        self.groups = [{n: known[n] for n in names if n in known} for names in header.groups]
        self.engine, self.run = engine, None

    def play(self, records: Sequence[Record]) -> None:
        """Apply records in order, in place."""
        with torch.no_grad():
            for each in records:
                if isinstance(each, Run):
                    self.run = each
                else:
                    self._step(each)

    def _step(self, step: Step) -> None:
        assert self.run is not None, "a log begins with a run"
        for move in step.moves:
            for targets, scale in zip(self.groups, move.scales, strict=True):
                if move.index == DECAY:
                    shrink_(targets, scale)
                else:
                    z = Seeded(self.run.seed, step.number, move.index, self.run.law)
                    z.add_all_(targets, scale, self.engine)


def shrink_(targets: Mapping[str, Tensor], keep: float) -> None:
    """Multiply the matrices among the parameters by ``keep``, as ``Optimizer.shrink_`` does."""
    if keep != 1.0:
        for param in targets.values():
            if param.ndim > 1:
                param.mul_(keep)


def _first(records: Sequence[Record], steps: int) -> list[Record]:
    """The records up to the end of so many steps."""
    found: list[Record] = []
    for each in records:
        if isinstance(each, Step):
            if not steps:
                break
            steps -= 1
        found.append(each)
    return found


def _rest(one: Sequence[Record], other: Sequence[Record]) -> list[Record]:
    """The records of ``other`` after those that both begin with, with their run."""
    shared = 0
    while shared < min(len(one), len(other)) and one[shared] == other[shared]:
        shared += 1
    rest = other[shared:]
    if not rest or isinstance(rest[0], Run):
        return [*rest]
    return [*[each for each in other[:shared] if isinstance(each, Run)][-1:], *rest]
