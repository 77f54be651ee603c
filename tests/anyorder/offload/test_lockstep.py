"""Evaluations that take turns give the values of evaluations one after another, bit for bit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyorder.engine import Engine
from anyorder.offload import OffloadError
from anyorder.offload.blocks import split
from anyorder.offload.lockstep import Lockstep, LockstepOracle
from anyorder.offload.moves import Moves
from anyorder.offload.stores import HostStore
from anyorder.offload.stream import Stream
from anyorder.oracle import ClosureOracle
from anyorder.oracle.closures import ClosureError
from anyorder.oracle.gradients import NonFiniteError
from anyorder.oracle.ledger import Budget, BudgetExhausted, Calls
from anyorder.oracle.oracle import NeedsError
from anyorder.points.directions import Seeded, Shift

EAGER = Engine("eager")
SHIFTS = [
    Shift(scale, Seeded(1, 2, index)) for index in (0, 1) for scale in (0.1, -0.1)
] + [Shift()]  # fmt: skip


class Net(nn.Module):
    """Blocks with dropout and batch norm, keyword arguments, and parts outside of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 6)
        self.layers = nn.ModuleList(Layer() for _ in range(4))
        self.norm = nn.BatchNorm1d(6)
        self.last = nn.Linear(6, 2)
        self.spare = nn.Linear(2, 2)  # never used

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.dropout(self.norm(self.first(x)), 0.3, self.training)
        for layer in self.layers:
            (x,) = layer(x, scale=0.5)
        return self.last(x)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = nn.Linear(6, 6), nn.BatchNorm1d(6)
        self.idle = nn.Parameter(torch.ones(3))  # never used

    def forward(self, x: Tensor, *, scale: float) -> tuple[Tensor]:
        return (x + scale * nn.functional.dropout(self.norm(self.inner(x)).tanh(), 0.2),)


X = torch.linspace(-1, 1, 35).view(7, 5)


def offloaded(model: nn.Module, blocks: Any = None, **policies: Any) -> tuple[Stream, Any]:
    """A stream and a function from closures to oracles."""
    params = dict(model.named_parameters())
    found, _ = split(model, blocks)
    stream = Stream(HostStore(found, torch.device("cpu"), None), Moves(), EAGER, ahead=False)
    lockstep = Lockstep(stream, EAGER)
    for index, block in enumerate(found):
        inner: Any = block.module
        forward = inner.forward
        inner.forward = (
            lambda *a, index=index, forward=forward, **k: lockstep.visit(index, forward, *a, **k)
        )  # fmt: skip

    def oracle(closure: Any, *, advance: bool = True) -> LockstepOracle:
        return LockstepOracle(closure, params, lockstep, model, advance=advance, **policies)

    return stream, oracle


def plain(model: nn.Module, closure: Any) -> ClosureOracle:
    params = dict(model.named_parameters())
    return ClosureOracle(closure, params, module=model, engine=EAGER, advance=True)


def both(make: Callable[[], Any], blocks: Any = None) -> tuple[Any, Any, Stream, Any]:
    """Two equal models, of which the second is offloaded."""
    torch.manual_seed(3)
    one = make()
    torch.manual_seed(3)
    two = make()
    stream, oracle = offloaded(two, blocks(two) if callable(blocks) else blocks)
    return one, two, stream, oracle


