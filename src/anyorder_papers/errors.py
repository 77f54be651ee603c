"""Base class of errors of the catalogue."""

from __future__ import annotations

from anyorder.errors import AnyOrderError


class PapersError(AnyOrderError, ValueError):
    """An invalid catalogue, listing, feed or request; the message gives the reason."""
