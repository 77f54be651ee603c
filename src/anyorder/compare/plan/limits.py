"""The budget of one run in units that apply to every method, and prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from anyorder.oracle.ledger import NOMINAL_RATES, Budget, BudgetError


@dataclass(frozen=True)
class Limits:
    """Limits of one run in units that apply to every method."""

    forwards: float | None = None
    seconds: float | None = None
    steps: int | None = None

    @classmethod
    def read(cls, text: str, rates: Mapping[str, float]) -> Limits:
        """Parse a budget; counts of answers are converted to forward passes.

        ``500grads`` gives every method the cost of 500 gradients: at 3 forwards each, 1500 values.

        Raises:
            BudgetError: the text is invalid, or its unit has no price.
        """
        limits = Budget.parse(text).limits()
        units = [*rates, "forwards", "steps", "seconds"]
        unpriced = [name for name in limits if name not in units]
        if unpriced:
            raise BudgetError(
                f"{unpriced[0]} have no fixed price, so methods cannot be compared by them; write "
                f"the budget in {', '.join(units[:-1])} or {units[-1]}"
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
        """The used fraction of the budget, for the limit that is reached first."""
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
    """Fractions of the budget at which a run is evaluated: 0, then denser at the beginning."""
    return tuple((i / evaluations) ** 1.5 for i in range(evaluations + 1))


def prices(measured: Mapping[str, float | None] | None = None) -> dict[str, float]:
    """The prices: nominal, replaced by measured ones where available."""
    known = {name: rate for name, rate in (measured or {}).items() if rate is not None}
    return {**NOMINAL_RATES, **known}
