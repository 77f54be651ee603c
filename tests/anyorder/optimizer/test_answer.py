"""Parameters that hold the answer for a while, and come back."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyorder import SGD
from anyorder.optimizer import Optimizer
from anyorder.optimizer.answer import Answer, AnswerError
from anyorder.rules.descent import HEAVY_BALL


class LooksAhead(Optimizer):
    """Momentum whose answer lies half a velocity further on."""

    rule = HEAVY_BALL
    answer_buffer = "momentum_buffer"

    def answer_scale(self, group: Mapping[str, Any]) -> float:
        """Half of it."""
        return -0.5


def made(**options: Any) -> tuple[list[nn.Parameter], LooksAhead]:
    """After one step from 1, where the slope is (1, 2): x = (0.9, 0.8), answer (0.4, -0.2)."""
    a, b = (nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(2))
    optimizer = LooksAhead([("a", a), ("b", b)], lr=0.1, momentum=0.5, engine="eager", **options)
    optimizer.step(lambda: a.sum() + 2 * b.sum())
    return [a, b], optimizer


def at(params: list[nn.Parameter]) -> list[float]:
    return [p.item() for p in params]


HERE, ANSWER = pytest.approx([0.9, 0.8]), pytest.approx([0.4, -0.2])


def test_inside_the_context_parameters_hold_the_answer() -> None:
    params, optimizer = made()
    bits = at(params)
    with optimizer.answer():
        assert at(params) == ANSWER
        with optimizer.answer():
            assert at(params) == ANSWER
        assert at(params) == ANSWER
        with pytest.raises(AnswerError, match="leave `with"):
            optimizer.step(lambda: params[0].sum())
    assert at(params) == bits == HERE


def test_a_context_undoes_whatever_is_done_inside() -> None:
    params, optimizer = made()
    bits = at(params)
    with torch.no_grad(), optimizer.answer():
        params[0].fill_(7.0)
        params[1].add_(1.0)
    assert at(params) == bits


def test_eval_and_train_move_there_and_back() -> None:
    params, optimizer = made()
    bits = at(params)
    for show in (optimizer.eval, lambda: optimizer.train(False)):
        for _ in range(2):  # the second time changes nothing
            show()
            assert at(params) == ANSWER
        optimizer.train()
        optimizer.train()
        assert at(params) == bits


def test_weights_that_were_changed_are_answers() -> None:
    """Loaded weights are moved by the same distance; the others come back bit for bit."""
    params, optimizer = made()
    bits = at(params)
    optimizer.eval()
    with torch.no_grad():
        params[1].fill_(5.0)
    optimizer.train()
    assert params[0].item() == bits[0]
    assert params[1].item() == pytest.approx(5.0 + 0.5 * 2)


def test_the_context_inside_eval_leaves_it_shown() -> None:
    params, optimizer = made()
    optimizer.eval()
    with optimizer.answer():
        assert at(params) == ANSWER
    assert at(params) == ANSWER
    optimizer.train()
    assert at(params) == HERE


def test_frozen_parameters_have_an_answer_too() -> None:
    params, optimizer = made()
    params[0].requires_grad_(False)
    with optimizer.answer():
        assert at(params) == ANSWER
        assert list(optimizer.named_params()) == ["b"]
    assert at(params) == HERE


def test_steps_are_not_counted_by_looking() -> None:
    params, optimizer = made()
    with optimizer.answer():
        pass
    assert [optimizer.state[p]["step"] for p in params] == [1, 1] and optimizer.steps == 1


def test_what_fails_half_way_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    params, optimizer = made()
    bits = at(params)
    apply = LooksAhead.apply

    def broken(self: LooksAhead, *args: Any, **kwargs: Any) -> None:
        apply(self, *args, **kwargs)
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(LooksAhead, "apply", broken)
        with pytest.raises(MemoryError), optimizer.answer():
            pass
    assert at(params) == bits
    optimizer.step(lambda: params[0].sum() + params[1].sum())


def test_a_copy_made_while_it_is_shown_comes_back_by_moving() -> None:
    params, optimizer = made()
    optimizer.eval()
    twin = copy.deepcopy(optimizer)
    theirs = twin.param_groups[0]["params"]
    assert at(theirs) == ANSWER
    twin.train()
    assert at(theirs) == HERE and at(params) == ANSWER


def test_a_checkpoint_says_whether_its_weights_are_the_answer() -> None:
    params, optimizer = made()
    training = optimizer.state_dict()
    optimizer.eval()
    shown, weights = optimizer.state_dict(), at(params)
    others, fresh = made()
    fresh.load_state_dict(shown)
    with torch.no_grad():
        for other, weight in zip(others, weights, strict=True):
            other.fill_(weight)
    with pytest.raises(AnswerError):
        fresh.step(lambda: others[0].sum())
    fresh.train()
    assert at(others) == HERE
    fresh.eval()
    fresh.load_state_dict(training)  # whose weights are loaded beside it
    fresh.step(lambda: others[0].sum())


def test_the_users_projection_is_applied_to_the_answer() -> None:
    def positive(name: str, param: Tensor) -> None:
        param.clamp_(min=0.0)

    params, optimizer = made(after=positive)
    with optimizer.answer():
        assert at(params) == pytest.approx([0.4, 0.0])
    assert at(params) == HERE


def test_methods_that_answer_where_they_are_do_not_move() -> None:
    x = nn.Parameter(torch.ones(2))
    optimizer = SGD([x], lr=0.1, momentum=0.5, engine="eager")
    optimizer.step(lambda: x.sum())
    version = x._version
    optimizer.eval()
    with optimizer.answer():
        optimizer.step(lambda: x.sum())  # it holds the answer all the time
    assert x._version == version + 1
    answer = Answer(None)
    answer.restore(True)
    assert not answer.shown
