"""One line for every optimizer: counted, held to the budget, an unfinished step undone."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from anyorder import Composite
from anyorder.compare.plan.entrants import resolve
from anyorder.compare.run.adapter import HOPELESS, RESERVE, SHARE, Diverged, Foreign, Native, adapt
from anyorder.oracle.ledger import Budget, BudgetExhausted


def loss_of(model: nn.Linear) -> torch.Tensor:
    return (model(torch.eye(4)) - 3).square().mean()


@pytest.mark.parametrize("name", ["sgd", "torch.optim:SGD"])
def test_same_numbers_and_ledger_for_both_kinds(name: str) -> None:
    torch.manual_seed(0)
    model, plain = nn.Linear(4, 1), nn.Linear(4, 1)
    plain.load_state_dict(model.state_dict())
    adapted = adapt(resolve(name), model, {"lr": 0.1, "momentum": 0.5}, Budget(), 0)
    losses = [float(adapted.step(lambda: loss_of(model))) for _ in range(5)]  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.5)
    expected: list[float] = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = loss_of(plain)
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    assert losses == pytest.approx(expected, rel=1e-6)
    assert adapted.calls.grads == 5
    assert adapted.calls.seconds > 0


@pytest.mark.parametrize("name", ["sgd", "torch.optim:SGD"])
def test_gradients_of_a_composite_hold_output_gradients(name: str) -> None:
    model = nn.Linear(4, 1)
    closure = Composite(lambda: model(torch.eye(4)), lambda out: (out - 3).square().mean())
    adapted = adapt(resolve(name), model, {"lr": 0.1}, Budget(output_grads=3), 0)
    with pytest.raises(BudgetExhausted):
        while True:
            adapted.step(closure)
    assert (adapted.calls.grads, adapted.calls.output_grads) == (3, 3)


def test_kinds() -> None:
    model = nn.Linear(2, 1)
    assert isinstance(adapt(resolve("mezo"), model, {}, Budget(), 0), Native)
    assert isinstance(adapt(resolve("torch.optim:Adam"), model, {}, Budget(), 0), Foreign)


def test_several_gradients_per_step_are_all_counted_and_stopped_in_time() -> None:
    model = nn.Linear(4, 1)
    budget = Budget(forwards=3 * 50)
    adapted = adapt(resolve("torch.optim:LBFGS"), model, {"lr": 0.01}, budget, 0)
    with pytest.raises(BudgetExhausted):
        while True:
            adapted.step(lambda: loss_of(model))
    assert adapted.calls.grads == 50


def test_an_unfinished_step_is_undone() -> None:
    model = nn.Linear(4, 1)
    adapted = adapt(resolve("torch.optim:LBFGS"), model, {"lr": 0.01}, Budget(grads=25), 0)
    adapted.step(lambda: loss_of(model))
    assert adapted.calls.grads == 20
    before = model.weight.detach().clone()
    adapted.prepare(0.25)
    with pytest.raises(BudgetExhausted):
        adapted.step(lambda: loss_of(model))
    assert adapted.calls.grads == 25
    assert torch.equal(model.weight, before)


def test_a_foreign_loss_that_stays_nan_ends_the_run() -> None:
    model = nn.Linear(4, 1)
    adapted = adapt(resolve("torch.optim:SGD"), model, {}, Budget(), 0)
    with pytest.raises(Diverged, match=f"{HOPELESS} steps in a row"):
        for _ in range(HOPELESS):
            adapted.step(lambda: loss_of(model) * float("nan"))


def test_fixed_settings_and_configuration_reach_the_class() -> None:
    model = nn.Linear(4, 1)
    entrant = resolve("torch.optim:AdamW", sets={"betas": "(0.5, 0.6)"})
    adapted = adapt(entrant, model, {"lr": 0.25}, Budget(), 0)
    group = adapted.optimizer.param_groups[0]
    assert (group["lr"], group["betas"]) == (0.25, (0.5, 0.6))


def test_a_foreign_optimizer_that_never_calls_the_closure_returns_no_loss(tmp_path: Path) -> None:
    path = tmp_path / "lazy.py"
    path.write_text(
        "import torch\n\nclass Lazy(torch.optim.SGD):\n"
        "    def step(self, closure=None):\n        return None\n"
    )
    adapted = adapt(resolve(f"{path}:Lazy"), nn.Linear(2, 1), {}, Budget(), 0)
    assert adapted.step(lambda: torch.zeros(())) is None
    assert adapted.calls.grads == 0


def test_trial_points_that_are_not_finite_are_no_divergence(tmp_path: Path) -> None:
    path = tmp_path / "search.py"
    path.write_text(
        "import torch\n\nclass Search(torch.optim.SGD):\n"
        "    def step(self, closure):\n"
        "        loss, param = closure(), self.param_groups[0]['params'][0]\n"
        "        kept = param.detach().clone()\n"
        f"        for _ in range({HOPELESS + 5}):\n"
        "            param.data.fill_(float('nan'))\n"
        "            closure()\n"
        "        param.data.copy_(kept)\n"
        "        return loss\n"
    )
    model = nn.Linear(4, 1)
    adapted = adapt(resolve(f"{path}:Search"), model, {}, Budget(), 0)
    for _ in range(2):
        loss = adapted.step(lambda: loss_of(model))
        assert loss is not None and loss.isfinite()


def test_optimizers_that_call_once_are_copied_only_near_the_end() -> None:
    model = nn.Linear(4, 1)
    adapted = adapt(resolve("torch.optim:SGD"), model, {"lr": 0.1}, Budget(grads=1000), 0)
    assert isinstance(adapted, Foreign)
    least, most = RESERVE
    adapted.prepare(least)
    assert adapted.kept_bytes == 0
    adapted.prepare(least - 1)
    assert adapted.kept_bytes == 4 * 5
    weight = model.weight.detach().clone()
    assert adapted._kept is not None
    adapted.step(lambda: loss_of(model))
    adapted.prepare(least)  # not copied again
    adapted._kept.restore()
    assert torch.equal(model.weight, weight)
    for _ in range(most * SHARE):  # after more steps, earlier before the end
        adapted.step(lambda: loss_of(model))
    adapted.prepare(most)
    adapted._kept.restore()
    assert torch.equal(model.weight, weight)
    adapted.step(lambda: loss_of(model))
    weight = model.weight.detach().clone()
    adapted.prepare(most - 1)
    adapted.step(lambda: loss_of(model))
    adapted._kept.restore()
    assert torch.equal(model.weight, weight)


def test_optimizers_that_call_several_times_are_always_copied() -> None:
    model = nn.Linear(4, 1)
    adapted = adapt(resolve("torch.optim:LBFGS"), model, {"lr": 0.01}, Budget(grads=1000), 0)
    adapted.step(lambda: loss_of(model))
    adapted.prepare(math.inf)
    assert adapted.kept_bytes > 0


def test_nothing_is_copied_where_the_budget_ends_between_steps() -> None:
    adapted = adapt(resolve("torch.optim:LBFGS"), nn.Linear(4, 1), {}, Budget(steps=3), 0)
    adapted.prepare(0.0)
    adapted.keep()
    assert adapted.kept_bytes == 0
