from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyorder import BudgetExhausted
from anyorder.hyper import HyperError
from anyorder.nn import BlackBox, BlackBoxError
from anyorder.oracle.gradients import NonFiniteError

DOUBLE = torch.float64
RANDOM = ("sphere", "normal", "rademacher")
generator = torch.Generator().manual_seed(0)
MIX = torch.randn(6, 4, dtype=DOUBLE, generator=generator)
X = torch.randn(3, 6, dtype=DOUBLE, generator=generator)
WEIGHTS = torch.randn(3, 4, dtype=DOUBLE, generator=generator)


def smooth(x: Tensor) -> Tensor:
    return torch.tanh(x @ MIX.to(x.dtype))


def quadratic(x: Tensor) -> Tensor:
    """Central differences of it are exact, up to rounding."""
    return (x @ MIX.to(x.dtype)) * x.sum(1, keepdim=True)


def true_product(function: Any, x: Tensor, weights: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad((function(x) * weights).sum(), x)
    return found


def product(layer: BlackBox, x: Tensor, weights: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad((layer(x) * weights).sum(), x)
    return found


# What is estimated --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 5, 40])
def test_coordinates_are_summed_not_averaged(size: int) -> None:
    """The average over coordinates would be ``size`` times smaller."""
    slope = torch.randn(size, dtype=DOUBLE, generator=torch.Generator().manual_seed(size))
    x, one = torch.ones(2, size, dtype=DOUBLE), torch.ones(2, dtype=DOUBLE)
    found = product(BlackBox(lambda z: z @ slope, mu=0.5), x, one)
    torch.testing.assert_close(found, slope.expand(2, size), rtol=1e-12, atol=1e-12)


def test_coordinates_give_the_true_product() -> None:
    found = product(BlackBox(quadratic, mu=0.1), X, WEIGHTS)
    torch.testing.assert_close(found, true_product(quadratic, X, WEIGHTS), rtol=1e-11, atol=1e-11)
    found = product(BlackBox(smooth, mu=1e-4), X, WEIGHTS)
    torch.testing.assert_close(found, true_product(smooth, X, WEIGHTS), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("difference", ["central", "forward"])
def test_gradcheck(difference: Any) -> None:
    def network(x: Tensor) -> Tensor:
        layer = BlackBox(smooth, mu=1e-5, difference=difference)
        return F.cross_entropy(2 * layer(x.sin()), torch.tensor([0, 3, 1]))

    assert torch.autograd.gradcheck(network, X.clone().requires_grad_(), atol=1e-4)


def test_the_error_of_differences_has_its_order() -> None:
    truth = true_product(smooth, X, WEIGHTS)

    def error(difference: Any, mu: float) -> float:
        return float((product(BlackBox(smooth, mu=mu, difference=difference), X, WEIGHTS)
                      - truth).norm())  # fmt: skip

    assert error("central", 0.02) / error("central", 0.01) == pytest.approx(4, rel=0.02)
    assert error("forward", 0.02) / error("forward", 0.01) == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("law", RANDOM)
def test_random_directions_are_unbiased_and_their_variance_is_known(law: Any) -> None:
    size, count, q = 8, 4000, 2
    slope = torch.arange(1.0, size + 1, dtype=DOUBLE)
    layer = BlackBox(lambda z: z @ slope, law=law, directions=q, mu=0.5, rows=10**6)
    found = product(layer, torch.zeros(count, size, dtype=DOUBLE), torch.ones(count, dtype=DOUBLE))
    square = slope.square().sum()
    second = {  # E[(d u u' a)_k^2], or E[(z z' a)_k^2], of one direction
        "sphere": size / (size + 2) * (square + 2 * slope.square()),
        "normal": square + 2 * slope.square(),
        "rademacher": square.expand(size),
    }[law]
    variance = (second - slope.square()) / q
    scores = (found.mean(0) - slope) / (variance / count).sqrt()
    assert scores.abs().max() < 4
    torch.testing.assert_close(found.var(0), variance, rtol=0.15, atol=0)


@pytest.mark.parametrize("law", RANDOM)
def test_one_random_direction_by_hand(law: Any) -> None:
    """The estimate is a multiple of a direction; the multiple is its slope, scaled."""
    slope = torch.tensor([1.0, -2.0, 0.5], dtype=DOUBLE)
    layer = BlackBox(lambda z: z @ slope, law=law, directions=1, mu=0.1)
    found = product(layer, torch.zeros(5, 3, dtype=DOUBLE), torch.ones(5, dtype=DOUBLE))
    if law == "rademacher":
        signs = found / found.abs()
        torch.testing.assert_close(found, (signs @ slope)[:, None] * signs)
    elif law == "sphere":
        unit = found / found.norm(dim=1, keepdim=True)
        torch.testing.assert_close(found, 3 * (unit @ slope)[:, None] * unit)
    assert len({tuple(row) for row in found.tolist()}) > 1  # samples have their own directions


def test_losses_per_sample_with_labels() -> None:
    labels = torch.tensor([2, 0, 1])

    def losses(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(x @ MIX, y, reduction="none")

    x = X.clone().requires_grad_()
    (found,) = torch.autograd.grad(BlackBox(losses, mu=1e-4, rows=4)(x, labels).mean(), x)
    expected = true_product(lambda z: losses(z, labels), X, torch.full((3,), 1 / 3, dtype=DOUBLE))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_parameters_before_and_after_the_layer_learn_through_it() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(64, 3), torch.randint(0, 2, (64,))
    before, after = nn.Linear(3, 3), nn.Linear(3, 2)
    model = nn.Sequential(before, BlackBox(np.tanh, numpy=True, mu=1e-2), after)
    reference = nn.Sequential(copy.deepcopy(before), nn.Tanh(), copy.deepcopy(after))
    for net in (model, reference):
        F.cross_entropy(net(x), y).backward()
    assert before.weight.grad is not None and after.weight.grad is not None
    torch.testing.assert_close(before.weight.grad, reference[0].weight.grad, rtol=1e-3, atol=1e-5)  # type: ignore[arg-type]
    torch.testing.assert_close(after.weight.grad, reference[2].weight.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(4,), (4, 2, 3), (4, 1)])
def test_inputs_of_any_shape(shape: tuple[int, ...]) -> None:
    x = torch.linspace(-1, 1, int(np.prod(shape)), dtype=DOUBLE).reshape(shape).requires_grad_()
    out = BlackBox(lambda z: z**2, mu=0.1)(x)
    assert out.shape == shape
    out.sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach())


def test_an_empty_batch() -> None:
    x = torch.zeros(0, 3, requires_grad=True)
    BlackBox(lambda z: z.sum(1))(x).sum().backward()
    assert x.grad is not None and x.grad.shape == (0, 3)


# Directions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["coordinate", *RANDOM])
@pytest.mark.parametrize("difference", ["central", "forward"])
def test_the_limit_of_rows_changes_no_bit(law: Any, difference: Any) -> None:
    count = None if law == "coordinate" else 5
    found: list[Tensor] = []
    sizes: list[int] = []

    def watched(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return torch.stack([x[:, 0] * x[:, 1], x[:, 2] ** 3], 1)  # rows do not mix in a kernel

    for rows in (1, 2, 7, 1000):
        layer = BlackBox(watched, law=law, directions=count, difference=difference, rows=rows)
        sizes.clear()
        found.append(product(layer, X, WEIGHTS[:, :2]))
        assert max(sizes) <= max(rows, 2 if difference == "central" else 1)
    assert all(torch.equal(found[0], other) for other in found)


def test_a_direction_is_a_function_of_seed_step_and_sample() -> None:
    def estimate(seed: int = 0, skip: int = 0, samples: int = 3) -> Tensor:
        layer = BlackBox(smooth, law="normal", directions=2, seed=seed)
        for _ in range(skip):
            layer(X.clone().requires_grad_())
        return product(layer, X[:samples], WEIGHTS[:samples])

    assert torch.equal(estimate(), estimate())
    torch.testing.assert_close(estimate(samples=2), estimate()[:2], rtol=1e-8, atol=1e-10)
    assert not torch.allclose(estimate(seed=1), estimate())
    assert not torch.allclose(estimate(skip=1), estimate())
    torch.manual_seed(7)
    before = torch.get_rng_state()
    estimate()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_layer_used_twice_in_one_graph_has_new_directions() -> None:
    layer = BlackBox(smooth, law="normal", directions=1)
    x = X.clone().requires_grad_()
    first, second = layer(x), layer(x)
    (a,) = torch.autograd.grad((first * WEIGHTS).sum(), x, retain_graph=True)
    (b,) = torch.autograd.grad((second * WEIGHTS).sum(), x, retain_graph=True)
    (both,) = torch.autograd.grad((first * WEIGHTS + second * WEIGHTS).sum(), x)
    assert not torch.allclose(a, b)
    torch.testing.assert_close(both, a + b)
    chained = BlackBox(torch.sin, mu=1e-4)
    (found,) = torch.autograd.grad(chained(chained(x)).sum(), x)
    expected = true_product(lambda z: z.sin().sin(), X, torch.ones_like(X))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_a_resumed_run_continues_with_the_same_directions() -> None:
    layer = BlackBox(smooth, law="sphere", directions=3, seed=4)
    product(layer, X, WEIGHTS)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    fresh = BlackBox(smooth, law="sphere", directions=3, seed=4)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(product(layer, X, WEIGHTS), product(fresh, X, WEIGHTS))
    assert fresh.calls.values == layer.calls.values > 0


# Counts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "backward"),
    [
        ({}, 2 * 6),
        ({"difference": "forward"}, 6),
        ({"law": "sphere", "directions": 5}, 2 * 5),
        ({"law": "normal", "directions": 5, "difference": "forward"}, 5),
    ],
)
def test_queries_are_counted(options: dict[str, Any], backward: int) -> None:
    asked: list[int] = []
    layer = BlackBox(lambda x: asked.append(len(x)) or smooth(x), rows=7, **options)  # type: ignore[func-returns-value]
    out = layer(X.clone().requires_grad_())
    assert layer.calls.values == sum(asked) == 3
    out.sum().backward()
    assert layer.calls.values == sum(asked) == 3 * (1 + backward)


def test_without_a_gradient_only_forward_is_evaluated() -> None:
    layer = BlackBox(smooth, law="normal", directions=2)
    with torch.no_grad():
        out = layer(X.clone().requires_grad_())
    assert not out.requires_grad and not layer(X).requires_grad
    assert (layer.calls.values, layer.step) == (6, 0)
    torch.testing.assert_close(out, smooth(X))


def test_a_budget_is_checked_before_each_pass() -> None:
    layer = BlackBox(smooth, budget="38values", rows=2)  # one pass needs 3 + 36
    x = X.clone().requires_grad_()
    out = layer(x)
    with pytest.raises(BudgetExhausted, match="38 values"):
        out.sum().backward()
    assert layer.calls.values == 3 and x.grad is None


# Bad answers --------------------------------------------------------------------------------------


def test_a_box_that_raises() -> None:
    failing = False

    def box(x: Tensor) -> Tensor:
        if failing and len(x) == 2 and layer.calls.values >= 7:
            raise ConnectionError("no answer")
        return smooth(x)

    layer = BlackBox(box, rows=2)
    x = X.clone().requires_grad_()
    out = layer(x).sum()
    failing = True
    with pytest.raises(ConnectionError, match="no answer") as caught:
        out.backward(retain_graph=True)
    assert "7 were answered before" in caught.value.__notes__[0]
    assert x.grad is None and layer.calls.values == 7
    failing = False
    out.backward()  # the graph and its directions are still there
    expected = true_product(smooth, X, torch.ones(3, 4, dtype=DOUBLE))
    torch.testing.assert_close(x.grad, expected, rtol=1e-4, atol=1e-5)


def test_answers_that_are_not_finite() -> None:
    def box(x: Tensor) -> Tensor:
        return torch.where(x[:, :1] > 1.05, torch.nan, smooth(x))

    x = torch.ones(2, 6, dtype=DOUBLE)
    x[1] = 0.0
    weights = WEIGHTS[:2]
    with pytest.raises(NonFiniteError, match=r"near the inputs of samples \[0\]"):
        product(BlackBox(box, mu=0.1), x, weights)
    with pytest.raises(NonFiniteError, match=r"inputs of samples \[0\]"):
        BlackBox(box)(x + 1.0 * (torch.arange(2)[:, None] == 0))
    skipping = BlackBox(box, mu=0.1, nonfinite="skip")
    found, truth = product(skipping, x, weights), product(BlackBox(smooth, mu=0.1), x, weights)
    assert skipping.calls.skipped == 1 and found[0, 0] == 0
    assert torch.equal(found.flatten()[1:], truth.flatten()[1:])
    assert product(BlackBox(box, mu=0.1, nonfinite="ignore"), x, weights)[0, 0].isnan()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: x.mean(), r"shape \(3, ...\), got \(\); do not average"),
        (lambda x: x[:2], r"one output or loss per sample, shape \(3, ...\), got \(2, 6\)"),
        (lambda x: "label", "expected numbers from the black box, got str"),
        (lambda x: None, "expected numbers from the black box, got NoneType"),
        (lambda x: x.to(torch.complex64), "real numbers"),
    ],
)
def test_answers_that_do_not_fit(answer: Any, message: str) -> None:
    with pytest.raises(BlackBoxError, match=message):
        BlackBox(answer)(X)


