"""The limits of one run in units that apply to every method, and prices."""

from __future__ import annotations

import re
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


def bytes_in(size: str) -> int:
    """Number of bytes in a size such as ``8GiB`` or ``500MB``.

    Raises:
        BudgetError: it is not a size.

    Example:
        >>> bytes_in("8GiB"), bytes_in("1.5 MB")
        (8589934592, 1500000)
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(i?)B?\s*", size, re.IGNORECASE)
    if match is None:
        raise BudgetError(f"expected a size such as 8GiB or 500MB, got {size!r}")
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** (" KMGT".index(match[2].upper() or " ")))


def size_of(count: float) -> str:
    """A number of bytes in binary units.

    Example:
        >>> size_of(512), size_of(3 * 2**20)
        ('512 B', '3.0 MiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"


def grid(evaluations: int) -> tuple[float, ...]:
    """Fractions of the budget at which a run is evaluated: 0, then denser at the beginning."""
    return tuple((i / evaluations) ** 1.5 for i in range(evaluations + 1))


def prices(measured: Mapping[str, float | None] | None = None) -> dict[str, float]:
    """The prices: nominal, replaced by measured ones where available."""
    known = {name: rate for name, rate in (measured or {}).items() if rate is not None}
    return {**NOMINAL_RATES, **known}
