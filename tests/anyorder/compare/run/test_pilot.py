"""The pilot: findings, noise, prices, and who will have trouble with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from anyorder.compare.plan.limits import prices
from anyorder.compare.run import pilot as module
from anyorder.compare.run.pilot import describe, pilot, troubles
from anyorder.compare.run.records import Pilot
from anyorder.oracle.ledger import NOMINAL_RATES
from anyorder.problems import ProblemError, load


def entrant(name: str, *needs: str, **settings: Any) -> Any:
    return SimpleNamespace(name=name, needs=list(needs), settings=lambda: settings)


HESSIAN = entrant("newton", "grad", "hessian", products="exact")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)


class Work(TorchDispatchMode):
    """A clock of operations, which runs alike on every machine."""

    done = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.done += 1.0
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def digits() -> Pilot:
    with pytest.MonkeyPatch.context() as patch, Work() as work:
        patch.setattr("time.perf_counter", lambda: work.done)
        return pilot(load("digits"))


def test_prices_are_measured_in_forwards(digits: Pilot) -> None:
    measured, costs = digits.measured, digits.costs
    assert measured.keys() == NOMINAL_RATES.keys()
    assert costs.keys() == {"value", "ranked point", "gradient", "product"}
    grads, products, ranked = (measured[name] for name in ("grads", "products", "ranked"))
    assert grads is not None and products is not None and ranked is not None
    assert measured["values"] == 1.0  # the unit
    assert 1.2 < grads < 10
    assert products >= 1.0
    assert 0.5 < ranked < 1.5  # a loss without a graph too
    assert grads == pytest.approx(costs["gradient"].seconds / costs["value"].seconds)
    assert ranked == pytest.approx(costs["ranked point"].seconds / costs["value"].seconds)


def test_noise_over_batches(digits: Pilot) -> None:
    assert digits.noise.std > 0
    assert pilot(load("quadratic")).noise.std == 0.0


def test_memory_grows_with_what_is_kept() -> None:
    costs = pilot(load("stdlib-lm")).costs
    assert costs["product"].bytes > costs["gradient"].bytes > costs["value"].bytes > 0


def test_dropout_is_not_deterministic(problem_file: Callable[[str], str]) -> None:
    noisy = problem_file("""
    def loss(self, model, batch):
        return torch.dropout(model(batch), 0.5, True).square().mean()
    """)
    found = pilot(load(noisy))
    assert not found.deterministic
    assert "random (dropout or noise)" in "\n".join(describe(found, prices(), "nominal"))


def test_errors_of_the_check_are_refused(problem_file: Callable[[str], str]) -> None:
    problem = load(problem_file("def loss(self, model, batch): return model(batch)"))
    with pytest.raises(ProblemError, match=r"cannot be used yet.*\n.*shape \(8, 1\)"):
        pilot(problem)


def test_a_fused_kernel_has_no_second_derivative_and_a_counted_fallback() -> None:
    found = pilot(load("stdlib-lm", attention="sdpa"))
    assert found.measured["products"] is None
    assert prices(found.measured)["products"] == NOMINAL_RATES["products"]
    (says,) = troubles(found, [HESSIAN])
    assert says.startswith("newton will fail: the operation _scaled_dot_product")
    assert says.endswith("--set newton.products=finite")
    finite = entrant("newton", "grad", "hessian", products="finite")
    assert troubles(found, [finite, entrant("a", "grad")]) == []


def test_who_will_have_trouble(digits: Pilot) -> None:
    assert troubles(digits, [HESSIAN]) == []
    for name, need in (("kfac", "ggn"), ("sso", "target")):
        assert troubles(digits, [entrant(name, need)]) == []
        (says,) = troubles(replace(digits, in_parts=False), [entrant(name, need)])
        assert says.startswith(f"{name} will fail") and "composite loss" in says


def test_what_is_said(digits: Pilot) -> None:
    text = "\n".join(describe(digits, prices(), "nominal"))
    assert "17,226 parameters; gradient agrees with finite differences" in text
    grads, products = digits.measured["grads"], digits.measured["products"]
    assert "price in forward passes (nominal used): value 1 nominal, " in text
    assert f"gradient 3 nominal, {grads:.2f} measured" in text
    assert f"curvature product 6 nominal, {products:.2f} measured" in text
    assert "loss over 16 batches" in text
    assert "one answer costs: value " in text
