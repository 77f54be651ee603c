from __future__ import annotations

import math

import pytest

from anyorder_studies.tang2023zoranksgd.cosines import mean_cosines


def test_more_that_is_told_is_a_better_direction() -> None:
    found = mean_cosines(30, 20, 0)
    assert 0 < found["ranks_15_1"] < found["ranks_15_3"] < found["ranks_15_15"]
    assert found["ranks_15_15"] < found["ranks_50_50"] < found["values_50"] < 1
    # m values in d dimensions: m - 1 random directions hold this share of a gradient's length.
    assert found["values_15"] == pytest.approx(math.sqrt(14 / (30 + 14)), abs=0.06)
    assert mean_cosines(30, 2, 1) == mean_cosines(30, 2, 1)
