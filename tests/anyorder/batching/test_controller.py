"""The controller: which batches it gives, when they grow, and that a run can be continued."""

from __future__ import annotations

import copy
import io
import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, TensorDataset

from anyorder import SGD, AdaGrad, AdamW
from anyorder.batching import BatchingError, BatchSizeController
from anyorder.oracle.gradients import NonFiniteError

N = 100


class Stream(IterableDataset[Tensor]):
    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[Tensor]:
        return iter(torch.arange(float(self.count)))


def loader(batch: int = 4, **settings: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.arange(float(N))), batch_size=batch, **settings)


def gradients(mean: float, spread: float, count: int) -> list[list[Tensor]]:
    """Gradients of one number with exactly this mean and this unbiased standard deviation."""
    off = torch.linspace(-1, 1, count, dtype=torch.float64)
    return [[g.reshape(1)] for g in mean + spread * off / off.std()]


def feed(controller: BatchSizeController, mean: float, spread: float) -> list[int]:
    """One pass in which every tested batch has these gradients; sizes of the batches."""
    sizes: list[int] = []
    for batches in controller:
        made = controller.closures(batches, lambda x: x.sum())
        if hasattr(made, "seen"):
            for g in gradients(mean, spread, len(made)):
                made.seen(g)
        sizes.append(sum(len(x) for (x,) in batches))
    return sizes


# Growing ----------------------------------------------------------------------------------------


def test_batches_grow_to_the_size_with_which_they_would_have_passed() -> None:
    """Micro-batches of 4 with variance 3: a sample has 12; 12 / (0.5^2 2^2) = 12 samples."""
    controller = BatchSizeController(loader(), eta=0.5, largest=80, population=math.inf)
    assert feed(controller, 2.0, math.sqrt(3.0)) == [8, *[12] * 7]  # 92 of 100; 8 are left over
    assert controller.needed == pytest.approx(12.0)
    assert controller.last is not None and controller.last.variance == pytest.approx(12.0)
    assert (controller.steps, controller.samples) == (8, 92)


def test_they_never_shrink_and_never_pass_the_limit() -> None:
    controller = BatchSizeController(loader(), eta=0.5, largest=30, population=math.inf)
    assert feed(controller, 0.1, 1.0) == [8, 28, 28, 28]  # whole micro-batches below 30
    assert controller.needed == pytest.approx(4 / (0.25 * 0.01))
    assert set(feed(controller, 100.0, 0.1)) == {28}


def test_growth_may_be_limited() -> None:
    controller = BatchSizeController(loader(), eta=0.5, largest=100, growth=1.5)
    assert feed(controller, 0.01, 1.0) == [8, 12, 20, 32]  # 8 x 1.5, and 12 x 1.5 rounded up


def test_tests_can_be_rare() -> None:
    controller = BatchSizeController(loader(), eta=0.5, largest=100, every=3, growth=2)
    assert feed(controller, 0.01, 1.0) == [8, 16, 16, 16, 32]


def test_a_batch_of_everything_has_no_noise_left() -> None:
    """Without replacement the wanted size stays below N however noisy samples are."""
    controller = BatchSizeController(loader(), eta=0.5, largest=1000)
    feed(controller, 1.0, 5.0)
    size = 4 * 25 / 0.25
    assert controller.needed == pytest.approx(size / (1 + size / N))
    assert controller.size == 80


def test_first_batches_may_be_chosen() -> None:
    assert BatchSizeController(loader(), largest=50, smallest=17).size == 20
    assert BatchSizeController(loader(), largest=50, smallest=1).size == 8
    assert BatchSizeController(loader(16), largest=50, how="resample").size == 16
    assert BatchSizeController(loader(16), largest=50, how="resample", smallest=3).size == 3
    assert BatchSizeController(loader(16), largest=50, how="resample", smallest=12).size == 16


# Batches ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["accumulate", "resample"])
def test_a_pass_gives_every_sample_at_most_once(how: Any) -> None:
    controller = BatchSizeController(loader(shuffle=True), how=how, largest=40, growth=2)
    seen: list[float] = []
    for batches in controller:
        made = controller.closures(batches, lambda x: x.sum())
        assert len({len(x) for (x,) in batches}) == 1
        if hasattr(made, "seen"):
            for g in gradients(0.0, 1.0, len(made)):
                made.seen(g)
        seen += [v for (x,) in batches for v in x.tolist()]
    assert len(seen) == len(set(seen)) > 60


