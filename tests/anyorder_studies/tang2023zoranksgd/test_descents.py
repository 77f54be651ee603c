from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from anyorder_studies.tang2023zoranksgd.descents import (
    GRIDS,
    PER_STEP,
    TASKS,
    evaluations_to_the_same,
    evolve,
    optimizer_of,
    problem_of,
    run_task,
    tuned,
)
from anyorder_studies.tang2023zoranksgd.scales import LengthScales, Scales


def test_everybody_has_as_many_settings() -> None:
    assert {len(grid) for task in TASKS for grid in GRIDS[task].values()} == {10}
    assert all(GRIDS[task]["ranks"] == GRIDS[task]["values"] for task in TASKS)


@pytest.mark.parametrize("method", sorted(PER_STEP.keys() - {"cma"}))
def test_evaluations_are_counted_as_the_ledger_counts_them(method: str) -> None:
    problem = problem_of("quadratic", 0)
    model = problem.build(0)
    optimizer = optimizer_of(method, model, GRIDS["quadratic"][method][2], 0)
    for _ in range(3):
        optimizer.step(problem.closure(model, None))
    assert optimizer.calls.ranked + optimizer.calls.values == 3 * PER_STEP[method]


@pytest.mark.parametrize("task", TASKS)
def test_a_run_keeps_the_lowest_loss_within_its_budget(task: str) -> None:
    run = run_task(task, "ranks", [1.0, 0.1], 0, 66)
    assert run["evaluations"] == [0, 22, 44, 66]
    assert run["best"] == sorted(run["best"], reverse=True)
    assert run["best"][-1] < run["best"][0]
    assert ("test_ratio" in run) == (task in ("scales", "boosting"))


class Told(LengthScales):
    """Counts the evaluations, and returns an increasing function of the loss."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.change, self.asked = change, 0

    def loss(self, model: torch.nn.Module, batch: None) -> torch.Tensor:
        self.asked += 1
        return self.change(super().loss(model, batch))


def test_cma_is_told_orders_alone_and_counted() -> None:
    ends: list[torch.Tensor] = []
    for change in (lambda f: f, torch.exp):
        problem, model, seen = Told(change), Scales(), []
        evolve(problem, model, 0.3, steps=6, seed=4, after=seen.append)
        assert (problem.asked, seen) == (60, [1, 2, 3, 4, 5, 6])
        ends.append(model.x.detach())
    assert torch.equal(*ends)
    model = Scales()
    before = LengthScales().evaluate(model)["loss"]
    model.x.data.copy_(ends[0])
    assert LengthScales().evaluate(model)["loss"] < before


def test_a_run_of_cma_fits_its_budget() -> None:
    run = run_task("boosting", "cma", [1.0], 0, 22)
    assert run["evaluations"] == [0, 10, 20] and run["test_ratio"] > 0


def test_a_run_that_diverges_keeps_what_it_had() -> None:
    run = run_task("rosenbrock", "mezo", [1e3], 0, 40)
    assert run["best"][-1] == run["best"][0]


def test_tuning_takes_the_setting_that_comes_lowest() -> None:
    assert tuned("quadratic", "mezo", ((1e-9,), (0.03,), (1e3,)), 60, 1) == (0.03,)


def test_evaluations_are_read_where_both_have_come_to() -> None:
    fast = {"evaluations": [0, 2, 4, 6], "best": [9.0, 5.0, 2.0, 1.0]}
    slow = {"evaluations": [0, 22, 44], "best": [9.0, 6.0, 4.0]}
    assert evaluations_to_the_same(fast, slow) == (4, 44)
    assert evaluations_to_the_same(slow, fast) == (44, 4)
    stuck = {"evaluations": [0, 22], "best": [9.0, 9.0]}
    assert evaluations_to_the_same(stuck, fast) == (22, 2)
