"""One byte per direction: the algorithm by hand, its seeds, and four processes under gloo."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from anyorder.distributed import OneByteMeZO
from anyorder.distributed.exchange import JoinError
from anyorder.distributed.one_byte import SPAN, WeightsError
from anyorder.distributed.quantiser import Quantiser
from anyorder.distributed.records import unpacked
from anyorder.hyper import HyperError
from anyorder.methods.mezo import MeZO
from anyorder.points.directions import Seeded
from anyorder.testing import MethodContract, Values, World
from anyorder.testing.elsewhere import processes

WORKERS = 4
OPTIONS: dict[str, Any] = {"lr": 0.15, "directions": 2, "check_every": 40, "engine": "eager"}
STEPS = {"linear": 60, "log": 12, "float32": 60}


def network() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3))


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(11)
    x = torch.randn(128, 6, generator=generator)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def closure_of(model: nn.Module, part: int) -> Callable[[], Tensor]:
    x, y = (t[part::WORKERS] for t in data())
    return lambda: nn.functional.cross_entropy(model(x), y)


def whole_loss(model: nn.Module) -> float:
    x, y = data()
    with torch.no_grad():
        return nn.functional.cross_entropy(model(x), y).item()


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# Seeds ------------------------------------------------------------------------------------------


def test_no_two_workers_steps_or_directions_share_a_direction() -> None:
    """Concatenated decimal strings would: worker 1, direction 11 and worker 11, direction 1."""
    optimizer = OneByteMeZO([nn.Parameter(torch.ones(2))])
    numbers = [0, 1, 2, 10, 11, 12, 101, 110, 111]
    places = list(itertools.product(numbers, numbers, numbers))
    keys = {optimizer._direction(*place).keys("w") for place in places}
    assert len(keys) == len(places)
    with pytest.raises(HyperError, match="directions"):
        OneByteMeZO([nn.Parameter(torch.ones(2))], directions=SPAN)


# One worker -------------------------------------------------------------------------------------


def test_exact_scalars_of_one_worker_are_mezo() -> None:
    model, other = network(), network()
    options: dict[str, Any] = {"lr": 0.02, "directions": 3, "engine": "eager", "seed": 5}
    ours, theirs = OneByteMeZO(model, code="float32", **options), MeZO(other, **options)
    for _ in range(10):
        a, b = ours.step(closure_of(model, 0)), theirs.step(closure_of(other, 0))
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    for mine, its in zip(weights(model), weights(other), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("policy", ["skip", "ignore"])
def test_a_loss_that_is_not_finite_moves_nothing(policy: Any) -> None:
    model = network()
    optimizer = OneByteMeZO(model, lr=0.1, weight_decay=0.5, nonfinite=policy, engine="eager")
    before = weights(model)
    inner = closure_of(model, 0)
    optimizer.step(lambda: inner() * float("nan"))
    assert equal(before, weights(model)) and optimizer.steps == 1
    assert unpacked(optimizer.log[0]) == {0: b"\x80"}
    optimizer.step(inner)
    assert not equal(before, weights(model))


def test_half_precision_is_rounded_once_per_step() -> None:
    """Moves below the spacing of the weights add up in float32."""
    weight = nn.Parameter(torch.full((200,), 1.0, dtype=torch.bfloat16))
    optimizer = OneByteMeZO([("w", weight)], lr=1.0, directions=64, eps=0.1, engine="eager")
    optimizer.step(lambda: weight.float().sum())
    (message,) = unpacked(optimizer.log[0]).values()
    expected = torch.ones(200)
    for index, slope in enumerate(Quantiser().decode(message)):
        assert slope is not None
        z = Seeded(0, 0, index).tensor("w", torch.zeros(200))
        expected -= slope / 64 * z
    torch.testing.assert_close(weight.detach(), expected.bfloat16(), rtol=0, atol=0.02)
    assert (weight.detach() == expected.bfloat16()).float().mean() > 0.9


def test_a_schedule_is_replayed() -> None:
    model = network()
    base = copy.deepcopy(model.state_dict())
    optimizer = OneByteMeZO(model, lr=0.05, schedule=lambda step: 1 / (1 + step), engine="eager")
    for _ in range(6):
        optimizer.step(closure_of(model, 0))
    found = weights(model)
    optimizer.rebuild(base)
    assert equal(found, weights(model)) and optimizer.steps == 6


def test_a_log_that_begins_late_is_not_replayed_on_the_first_weights() -> None:
    model = network()
    base = copy.deepcopy(model.state_dict())
    first = OneByteMeZO(model, engine="eager")
    first.step(closure_of(model, 0))
    second = OneByteMeZO(model, engine="eager")
    second.load_state_dict(first.state_dict())
    second.step(closure_of(model, 0))
    before = weights(model)
    with pytest.raises(WeightsError, match="begin with step 1"):
        second.rebuild(base)
    assert equal(before, weights(model))


def test_arguments_are_checked() -> None:
    x = nn.Parameter(torch.ones(2))

    class Group:
        rank, size = 0, 1

        def mean_(self, tensors: Any) -> int:
            return 0

        def exchange(self, message: bytes) -> list[bytes]:
            return [message]

    with pytest.raises(HyperError, match="either this or process_group"):
        OneByteMeZO([x], coordinator="here:1", process_group=Group())
    with pytest.raises(HyperError, match="schedule"):
        OneByteMeZO([x], schedule=0.5)  # type: ignore[arg-type]
    with pytest.raises(HyperError, match="code"):
        OneByteMeZO([x], code="int8")


# Four processes ---------------------------------------------------------------------------------


def _train(rank: int, file: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=WORKERS)
    group: Any = dist.group.WORLD
    found: dict[str, Any] = {}
    sent: list[int] = []
    gather = dist.all_gather

    def counting(parts: Any, tensor: Tensor, **more: Any) -> Any:
        sent.append(tensor.nbytes)
        return gather(parts, tensor, **more)

    dist.all_gather = counting
    for code, steps in STEPS.items():
        sent.clear()
        model = network()
        optimizer = OneByteMeZO(model, **OPTIONS, code=code, process_group=group)
        for _ in range(steps):
            optimizer.step(closure_of(model, rank))
        found[code] = {
            "weights": weights(model),
            "loss": whole_loss(model),
            "sent": list(sent),
            "counted": optimizer.calls.bytes_sent,
            "log": optimizer.log,
        }
    found["repaired"] = _repaired(rank, group)
    try:
        model = network()
        OneByteMeZO(model, lr=0.1 + rank, process_group=group).step(closure_of(model, rank))
    except JoinError as error:
        found["refused"] = str(error)
    torch.save(found, out)
    dist.destroy_process_group()


def _repaired(rank: int, group: Any) -> dict[str, Any]:
    """One process changes a weight, is told so, and builds its weights anew."""
    model = network()
    base = copy.deepcopy(model.state_dict())
    optimizer = OneByteMeZO(model, lr=0.05, check_every=3, process_group=group, engine="eager")
    told = ""
    for step in range(8):
        if (rank, step) == (1, 2):
            with torch.no_grad():
                model[2].bias[0] += 1e-4
        try:
            optimizer.step(closure_of(model, rank))
        except WeightsError as error:
            told = str(error)
            optimizer.rebuild(base)
    counted = [list(unpacked(record)) for record in optimizer.log]
    return {"weights": weights(model), "told": told, "counted": counted, "steps": optimizer.steps}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each process found."""
    folder: Path = tmp_path_factory.mktemp("one_byte")
    context = processes()
    started = [
        context.Process(target=_train, args=(rank, str(folder / "meet"), str(folder / f"{rank}")))
        for rank in range(WORKERS)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * WORKERS
    return [torch.load(folder / f"{rank}") for rank in range(WORKERS)]


@pytest.mark.parametrize("code", STEPS)
def test_all_processes_have_equal_weights_and_logs(found: Any, code: str) -> None:
    assert all(equal(found[0][code]["weights"], each[code]["weights"]) for each in found)
    assert all(each[code]["log"] == found[0][code]["log"] for each in found)
    assert not equal(found[0][code]["weights"], weights(network()))


def test_a_byte_trains_as_well_as_an_exact_scalar(found: Any) -> None:
    start = whole_loss(network())
    byte, exact = (found[0][code]["loss"] for code in ("linear", "float32"))
    assert exact < 0.75 * start
    assert abs(byte - exact) < 0.05 * start


@pytest.mark.parametrize(("code", "size"), [("linear", 1), ("log", 1), ("float32", 4)])
def test_a_direction_takes_one_byte_and_every_check_eight(found: Any, code: str, size: int) -> None:
    """Two directions; hashes at steps 0 and 40."""
    plain = [2 * size + 8 * (step % 40 == 0) for step in range(STEPS[code])]
    for each in found:
        assert each[code]["sent"] == plain
        assert each[code]["counted"] == sum(plain)


def test_a_changed_weight_is_found_and_the_others_go_on(found: Any) -> None:
    results = [each["repaired"] for each in found]
    assert [bool(result["told"]) for result in results] == [False, True, False, False]
    assert "step 3: worker 1 was left out. weights" in results[1]["told"]
    assert all(equal(results[0]["weights"], result["weights"]) for result in results)
    expected = [[0, 1, 2, 3]] * 3 + [[0, 2, 3]] + [[0, 1, 2, 3]] * 4
    assert all(result["counted"] == expected for result in results)


def test_processes_with_other_settings_are_refused(found: Any) -> None:
    assert all("lr" in each["refused"] for each in found)


def test_the_log_alone_gives_the_weights(found: Any) -> None:
    """What a late joiner does: bytes and first weights, no data."""
    model = network()
    optimizer = OneByteMeZO(model, **OPTIONS)
    optimizer.log = found[0]["linear"]["log"]
    optimizer.rebuild(copy.deepcopy(model.state_dict()))
    assert equal(weights(model), found[0]["linear"]["weights"])
    assert sum(map(len, optimizer.log)) == STEPS["linear"] * (2 + 1 + 2 * WORKERS)


# The contract -----------------------------------------------------------------------------------


class TestContract(MethodContract):
    method = OneByteMeZO
    options: ClassVar[dict[str, Any]] = {}
    half: ClassVar[dict[str, Any]] = {"eps": 0.05}
    reference_settings = (
        {},
        {"lr": 1e-3, "eps": 0.1, "directions": 3, "weight_decay": 0.3, "code": "log"},
        {"lr": 1e-3, "seed": 4, "code": "float32", "check_every": 2},
    )

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        """n-SPSA; scalars go through the quantiser, which tests of its own compare by hand."""
        x, quantiser = dict(values), Quantiser(options["code"])
        count, eps, lr = options["directions"], options["eps"], options["lr"]
        for step in range(steps):
            drawn = [_noise(x, options["seed"], step, index) for index in range(count)]
            slopes: list[float] = []
            for z in drawn:
                ahead, behind = (
                    world.value({n: x[n] + side * eps * z[n] for n in x}) for side in (1, -1)
                )
                slopes.append((ahead - behind) / (2 * eps))
            message = quantiser.encode(slopes)
            sent = quantiser.decode(message)
            quantiser.learn([message])
            for name, value in x.items():
                decay = options["weight_decay"] if value.ndim > 1 else 0.0
                move = sum(g * z[name] for g, z in zip(sent, drawn, strict=True)) / count  # type: ignore[operator]
                x[name] = value - lr * (move + decay * value)
        assert all(math.isfinite(float(value.sum())) for value in x.values())
        return x


def _noise(values: Values, seed: int, step: int, index: int) -> Values:
    direction = Seeded(seed, step, index)
    like = {name: torch.zeros(np.shape(v), dtype=torch.float64) for name, v in values.items()}
    return {name: direction.tensor(name, tensor).numpy() for name, tensor in like.items()}