def test_resampled_batches_are_whole_where_no_test_is_due() -> None:
    controller = BatchSizeController(loader(16), how="resample", largest=50, every=2)
    pieces = [len(batches) for batches in controller]
    assert pieces == [8, 1, 8, 1, 8, 1]  # 16 samples each


def test_resampled_pieces_fit_into_memory() -> None:
    settings: Any = {"how": "resample", "smallest": 48, "largest": 48, "piece": 10}
    assert [len(b) for b in BatchSizeController(loader(), **settings)] == [6, 6]


def test_resampling_keeps_the_order_of_the_sampler() -> None:
    controller = BatchSizeController(loader(), how="resample", largest=40, smallest=24)
    flat = [v for batches in controller for (x,) in batches for v in x.tolist()]
    assert flat == [float(i) for i in range(96)]


def test_resampling_with_worker_processes() -> None:
    source = loader(10, num_workers=1)
    controller = BatchSizeController(source, how="resample", largest=40)
    sizes = feed(controller, 0.01, 1.0)
    assert sizes[0] == 16 and sum(sizes) <= N and max(sizes) <= 40


def test_single_samples_will_do() -> None:
    controller = BatchSizeController(loader(1), eta=1.0, largest=90, population=math.inf)
    assert controller.size == 2
    sizes = feed(controller, 1.0, math.sqrt(6.5))
    assert sizes[:2] == [2, 7]


def test_streams_are_accumulated() -> None:
    controller = BatchSizeController(DataLoader(Stream(22), batch_size=2), largest=8)
    sizes: list[int] = []
    for batches in controller:
        made = controller.closures(batches, lambda x: x.sum())
        for g in gradients(0.0, 1.0, len(batches)) if hasattr(made, "seen") else ():
            made.seen(g)  # type: ignore[attr-defined]
        sizes.append(sum(map(len, batches)))
    assert sizes == [4, 8, 8]


def test_a_pass_shorter_than_a_batch_is_one_batch() -> None:
    controller = BatchSizeController(DataLoader(Stream(6), batch_size=2), largest=100, smallest=40)
    assert [sum(map(len, batches)) for batches in controller] == [6]


def test_loaders_without_a_batch_size_of_their_own() -> None:
    whole = [torch.ones(5, 2), torch.ones(5, 2), torch.ones(5, 2), torch.ones(5, 2)]
    controller = BatchSizeController(DataLoader(whole, batch_size=None), largest=100)  # type: ignore
    assert [len(batches) for batches in controller] == [2, 2]
    assert controller.size == 10


# With optimizers --------------------------------------------------------------------------------


def regression(samples: int = 256, noise: float = 1.0) -> tuple[DataLoader[Any], nn.Module]:
    torch.manual_seed(0)
    x = torch.randn(samples, 3)
    y = x @ torch.tensor([1.0, -2.0, 0.5]) + noise * torch.randn(samples)
    data = TensorDataset(x, y)
    order = torch.Generator().manual_seed(1)
    return DataLoader(data, batch_size=4, shuffle=True, generator=order), nn.Linear(3, 1)


@pytest.mark.parametrize("how", ["accumulate", "resample"])
@pytest.mark.parametrize("test", ["norm", "inner_product", "augmented", "coordinate"])
@pytest.mark.parametrize("method", [SGD, AdaGrad, AdamW])
def test_noise_makes_batches_grow_with_every_method_and_test(
    method: Any, test: Any, how: Any
) -> None:
    source, model = regression()
    optimizer = method(model, lr=0.05)
    controller = BatchSizeController(source, test=test, largest=128, how=how)
    sizes = [controller.size]
    for _ in range(6):
        for batches in controller:
            optimizer.step(
                controller.closures(batches, lambda x, y: ((model(x)[:, 0] - y) ** 2).mean())
            )
            sizes.append(controller.size)
    assert all(a <= b for a, b in itertools.pairwise(sizes))
    assert sizes[0] <= 8 < sizes[-1] <= 128


