"""What one run is held to: its budget in units that every method can be held to, and prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from anyorder.oracle.ledger import NOMINAL_RATES, Budget, BudgetError


@dataclass(frozen=True)
class Limits:
    """Limits of one run in units that every method can be held to."""

    forwards: float | None = None
    seconds: float | None = None
    steps: int | None = None

    @classmethod
    def read(cls, text: str, rates: Mapping[str, float]) -> Limits:
        """Read a budget; answers of one kind become their price in forward passes.

        ``500grads`` gives every method what 500 gradients cost: at 3 forwards each, 1500 values.

        Raises:
            BudgetError: unreadable, or counted in something that has no price.
        """
        limits = Budget.parse(text).limits()
        if "rankings" in limits:
            raise BudgetError(
                "a ranking has no price of its own, the points in it have; write the budget in "
                "ranked, values, grads, forwards, steps or seconds"
            )
        priced = [limits[kind] * rates[kind] for kind in rates if kind in limits]
        if "forwards" in limits:
            priced.append(limits["forwards"])
        steps = limits.get("steps")
        return cls(
            min(priced) if priced else None,
            limits.get("seconds"),
            None if steps is None else int(steps),
        )

    def spent(self, forwards: float, seconds: float, steps: int) -> float:
        """The share of the budget that is used up, by the limit that comes first."""
        shares = (
            (forwards, self.forwards),
            (seconds, self.seconds),
            (steps, self.steps),
        )
        return max(used / limit for used, limit in shares if limit is not None)

    def to_dict(self) -> dict[str, float]:
        """The limits that are set, by unit."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def seconds(text: str) -> float:
    """Seconds in a duration such as ``90s``, ``10m`` or ``2h``.

    Raises:
        BudgetError: it is not a duration.
    """
    limits = Budget.parse(text).limits()
    if limits.keys() != {"seconds"}:
        raise BudgetError(f"expected a duration such as 90s, 10m or 2h, got {text!r}")
    return limits["seconds"]


def grid(evaluations: int) -> tuple[float, ...]:
    """Shares of the budget at which a run is evaluated: 0, then more densely at the beginning."""
    return tuple((i / evaluations) ** 1.5 for i in range(evaluations + 1))


def prices(measured: Mapping[str, float | None] | None = None) -> dict[str, float]:
    """The price list: nominal, overridden by what was measured."""
    known = {name: rate for name, rate in (measured or {}).items() if rate is not None}
    return {**NOMINAL_RATES, **known}
