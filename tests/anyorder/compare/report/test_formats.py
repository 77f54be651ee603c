from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyorder.compare.report.formats import (
    listing,
    plural,
    show,
    show_bytes,
    show_interval,
    show_seconds,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-3.0, "-3"),
        (0.98, "0.98"),
        (12345.678, "12,346"),
        (1e30, "1e30"),
        (-1.5e-9, "-1.5e-9"),
        (math.nan, "—"),
        (None, "—"),
        (-math.inf, "-∞"),
    ],
)
def test_show(value: float | None, text: str) -> None:
    assert show(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12))
def test_what_is_shown_is_the_number_to_four_digits(value: float) -> None:
    assert float(show(value).replace(",", "")) == pytest.approx(value, rel=5.1e-4)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5e13, "46566.1 GiB"), (math.nan, "—")],
)
def test_show_bytes(count: float, text: str) -> None:
    assert show_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "—"), (math.nan, "—"), (math.inf, "∞"), (59.99, "60 s"), (3600, "1 h 0 min")],
)
def test_show_seconds(seconds: float | None, text: str) -> None:
    assert show_seconds(seconds) == text


def test_words() -> None:
    assert show_interval(0.1, math.inf) == "[0.1, ∞]"
    assert show_interval(None, None) == ""
    assert plural(1200, "run") == "1,200 runs"
    assert (listing([]), listing(["a"]), listing(["a", "b"])) == ("", "a", "a and b")