def test_without_noise_they_stay_small() -> None:
    source, model = regression()
    x, y = source.dataset[0]
    same = TensorDataset(x.expand(64, 3), y.expand(64))
    controller = BatchSizeController(DataLoader(same, batch_size=4), largest=64)
    optimizer = SGD(model, lr=0.01)
    for batches in controller:
        optimizer.step(
            controller.closures(batches, lambda x, y: ((model(x)[:, 0] - y) ** 2).mean())
        )
    assert controller.size == 8 and controller.steps == 8


def test_what_is_seen_are_the_gradients_of_the_micro_batches() -> None:
    source, model = regression()
    controller = BatchSizeController(source, test="augmented", largest=64, smallest=32)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return ((model(x)[:, 0] - y) ** 2).mean()

    batches = next(iter(controller))
    params = list(model.parameters())
    table = torch.stack([
        torch.cat([g.flatten() for g in torch.autograd.grad(loss(*b), params)]).double()
        for b in batches
    ])  # fmt: skip
    SGD(model, lr=0.1).step(controller.closures(batches, loss))
    mean, seen = table.mean(0), controller.last
    assert seen is not None and seen.samples == 32
    assert seen.square == pytest.approx(float(mean @ mean), rel=1e-5)
    assert seen.variance == pytest.approx(4 * float(table.var(0).sum()), rel=1e-5)
    assert seen.along == pytest.approx(4 * float((table @ mean).var()), rel=1e-5)


@pytest.mark.parametrize("how", ["accumulate", "resample"])
def test_exact_gradients_are_those_of_samples(how: Any) -> None:
    source, model = regression()
    controller = BatchSizeController(source, largest=64, smallest=12, how=how, exact=model)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return ((model(x)[:, 0] - y) ** 2).mean()

    batches = next(iter(controller))
    assert len(batches) == (3 if how == "accumulate" else 1)
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    params = list(model.parameters())
    table = torch.stack([
        torch.cat([
            g.flatten() for g in torch.autograd.grad(loss(x[i : i + 1], y[i : i + 1]), params)
        ]).double()
        for i in range(12)
    ])  # fmt: skip
    made = controller.closures(batches, loss)
    assert not hasattr(made, "seen")
    seen = controller.last
    assert seen is not None and seen.samples == 12
    assert seen.variance == pytest.approx(float(table.var(0).sum()), rel=1e-5)
    assert seen.square == pytest.approx(float(table.mean(0) @ table.mean(0)), rel=1e-5)


def test_a_method_that_asks_twice_is_heard_once() -> None:
    controller = BatchSizeController(loader(), largest=80, population=math.inf)
    batches = next(iter(controller))
    made: Any = controller.closures(batches, lambda x: x.sum())
    for g in [*gradients(2.0, 1.0, 2), *gradients(0.0, 100.0, 2)]:
        made.seen(g)
    assert controller.last is not None and controller.last.square == pytest.approx(4.0)
    assert controller.size == 8


def test_gradients_that_are_not_finite_decide_nothing() -> None:
    source, model = regression()
    controller = BatchSizeController(source, largest=64)
    optimizer = SGD(model, lr=0.1)
    passes = iter(controller)
    with pytest.raises(NonFiniteError):
        optimizer.step(
            controller.closures(next(passes), lambda x, y: (model(x)[:, 0] * math.nan).mean())
        )
    assert (controller.unclear, controller.size, controller.needed) == (1, 8, None)
    optimizer.step(
        controller.closures(next(passes), lambda x, y: ((model(x)[:, 0] - y) ** 2).mean())
    )
    assert controller.unclear == 1 and controller.needed is not None


def test_a_step_that_fails_in_the_middle_is_forgotten() -> None:
    source, _ = regression()
    controller = BatchSizeController(source, largest=64)
    passes = iter(controller)
    made: Any = controller.closures(next(passes), lambda x, y: x.sum())
    made.seen([torch.ones(1, 3), torch.ones(1)])
    following: Any = controller.closures(next(passes), lambda x, y: x.sum())
    for g in gradients(1.0, 0.0, 2):
        following.seen(g)
    assert controller.last is not None and controller.last.samples == 8


# Continuing -------------------------------------------------------------------------------------


