"""The look at a problem: findings, noise, prices, and who will have trouble with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from anyorder.compare.run import pilot as probing
from anyorder.compare.run.pilot import describe, prices, probe, troubles
from anyorder.oracle.ledger import NOMINAL_RATES
from anyorder.problems import load

HESSIAN = {"name": "newton", "needs": ["grad", "hessian"], "settings": {"products": "exact"}}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "PATIENCE", 0.05)


@pytest.fixture(scope="module")
def digits() -> dict[str, Any]:
    return probe(load("digits"))


def test_prices_are_measured_in_forwards(digits: dict[str, Any]) -> None:
    measured, costs = digits["measured"], digits["costs"]
    assert (measured["values"], measured["ranked"]) == (1.0, 1.0)
    assert 1.2 < measured["grads"] < 10
    assert measured["products"] >= 1.0
    assert measured["grads"] == pytest.approx(
        costs["gradient"]["seconds"] / costs["value"]["seconds"]
    )
    assert json.loads(json.dumps(digits)) == digits


def test_noise_over_batches(digits: dict[str, Any]) -> None:
    assert digits["noise"]["std"] > 0
    assert probe(load("quadratic"))["noise"]["std"] == 0.0


def test_memory_grows_with_what_is_kept() -> None:
    costs = probe(load("stdlib-lm"))["costs"]
    assert costs["product"]["bytes"] > costs["gradient"]["bytes"] > costs["value"]["bytes"] > 0


def test_dropout_is_not_deterministic(problem_file: Callable[[str], str]) -> None:
    noisy = problem_file("""
    def loss(self, model, batch):
        return torch.dropout(model(batch), 0.5, True).square().mean()
    """)
    found = probe(load(noisy))
    assert (found["ok"], found["deterministic"]) == (True, False)
    assert "random (dropout or noise)" in "\n".join(describe(found, prices(), "nominal"))


def test_errors_of_the_check_come_without_measurements(problem_file: Callable[[str], str]) -> None:
    found = probe(load(problem_file("def loss(self, model, batch): return model(batch)")))
    assert not found["ok"]
    assert "costs" not in found
    assert any("shape (8, 1)" in finding["found"] for finding in found["findings"])


def test_a_fused_kernel_has_no_second_derivative_and_a_counted_fallback() -> None:
    found = probe(load("stdlib-lm", attention="sdpa"))
    assert found["measured"]["products"] is None
    assert prices(found["measured"])["products"] == NOMINAL_RATES["products"]
    (says,) = troubles(found, [HESSIAN])
    assert says.startswith("newton will fail: the operation _scaled_dot_product")
    assert says.endswith("--set newton.products=finite")
    finite = {**HESSIAN, "settings": {"products": "finite"}}
    assert troubles(found, [finite, {"name": "a", "needs": ["grad"], "settings": {}}]) == []


def test_who_will_have_trouble(digits: dict[str, Any]) -> None:
    assert troubles(digits, [HESSIAN]) == []
    for name, need in (("kfac", "ggn"), ("sso", "target")):
        method = {"name": name, "needs": [need], "settings": {}}
        assert troubles(digits, [method]) == []
        (says,) = troubles({**digits, "in_parts": False}, [method])
        assert says.startswith(f"{name} will fail") and "two parts" in says


def test_what_is_said(digits: dict[str, Any]) -> None:
    text = "\n".join(describe(digits, prices(), "nominal"))
    assert "17,226 parameters; gradient agrees with differences" in text
    assert "gradient 3.00, product 6.00" in text
    assert "loss over 16 batches" in text
    assert "one answer costs: value " in text
