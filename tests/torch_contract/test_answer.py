"""The point to be judged: ``answer()``, and ``eval()`` and ``train()`` beside it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from anyorder import methods

from .worlds import (
    METHODS,
    PLAIN,
    advance,
    agree,
    attempt,
    close,
    copies,
    equal,
    loss_of,
    make,
    named,
    picture,
    start,
)

every = pytest.mark.parametrize("name", METHODS)
#: Methods whose answer lies elsewhere than they train.
ELSEWHERE = [n for n in METHODS if methods.get(n).answer_buffer is not None]
#: Options with which it does.
OPTIONS: dict[str, dict[str, Any]] = {
    "accelerated": {"form": "triple_momentum", "mu": 1.0, "L": 4.0, "lr": 1.0}
}


def world(name: str, steps: int = 4) -> tuple[Any, list[nn.Parameter], list[torch.Tensor]]:
    """An optimizer after some steps, its parameters, and its answer."""
    params = start()
    optimizer = make(name, named(params), **OPTIONS.get(name, {}))
    advance(name, optimizer, params, steps=steps)
    with optimizer.answer():
        shown = copies(params)
    return optimizer, params, shown


@every
def test_the_answer_lies_where_the_method_says(name: str) -> None:
    _, params, shown = world(name)
    assert equal(params, shown) == (name not in ELSEWHERE)


@every
def test_weights_and_answer_obey_what_is_done_after_a_step(name: str) -> None:
    """Momentum leads below the bound: the minimum lies there."""
    params = start()
    options = {**OPTIONS.get(name, {}), "after": lambda _, p: p.clamp_(0.45, 1.0)}
    optimizer = make(name, named(params), **options)

    def within() -> bool:
        return all(bool(((p >= 0.45) & (p <= 1.0)).all()) for p in params)

    for _ in range(6):
        advance(name, optimizer, params)
        assert within()
        with optimizer.answer():
            assert within()


@every
def test_an_exception_inside_puts_everything_back(name: str) -> None:
    optimizer, params, shown = world(name)
    kept = picture(optimizer)
    with pytest.raises(RuntimeError, match="boom"), optimizer.answer(), optimizer.answer():
        assert equal(params, shown)
        raise RuntimeError("boom")
    assert agree(picture(optimizer), kept)
    with optimizer.answer():
        assert equal(params, shown)


@every
def test_an_answer_changes_nothing_that_comes_after(name: str) -> None:
    optimizer, params, _ = world(name)
    other, others, _ = world(name)
    for _ in range(2):
        with optimizer.answer(), optimizer.answer():
            loss_of(params)
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    advance(name, optimizer, params, steps=2)
    advance(name, other, others, steps=2)
    assert equal(params, others)


@every
@pytest.mark.parametrize("how", ["freeze_one", "freeze_all", "frozen_inside", "no_grad", "module"])
def test_the_answer_does_not_depend_on_what_is_frozen(name: str, how: str) -> None:
    optimizer, params, shown = world(name)
    here = copies(params)
    if how.startswith("freeze"):
        for p in params[: 1 if how == "freeze_one" else None]:
            p.requires_grad_(False)
    if how == "no_grad":
        with torch.no_grad(), optimizer.answer():
            assert equal(params, shown)
    elif how == "module":  # as Lightning does around a validation
        holder = nn.ParameterList(params).eval().requires_grad_(False)
        with optimizer.answer():
            assert equal(params, shown)
        holder.train().requires_grad_(True)
    else:
        with optimizer.answer():
            assert equal(params, shown)
            if how == "frozen_inside":
                for p in params:
                    p.requires_grad_(False)
            assert equal(params, shown)
    assert equal(params, here)


@every
def test_a_layer_frozen_in_mid_training_keeps_its_answer(name: str) -> None:
    optimizer, params, shown = world(name)
    params[1].requires_grad_(False)
    here = params[1].detach().clone()
    advance(name, optimizer, params, steps=3)
    assert torch.equal(params[1], here)
    with optimizer.answer():
        close([params[1]], [shown[1]])
    params[1].requires_grad_(True)
    advance(name, optimizer, params, steps=5)
    assert not torch.equal(params[1], here)


@every
def test_a_parameter_that_never_moved_is_its_own_answer(name: str) -> None:
    params = [*start(), nn.Parameter(torch.full((3,), 0.7), requires_grad=False)]
    optimizer = make(name, named(params), **OPTIONS.get(name, {}))
    with optimizer.answer():  # before any step
        assert bool((params[2] == 0.7).all())
    advance(name, optimizer, params[:2], steps=3)
    with optimizer.answer():
        assert bool((params[2] == 0.7).all())
        assert bool(torch.cat([p.flatten() for p in params]).isfinite().all())
    optimizer.add_param_group({"params": [("late", nn.Parameter(torch.full((2, 2), 0.4)))]})
    with optimizer.answer():
        assert bool((optimizer.param_groups[-1]["params"][-1] == 0.4).all())


@every
def test_a_step_inside_is_right_or_refused(name: str) -> None:
    optimizer, params, _ = world(name)
    other, others, _ = world(name)
    here = copies(params)
    with optimizer.answer():
        _, refusal = attempt(lambda: advance(name, optimizer, params))
    if refusal:
        assert equal(params, here)
        assert optimizer.steps == other.steps
    elif name in ELSEWHERE:  # a step that is taken has to last
        advance(name, other, others)
        close(params, others)
        return
    else:
        advance(name, other, others)
        assert equal(params, others) or equal(params, here)
        assert optimizer.steps == other.steps
        return
    advance(name, optimizer, params)
    advance(name, other, others)
    assert equal(params, others)


@every
@pytest.mark.parametrize("what", ["state_dict", "deepcopy", "pickle"])
def test_what_is_saved_inside_an_answer_goes_on_from_where_it_trained(name: str, what: str) -> None:
    """As trainers save: weights and optimizer together, in the middle of a validation."""
    optimizer, params, shown = world(name)
    with optimizer.answer():
        if what == "state_dict":
            others = [nn.Parameter(p.detach().clone()) for p in params]
            twin = make(name, named(others), **OPTIONS.get(name, {}))
            twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        else:
            twin = (
                copy.deepcopy(optimizer)
                if what == "deepcopy"
                else pickle.loads(pickle.dumps(optimizer))
            )
            others = [p for group in twin.param_groups for p in group["params"]]
        assert equal(params, shown)
    close(others, shown)
    twin.train()
    close(others, params)
    advance(name, optimizer, params)
    advance(name, twin, others)
    close(params, others)


@every
def test_loading_inside_an_answer(name: str) -> None:
    optimizer, params, shown = world(name)
    here = copies(params)
    with optimizer.answer():
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        assert equal(params, shown)
    assert equal(params, here)


# eval() and train(), as in the authors' program for schedule-free methods -----------------------


@every
def test_eval_shows_the_answer_and_train_goes_on(name: str) -> None:
    optimizer, params, shown = world(name)
    other, others, _ = world(name)
    optimizer.eval()
    close(params, shown)
    optimizer.eval()  # a second time changes nothing
    close(params, shown)
    with optimizer.answer():
        close(params, shown)
    close(params, shown)
    optimizer.train()
    close(params, others)
    optimizer.train()
    close(params, others)
    advance(name, optimizer, params, steps=2)
    advance(name, other, others, steps=2)
    close(params, others)


@every
def test_train_without_eval_changes_nothing(name: str) -> None:
    params, others = start(), start()
    one, two = make(name, named(params)), make(name, named(others))
    one.train()
    for _ in range(3):
        advance(name, one, params)
        one.train()
        advance(name, two, others)
    assert equal(params, others)


@every
def test_eval_before_the_first_step(name: str) -> None:
    params, others = start(), start()
    one, two = make(name, named(params)), make(name, named(others))
    one.eval()
    assert equal(params, others)
    one.train()
    advance(name, one, params, steps=2)
    advance(name, two, others, steps=2)
    assert equal(params, others)


@every
def test_a_step_in_eval_mode_is_right_or_refused(name: str) -> None:
    optimizer, params, shown = world(name)
    other, others, _ = world(name)
    optimizer.eval()
    _, refusal = attempt(lambda: advance(name, optimizer, params))
    if refusal:
        assert "train()" in refusal
        close(params, shown)
        assert optimizer.steps == other.steps
        optimizer.train()
        advance(name, optimizer, params)
    optimizer.train()
    advance(name, other, others)
    close(params, others)


@every
def test_a_checkpoint_made_in_eval_mode_goes_on_in_train_mode(name: str) -> None:
    """Weights hold the answer when they are saved; after ``train()`` they are where they were."""
    optimizer, params, shown = world(name)
    optimizer.eval()
    weights, saved = copies(params), copy.deepcopy(optimizer.state_dict())
    close(weights, shown)
    others = [nn.Parameter(w.clone()) for w in weights]
    again = make(name, named(others), **OPTIONS.get(name, {}))
    again.load_state_dict(saved)
    close(others, shown)
    optimizer.train()
    again.train()
    close(others, params)
    advance(name, optimizer, params, steps=2)
    advance(name, again, others, steps=2)
    close(others, params)


@every
def test_eval_with_frozen_parameters(name: str) -> None:
    """``model.requires_grad_(False)`` between ``eval()`` and ``train()``, and around both."""
    optimizer, params, shown = world(name)
    here = copies(params)
    optimizer.eval()
    for p in params:
        p.requires_grad_(False)
    close(params, shown)
    optimizer.train()
    close(params, here)
    optimizer.eval()
    for p in params:
        p.requires_grad_(True)
    optimizer.train()
    close(params, here)


@pytest.mark.parametrize("name", [n for n in PLAIN if n in ELSEWHERE])
@pytest.mark.parametrize("state", ["bf16", "8bit"])
def test_the_answer_under_reduced_state(name: str, state: str) -> None:
    params = start((80, 60), (5,))
    optimizer = make(name, named(params), state=state, **OPTIONS.get(name, {}))
    advance(name, optimizer, params, steps=3)
    here = copies(params)
    with optimizer.answer():
        shown = copies(params)
        with optimizer.answer():
            assert equal(params, shown)
    assert equal(params, here)
    optimizer.eval()
    close(params, shown)
    optimizer.train()
    close(params, here, atol=1e-5)