def trained(how: Any, stop: int | None, shuffled: str, exact: bool) -> tuple[list[Tensor], int]:
    """Weights and batch size after three passes, with a stop and a new start after ``stop``."""

    def fresh() -> tuple[BatchSizeController, nn.Module, AdamW]:
        torch.manual_seed(3)
        source, model = regression(96, noise=0.3)
        if shuffled == "global":
            source = DataLoader(source.dataset, batch_size=4, shuffle=True)
        model = nn.Sequential(model, nn.Dropout(0.2)) if not exact else model
        controller = BatchSizeController(
            source, largest=24, growth=1.5, how=how, exact=model if exact else None
        )
        return controller, model, AdamW(model, lr=0.05)

    controller, model, optimizer = fresh()
    done = 0
    while done < 20:
        for batches in controller:

            def loss(x: Tensor, y: Tensor, model: nn.Module = model) -> Tensor:
                return ((model(x)[:, 0] - y) ** 2).mean()

            optimizer.step(controller.closures(batches, loss))
            done += 1
            if done == stop:
                break
        if done == stop:
            saved = io.BytesIO()
            parts = (controller.state_dict(), model.state_dict(), optimizer.state_dict())
            torch.save((*parts, torch.get_rng_state()), saved)
            saved.seek(0)
            first, second, third, random = torch.load(saved)
            controller, model, optimizer = fresh()
            controller.load_state_dict(first)
            model.load_state_dict(second)
            optimizer.load_state_dict(third)
            torch.set_rng_state(random)
    return [p.detach() for p in model.parameters()], controller.size


@pytest.mark.parametrize("how", ["accumulate", "resample"])
@pytest.mark.parametrize("shuffled", ["own", "global"])
@pytest.mark.parametrize("exact", [False, True])
def test_it_goes_on_bit_for_bit(how: Any, shuffled: str, exact: bool) -> None:
    plain, size = trained(how, None, shuffled, exact)
    assert size > 8
    for stop in (1, 5, 9):
        again, other = trained(how, stop, shuffled, exact)
        assert other == size
        assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_foreign_states_are_refused() -> None:
    controller = BatchSizeController(loader(), largest=40)
    good = controller.state_dict()
    missing = {key: value for key, value in good.items() if key != "size"}
    bad: list[tuple[Any, str]] = [
        (None, "state_dict"),
        ({}, "state_dict"),
        (missing, "state_dict"),
        ({**good, "how": "resample"}, "how: expected 'accumulate' as here, got 'resample'"),
        ({**good, "micro": 5}, "micro: expected 4 as here, got 5"),
    ]
    before = copy.deepcopy(good)
    for state, says in bad:
        with pytest.raises(BatchingError, match=says):
            controller.load_state_dict(state)
    assert controller.state_dict() == before


# Bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"test": "t"}, "test: expected one of norm, inner_product, augmented, coordinate"),
        ({"how": "other"}, "how: expected one of accumulate, resample"),
        ({"eta": 0.0}, "eta: expected a number > 0"),
        ({"quantile": 1.5}, "quantile: expected a share of at most 1"),
        ({"growth": 1.0}, "growth: expected a number > 1"),
        ({"every": 0}, "every: expected a whole number >= 1"),
        ({"parts": 1}, "parts: expected a whole number >= 2"),
        ({"largest": 7}, "a test needs at least 8"),
        ({"largest": 1, "how": "resample"}, "a test needs at least 2"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(BatchingError, match=says):
        BatchSizeController(loader(), **{"largest": 50, **settings})


def test_data_for_less_than_two_micro_batches_is_refused() -> None:
    with pytest.raises(BatchingError, match="one pass over the data has 60"):
        BatchSizeController(loader(60), largest=200)


def test_streams_cannot_be_resampled() -> None:
    with pytest.raises(BatchingError, match="IterableDataset"):
        BatchSizeController(DataLoader(Stream(9), batch_size=2), largest=8, how="resample")


def test_unequal_micro_batches_are_refused() -> None:
    uneven = DataLoader(TensorDataset(torch.ones(9)), batch_sampler=[[0, 1], [2], [3, 4], [5, 6]])
    with pytest.raises(BatchingError, match="expected micro-batches of 2 samples"):
        list(BatchSizeController(uneven, largest=8))


def test_sampling_with_replacement_has_no_population() -> None:
    data = TensorDataset(torch.arange(float(N)))
    sampler = RandomSampler(data, replacement=True)
    controller = BatchSizeController(
        DataLoader(data, batch_size=4, sampler=sampler), eta=0.5, largest=1000
    )
    feed(controller, 1.0, 5.0)
    assert controller.needed == pytest.approx(400.0)
