"""No option is ignored: it counts, or an error says what to write instead."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import anyorder
from anyorder import Budget, methods
from anyorder.errors import AnyOrderError
from anyorder.oracle.ledger import BudgetError, BudgetExhausted

from .worlds import (
    METHODS,
    PLAIN,
    advance,
    attempt,
    check_all,
    copies,
    equal,
    make,
    named,
    rate,
    start,
)

every = pytest.mark.parametrize("name", METHODS)
#: Methods that take no gradient, for which a scaler can do nothing.
WITHOUT_GRADIENT = [n for n in METHODS if not {"grad", "output_grad"} & methods.get(n).needs]
#: Methods that never rank.
NEVER_RANKING = [n for n in METHODS if "rank" not in methods.get(n).needs]


#: Options with values that nobody can mean.
MEANINGLESS: list[tuple[str, Any]] = [
    ("maximize", "no"),
    ("maximize", 1),
    ("maximize", None),
    ("seed", 1.7),
    ("seed", "1"),
    ("seed", True),
    ("seed", None),
    ("seed", float("nan")),
    ("engine", "fast"),
    ("engine", None),
    ("nonfinite", "warn"),
    ("nonfinite", None),
    ("nonfinite", True),
    ("budget", 100),
    ("budget", "100"),
    ("budget", "100 potatoes"),
    ("budget", object()),
    ("process_group", object()),
    ("process_group", "world"),
    ("process_group", 0),
    ("ranker", "me"),
    ("ranker", object()),
    ("scaler", object()),
    ("scaler", True),
    ("scaler", 65536.0),
    ("tol", 1e-3),
    ("maxiter", 10),
    ("lr", -1.0),
    ("lr", float("nan")),
    ("lr", float("inf")),
    ("lr", True),
    ("lr", "0.1"),
    ("lr", None),
    ("lr", [0.1]),
    ("lr", torch.tensor([0.1, 0.1])),
    ("lr", torch.tensor(-1.0)),
    ("lr", torch.tensor(float("nan"))),
    ("lr", torch.tensor(True)),
    ("lr", 1j),
]


@every
def test_values_that_cannot_be_meant_are_refused(name: str) -> None:
    """The error is ours, a ValueError or TypeError, and names the option."""
    cases = {f"{option}={value!r}": (option, value) for option, value in MEANINGLESS}

    def check(case: str) -> None:
        option, value = cases[case]
        with pytest.raises((ValueError, TypeError)) as caught:
            make(name, start(), **{option: value})
        assert isinstance(caught.value, AnyOrderError), repr(caught.value)
        assert option in str(caught.value)

    check_all(cases, check)


@every
def test_every_number_refuses_what_is_no_number(name: str) -> None:
    """True is not 1, a word is no number, NaN is no value; pairs have two parts."""
    for option, declared in methods.get(name).hypers.items():
        if declared.choices is not None:
            wrong: list[Any] = ["nonsense", object()]
        elif isinstance(declared.default, bool):
            wrong = ["yes", 1, 0.0, None]
        elif isinstance(declared.default, tuple):
            wrong = [(0.9,), (0.9, 0.99, 0.999), 0.9, "09", (0.9, "x"), (True, 0.9), (0.9, 2.0)]
            wrong += [(0.9, float("nan")), (-0.1, 0.9), None]
        else:
            wrong = [True, False, "1", float("nan"), object(), [1], -1e9]
        for value in wrong:
            with pytest.raises(AnyOrderError) as caught:
                make(name, start(), **{option: value})
            assert option in str(caught.value), (option, value)
            with pytest.raises(AnyOrderError):
                make(name, [{"params": start(), option: value}])
            optimizer = make(name, start())
            with pytest.raises(AnyOrderError):
                optimizer.add_param_group({"params": start((2, 2)), option: value})
            assert len(optimizer.param_groups) == 1


@every
def test_a_budget_may_be_written_as_text(name: str) -> None:
    params = start()
    optimizer = make(name, params, budget="2steps")
    assert optimizer.budget == Budget.parse("2steps")
    advance(name, optimizer, params, steps=2)
    with pytest.raises(BudgetExhausted):
        advance(name, optimizer, params)


def test_a_budget_of_gradients_as_text() -> None:
    params = start()
    optimizer = make("adamw", params, budget="3grads,100s")
    assert optimizer.budget == Budget(grads=3, seconds=100.0)
    advance("adamw", optimizer, params, steps=3)
    with pytest.raises(BudgetExhausted):
        advance("adamw", optimizer, params)


@pytest.mark.parametrize("unit", ["values", "grads", "products", "rankings", "ranked", "steps"])
@pytest.mark.parametrize("value", [2.5, True, "2", -1, 0, float("nan"), float("inf")])
def test_budgets_of_counts_are_whole_numbers(unit: str, value: Any) -> None:
    with pytest.raises(BudgetError, match=unit):
        Budget(**{unit: value})


@pytest.mark.parametrize("unit", ["seconds", "forwards"])
@pytest.mark.parametrize("value", [True, "2", -1.0, 0, float("nan")])
def test_budgets_of_amounts_are_positive_numbers(unit: str, value: Any) -> None:
    with pytest.raises(BudgetError, match=unit):
        Budget(**{unit: value})


@pytest.mark.parametrize("name", NEVER_RANKING)
def test_a_ranker_is_refused_by_methods_that_never_rank(name: str) -> None:
    with pytest.raises(AnyOrderError, match="ranker"):
        make(name, start(), ranker=lambda shown: list(range(len(shown))))


@pytest.mark.parametrize("name", WITHOUT_GRADIENT)
def test_a_scaler_is_refused_where_there_is_no_gradient(name: str) -> None:
    with pytest.raises(AnyOrderError, match="scaler"):
        make(name, start(), scaler=torch.amp.GradScaler("cpu"))


@every
def test_a_scaler_that_is_switched_off_changes_nothing(name: str) -> None:
    """``GradScaler(enabled=False)``, as code written for both precisions makes it."""
    params, others = start(), start()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    one, refusal = attempt(lambda: make(name, named(params), scaler=scaler))
    if refusal:
        assert "scaler" in refusal
        return
    two = make(name, named(others))
    advance(name, one, params, steps=2)
    advance(name, two, others, steps=2)
    assert equal(params, others)


@every
def test_lr_by_position_works_or_is_explained(name: str) -> None:
    """``AdamW(params, 1e-3)`` is valid in torch.optim."""
    kind: Any = methods.get(name)
    roles = {"roles": "shape"} if name in ("muon", "scale") else {}
    optimizer, refusal = attempt(lambda: kind(start(), rate(name), **roles), TypeError)
    if refusal:
        assert "lr=" in refusal
        return
    assert optimizer.param_groups[0]["lr"] == rate(name)


@every
def test_options_of_torch_that_are_not_ours_are_explained(name: str) -> None:
    """What the option was for is there anyway, or is not; the error says which, and what to do."""
    cases = ("foreach", "fused", "capturable", "differentiable", "amsgrad", "decoupled_lr")
    check_all(cases, lambda option: _explained(name, option))


def _explained(name: str, option: str) -> None:
    if option in methods.get(name).hypers:
        return
    optimizer, refusal = attempt(lambda: make(name, start(), **{option: True}))
    if refusal:
        words = refusal.split("Known options")[0]
        assert option in words
        if option in ("foreach", "fused", "capturable"):
            assert "engine" in words
        elif option != "decoupled_lr":
            assert any(w in words for w in ("leave", "instead", "without", "take it out"))
        return
    assert option not in ("differentiable", "amsgrad", "decoupled_lr"), "accepted, but not done"
    params = [p for group in optimizer.param_groups for p in group["params"]]
    before = copies(params)
    advance(name, optimizer, params)
    assert name == "rank_sgd" or not equal(params, before)


@every
@pytest.mark.parametrize("seed", [0, 7, 2**40])
def test_whole_numbers_of_every_kind_are_seeds(name: str, seed: int) -> None:
    import numpy as np

    optimizer = make(name, start(), seed=np.int64(seed))
    assert optimizer.seed == seed
    assert type(optimizer.seed) is int


@pytest.mark.parametrize("name", PLAIN)
def test_numbers_of_numpy_and_fractions_of_python_count_as_numbers(name: str) -> None:
    import numpy as np

    params, others = start(), start()
    value = float(np.float64(rate(name)))
    one, two = make(name, named(params), lr=np.float64(value)), make(name, named(others), lr=value)
    advance(name, one, params, steps=2)
    advance(name, two, others, steps=2)
    assert equal(params, others)


@every
@pytest.mark.parametrize("value", ["fast", None, [0.1]])
def test_a_step_with_an_lr_that_is_no_number_changes_nothing(name: str, value: Any) -> None:
    params = start()
    optimizer = make(name, params)
    advance(name, optimizer, params)
    before, steps = copies(params), optimizer.steps
    for group in optimizer.param_groups:
        group["lr"] = value
    with pytest.raises((TypeError, ValueError)):
        advance(name, optimizer, params)
    assert equal(params, before)
    assert optimizer.steps == steps


def test_minimize_refuses_what_cannot_be_meant() -> None:
    bowl: Any = lambda x: (x**2).sum()  # noqa: E731
    minimize: Any = anyorder.minimize
    for option, value in (
        ("tol", "small"),
        ("tol", -1.0),
        ("tol", float("nan")),
        ("tol", True),
        ("budget", 10),
        ("callback", 3),
        ("ranker", 3),
        ("seed", 1.7),
        ("maximize", "no"),
    ):
        with pytest.raises(AnyOrderError, match=option):
            minimize(bowl, torch.ones(2), **{"budget": "20values", option: value})


def test_an_optimizer_over_a_module_and_over_its_parameters_takes_the_same_options() -> None:
    model = nn.Linear(2, 2)
    for params in (model, model.parameters(), model.named_parameters(), list(model.parameters())):
        with pytest.raises(AnyOrderError, match="seed"):
            make("adamw", params, seed=1.7)