def test_values_and_what_they_leave_behind_are_the_same() -> None:
    one, two, stream, oracle = both(Net)
    outcomes: list[Any] = []
    for model, ask in ((one, lambda c: plain(one, c)), (two, oracle)):
        torch.manual_seed(5)
        asked = ask(lambda model=model: model(X).square().sum())
        values = asked.values(SHIFTS)
        buffers = [b.clone() for b in model.buffers()]
        outcomes.append([values, torch.rand(3), *buffers, asked.calls.values])
        outcomes[-1].append(asked.values(SHIFTS[:1]))  # with the same random numbers
    for a, b in zip(*outcomes, strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b
    assert stream.traffic.peak_bytes == max(block.nbytes for block in stream.blocks)
    assert all(p.isnan().all() for layer in two.layers for p in layer.parameters())


def test_each_block_is_read_once_for_all_points() -> None:
    _, two, stream, oracle = both(Net)
    closure = lambda: two(X).sum()  # noqa: E731
    oracle(closure).values(SHIFTS)
    # The parameters that nothing reads are noticed in a first pass, as in ClosureOracle.
    assert stream.traffic.reads == 8
    oracle(closure).values(SHIFTS)
    assert stream.traffic.reads == 12


def test_several_batches_are_averaged_and_counted() -> None:
    one, two, _, oracle = both(Net)
    halves = (X[:4], X[4:])
    ours = oracle([lambda x=x: two(x).square().sum() for x in halves])
    theirs = plain(one, [lambda x=x: one(x).square().sum() for x in halves])
    torch.manual_seed(0)
    found = ours.values(SHIFTS[:2])
    torch.manual_seed(0)
    assert torch.equal(found, theirs.values(SHIFTS[:2]))
    assert ours.calls.values == theirs.calls.values == 4


class Branching(nn.Module):
    """Which block comes next depends on the activations."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(5, 5) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        order = (0, 2) if self.layers[1](x).sum() > 2.0 else (2, 2, 0)
        for index in order:
            x = self.layers[index](x)
        return x


def test_evaluations_may_take_different_ways() -> None:
    one, two, _, oracle = both(Branching)
    with torch.no_grad():
        shift = 2.0 - one.layers[1](X).sum() / X.numel()  # so that the sides differ
        one.layers[1].bias += shift
    one, two = Branching(), Branching()
    two.load_state_dict(one.state_dict())
    paths: set[int] = set()
    for scale in (0.5, -0.5, 1.0, -1.0):
        value = plain(one, lambda: one(X).square().sum()).values(
            [Shift(scale, SHIFTS[0].direction)]
        )
        paths.add(round(float(value)))
    stream, oracle = offloaded(two)
    shifts = [Shift(scale, SHIFTS[0].direction) for scale in (0.5, -0.5, 1.0, -1.0)]
    found = oracle(lambda: two(X).square().sum()).values(shifts)
    assert torch.equal(found, plain(one, lambda: one(X).square().sum()).values(shifts))
    assert stream.traffic.peak_bytes == stream.blocks[0].nbytes


class Hidden(nn.Module):
    """Reads the memory of weights in a way that PyTorch cannot intercept."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(1, 2, 25).view(5, 5))

    def forward(self, x: Tensor) -> Tensor:
        # NumPy only sees the data pointer.
        import ctypes

        data = (ctypes.c_float * 25).from_address(vars(self)["_parameters"]["weight"].data_ptr())
        return x @ torch.tensor(list(data)).view(5, 5)


@pytest.mark.parametrize("inside", [True, False])
def test_weights_that_are_read_in_secret_are_shifted_too(inside: bool) -> None:
    def make() -> nn.Module:
        return nn.Sequential(Hidden(), nn.Linear(5, 5), nn.Linear(5, 5))

    def blocks(model: Any) -> list[nn.Module]:
        return list(model)[0 if inside else 1 :]

    one, two, _, oracle = both(make, blocks)
    before = one[0].weight.detach().clone()
    found = oracle(lambda: two(X).square().mean()).values(SHIFTS)
    assert torch.equal(found, plain(one, lambda: one(X).square().mean()).values(SHIFTS))
    assert found[0] != found[1]
    assert torch.equal(one[0].weight, before)
    assert inside or torch.equal(two[0].weight, before)


def _product(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight


class Twice(nn.Module):
    """Reads its weight openly and in a scripted function."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(1, 2, 25).view(5, 5))
        self.product = torch.jit.script(_product)

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, self.weight) + x @ self.weight


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_weights_that_are_also_read_in_secret_are_shifted_everywhere() -> None:
    def make() -> nn.Module:
        return nn.Sequential(Twice(), nn.Linear(5, 5), nn.Linear(5, 5))

    one, two, _, oracle = both(make, lambda model: list(model)[:2])
    found = oracle(lambda: two(X).square().mean()).values(SHIFTS)
    assert torch.equal(found, plain(one, lambda: one(X).square().mean()).values(SHIFTS))


def test_an_exception_leaves_everything_as_it_was() -> None:
    _, two, stream, oracle = both(Net)
    buffers = [b.clone() for b in two.buffers()]
    state, threads = torch.get_rng_state(), threading.active_count()
    calls = 0

    def closure() -> Tensor:
        nonlocal calls
        calls += 1
        found = two(X).sum()
        if calls > 1:  # the second evaluation, after the first one has seen every block
            raise KeyError("mine")
        return found

    asked = oracle(closure)
    with pytest.raises(KeyError, match="mine"):
        asked.values(SHIFTS)
    assert asked.calls.values == 0
    assert all(torch.equal(a, b) for a, b in zip(buffers, two.buffers(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert threading.active_count() == threads
    assert stream.traffic.resident_bytes == 0


def test_closures_that_do_more_than_return_the_loss() -> None:
    _, two, _, oracle = both(Net)

    def backward() -> Tensor:
        loss = two(X).sum()
        loss.backward()
        return loss

    def dtype() -> Tensor:
        torch.set_default_dtype(torch.float64)
        try:
            return two(X).sum()
        finally:
            torch.set_default_dtype(torch.float32)

    for closure, says in (
        (backward, "the closure differentiates"),
        (dtype, "changes a global setting"),
        (lambda: two(X).sum().item(), "got float"),
    ):
        with pytest.raises(ClosureError, match=says):
            oracle(closure).values(SHIFTS)
    with pytest.raises(NeedsError, match="provides gradients; this one knows values alone"):
        oracle(lambda: two(X).sum()).grad()


def test_policies_are_those_of_other_oracles() -> None:
    model = Net()
    calls = Calls()
    _, oracle = offloaded(model, calls=calls, budget=Budget(values=3), maximize=True)
    closure = lambda: model(X).square().sum()  # noqa: E731
    assert (oracle(closure).values(SHIFTS[:2]) < 0).all()
    with pytest.raises(BudgetExhausted):
        oracle(closure).values(SHIFTS[:2])
    with pytest.raises(NonFiniteError):
        oracle(lambda: model(X).sum() * torch.inf).value()
    assert calls.values == 3


def test_plain_calls_load_blocks_and_refuse_to_build_a_graph() -> None:
    one, two, stream, _ = both(Net)
    one.eval()
    two.eval()
    for mode in (torch.no_grad, torch.inference_mode):
        torch.manual_seed(0)
        wanted = one(X)
        torch.manual_seed(0)
        with mode():
            assert torch.equal(two(X), wanted)
        assert stream.traffic.resident_bytes == 0
    with pytest.raises(OffloadError, match=r"layers.0 is offloaded and cannot be differentiated"):
        two(X)


def test_parameters_that_blocks_share_are_shifted_inside_and_outside() -> None:
    def make() -> nn.Module:
        model = nn.Sequential(*[nn.Linear(5, 5) for _ in range(4)])
        model[2].weight = model[0].weight  # block and block
        model[3].bias = model[1].bias  # block and the rest
        return model

    one, two, stream, oracle = both(make, lambda model: list(model)[:3])
    found = oracle(lambda: two(X).square().mean()).values(SHIFTS)
    assert torch.equal(found, plain(one, lambda: one(X).square().mean()).values(SHIFTS))
    assert stream.traffic.reads == 3
