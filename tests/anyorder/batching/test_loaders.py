"""What is read off loaders and batches."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from anyorder.batching.loaders import (
    BatchingError,
    above,
    one_of,
    population_of,
    refuse_resampling,
    samples_in,
    whole,
)

DATA = TensorDataset(torch.arange(10.0))


class Stream(IterableDataset[Tensor]):
    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(torch.arange(10.0))


def test_samples_are_the_first_axis_of_the_first_tensor() -> None:
    assert samples_in(torch.zeros(3, 2)) == 3
    assert samples_in([torch.zeros(4), torch.zeros(4, 2)]) == 4
    assert samples_in({"name": ["a", "b"], "x": torch.zeros(2, 5)}) == 2
    for bad in (torch.zeros(()), ["a"], None):
        with pytest.raises(BatchingError, match="first axis counts samples"):
            samples_in(bad)


def test_a_population_is_known_where_nothing_is_drawn_twice() -> None:
    assert population_of(DataLoader(DATA, batch_size=2)) == 10
    assert population_of(DataLoader(DATA, batch_size=2, shuffle=True)) == 10
    again = RandomSampler(DATA, replacement=True)
    weighted = WeightedRandomSampler([1.0] * 10, 10)
    for sampler in (again, weighted):
        assert population_of(DataLoader(DATA, batch_size=2, sampler=sampler)) == math.inf
    assert population_of(DataLoader(Stream(), batch_size=2)) == math.inf
    assert population_of(DataLoader(DATA, batch_sampler=[[0, 1], [2, 3]])) == math.inf


def test_loaders_that_cannot_be_resampled_say_why() -> None:
    refuse_resampling(DataLoader(DATA, batch_size=2))
    with pytest.raises(BatchingError, match="IterableDataset.*use how='accumulate'"):
        refuse_resampling(DataLoader(Stream(), batch_size=2))
    for loader in (
        DataLoader(DATA, batch_size=None),
        DataLoader(DATA, batch_sampler=[[0, 1], [2, 3]]),
    ):
        with pytest.raises(BatchingError, match="no batch size.*use how='accumulate'"):
            refuse_resampling(loader)


def test_settings_are_checked() -> None:
    one_of("test", "norm", ("norm", "other"))
    above(0, eta=0.5)
    whole(2, parts=2, piece=None)
    with pytest.raises(BatchingError, match="test: expected one of norm, other; got 'x'"):
        one_of("test", "x", ("norm", "other"))
    for bad in (0, -1.0, math.nan, "a", True):
        with pytest.raises(BatchingError, match="eta: expected a number > 0"):
            above(0, eta=bad)  # type: ignore[arg-type]
    for bad in (1, 2.5, True, "3"):
        with pytest.raises(BatchingError, match="parts: expected a whole number >= 2"):
            whole(2, parts=bad)  # type: ignore[arg-type]