def test_outputs_that_change_their_shape() -> None:
    layer = BlackBox(lambda x: x[:, : 3 if len(x) == 3 else 2])
    with pytest.raises(BlackBoxError, match=r"shape \(3,\) per sample as in forward, got \(2,\)"):
        layer(X.clone().requires_grad_()).sum().backward()
    with pytest.raises(BlackBoxError, match="outputs of one shape"):
        BlackBox(lambda x: x[:, : len(x)], rows=2)(X)


def test_a_box_cannot_change_what_it_is_given() -> None:
    buffer = np.zeros((100, 6))

    def box(x: Any) -> Any:
        x *= 2
        buffer[: len(x)] = x
        return buffer[: len(x)]

    x = X.clone().requires_grad_()
    out = BlackBox(box, numpy=True, mu=0.1)(x)
    out.sum().backward()
    assert torch.equal(x, X)
    torch.testing.assert_close(out, 2 * X)
    torch.testing.assert_close(x.grad, torch.full_like(X, 2.0))


def test_whole_numbers_lists_and_boxes_of_torch_are_answers() -> None:
    x = torch.tensor([[0.4, 1.6]], requires_grad=True)
    found = BlackBox(lambda z: z.round().long(), mu=0.5)(x)
    assert found.tolist() == [[0.0, 2.0]]
    found.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[1.0, 1.0]]
    assert BlackBox(lambda z: z.tolist())(x).shape == (1, 2)
    model = nn.Linear(2, 1)
    BlackBox(model)(x).sum().backward()
    assert model.weight.grad is None  # the box is closed


