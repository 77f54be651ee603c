"""Sets of coordinates: sizes, layer shares of GraSP, parts of processes, exact restoration."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anyorder.methods._coordinates import divided, drawn, layer_shares, moved


def test_sets_are_functions_of_seed_draw_and_name() -> None:
    first = drawn(0, 0, "w", 1000, 0.1)
    assert first == drawn(0, 0, "w", 1000, 0.1) == sorted(set(first))
    assert len(first) == 100 and set(first) <= set(range(1000))
    for other in ((1, 0, "w"), (0, 1, "w"), (0, 0, "v")):
        assert drawn(*other, 1000, 0.1) != first
    state = torch.get_rng_state()
    drawn(3, 4, "x", 50, 0.5)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("numel", "share", "count"), [(5, 0.0, 1), (5, 1.0, 5), (7, 0.5, 4), (0, 0.5, 0)]
)
def test_sizes_of_sets(numel: int, share: float, count: int) -> None:
    assert len(drawn(0, 0, "w", numel, share)) == count


def test_every_coordinate_is_drawn_in_time() -> None:
    seen = {index for draw in range(60) for index in drawn(0, draw, "w", 40, 0.2)}
    assert seen == set(range(40))


def test_layer_shares_by_magnitude_and_by_sign() -> None:
    scores = {
        "a": torch.tensor([[-9.0, 8.0], [0.1, 0.2]]),
        "b": torch.tensor([[7.0, 6.0, -0.3, -0.4]]),
    }
    assert layer_shares(scores, 0.5) == {"a": 0.5, "b": 0.5}
    assert layer_shares(scores, 0.25) == {"a": 0.5, "b": 0.0}
    # GraSP keeps the smallest: -9, -0.4, -0.3, 0.1
    assert layer_shares(scores, 0.5, signed=True) == {"a": 0.5, "b": 0.5}
    assert layer_shares(scores, 0.375, signed=True) == {"a": 0.25, "b": 0.5}


@given(st.lists(st.floats(0, 100), max_size=40), st.integers(1, 6))
def test_every_coordinate_belongs_to_one_process(costs: list[float], processes: int) -> None:
    parts = divided(costs, processes)
    assert len(parts) == processes
    assert [index for part in parts for index in part] == list(range(len(costs)))
    total, largest = sum(costs), max(costs, default=0.0)
    if total > 1e-9:
        for part in parts:
            assert sum(costs[i] for i in part) <= total / processes + largest + 1e-6


def test_equal_cost_and_not_equal_number() -> None:
    """Early blocks cost 50 times the classifier."""
    parts = divided([50.0] * 10 + [1.0] * 500, 2)
    assert [len(part) for part in parts] == [10, 500]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("turned", [False, True])
def test_an_element_is_moved_and_restored_bit_for_bit(dtype: torch.dtype, turned: bool) -> None:
    torch.manual_seed(0)
    param = torch.randn(4, 3, 2).to(dtype)
    param = param.transpose(0, 2) if turned else param
    before = param.clone()
    for index in range(param.numel()):
        with moved(param, index, 0.05) as step:
            changed = (param != before).flatten().nonzero().flatten().tolist()
            assert changed == [index]
            difference = (param.double() - before.double()).flatten()[index].item()
            assert step == difference
        assert torch.equal(param, before)
    with pytest.raises(KeyError), moved(param, 3, 0.05):
        raise KeyError
    assert torch.equal(param, before)


def test_a_scalar_has_one_coordinate() -> None:
    param = torch.tensor(2.0)
    with moved(param, 0, 0.5) as step:
        assert param.item() == 2.5 and step == 0.5
    assert param.item() == 2.0


def test_an_element_that_rounding_keeps_says_so() -> None:
    with moved(torch.tensor([1.0], dtype=torch.bfloat16), 0, 1e-4) as step:
        assert step == 0.0
