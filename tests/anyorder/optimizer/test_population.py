"""Methods that ask and are told: a step from answers, wherever these come from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from anyorder import Budget, Population
from anyorder.oracle.closures import RankingError
from anyorder.oracle.ledger import BudgetExhausted
from anyorder.points.directions import Shift


class Best(Population):
    """Shows three points twice over and goes to the best of the second three."""

    order = 0
    needs = frozenset({"rank"})

    def ask(self) -> list[Shift]:
        return [Shift(scale, self.direction()) for scale in (0.5, 0.0, -0.5)]

    def learn(self, order: list[int]) -> bool:
        self.rounds = getattr(self, "rounds", 0) + 1
        if self.rounds % 2:
            return False
        best = self.ask()[order[0]]
        self.move_(best.direction, lambda group: best.scale)  # type: ignore[arg-type]
        return True


def made(**options: object) -> tuple[nn.Parameter, Best]:
    x = nn.Parameter(torch.ones(4))
    return x, Best([x], seed=3, **options)  # type: ignore[arg-type]


def at_start(x: Tensor) -> bool:
    return torch.equal(x, torch.ones(4))


def test_a_step_asks_until_it_is_complete() -> None:
    x, method = made()
    before = (x.detach() ** 2).sum()
    method.step(lambda: (x**2).sum())
    assert (method.rounds, method.steps) == (2, 1)
    assert (method.calls.rankings, method.calls.ranked) == (2, 6)
    assert (x.detach() ** 2).sum() < before


def test_answers_told_by_hand_are_the_same_step() -> None:
    (x, asked), (y, told) = made(), made()
    asked.step(lambda: (x**2).sum())
    for expected in (False, True):
        values: list[float] = []
        for shift in told.ask():
            with told.shown(shift):
                values.append((y.detach() ** 2).sum().item())
        assert torch.equal(y, torch.ones(4))  # shown, not moved
        assert told.tell(sorted(range(3), key=values.__getitem__)) is expected
    assert torch.equal(x, y)
    assert (told.steps, told.calls.rankings, told.calls.ranked) == (1, 2, 6)


@pytest.mark.parametrize("answer", [[3], [0, 0], [-1], [0.5], []])
def test_answers_that_are_no_order_change_nothing(answer: list[int]) -> None:
    x, method = made()
    with pytest.raises(RankingError):
        method.tell(answer)
    assert method.calls.rankings == 0
    assert torch.equal(x, torch.ones(4))


def test_one_answer_too_many_changes_nothing() -> None:
    x, method = made(budget=Budget(rankings=1))
    method.tell([0])
    with pytest.raises(BudgetExhausted):
        method.tell([0])
    assert method.rounds == 1
    assert torch.equal(x, torch.ones(4))


def test_hooks_of_a_step_run_once_around_all_its_answers() -> None:
    seen: list[tuple[str, bool]] = []
    x, method = made()
    everywhere = [
        register_optimizer_step_pre_hook(lambda *_: seen.append(("before all", at_start(x)))),
        register_optimizer_step_post_hook(lambda *_: seen.append(("after all", at_start(x)))),
    ]
    method.register_step_pre_hook(lambda *_: seen.append(("before", at_start(x))))
    method.register_step_post_hook(lambda *_: seen.append(("after", at_start(x))))
    try:
        method.tell([0])
        assert seen == [("before all", True), ("before", True)]
        method.tell([0])
        once = [*seen]
        assert once[2:] == [("after", False), ("after all", False)]
        method.step(lambda: (x**2).sum())
        names = [name for name, _ in seen]
        assert names == [name for name, _ in once] * 2
    finally:
        for handle in everywhere:
            handle.remove()


def test_a_hook_may_change_what_is_told() -> None:
    x, method = made()
    y, other = made()
    method.register_step_pre_hook(
        lambda method, args, kwargs: ((method, None), {"values": [3, 2, 1]})
    )
    method.tell([0])
    other.tell([2, 1, 0])
    for each in (method, other):
        each.tell([1])
    assert torch.equal(x, y) and method.calls == other.calls


def test_schedulers_know_that_a_step_was_told() -> None:
    method = Best([{"params": [nn.Parameter(torch.ones(4))], "lr": 1.0}])
    scheduler = torch.optim.lr_scheduler.StepLR(method, 1)
    method.tell([0])
    method.tell([0])
    scheduler.step()  # would warn, were no step taken yet; warnings are errors


def test_a_state_that_is_loaded_begins_a_step_for_hooks() -> None:
    begun: list[int] = []
    _, method = made()
    saved = method.state_dict()
    method.register_step_pre_hook(lambda method, *_: begun.append(method.steps))
    method.tell([0])
    method.load_state_dict(saved)
    method.tell([0])
    assert begun == [0, 0]
