from __future__ import annotations

import pytest
import torch

from anyorder_studies.shu2023fzoos.quadratics import (
    CLIENTS,
    GRIDS,
    METHODS,
    STEPS,
    gap,
    quadratics,
    run,
    tuned,
)


def test_the_mean_of_the_functions_is_the_one_that_is_judged() -> None:
    functions, x = quadratics(6, 3)
    assert len(functions) == CLIENTS and ((x >= 0) & (x <= 1)).all()
    least = 0.1 * (1 / 6 - 0.25)
    for point in (x, torch.zeros(6), torch.full((6,), 1.5)):
        mean = sum(f(point.double()) for f in functions) / CLIENTS
        assert gap(point.double()) == pytest.approx(mean - least, rel=1e-9)
    assert gap(torch.full((6,), 0.475).double()) == pytest.approx(0.0, abs=1e-12)


def test_clients_differ_and_seeds_too() -> None:
    functions, x = quadratics(6, 3)
    assert len({round(f(x), 9) for f in functions}) == CLIENTS
    again, other = quadratics(6, 3), quadratics(6, 4)
    assert again[0][0](x) == functions[0](x) and torch.equal(again[1], x)
    assert other[0][0](x) != functions[0](x)


@pytest.mark.parametrize("method", METHODS)
def test_runs_end_with_the_budget(method: str) -> None:
    found = run(method, 4, [0.02, 3], 0, 150)
    each = STEPS * 4
    if method == "fzoos":
        expected = [0, each + 51, each + 51 + each - 4 + 51]
    else:
        each += 4 * (method == "scaffold_1")
        expected = list(range(0, 150 + each, each))
    assert found["queries"] == expected
    sent = {"fzoos": 5 + 1000, "scaffold_1": 8, "scaffold_2": 8}.get(method, 4)
    assert found["floats"] == [2 * sent * i for i in range(len(expected))]
    assert found["best"] == sorted(found["best"], reverse=True)
    assert found["best"][-1] < found["best"][0]


def test_tuning_takes_the_setting_that_descends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GRIDS, "fedzo", [[1e-9, 3], [0.02, 3]])
    assert tuned("fedzo", 5, 2, 60, 1, 0) == [0.02, 3]


def test_all_methods_have_as_many_settings() -> None:
    assert {len(grid) for grid in GRIDS.values()} == {4}
