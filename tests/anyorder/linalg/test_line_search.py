"""Inner steps on a surrogate: lengths, ends, and the quasi-Newton direction by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyorder.linalg.line_search import PAIRS, Search, quasi_newton, remember
from anyorder.oracle import ClosureOracle
from anyorder.oracle.closures import Composite

CURVES = torch.tensor([4.0, 1.0], dtype=torch.float64)


def start() -> tuple[nn.Parameter, ClosureOracle]:
    """A linear model of two outputs whose surrogate is half the squared distance to (-1, -1)."""
    x = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    closure = Composite(lambda: CURVES.sqrt() * x, lambda z: z.sum() / 2)
    return x, ClosureOracle(closure, {"x": x})


def search(oracle: ClosureOracle, inner_lr: float = 1.0, fall: float = 0.5) -> Search:
    return Search(oracle, oracle.output_grad(), 1.0, inner_lr, fall)


def test_the_surrogate_is_what_it_says() -> None:
    """One sample per output: eta S = (1/2) sum_i [z_i + z_i^2 / 2] with z = A x."""
    x, oracle = start()
    found = search(oracle)
    here = torch.tensor([0.3, -0.2], dtype=torch.float64)
    z = CURVES.sqrt() * here
    value, (grad,) = found.asked.grad_at(found.asked.shift([here]))
    assert value.item() == pytest.approx(float((z + z * z / 2).sum() / 2))
    assert grad is not None
    torch.testing.assert_close(grad, CURVES.sqrt() * (1 + z) / 2)
    assert not bool(x.any())


def test_plain_steps_have_the_given_length() -> None:
    _, oracle = start()
    found = search(oracle, inner_lr=0.25)
    (moved,) = found.run("gd", 1, trial=9.0)
    torch.testing.assert_close(moved, -0.25 * CURVES.sqrt() / 2)
    assert found.length is None and oracle.calls.values == 0


def test_trials_are_halved_until_they_fall_enough() -> None:
    """Along the first slope (2, 1) / 2 the surrogate has curvature 17/10: at c = 1/2 only steps
    up to its inverse, 10/17, are accepted; 4 is halved three times."""
    _, oracle = start()
    found = search(oracle)
    (moved,) = found.run("armijo", 1, trial=4.0)
    torch.testing.assert_close(moved, -0.5 * CURVES.sqrt() / 2)
    assert found.length == 0.5 and oracle.calls.values == 4


def test_later_steps_start_from_the_last_length() -> None:
    _, oracle = start()
    found = search(oracle)
    found.run("armijo", 5, trial=4.0)
    assert oracle.calls.grads == 5 and oracle.calls.values == 4 + 4


@pytest.mark.parametrize("inner", ["armijo", "lbfgs"])
def test_it_ends_at_the_minimum_before_its_steps_are_used_up(inner: str) -> None:
    _, oracle = start()
    (moved,) = search(oracle).run(inner, 500, trial=1.0)
    torch.testing.assert_close(moved, -1 / CURVES.sqrt(), rtol=1e-6, atol=1e-7)
    assert oracle.calls.grads < 150


def test_where_no_trial_falls_it_stays() -> None:
    x = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def kink() -> Tensor:
        return torch.where(x == 0, x, x + 1e6)  # any move is far too far

    oracle = ClosureOracle(Composite(kink, lambda z: z.sum()), {"x": x})
    found = search(oracle)
    (moved,) = found.run("armijo", 3, trial=1.0)
    assert moved.item() == 0.0 and found.length is None


def test_trials_that_are_not_finite_count_as_failed() -> None:
    x = nn.Parameter(torch.ones(1, dtype=torch.float64))
    oracle = ClosureOracle(Composite(lambda: x.sqrt(), lambda z: z.sum()), {"x": x})
    (moved,) = search(oracle).run("armijo", 1, trial=64.0)  # beyond 2 the root is NaN
    assert -1.0 <= moved.item() < 0.0


def test_half_precision_moves_in_float32() -> None:
    x = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    oracle = ClosureOracle(Composite(lambda: x, lambda z: z.sum()), {"x": x})
    (moved,) = search(oracle).run("armijo", 2, trial=1.0)
    assert moved.dtype == torch.float32 and bool((moved < 0).all())


def test_two_loops_give_the_bfgs_inverse() -> None:
    """Against the update of the inverse matrix, written out."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 5))
    hessian = root @ root.T + np.eye(5)
    pairs: list[tuple[list[Tensor], list[Tensor]]] = []
    steps = rng.normal(size=(4, 5))
    for s in steps:
        pairs = remember(pairs, [torch.tensor(s)], [torch.tensor(hessian @ s)])
    s, y = steps[-1], hessian @ steps[-1]
    inverse = np.eye(5) * (s @ y) / (y @ y)
    for s in steps:
        y = hessian @ s
        left = np.eye(5) - np.outer(s, y) / (s @ y)
        inverse = left @ inverse @ left.T + np.outer(s, s) / (s @ y)
    slope = rng.normal(size=5)
    (away,) = quasi_newton([torch.tensor(slope)], pairs)
    np.testing.assert_allclose(away.numpy(), inverse @ slope, rtol=1e-9)


def test_pairs_without_curvature_and_old_ones_are_forgotten() -> None:
    s = [torch.tensor([1.0, 0.0])]
    assert remember([], s, [torch.tensor([-1.0, 0.0])]) == []
    assert remember([], s, [torch.zeros(2)]) == []
    pairs: list[tuple[list[Tensor], list[Tensor]]] = []
    for i in range(PAIRS + 5):
        pairs = remember(pairs, s, [torch.tensor([1.0 + i, 0.0])])
    assert len(pairs) == PAIRS and pairs[-1][1][0][0].item() == PAIRS + 5
    assert math.isclose(quasi_newton(s, [])[0][0].item(), 1.0)
