"""Counts of evaluations, and limits on them."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from numbers import Integral, Real
from typing import Any, cast

from anyorder.errors import AnyOrderError
from anyorder.oracle.kinds import COUNTS, NOMINAL_RATES


class BudgetError(AnyOrderError, ValueError):
    """An invalid budget."""


class BudgetExhausted(AnyOrderError, RuntimeError):  # noqa: N818 - it ends a run, it is no fault
    """The next evaluation would exceed the budget. Raised before the evaluation."""


@dataclass(slots=True)
class Calls:
    """The ledger: counts of all answers.

    Attributes:
        values: losses without a graph.
        grads: losses with their gradients.
        products: curvature-vector products.
        jvps: losses with their derivative along a direction.
        rankings: rankings.
        ranked: ranked points, over all rankings.
        output_grads: gradients of the loss in the model's outputs, if the closure is a
            ``Composite``. Each is part of a gradient or product that is counted too. They cost
            nothing extra unless ``rates`` says so (for a simulator or a person).
        seconds: wall-clock seconds in the closure and its derivatives.
        peak_bytes: peak memory during an evaluation (CUDA only; 0 elsewhere).
        bytes_sent: bytes sent to other processes.
        skipped: steps skipped because a loss or a gradient was not finite.
    """

    values: int = 0
    grads: int = 0
    products: int = 0
    jvps: int = 0
    rankings: int = 0
    ranked: int = 0
    output_grads: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    bytes_sent: int = 0
    skipped: int = 0

    def forwards(self, rates: Mapping[str, float] | None = None) -> float:
        """Return the cost of all answers in forward passes, at ``rates`` (default: nominal)."""
        return self._priced(NOMINAL_RATES if rates is None else _checked_rates(rates))

    def _priced(self, rates: Mapping[str, float]) -> float:
        return sum(getattr(self, name) * rate for name, rate in rates.items())

    def to_dict(self) -> dict[str, float]:
        """Return all counts by name."""
        return asdict(self)

    def update(self, saved: Mapping[str, Any]) -> None:
        """Load saved counts; all are checked before any is used.

        Raises:
            BudgetError: unknown names, or values that are not counts.
        """
        unknown = set(saved) - {f.name for f in fields(self)}
        if unknown:
            raise BudgetError(f"a ledger has no {sorted(unknown)}; it was saved by another version")
        for name, count in saved.items():
            whole = name != "seconds"
            if not (_is_number(count) and count >= 0 and (not whole or _is_whole(count))):
                kind = "a whole number" if whole else "a number"
                raise BudgetError(f"{name}: expected {kind} >= 0 in a ledger, got {count!r}")
        for name, count in saved.items():
            setattr(self, name, count)


_UNITS = {name: name for name in (*COUNTS, "forwards", "steps", "seconds")} | {
    "s": "seconds",
    "sec": "seconds",
}
#: Units that are not counts.
_MEASURED = frozenset({"forwards", "seconds"})
_SCALED = {"ms": 1e-3, "m": 60.0, "min": 60.0, "h": 3600.0}


@dataclass(slots=True)
class Budget:
    """Upper limits. ``None`` means no limit in that unit.

    ``seconds`` is wall-clock time since :meth:`start` (by default the first evaluation).
    ``forwards`` is the cost of all answers in forward passes, at ``rates``. ``steps`` counts calls
    of ``step``. All others count answers of one kind.
    """

    values: int | None = None
    grads: int | None = None
    products: int | None = None
    jvps: int | None = None
    rankings: int | None = None
    ranked: int | None = None
    output_grads: int | None = None
    forwards: float | None = None
    steps: int | None = None
    seconds: float | None = None
    rates: dict[str, float] = field(default_factory=lambda: dict(NOMINAL_RATES))
    _began: float | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check limits and rates."""
        for name, limit in self.limits().items():
            if not (_is_number(limit) and limit > 0):
                raise BudgetError(f"expected {name} > 0 in a budget, got {limit!r}")
            if name not in _MEASURED and not _is_whole(limit):
                raise BudgetError(f"expected a whole number of {name} in a budget, got {limit!r}")
            setattr(self, name, float(limit) if name in _MEASURED else int(limit))
        self.rates = dict(_checked_rates(self.rates))

    def limits(self) -> dict[str, float]:
        """Return the limits by unit."""
        found = {name: getattr(self, name) for name in (*COUNTS, "forwards", "steps", "seconds")}
        return {name: limit for name, limit in found.items() if limit is not None}

    @classmethod
    def of(cls, value: Budget | str | None) -> Budget | None:
        """Convert a budget, its text (see :meth:`parse`) or ``None``.

        Raises:
            BudgetError: anything else, or an invalid text.
        """
        if isinstance(value, str):
            return cls.parse(value)
        if value is None or isinstance(value, Budget):  # pyright: ignore[reportUnnecessaryIsInstance]
            return value
        raise BudgetError(
            f"expected a budget such as '500grads' or Budget(grads=500), got {value!r}; add a unit"
        )

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Parse ``"60s"``, ``"5min"``, ``"500grads"``, ``"10_000forwards"``, ``"200steps"``.

        Separate several limits by commas: ``"60s,500grads"``.
        """
        limits: dict[str, float] = {}
        for part in text.split(","):
            match = re.fullmatch(
                r"\s*([0-9][0-9_]*(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)\s*([a-z_]+)\s*", part
            )
            unit = match.group(2) if match else ""
            if match is None or (unit not in _UNITS and unit not in _SCALED):
                raise BudgetError(
                    f"cannot read the budget {part.strip()!r}; write a number and a unit, such as "
                    "60s, 5min, 500grads, 2000values, 10_000forwards or 200steps"
                )
            amount = float(match.group(1).replace("_", "")) * _SCALED.get(unit, 1.0)
            name = _UNITS.get(unit, "seconds")
            if name in limits:
                raise BudgetError(f"the budget {text!r} limits {name} twice; keep one")
            if name not in _MEASURED and not amount.is_integer():
                raise BudgetError(f"expected a whole number of {name}, got {part.strip()!r}")
            limits[name] = amount if name in _MEASURED else int(amount)
        return cls(**limits)  # type: ignore[arg-type]

    def start(self) -> None:
        """Start the clock if it is not running."""
        if self._began is None:
            self._began = time.perf_counter()

    def spent_seconds(self) -> float:
        """Return wall-clock seconds since :meth:`start`; 0 before."""
        return 0.0 if self._began is None else time.perf_counter() - self._began

    def check(self, calls: Calls, asked: dict[str, int]) -> None:
        """Raise :class:`BudgetExhausted` if ``asked`` in addition to ``calls`` is too much."""
        self.start()
        for name in COUNTS:
            limit = getattr(self, name)
            if limit is not None and asked.get(name, 0):
                self._compare(name, getattr(calls, name) + asked[name], limit)
        if self.forwards is not None:
            extra = sum(self.rates.get(name, 0.0) * count for name, count in asked.items())
            spent = calls._priced(self.rates)  # pyright: ignore[reportPrivateUsage]
            self._compare("forwards", spent + extra, self.forwards)
        if self.seconds is not None:
            self._compare("seconds", self.spent_seconds(), self.seconds)

    def check_step(self, steps: int) -> None:
        """Raise :class:`BudgetExhausted` if no step is left after ``steps`` steps."""
        if self.steps is not None:
            self._compare("steps", steps + 1, self.steps)

    @staticmethod
    def _compare(name: str, needed: float, limit: float) -> None:
        if needed > limit:
            raise BudgetExhausted(
                f"budget of {_plain(limit)} {name} is used up ({_plain(needed)} needed)"
            )

    def __str__(self) -> str:
        """Return text for :meth:`parse`."""
        short = {"seconds": "s"}
        return ",".join(f"{limit!r}{short.get(n, n)}" for n, limit in self.limits().items())


def _is_number(value: Any) -> bool:
    """Whether a value is a real number other than NaN, and not a bool."""
    return type(value) is not bool and isinstance(value, Real) and not math.isnan(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral)


def _checked_rates(rates: Any) -> Mapping[str, float]:
    """Return rates by kind of answer, or raise :class:`BudgetError`."""
    if not isinstance(rates, Mapping):
        raise BudgetError(f"rates: expected prices by kind of answer, got {rates!r}")
    found = cast("Mapping[str, float]", rates)
    if unknown := [name for name in found if name not in COUNTS]:
        raise BudgetError(f"rates: expected prices of {', '.join(COUNTS)}; got {unknown}")
    for name, price in found.items():
        if not (_is_number(price) and 0 <= price < math.inf):
            raise BudgetError(f"rates: expected a price >= 0 for {name}, got {price!r}")
    return found


def _plain(number: float) -> str:
    """Format a count in full, seconds to two digits."""
    return f"{number:.2f}".rstrip("0").rstrip(".")
