"""Hyper-parameters, declared once for constructors, checks, command line, docs and tuning.

Example:
    >>> from anyorder.hyper import Hyper, hyper
    >>> lr = hyper(1e-3, gt=0, search="log", low=1e-5, high=1e-1, doc="step size")
    >>> lr.check("lr", -1)
    Traceback (most recent call last):
        ...
    anyorder.hyper.HyperError: lr: expected a value > 0, got -1
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

from anyorder.errors import AnyOrderError

Search = Literal["log", "linear", "choice"]


class HyperError(AnyOrderError, ValueError):
    """A hyper-parameter outside its range."""


class UnknownOptionError(AnyOrderError, TypeError):
    """A keyword that does not exist."""


@dataclass(frozen=True, slots=True)
class Hyper:
    """One hyper-parameter: default, bounds, search space and documentation."""

    default: Any
    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    choices: tuple[Any, ...] | None = None
    search: Search | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    doc: str = ""

    def check(self, name: str, value: Any) -> None:
        """Raise :class:`HyperError` unless ``value`` is allowed."""
        if self.choices is not None:
            if not any(_is_choice(value, choice) for choice in self.choices):
                raise HyperError(f"{name}: expected one of {list(self.choices)}, got {value!r}")
            return
        if isinstance(self.default, bool):
            if not isinstance(value, bool):
                raise HyperError(f"{name}: expected True or False, got {value!r}")
            return
        if isinstance(self.default, tuple):
            length = len(self.default)  # pyright: ignore[reportUnknownArgumentType]
            if not isinstance(value, Sequence) or len(value) != length:  # pyright: ignore[reportUnknownArgumentType]
                raise HyperError(f"{name}: expected {length} numbers, got {value!r}")
            for i, part in enumerate(value):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
                self._check_number(f"{name}[{i}]", part)
            return
        if value is None and self.default is None:
            return
        self._check_number(name, value)

    def _check_number(self, name: str, value: Any) -> None:
        kind = "a whole number" if self._whole else "a number"
        try:
            number = float(operator.index(value)) if self._whole else float(value)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise HyperError(f"{name}: expected {kind}, got {value!r}") from None
        flag = isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")
        if flag or isinstance(value, (str, bytes)) or math.isnan(number):
            raise HyperError(f"{name}: expected {kind}, got {value!r}")
        if math.isinf(number) and self.default != number:
            raise HyperError(f"{name}: expected a finite number, got {value!r}")
        bounds = (
            (self.gt, ">", number.__gt__),
            (self.ge, ">=", number.__ge__),
            (self.lt, "<", number.__lt__),
            (self.le, "<=", number.__le__),
        )
        for bound, sign, holds in bounds:
            if bound is not None and not holds(float(bound)):
                raise HyperError(f"{name}: expected a value {sign} {bound:g}, got {value!r}")

    @property
    def _whole(self) -> bool:
        return isinstance(self.default, int) and not isinstance(self.default, bool)

    def range(self) -> str:
        """The allowed values as text, such as ``> 0`` or ``>= 0, < 1``."""
        if self.choices is not None:
            return " | ".join(str(choice) for choice in self.choices)
        low = f"> {self.gt:g}" if self.gt is not None else ""
        low = f">= {self.ge:g}" if self.ge is not None else low
        high = f"< {self.lt:g}" if self.lt is not None else ""
        high = f"<= {self.le:g}" if self.le is not None else high
        return ", ".join(part for part in (low, high) if part)

    def parse(self, name: str, text: str) -> Any:
        """Read a value from the command line and check it."""
        value: Any = text
        if self.choices is not None:
            value = next((c for c in self.choices if str(c) == text), text)
        elif isinstance(self.default, bool):
            value = {"true": True, "false": False}.get(text.lower(), text)
        elif isinstance(self.default, tuple):
            value = tuple(_number(part) for part in text.strip("()[]").split(","))
        elif self.default is None and text.lower() == "none":
            value = None
        else:
            value = _number(text)
            if self._whole and isinstance(value, float) and value.is_integer():
                value = int(value)
        self.check(name, value)
        return value


def _is_choice(value: Any, choice: Any) -> bool:
    """Whether both are equal and of the same type: True is not 1, 256.0 is not 256."""
    kind = Integral if isinstance(choice, int) else type(choice)
    if isinstance(value, bool) != isinstance(choice, bool) or not isinstance(value, kind):
        return False
    return bool(value == choice)


def _number(text: str) -> Any:
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() and "." not in text and "e" not in text else number


def hyper(
    default: Any,
    *,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    choices: Sequence[Any] | None = None,
    search: Search | None = None,
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
    doc: str = "",
) -> Any:
    """Declare a hyper-parameter of a method.

    Args:
        default: the value used if none is passed; its type is the parameter's type.
        gt: lower bound, excluded.
        ge: lower bound, included.
        lt: upper bound, excluded.
        le: upper bound, included.
        choices: the only values allowed.
        search: how tuning samples it; ``None`` keeps the default.
        low: lower end of the search range.
        high: upper end of the search range.
        unit: physical meaning of one unit, e.g. ``"parameter / gradient"``.
        doc: one line of documentation.
    """
    chosen = None if choices is None else tuple(choices)
    if search in ("log", "linear") and (low is None or high is None or not low < high):
        raise HyperError(f"search={search!r} needs low and high with low < high")
    if search == "log" and low is not None and low <= 0:
        raise HyperError(f"search='log' needs low > 0, got {low!r}")
    if search == "choice" and chosen is None and not isinstance(default, bool):
        raise HyperError("search='choice' needs choices")
    declared = Hyper(default, gt, ge, lt, le, chosen, search, low, high, unit, doc)
    declared.check("default", default)
    return declared


def refuse_unknown(given: Iterable[str], known: Iterable[str], owner: str) -> None:
    """Raise :class:`UnknownOptionError` if a name in ``given`` is not in ``known``."""
    names = sorted(known)
    for name in given:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise UnknownOptionError(
                f"{owner} has no option {name!r}.{hint} Known options: {', '.join(names)}."
            )
