"""Formatting of numbers for reports."""

from __future__ import annotations

import math
import re

from anyorder.compare.plan.limits import size_of

MISSING = "—"


def show(value: float | None, digits: int = 4) -> str:
    """A number with ``digits`` significant digits; a dash for None.

    Example:
        >>> show(0.123456), show(1234567), show(3.0), show(2.5e-7), show(float("inf")), show(None)
        ('0.1235', '1,234,567', '3', '2.5e-7', '∞', '—')
    """
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    if 10**digits <= abs(value) < 1e9:
        return f"{value:,.0f}"
    mantissa, sign, exponent = f"{value:.{digits}g}".partition("e")
    return mantissa + (f"e{int(exponent)}" if sign else "")


def show_interval(low: float | None, high: float | None) -> str:
    """Both ends in brackets; empty if there is no interval."""
    return "" if low is None or high is None else f"[{show(low)}, {show(high)}]"


def show_bytes(count: float | None) -> str:
    """A number of bytes in binary units.

    Example:
        >>> show_bytes(512), show_bytes(3 * 2**20), show_bytes(None)
        ('512 B', '3.0 MiB', '—')
    """
    return MISSING if count is None or not math.isfinite(count) else size_of(count)


def show_seconds(seconds: float | None) -> str:
    """A duration.

    Example:
        >>> show_seconds(0.0123), show_seconds(4.567), show_seconds(80), show_seconds(7500)
        ('12.3 ms', '4.57 s', '1 min 20 s', '2 h 5 min')
    """
    if seconds is None or math.isnan(seconds):
        return MISSING
    if math.isinf(seconds):
        return "∞"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def show_budget(budget: str) -> str:
    """A budget with a space before each unit.

    Example:
        >>> show_budget("10_000forwards,60s")
        '10_000 forwards, 60 s'
    """
    return re.sub(r"(?<=\d)(?=[a-z])", " ", ", ".join(part.strip() for part in budget.split(",")))


def plural(count: int, noun: str) -> str:
    """A count and its noun.

    Example:
        >>> plural(1, "seed"), plural(3, "seed")
        ('1 seed', '3 seeds')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listing(words: list[str]) -> str:
    """Words joined as in a sentence.

    Example:
        >>> listing(["a", "b", "c"])
        'a, b and c'
    """
    return " and ".join(([", ".join(words[:-1])] if len(words) > 1 else []) + words[-1:])
