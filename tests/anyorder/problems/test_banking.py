"""The problem ``banking`` on its published data."""

from __future__ import annotations

from published import Published

from anyorder.problems.banking import Banking


class TestBanking(Published):
    kind = Banking
    rows = (9003, 1000, 3080)
    width = 1024
    parameters = 141133
    reaches = 0.5
    folder = "banking77"
