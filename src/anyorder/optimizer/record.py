"""The record of a checkpoint: what belongs to the whole run and not to one parameter.

Which method it was, its steps, seed and ledger, and the numbers of the method's own.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from torch import Tensor

from anyorder.engine import Engine
from anyorder.errors import AnyOrderError
from anyorder.optimizer.answer import Answer
from anyorder.optimizer.entry import STEP
from anyorder.optimizer.options import RECORD
from anyorder.oracle.ledger import BudgetError, Calls

#: Raised when the meaning of a saved state changes.
FORMAT = 2
#: Stands among what is not finite for the numbers of a method's own.
_EXTRA = "record"


class CheckpointError(AnyOrderError, ValueError):
    """A saved state that does not fit. Raised before anything is changed."""


class Owner(Protocol):
    """What is needed of an optimizer."""

    needs: ClassVar[frozenset[str]]
    steps: int
    skips: int
    seed: int
    calls: Calls
    engine: Engine
    _answer: Answer

    def extra_state(self) -> dict[str, Any]:
        """The numbers of its own."""
        ...

    def load_extra_state(self, extra: Mapping[str, Any]) -> None:
        """Take over what :meth:`extra_state` gave."""
        ...


# Saving -------------------------------------------------------------------------------------------


def record_of(optimizer: Owner, nonfinite: Sequence[str]) -> dict[str, Any]:
    """What a checkpoint says beside state and settings.

    Args:
        optimizer: the optimizer.
        nonfinite: the tensors of its state that hold NaN or Inf by right.
    """
    extra = optimizer.extra_state()
    return {
        "format": FORMAT,
        "method": type(optimizer).__name__,
        "steps": optimizer.steps,
        "skips": optimizer.skips,
        "seed": optimizer.seed,
        "calls": optimizer.calls.to_dict(),
        "work": dict(optimizer.engine.work),
        "answer": optimizer._answer.shown,  # pyright: ignore[reportPrivateUsage]
        "nonfinite": [*nonfinite, *([_EXTRA] if _holds_nonfinite(extra) else [])],
        **extra,
    }


def without_clocks(record: dict[str, Any]) -> dict[str, Any]:
    """The record as groups carry it: equal runs have equal groups."""
    found = copy.deepcopy(record)
    for name in ("seconds", "peak_bytes"):
        found["calls"].pop(name, None)
    return found


def _holds_nonfinite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_nonfinite, value.values()))  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, (list, tuple)):
        return any(map(_holds_nonfinite, value))  # pyright: ignore[reportUnknownArgumentType]
    return isinstance(value, float) and not math.isfinite(value)


# Loading ------------------------------------------------------------------------------------------


def checked_record(optimizer: Owner, state_dict: Any) -> dict[str, Any]:
    """Our own record, or what can stand for it."""
    parts = ("state", "param_groups")
    if (
        not isinstance(state_dict, Mapping)
        or not isinstance(state_dict.get("state"), Mapping)  # pyright: ignore
        or not isinstance(state_dict.get("param_groups"), Sequence)  # pyright: ignore
    ):
        raise CheckpointError(
            f"expected the state_dict() of an optimizer, with {' and '.join(parts)}; this is not "
            "one"
        )
    groups: Any = state_dict["param_groups"]  # pyright: ignore
    if not all(isinstance(group, Mapping) for group in groups):
        raise CheckpointError("expected every parameter group of the checkpoint to be a dict")
    found: Any = state_dict.get(RECORD)  # pyright: ignore
    for group in groups:
        found = found if found is not None else group.get(RECORD) or None
    if found is None and all("param_names" in group for group in groups):
        return _substitute(optimizer, state_dict)
    if not isinstance(found, Mapping):
        raise CheckpointError(
            "expected a state_dict() saved by this package; this one was saved by another library "
            "(its state means other things, so nothing was loaded)"
        )
    record: dict[str, Any] = dict(found)  # pyright: ignore
    if not (isinstance(record.get("format"), int) and record["format"] == FORMAT):
        raise CheckpointError(
            f"expected checkpoint format {FORMAT}, got {record.get('format')!r}; see the changelog"
        )
    mine = type(optimizer).__name__
    if not (isinstance(record.get("method"), str) and record["method"] == mine):
        raise CheckpointError(f"expected the state of {mine}, got that of {record.get('method')}")
    if not isinstance(record.get("answer", False), bool):
        raise CheckpointError(f"answer: expected True or False, got {record['answer']!r}")
    record["steps"] = _whole(record, "steps", least=0)
    record["skips"] = _whole(record, "skips", least=0)
    record["seed"] = _whole(record, "seed")
    excused: Any = record.setdefault("nonfinite", [])
    if not isinstance(excused, (list, tuple)) or not all(isinstance(n, str) for n in excused):  # pyright: ignore
        raise CheckpointError(f"nonfinite: expected names of tensors, got {excused!r}")
    _check_calls(record.get("calls"))
    work: Any = record.get("work", {})
    if not isinstance(work, Mapping) or not all(isinstance(n, int) for n in work.values()):  # pyright: ignore
        raise CheckpointError(f"work: expected counts by rule, got {work!r}")
    return record


def _substitute(optimizer: Owner, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """A record for a checkpoint of which only state and settings were kept."""
    if optimizer.needs != frozenset({"grad"}) or optimizer.extra_state():
        raise CheckpointError(
            f"the checkpoint lacks the record of {type(optimizer).__name__} (seed, counts, numbers "
            "of its own), which a flattened or stripped state dict loses; save the state_dict() as "
            "it is"
        )
    counts = [entry.get(STEP, 0) for entry in state_dict["state"].values()]
    steps = max((int(c) for c in counts if isinstance(c, (int, float, Tensor))), default=0)
    return {"steps": steps, "skips": 0, "seed": optimizer.seed, "calls": optimizer.calls.to_dict()}


def load_record(
    optimizer: Owner, record: Mapping[str, Any], settings: Sequence[Mapping[str, Any]]
) -> None:
    """Take over the record, or leave all of it as it was."""
    # What it had was sound, infinite numbers too.
    before = {"nonfinite": [_EXTRA], **copy.deepcopy(optimizer.extra_state())}
    try:
        first = dict(settings[0]) if settings else {}
        optimizer.load_extra_state(copy.deepcopy({**record, "settings": first}))
    except Exception as error:
        optimizer.load_extra_state(before)
        raise CheckpointError(
            f"the record of {type(optimizer).__name__} cannot be read "
            f"({type(error).__name__}: {error}); the file is damaged"
        ) from error
    optimizer.calls.update(dict(record["calls"]))
    optimizer.steps, optimizer.skips = record["steps"], record["skips"]
    optimizer.seed = record["seed"]
    optimizer.engine.work = dict(record.get("work", optimizer.engine.work))


def _whole(record: Mapping[str, Any], name: str, least: int | None = None) -> int:
    value = record.get(name)
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise CheckpointError(f"{name}: expected a whole number, got {value!r}") from None
    if least is not None and not least <= number < 2**63:
        raise CheckpointError(f"{name}: expected a count from {least} on, got {number}")
    return number


def _check_calls(calls: Any) -> None:
    if not isinstance(calls, Mapping):
        raise CheckpointError(f"calls: expected counts by kind, got {calls!r}")
    for name, count in calls.items():  # pyright: ignore
        number = isinstance(count, (int, float)) and not isinstance(count, bool)
        whole = number and (name == "seconds" or isinstance(count, int))
        if not whole or not 0 <= count < 2**63:  # nor NaN
            raise CheckpointError(f"calls: expected a count >= 0 of {name}, got {count!r}")
    try:
        Calls().update(dict(calls))  # pyright: ignore
    except BudgetError as error:
        raise CheckpointError(f"calls: {error}") from error


# For methods --------------------------------------------------------------------------------------


def number(
    extra: Mapping[str, Any],
    value: Any,
    what: str,
    *,
    least: float | None = None,
    most: float | None = None,
    whole: bool = False,
) -> Any:
    """``value``, which has to be a number, for methods that read their own record.

    Args:
        extra: the record; it says whether numbers in it may be NaN or infinite.
        value: the number.
        what: its name, for the message.
        least: lower bound.
        most: upper bound.
        whole: whether it has to be a whole number.

    Raises:
        CheckpointError: it is none, or outside the bounds.
    """
    fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if fits and not math.isfinite(value):
        fits = _EXTRA in extra.get("nonfinite", ())
    elif fits:
        fits = (least is None or value >= least) and (most is None or value <= most)
    if not fits:
        raise CheckpointError(f"{what}: expected a number, got {value!r}; the file is damaged")
    return value


def numbers(extra: Mapping[str, Any], values: Any, what: str, count: int | None) -> list[Any]:
    """``values``, which has to be a list of ``count`` numbers (any number of them for None)."""
    if not isinstance(values, (list, tuple)) or count not in (None, len(values)):  # pyright: ignore
        raise CheckpointError(f"{what}: expected {count or 'a list of'} numbers, got {values!r}")
    return [number(extra, value, what) for value in values]  # pyright: ignore
