"""Where the gradient comes from: the protocol, and backpropagation. See also test_seams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyorder import Optimizer, Oracle
from anyorder.hyper import HyperError, hyper
from anyorder.optimizer.estimator import Backpropagation
from anyorder.oracle import ClosureOracle, NeedsError
from anyorder.rules.adamw import ADAMW
from anyorder.rules.descent import DESCENT


@dataclass(frozen=True)
class Ones:
    """Says that every slope is ``slope``, after one look at the value."""

    needs: frozenset[str] = frozenset({"value"})
    hypers: Mapping[str, Any] = field(
        default_factory=lambda: {"slope": hyper(2.0, gt=0, doc="what it says")}
    )

    def __call__(self, method: Any, oracle: Oracle) -> tuple[Tensor, list[Tensor | None]]:
        """All but the second parameter."""
        found = [torch.full_like(p, method.slope) for p in method.named_params().values()]
        return oracle.value(), [None if index == 1 else g for index, g in enumerate(found)]


class Told(Optimizer):
    """Descends along what it is told."""

    estimator = Ones()
    rule = DESCENT


def test_backpropagation_is_the_gradient() -> None:
    x, unused = nn.Parameter(torch.tensor([1.0, 3.0])), nn.Parameter(torch.ones(1))
    oracle = ClosureOracle(lambda: (x**2).sum(), {"x": x, "unused": unused})
    loss, (grad, none) = Backpropagation()(None, oracle)
    assert loss == 10.0 and none is None and grad is not None and grad.tolist() == [2.0, 6.0]
    assert (Backpropagation().needs, Backpropagation().hypers) == ({"grad"}, {})
    assert Optimizer.estimator == Backpropagation()


def test_what_an_estimator_declares_belongs_to_the_method() -> None:
    assert Told.needs == {"value"} and {"slope", "lr"} <= set(Told.hypers)
    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = Told([a, b], lr=0.1, slope=3.0, engine="eager")
    assert optimizer.step(lambda: a.sum()) == 2.0
    assert a.tolist() == pytest.approx([0.7, 0.7]) and b.tolist() == [1.0, 1.0]
    assert optimizer.state[a]["step"] == 1 and optimizer.state[b]["step"] == 0
    with pytest.raises(HyperError, match="slope: expected a value > 0"):
        Told([a], slope=0.0)
    with pytest.raises(NeedsError, match="Told needs value"):
        optimizer.step()


def test_a_method_may_ask_for_more_than_its_estimator() -> None:
    class More(Told):
        """With a gradient beside it."""

        needs = frozenset({"value", "grad"})
        estimator = Ones()

    assert More.needs == {"value", "grad"}


def test_an_estimate_is_clipped_as_a_gradient() -> None:
    x = nn.Parameter(torch.ones(4, dtype=torch.float64))
    Told([x], lr=1.0, clip_norm=1.0, engine="eager").step(lambda: x.sum())
    assert x.tolist() == pytest.approx([0.5] * 4, rel=1e-5)


def test_a_name_that_estimator_and_rule_read_differently_is_refused() -> None:
    shared = Ones(hypers={"eps": hyper(1e-3, gt=0, doc="distance of points")})
    with pytest.raises(HyperError, match=r"both read 'eps'; rename that of the estimator"):
        type("Both", (Optimizer,), {"estimator": shared, "rule": ADAMW})
    own = {"eps": hyper(1e-5, gt=0, doc="for both")}
    both = type("Both", (Optimizer,), {"estimator": shared, "rule": ADAMW, **own})
    assert both.hypers["eps"].default == 1e-5
    same = Ones(hypers={"eps": ADAMW.hypers["eps"]})
    assert type("Same", (Optimizer,), {"estimator": same, "rule": ADAMW}).hypers["eps"].ge == 0
