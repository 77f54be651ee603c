"""Comparisons of methods on a problem under equal conditions, with statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anyorder.compare.racing import race as race

__all__ = ["race"]


def __getattr__(name: str) -> Any:
    """Import late: only comparisons need the libraries of the extra."""
    if name == "race":
        from anyorder.compare.racing import race

        return race
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
