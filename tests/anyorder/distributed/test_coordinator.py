"""The coordinator with workers in threads of this process, and with real ones that are killed."""

from __future__ import annotations

import copy
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyorder.distributed import Coordinator, OneByteMeZO
from anyorder.distributed.exchange import CoordinatorError, JoinError
from anyorder.distributed.one_byte import WeightsError
from anyorder.distributed.records import LogFile, unpacked
from anyorder.hyper import HyperError
from anyorder.testing.elsewhere import processes

OPTIONS: dict[str, Any] = {"lr": 0.02, "directions": 2, "check_every": 3, "engine": "eager"}


def network() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3))


def closure_of(model: nn.Module, part: int) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(100 + part)
    x = torch.randn(16, 6, generator=generator)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    return lambda: nn.functional.cross_entropy(model(x), y)


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def alone(address: str, **options: Any) -> tuple[nn.Module, OneByteMeZO]:
    model = network()
    return model, OneByteMeZO(model, coordinator=address, **{**OPTIONS, **options})


# Real processes ---------------------------------------------------------------------------------


def _work(part: int, address: str, out: str, fatal: int, joiner: int) -> None:
    """Train until worker ``joiner`` has contributed to five steps: a function of the log alone."""
    torch.set_num_threads(1)
    model, optimizer = alone(address)
    inner = closure_of(model, part)

    def closure() -> Tensor:
        if optimizer.steps == fatal:
            torch.save(optimizer.worker, out)
            os.kill(os.getpid(), signal.SIGKILL)
        return inner()

    def contributions() -> int:
        return sum(joiner in unpacked(record) for record in optimizer.log)

    while contributions() < 5:
        optimizer.step(closure)
    result = {"weights": weights(model), "steps": optimizer.steps, "worker": optimizer.worker}
    torch.save(result, out)
    optimizer.leave()


def test_others_go_on_when_one_is_killed_and_who_joins_late_has_equal_weights(
    tmp_path: Path,
) -> None:
    log = tmp_path / "run.log"
    context = processes()
    with Coordinator(port=0, workers=3, patience=1.0, log=log) as coordinator:

        def start(part: int, fatal: int = -1) -> Any:
            out = str(tmp_path / f"{part}.pt")
            given = (part, coordinator.address, out, fatal, 3)
            process = context.Process(target=_work, args=given)
            process.start()
            return process

        first = [start(0), start(1), start(2, fatal=4)]
        first[2].join()
        assert first[2].exitcode == -signal.SIGKILL
        late = start(3)
        for process in (first[0], first[1], late):
            process.join()
            assert process.exitcode == 0
    results = [torch.load(tmp_path / f"{part}.pt") for part in (0, 1, 3)]
    assert results[2]["worker"] >= 3  # numbers are never used again
    assert len({result["steps"] for result in results}) == 1
    assert all(equal(results[0]["weights"], result["weights"]) for result in results)
    records = [unpacked(record) for record in LogFile(log).records]
    dead = torch.load(tmp_path / "2.pt")
    assert not any(dead in record for record in records[4:])
    assert any(dead in record for record in records[:4])
    # The log is the whole run: the weights follow from it and from those of the beginning.
    model = network()
    replayed = OneByteMeZO(model, **OPTIONS)
    replayed.rebuild(copy.deepcopy(model.state_dict()), log)
    assert replayed.steps == results[0]["steps"]
    assert equal(weights(model), results[0]["weights"])


# One worker and the coordinator -----------------------------------------------------------------


def test_equals_a_run_without_coordinator() -> None:
    model, other = network(), network()
    with Coordinator(port=0) as coordinator:
        optimizer = OneByteMeZO(model, coordinator=coordinator.address, **OPTIONS)
        plain = OneByteMeZO(other, **OPTIONS)
        for _ in range(7):
            optimizer.step(closure_of(model, 0))
            plain.step(closure_of(other, 0))
        assert equal(weights(model), weights(other))
        assert optimizer.log == plain.log and coordinator.steps == 7
        assert optimizer.calls.bytes_sent == plain.calls.bytes_sent == 7 * 2 + 3 * 8


def test_a_message_is_one_byte_per_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    with Coordinator(port=0) as coordinator:
        model, optimizer = alone(coordinator.address, check_every=1000)
        optimizer.step(closure_of(model, 0))
        link: Any = optimizer._link
        inner = link._store

        class Counting:
            def set(self, key: str, value: bytes) -> None:
                sent.append(len(value))
                inner.set(key, value)

            def __getattr__(self, name: str) -> Any:
                return getattr(inner, name)

        link._opened = Counting()
        for _ in range(5):
            optimizer.step(closure_of(model, 0))
    assert sent == [2] * 5


def test_a_worker_leaves_and_joins_again_under_another_number() -> None:
    with Coordinator(port=0) as coordinator:
        model, optimizer = alone(coordinator.address)
        other, second = alone(coordinator.address)
        for _ in range(3):
            optimizer.step(closure_of(model, 0))
        optimizer.leave()
        for _ in range(4):  # replays three steps first
            second.step(closure_of(other, 1))
        second.leave()
        optimizer.step(closure_of(model, 0))
        assert (optimizer.worker, second.worker) == (2, 1)
        assert [list(unpacked(r)) for r in optimizer.log] == [[0]] * 3 + [[1]] * 4 + [[2]]
        assert optimizer.steps == coordinator.steps == 8


