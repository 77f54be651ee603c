"""The problem ``polarity`` on its published data."""

from __future__ import annotations

from published import Published

from anyorder.problems.polarity import Polarity


class TestPolarity(Published):
    kind = Polarity
    rows = (7662, 1000, 2000)
    width = 32
    parameters = 137410
    reaches = 0.58
    folder = "movie_sentences"
