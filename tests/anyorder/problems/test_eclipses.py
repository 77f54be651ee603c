"""The fit of two eclipses."""

from __future__ import annotations

import math
import os

import pytest
import torch

from anyorder.problems import ProblemError, check
from anyorder.problems.eclipses import Eclipses, _flux

needs_data = pytest.mark.skipif(
    "ANYORDER_DATA" not in os.environ, reason="ANYORDER_DATA is not set"
)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """30 measurements with one eclipse at phase 0.25."""
    phase = torch.arange(30, dtype=torch.float64) / 30
    flux = 1 - 0.5 * (-((phase - 0.25) / 0.05).square()).exp()
    lines = [f"{p:.6f},{f:.6f},0.01" for p, f in zip(phase.tolist(), flux.tolist(), strict=True)]
    (tmp_path / "eclipsing_binary_light_curves").mkdir()
    path = tmp_path / "eclipsing_binary_light_curves/tess.csv"
    path.write_text("phase,flux,flux_err\n" + "\n".join(lines) + "\n")
    monkeypatch.setenv("ANYORDER_DATA", str(tmp_path))
    return path


def test_flux_by_hand():
    eclipse = [0.25, math.log(0.1), math.log(0.5), math.log(2.0)]
    away = [0.75, math.log(0.01), math.log(1e-9), 0.0]
    x = torch.tensor([1.0, 0.02, 0.01, *eclipse, *away], dtype=torch.float64)
    phase = torch.tensor([0.25, 0.35, 0.5, 1.25], dtype=torch.float64)
    expected = [
        1 - 0.01 - 0.5,
        1 + 0.02 * math.cos(0.7 * math.pi) + 0.01 * math.cos(1.4 * math.pi) - 0.5 / math.e,
        1 - 0.02 + 0.01 - 0.5 * math.exp(-6.25),
        1 - 0.01 - 0.5,  # one period later
    ]
    assert _flux(x, phase).tolist() == pytest.approx(expected, abs=1e-5)


def test_parts_share_no_measurement(small):
    parts = Eclipses()._parts
    assert [len(part.phase) for part in parts] == [10, 10, 10]
    assert len(torch.cat([part.phase for part in parts]).unique()) == 30


def test_a_perfect_fit_costs_nothing(small):
    problem = Eclipses()
    model = problem.build(0)
    with torch.no_grad():
        model.x[:3] = torch.tensor([1.0, 0.0, 0.0])
        model.x[3:7] = torch.tensor([0.25, math.log(0.05), math.log(0.5), math.log(2.0)])
        model.x[7:] = torch.tensor([0.75, math.log(0.05), -30.0, math.log(2.0)])
    assert problem.evaluate(model)["loss"] < 1e-4
    assert problem.test(model)["loss"] < 1e-4
    assert problem.evaluate(problem.build(0))["loss"] > 1


def test_check_finds_no_errors(small):
    report = check(Eclipses())
    assert report.ok, str(report)
    assert [each.level for each in report.findings] == ["info"]  # the full batch


def test_starts_differ(small):
    starts = [Eclipses().build(seed).x[3].item() for seed in range(5)]
    assert len(set(starts)) == 5


def test_bad_input(small):
    with pytest.raises(ProblemError, match="star must be one of"):
        Eclipses(star="sun")
    small.write_text("phase,flux\n0.1,1\n")
    with pytest.raises(ProblemError, match="expected the columns phase,flux,flux_err"):
        Eclipses().batch(0, 0)
    small.write_text("phase,flux,flux_err\n0.1,x,1\n")
    with pytest.raises(ProblemError, match="not a table of numbers"):
        Eclipses().batch(0, 0)


@needs_data
@pytest.mark.parametrize(("star", "number"), [("tess", 1000), ("asas-sn", 1612)])
def test_published_curves(star, number):
    parts = Eclipses(star=star)._parts
    assert sum(len(part.phase) for part in parts) == number


@needs_data
def test_adamw_finds_both_eclipses():
    problem = Eclipses()
    model = problem.build(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for step in range(400):
        optimizer.zero_grad()
        problem.loss(model, problem.batch(0, step)).backward()
        optimizer.step()
    assert problem.evaluate(model)["loss"] < 1