def test_a_slow_worker_is_left_out_of_a_step_and_joins_again() -> None:
    """It waits for the step of the other one, which waits for nothing but patience."""
    with Coordinator(port=0, workers=2, patience=0.3) as coordinator, ThreadPoolExecutor() as pool:
        model, optimizer = alone(coordinator.address)
        other, slow = alone(coordinator.address)
        stepped = threading.Event()
        inner = closure_of(other, 1)

        def waiting() -> Tensor:
            stepped.wait()
            return inner()

        def until_counted() -> None:
            while slow.worker not in unpacked(slow.log[-1]):
                slow.step(inner)

        late = pool.submit(slow.step, waiting)
        optimizer.step(closure_of(model, 0))
        stepped.set()
        late.result()
        assert equal(weights(model), weights(other)) and slow.steps == 1
        assert list(unpacked(slow.log[0])) == [optimizer.worker]
        again = pool.submit(until_counted)
        while not again.done():
            optimizer.step(closure_of(model, 0))
        again.result()
        assert slow.worker > 1  # numbers are never used again
        for each in (slow, optimizer):
            each.leave()
        for each in (slow, optimizer):
            each.catch_up()
        assert equal(weights(model), weights(other))


def test_other_settings_and_other_first_weights_are_refused() -> None:
    with Coordinator(port=0) as coordinator:
        model, optimizer = alone(coordinator.address)
        optimizer.step(closure_of(model, 0))
        other, second = alone(coordinator.address, lr=0.5)
        before = weights(other)
        with pytest.raises(JoinError, match=r"lr: \[0.02\], here \[0.5\]"):
            second.step(closure_of(other, 0))
        third_model, third = alone(coordinator.address)
        with torch.no_grad():
            third_model[0].bias[0] += 1e-6
        with pytest.raises(JoinError, match="other weights"):
            third.step(closure_of(third_model, 0))
        assert equal(before, weights(other))
        optimizer.step(closure_of(model, 0))  # the run goes on
        assert list(unpacked(optimizer.log[-1])) == [0]


def test_a_closure_that_raises_makes_nobody_wait() -> None:
    with Coordinator(port=0, patience=1e6) as coordinator:
        model, optimizer = alone(coordinator.address)
        optimizer.step(closure_of(model, 0))

        def broken() -> Tensor:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            optimizer.step(broken)
        other, second = alone(coordinator.address)
        second.step(closure_of(other, 0))
        assert list(unpacked(second.log[-1])) == [1]


def test_messages_of_a_wrong_length_are_refused() -> None:
    with Coordinator(port=0) as coordinator:
        model, optimizer = alone(coordinator.address)
        optimizer.step(closure_of(model, 0))
        optimizer._quantiser.encode = lambda scalars: b"too long"  # type: ignore[method-assign]
        before = weights(model)
        with pytest.raises(WeightsError, match="8 bytes, expected 2"):
            optimizer.step(closure_of(model, 0))
        assert equal(before, weights(model))


def test_a_changed_weight_is_found_and_repaired() -> None:
    """Of two workers that differ, the one of the lower number is right."""
    with Coordinator(port=0) as coordinator, ThreadPoolExecutor() as pool:
        model, optimizer = alone(coordinator.address, check_every=1)
        other, second = alone(coordinator.address, check_every=1)
        base = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer.step(closure_of(model, 0))
        second.catch_up()
        with torch.no_grad():
            other[2].weight[1, 1] += 1e-3
        wrong = pool.submit(second.step, closure_of(other, 1))
        while not wrong.done():
            optimizer.step(closure_of(model, 0))
        assert "rebuild(first_weights)" in str(wrong.exception())
        with pytest.raises(WeightsError):
            second.step(closure_of(other, 1))
        second.rebuild(base)
        optimizer.leave()
        second.step(closure_of(other, 1))
        optimizer.catch_up()
        assert equal(weights(model), weights(other))


def test_a_run_goes_on_with_the_log_of_an_earlier_coordinator(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    with Coordinator(port=0, log=log) as coordinator:
        model, optimizer = alone(coordinator.address)
        for _ in range(4):
            optimizer.step(closure_of(model, 0))
    with Coordinator(port=0, log=log) as coordinator:
        assert coordinator.steps == 4
        other, second = alone(coordinator.address)
        second.step(closure_of(other, 0))
        third = OneByteMeZO(model, coordinator=coordinator.address, **OPTIONS)
        third.load_state_dict(optimizer.state_dict())
        second.leave()
        third.step(closure_of(model, 0))
        second.catch_up()
        assert equal(weights(model), weights(other))
    assert len(LogFile(log).records) == 6


def test_the_end_of_the_coordinator_is_told() -> None:
    coordinator = Coordinator(port=0, workers=2)
    model, optimizer = alone(coordinator.address)
    coordinator.close()
    before = weights(model)
    with pytest.raises(CoordinatorError, match="was closed"):
        optimizer.step(closure_of(model, 0))
    assert equal(before, weights(model)) and optimizer.steps == 0


@pytest.mark.parametrize(
    "settings", [{"port": -1}, {"port": 1.5}, {"workers": 0}, {"patience": 0.0}, {"workers": True}]
)
def test_arguments_are_checked(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(HyperError, match=name):
        Coordinator(**{"port": 0, **settings})
