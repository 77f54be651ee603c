"""Closures: their forms, and what is refused before anybody reckons with it."""

from __future__ import annotations

import copy
import functools
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyorder.oracle.closures import (
    ClosureError,
    Composite,
    CompositeError,
    Mean,
    RankingError,
    as_composite,
    batches_of,
    calls_backward,
    checked_loss,
    checked_order,
    checked_outputs,
    needs_closure,
    one_gradient,
    with_graph,
)

X = nn.Parameter(torch.tensor([1.0, 2.0]))


def loss() -> Tensor:
    return (X**2).sum()


def test_outputs_and_loss_are_one_closure() -> None:
    both = Composite(lambda: X * 3, lambda outputs: outputs.sum())
    assert both().item() == 9.0
    assert as_composite(both, "this needs") is both
    assert one_gradient(both) == {"grads": 1, "output_grads": 1}
    assert one_gradient(loss) == {"grads": 1, "output_grads": 0}
    with pytest.raises(
        ClosureError, match=r"this needs one Composite, outputs and loss apart; write Composite"
    ):
        as_composite(loss, "this needs")


@pytest.mark.parametrize("parts", [(X, loss), (loss, X)])
def test_parts_that_are_no_functions_are_refused(parts: Any) -> None:
    with pytest.raises(CompositeError, match=r"expected a function, got Parameter; write Composi"):
        Composite(*parts)


def test_several_closures_are_their_mean() -> None:
    assert Mean([loss, lambda: X.sum()])().item() == 4.0
    assert batches_of(loss) == [loss]
    assert batches_of([loss, loss]) == [loss, loss]


@pytest.mark.parametrize("wrong", [[], X, [loss, X], None])
def test_what_is_no_closure_is_refused(wrong: Any) -> None:
    with pytest.raises(ClosureError, match=r"write optimizer\.step\(lambda"):
        batches_of(wrong)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_real_number_is_a_loss(shape: tuple[int, ...]) -> None:
    assert checked_loss(torch.ones(shape)).shape == ()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (1.0, r"as a tensor, got float; return the loss itself, not loss\.item\(\)"),
        (None, "got NoneType"),
        (torch.ones(2), r"shape \(2,\) and dtype torch.float32; reduce it"),
        (torch.ones(0), r"shape \(0,\)"),
        (torch.tensor(1), "dtype torch.int64"),
        (torch.tensor(1j), "dtype torch.complex64"),
    ],
)
def test_what_is_no_loss_is_refused(wrong: Any, says: str) -> None:
    with pytest.raises(ClosureError, match=says):
        checked_loss(wrong)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ([X], "to be one tensor of real numbers, got list"),
        (X.long(), "got torch.int64"),
        (X.detach(), "does not depend on the parameters"),
    ],
)
def test_what_are_no_outputs_is_refused(wrong: Any, says: str) -> None:
    with pytest.raises(ClosureError, match=says):
        checked_outputs(wrong)


def test_what_depends_on_the_parameters_passes() -> None:
    outputs = X * 2
    assert checked_outputs(outputs) is outputs and with_graph(outputs) is outputs


@pytest.mark.parametrize("order", [[2, 0, 1], [1], (0, 2), torch.tensor([1, 0]).tolist()])
def test_positions_each_at_most_once_are_an_order(order: list[int]) -> None:
    assert checked_order(order, 3) == list(order)


@pytest.mark.parametrize("order", [[], [0, 0], [3], [-1], [0.5], [0, 1, 2, 0], ["a"]])
def test_what_is_no_order_is_refused(order: Any) -> None:
    with pytest.raises(RankingError, match="expected positions from 0 to 2"):
        checked_order(order, 3)


def test_the_words_on_backward_show_what_to_change() -> None:
    error = calls_backward()
    assert isinstance(error, ClosureError)
    assert "loss.backward(); return loss\nto\n" in str(error)


def test_errors_and_closures_travel_between_processes() -> None:
    assert str(pickle.loads(pickle.dumps(calls_backward()))) == str(calls_backward())
    both = copy.copy(Composite(loss, abs))
    assert both.outputs is loss


def test_a_composite_is_found_inside_what_other_loops_put_around_it() -> None:
    closure = Composite(lambda: torch.ones(2), Tensor.sum)

    def hooked(module: str, inside: Any) -> Tensor:
        return inside()

    wrapped = functools.partial(hooked, "module", closure)
    assert list(batches_of(wrapped)) == [closure]
    for other in (functools.partial(hooked, "module", closure.outputs), functools.partial(int)):
        assert list(batches_of(other)) == [other]


@pytest.mark.parametrize("needs", [{"value"}, {"output_grad"}, {"grad", "hessian"}])
def test_the_words_on_a_missing_closure_show_what_to_write(needs: set[str]) -> None:
    words = needs_closure("Method", needs)
    assert words.startswith(f"Method needs {', '.join(sorted(needs))}, so it needs a closure")
    assert ("Composite(" in words) == (needs == {"output_grad"})
    assert "ClosureMixin" in words


# Rankings -------------------------------------------------------------------------------------


def test_an_order_knows_its_ties_and_is_a_list_without_them() -> None:
    order = checked_order([3, (2, 0), {1}], 5)
    assert order.groups == [[3], [0, 2], [1]]
    assert order == [3, 0, 2, 1]
    assert checked_order(np.array([1, 0]), 2) == [1, 0]
    assert checked_order(torch.tensor([1, 0]), 2).groups == [[1], [0]]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ([], "nothing is ranked"),
        ([[]], "nothing is ranked"),
        ([0, []], "a list of ties is empty"),
        ([0, 1, 0], "position 0 stands more than once"),
        ([0, [1, 0]], "position 0 stands more than once"),
        ([0, 3], "there is no position 3"),
        ([[0, -1]], "there is no position -1"),
        ([0.5], "no list of positions"),
        ([[[0]]], "no list of positions"),
        ("01", "no list of positions"),
        (None, "no list of positions"),
        (1, "no list of positions"),
    ],
)
def test_what_is_no_order_is_told(answer: Any, fault: str) -> None:
    with pytest.raises(RankingError, match=f"from 0 to 2, .*such as .*{fault}"):
        checked_order(answer, 3)
