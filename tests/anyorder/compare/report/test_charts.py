from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest

import anyorder.compare.report.charts as charts
from anyorder.compare.report.charts import dot, focus, known, marks, outside, short, wants_log

CSS = (Path(charts.__file__).parent / "templates" / "report.css").read_text(
    encoding="utf-8"
) + charts.palette()

#: What protanopes, deuteranopes and tritanopes see, on linear RGB (Machado et al., 2009).
VISIONS = {
    "all colours": np.eye(3),
    "no red": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "no green": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "no blue": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


def _colours(pattern: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Linear RGB of all matching ``light-dark(#aaaaaa, #bbbbbb)``, light and dark."""
    found = re.findall(pattern + r": light-dark\(#(\w{6}), #(\w{6})\)", CSS)
    pairs = [tuple(np.frombuffer(bytes.fromhex(c), np.uint8) / 255 for c in two) for two in found]
    return [
        tuple(np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) for c in two)
        for two in pairs
    ]  # type: ignore[misc]


def _contrast(a: np.ndarray, b: np.ndarray) -> float:
    light = sorted(float(c @ [0.2126, 0.7152, 0.0722]) + 0.05 for c in (a, b))
    return light[1] / light[0]


def _perceived(colour: np.ndarray) -> np.ndarray:
    """Oklab, in which distances are about as large as they look."""
    cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return lab @ np.cbrt(cones @ np.clip(colour, 0, 1))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_of_methods_stand_out_and_apart(scheme: int) -> None:
    (sheet,) = _colours(r"--sheet")
    colours = [pair[scheme] for pair in _colours(r"--c")]
    assert len(colours) == len(charts.PALETTE)
    assert min(_contrast(colour, sheet[scheme]) for colour in colours) >= 3
    for vision, seen in VISIONS.items():
        points = [_perceived(seen @ colour) for colour in colours]
        nearest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(points, 2))
        assert nearest > 0.09, vision


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["ink", "soft", "good", "bad", "warn", "accent"])
def test_text_is_readable(name: str, scheme: int) -> None:
    (text,) = _colours(rf"--{name}")
    for ground in ("ground", "sheet"):
        (behind,) = _colours(rf"--{ground}")
        assert _contrast(text[scheme], behind[scheme]) >= 4.5


def test_no_two_of_24_methods_look_alike() -> None:
    looks = [tuple(mark.values()) for mark in marks(24)]
    assert len(set(looks)) == 24
    assert marks(3) == marks(30)[:3]  # a method that is added changes no other


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 31.0], False),
        ([1.0, 32.0], True),
        ([0.0, 100.0], False),
        ([-1.0, 100.0], False),
        ([1.0, math.inf, 2.0], False),
        ([math.nan, 1.0, 1e9], True),
        ([], False),
    ],
)
def test_logarithms_from_a_decade_and_a_half(values: list[float], expected: bool) -> None:
    assert wants_log(values) is expected


def test_numbers_fit_for_json() -> None:
    assert [known(v) for v in (1.5, math.inf, math.nan)] == [1.5, None, None]
    assert short(np.array([1 / 3, -np.inf])) == [0.3333333, None]
    assert dot(1.0, None, "x") == {"x": 1.0, "y": None, "text": "x", "kind": "seed"}


TEN = [0.20, 0.21, 0.22, 0.23, 0.24, 0.25, 0.26, 0.27, 0.28]


def test_the_focus_ends_at_the_worst_value_within_the_fence() -> None:
    assert focus(TEN, [*TEN, 900.0], "min", log=False) == [0.2, 0.28]
    assert focus([-v for v in TEN], [-v for v in [*TEN, 900.0]], "max", log=False) == [-0.28, -0.2]
    low, high = focus(TEN, [*TEN, 0.0, 900.0], "min", log=True) or (0, 0)
    assert (low, high) == (pytest.approx(0.2), pytest.approx(0.28))


def test_the_best_value_is_never_cut() -> None:
    assert focus(TEN, [-50.0, *TEN, 900.0], "min", log=False) == [-50.0, 0.28]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (TEN, "no outlier"),
        ([*TEN, 0.31], "little would be gained"),
        ([0.5] * 9 + [900.0], "no difference to enlarge"),
        ([], "nothing"),
        ([math.inf, math.nan], "nothing finite"),
    ],
)
def test_no_focus(values: list[float], why: str) -> None:
    assert focus(values, values, "min", log=False) is None, why


def test_the_focus_does_not_enlarge_noise() -> None:
    nearly = [0.5 + 1e-9 * i for i in range(9)]
    assert focus(nearly, [*nearly, 0.55, 0.6, 900.0], "min", log=False, floor=0.1) == [0.5, 0.6]


def test_outside_says_where() -> None:
    assert outside(None, "min", "x") == ""
    assert outside([0.2, 0.3], "min", "x").startswith("Values above 0.3 are outside the chart; x.")
    assert outside([0.2, 0.3], "max", "x").startswith("Values below 0.2")


def test_no_logarithms_where_large_is_good() -> None:
    assert not wants_log([0.01, 0.9], "max")
