"""What goes wrong with the catalogue."""

from __future__ import annotations

from anyorder.errors import AnyOrderError


class PapersError(AnyOrderError, ValueError):
    """A catalogue, listing, feed or request that cannot be used; the message says why."""