# Precision ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_perturbed_in_float32(dtype: torch.dtype) -> None:
    seen: set[torch.dtype] = set()
    layer = BlackBox(lambda x: seen.add(x.dtype) or smooth(x))  # type: ignore[func-returns-value]
    x = X.to(dtype)
    found = product(layer, x, WEIGHTS.float())
    assert seen == {torch.float32} and found.dtype is dtype
    expected = true_product(smooth, x.double(), WEIGHTS.double())
    torch.testing.assert_close(found.double(), expected, rtol=2e-2, atol=2e-2)


def test_a_step_below_the_resolution_is_refused() -> None:
    layer = BlackBox(smooth, mu=1e-8)
    with pytest.raises(BlackBoxError, match=r"mu: a step of 1e-08 is lost at inputs of size 3"):
        layer(torch.full((1, 6), 3.0, requires_grad=True)).sum().backward()
    product(layer, X, WEIGHTS)  # in float64 it is not


# Bad settings and inputs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"function": 3}, "function: expected a callable"),
        ({"law": "cauchy"}, "law: expected one of"),
        ({"law": "sphere"}, "directions: expected a whole number, got None"),
        ({"law": "normal", "directions": 0}, "directions: expected a value >= 1, got 0"),
        ({"directions": 3}, "directions: the law coordinate uses all coordinates, got 3"),
        ({"difference": "backward"}, "difference: expected one of"),
        ({"mu": 0}, "mu: expected a value > 0"),
        ({"mu": float("nan")}, "mu: expected a number"),
        ({"rows": 0}, "rows: expected a value >= 1"),
        ({"seed": 0.5}, "seed: expected a whole number"),
        ({"nonfinite": "hope"}, "nonfinite: expected one of"),
    ],
)
def test_wrong_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises((BlackBoxError, HyperError), match=message):
        BlackBox(**{"function": smooth, **options})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, 3)),), "expected a real tensor with one row per sample, got ndarray"),
        ((torch.zeros(2, 3, dtype=torch.long),), r"got torch.int64 of shape \(2, 3\)"),
        ((torch.tensor(1.0),), r"got torch.float32 of shape \(\)"),
        ((X, torch.zeros(2)), r"argument 2: expected 3 rows, one per sample, got shape \(2,\)"),
        ((X, X, 5), r"argument 3: expected 3 rows, one per sample, got shape \(\)"),
        ((X, X.clone().requires_grad_()), "argument 2 needs a gradient"),
    ],
)
def test_wrong_inputs(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(BlackBoxError, match=message):
        BlackBox(lambda x, *others: x)(*arguments)


def test_second_derivatives_are_refused() -> None:
    x = X.clone().requires_grad_()
    (first,) = torch.autograd.grad(BlackBox(smooth)(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        first.sum().backward()
