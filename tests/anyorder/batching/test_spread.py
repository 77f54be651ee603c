"""Moments against naive sums, and the tests' sizes against their definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from anyorder.batching import spread as module
from anyorder.batching.spread import Accuracy, Moments, Spread

GENERATOR = torch.Generator().manual_seed(0)


def gradients(count: int) -> list[list[Tensor]]:
    """``count`` gradients of a matrix and a vector, in float64."""
    mean = [torch.randn(2, 3, generator=GENERATOR), torch.randn(4, generator=GENERATOR)]
    return [
        [(m + 0.5 * torch.randn(m.shape, generator=GENERATOR)).double() for m in mean]
        for _ in range(count)
    ]


def flat(found: list[list[Tensor]]) -> np.ndarray:
    return np.array([np.concatenate([t.numpy().ravel() for t in each]) for each in found])


def told(found: list[list[Tensor]], size: int = 1, **needs: bool) -> Spread:
    moments = Moments(size, len(found), **needs)
    for each in found:
        moments.add(each)
    seen = moments.spread()
    assert seen is not None
    return seen


def accuracy(test: str, **changes: Any) -> Accuracy:
    settings: dict[str, Any] = {
        "eta": 0.5, "theta": 0.9, "nu": 5.84, "quantile": 0.5, "unbiased": False, **changes,
    }  # fmt: skip
    return Accuracy(test, **settings)


# What is seen -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 5, 16])
def test_moments_are_naive_sums(count: int) -> None:
    found = gradients(count)
    table = flat(found)
    mean = table.mean(0)
    seen = told(found, kept=True, coordinates=True)
    assert seen.samples == count
    assert seen.square == pytest.approx(mean @ mean)
    assert seen.variance == pytest.approx(table.var(0, ddof=1).sum())
    assert seen.along == pytest.approx((table @ mean).var(ddof=1))
    rest = table - np.outer(table @ mean, mean) / (mean @ mean)
    assert seen.across == pytest.approx(rest.var(0, ddof=1).sum())
    assert seen.ratios is not None
    np.testing.assert_allclose(seen.ratios[0], table.var(0, ddof=1))
    np.testing.assert_allclose(seen.ratios[1], mean**2)


def test_stacked_gradients_are_the_same_as_one_by_one() -> None:
    found = gradients(9)
    one = told(found, kept=True, coordinates=True)
    stacked = Moments(1, 9, kept=True, coordinates=True)
    for start, end in ((0, 4), (4, 5), (5, 9)):
        stacked.add_many(
            [torch.stack(part) for part in zip(*found[start:end], strict=True)], end - start
        )
    other = stacked.spread()
    assert other is not None
    for name in ("samples", "square", "variance", "along", "across"):
        assert getattr(one, name) == pytest.approx(getattr(other, name))
    assert one.ratios is not None and other.ratios is not None
    for a, b in zip(one.ratios, other.ratios, strict=True):
        torch.testing.assert_close(a, b)


def test_micro_batches_estimate_the_variance_of_samples() -> None:
    """Averages of 8 samples each, many of them: the per-sample variance within some per cent."""
    samples = torch.randn(4000, 8, 3, generator=GENERATOR).double() * torch.tensor([1.0, 2.0, 0.1])
    seen = told([[each.mean(0)] for each in samples], size=8)
    assert seen.samples == 32_000
    assert seen.variance == pytest.approx(1 + 4 + 0.01, rel=0.05)


def test_more_gradients_than_are_kept_are_pooled() -> None:
    count = 5 * module.KEPT + 3
    ratios: list[float] = []
    for _ in range(60):  # with 15 degrees of freedom each
        found = gradients(count)
        table = flat(found)
        moments = Moments(1, count, kept=True)
        for each in found:
            moments.add(each)
        assert moments._blocks is not None and len(moments._blocks) == module.KEPT
        assert sum(size for size, _ in moments._blocks) == count
        seen = moments.spread()
        assert seen is not None
        assert seen.variance == pytest.approx(table.var(0, ddof=1).sum())
        ratios.append(seen.along / (table @ table.mean(0)).var(ddof=1))
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.2)


def test_missing_gradients_count_as_zero() -> None:
    one, two = torch.tensor([1.0, 2.0]), torch.tensor([3.0])
    moments = Moments(1, 3, kept=True, coordinates=True)
    for each in ([one, None], [None, two], [one, two]):
        moments.add(each)
    filled = told([[one, 0 * two], [0 * one, two], [one, two]], kept=True, coordinates=True)
    seen = moments.spread()
    assert seen is not None
    for name in ("square", "variance", "along"):
        assert getattr(seen, name) == pytest.approx(getattr(filled, name))


def test_one_gradient_has_no_variance() -> None:
    moments = Moments(4, 1)
    moments.add([torch.ones(2)])
    assert moments.spread() is None


def test_what_is_not_finite_is_known() -> None:
    seen = told([[torch.tensor([1.0, math.nan])], [torch.ones(2)]])
    assert not seen.finite
    assert told([[torch.ones(2)], [torch.zeros(2)]]).finite


def test_half_precision_is_summed_in_float32() -> None:
    found = [[torch.tensor([1.0 + i * 2.0**-7]).bfloat16()] for i in range(4)]
    assert told(found).variance == pytest.approx(np.var([i * 2.0**-7 for i in range(4)], ddof=1))


def test_large_gradients_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COORDINATES", 10)
    seen = told([[torch.arange(100.0)], [torch.zeros(100)]], coordinates=True)
    assert seen.ratios is not None and seen.ratios[1].numel() == 10
    torch.testing.assert_close(seen.ratios[1].sqrt(), torch.arange(0.0, 50.0, 5.0).double())


# What is needed ---------------------------------------------------------------------------------

SEEN = Spread(16, square=4.0, variance=32.0, along=48.0)


@pytest.mark.parametrize(
    ("test", "settings", "size"),
    [
        ("norm", {"eta": 0.5}, 32 / (0.25 * 4)),
        ("norm", {"eta": 0.1}, 32 / (0.01 * 4)),
        ("inner_product", {"theta": 0.5}, 48 / (0.25 * 16)),
        ("augmented", {"theta": 0.5, "nu": 10.0}, 48 / (0.25 * 16)),
        ("augmented", {"theta": 0.5, "nu": 0.5}, (32 - 48 / 4) / (0.25 * 4)),
    ],
)
def test_sizes_are_those_of_the_definitions(
    test: str, settings: dict[str, float], size: float
) -> None:
    assert accuracy(test, **settings).needed(SEEN) == pytest.approx(size)


@pytest.mark.parametrize("test", ["norm", "inner_product", "augmented"])
@given(st.floats(0.1, 10), st.floats(0.1, 100), st.floats(0.05, 2), st.integers(2, 500))
def test_at_the_size_needed_the_test_is_just_passed(
    test: str, square: float, variance: float, allowed: float, population: int
) -> None:
    """Without replacement too: variance / b (1 - b/N) equals what is allowed."""
    along = 0.6 * variance * square
    seen = Spread(2, square, variance, along)
    judge = accuracy(test, eta=allowed, theta=allowed, nu=allowed)
    size = judge.needed(seen, population)
    assert 0 < size < population
    left = (1 / size - 1 / population) * np.array([variance, along, seen.across])
    most = allowed**2 * np.array([square, square**2, square])
    ratio = left / most
    chosen = {"norm": ratio[:1], "inner_product": ratio[1:2], "augmented": ratio[1:]}[test]
    assert chosen.max() == pytest.approx(1.0)


def test_coordinates_pass_by_quantile() -> None:
    variances = torch.tensor([1.0, 2.0, 3.0, 1.0, 0.0]).double()
    squares = torch.tensor([1.0, 1.0, 1.0, 1e-12, 0.0]).double()
    seen = Spread(4, 3.0, 7.0, ratios=(variances, squares))
    sizes = [accuracy("coordinate", eta=1.0, quantile=q).needed(seen) for q in (0.25, 0.5, 0.75, 1)]
    assert sizes == pytest.approx([1.0, 2.0, 3.0, 1e12])  # dead coordinates do not count
    silent = Spread(4, 0.0, 0.0, ratios=(variances * 0, squares))
    assert accuracy("coordinate").needed(silent) == 0.0


def test_noise_in_the_squared_norm_can_be_subtracted() -> None:
    judge = accuracy("norm", eta=1.0, unbiased=True)
    assert judge.needed(SEEN) == pytest.approx(32 / (4 - 32 / 16))
    noisy = Spread(4, square=4.0, variance=32.0)
    assert judge.needed(noisy) == math.inf  # 32 / 4 > 4: all of it may be noise
    assert judge.needed(noisy, population=100) == 100
    assert judge.needed(SEEN, population=16) == pytest.approx(8 / (1 + 8 / 16))  # whole: no noise


def test_squared_norms_are_too_large_by_the_variance() -> None:
    """The mean of |g|^2 - Var/b over many batches is |grad f|^2; that of |g|^2 is not."""
    mean = torch.tensor([1.0, 0.5, 0.0]).double()
    samples = mean + 2.0 * torch.randn(3000, 8, 3, generator=GENERATOR).double()
    seen = [told([[g] for g in batch]) for batch in samples]
    plain = np.mean([s.square for s in seen])
    assert plain == pytest.approx(1.25 + 12 / 8, rel=0.05)
    assert np.mean([s.square - s.variance / 8 for s in seen]) == pytest.approx(1.25, rel=0.08)


def test_no_gradient_at_all_asks_for_nothing_and_pure_noise_for_everything() -> None:
    assert accuracy("norm").needed(Spread(4, 0.0, 0.0)) == 0.0
    assert accuracy("norm").needed(Spread(4, 0.0, 1.0)) == math.inf
    assert accuracy("augmented").needed(Spread(4, 0.0, 1.0)) == math.inf


def apart(rank: int, file: str, results: Any) -> None:
    """Two processes hold one row each of every gradient."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    found = [torch.arange(6.0).reshape(2, 3) ** k for k in (0, 1, 2)]
    moments = Moments(2, 3, kept=True, coordinates=True)
    for gradient in found:
        moments.add([distribute_tensor(gradient, mesh, [Shard(0)])])
    seen = moments.spread()
    assert seen is not None and seen.ratios is not None
    results[rank] = [seen.square, seen.variance, seen.along, *seen.ratios[0].tolist()]
    dist.destroy_process_group()


def test_sharded_gradients_are_seen_whole(in_two_processes: Any) -> None:
    whole = told(
        [[torch.arange(6.0).reshape(2, 3) ** k] for k in (0, 1, 2)], 2, kept=True, coordinates=True
    )
    assert whole.ratios is not None
    expected = [whole.square, whole.variance, whole.along, *whole.ratios[0].tolist()]
    found = in_two_processes(apart)
    assert [found[rank] for rank in (0, 1)] == [pytest.approx(expected)] * 2
