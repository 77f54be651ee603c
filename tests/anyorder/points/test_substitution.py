"""Shifted evaluations: the right value, whatever reads the weights, and the weights untouched."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from anyorder.engine import Engine
from anyorder.oracle import ClosureOracle
from anyorder.points.directions import BLOCK, Seeded, Shift
from anyorder.points.substitution import in_place, shifted

EAGER = Engine("eager")
SHIFT = Shift(0.3, Seeded(1, 2, 3))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 4)
        self.head = nn.Linear(4, 11, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.table(x)))


class Borrowed(nn.Module):
    """Uses a submodule's weight without calling the submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.inner.weight.t() * 2, self.inner.bias)


WORLDS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], Tensor]]] = {
    "linear": (lambda: nn.Linear(4, 3), lambda m: m(torch.ones(2, 4)).pow(2).sum()),
    "tied": (Tied, lambda m: m(torch.arange(11)).logsumexp(-1).sum()),
    "borrowed": (Borrowed, lambda m: m(torch.ones(2, 4)).pow(2).sum()),
    "attention": (
        lambda: nn.MultiheadAttention(8, 2, batch_first=True),
        lambda m: m(*[torch.linspace(-1, 1, 48).reshape(2, 3, 8)] * 3)[0].pow(2).sum(),
    ),
    "encoder": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
        lambda m: m(torch.linspace(-1, 1, 48).reshape(2, 3, 8)).pow(3).sum(),
    ),
    "lstm": (
        lambda: nn.LSTM(3, 5, 2, batch_first=True),
        lambda m: m(torch.linspace(-1, 1, 24).reshape(2, 4, 3))[0].pow(2).sum(),
    ),
    "convolution": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(16, 2)
        ),
        lambda m: m(torch.linspace(-1, 1, 32).reshape(2, 1, 4, 4)).pow(2).sum(),
    ),
    "large": (lambda: nn.Linear(300, 200), lambda m: m(torch.ones(2, 300)).pow(2).sum()),
}


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_equals_the_loss_at_really_shifted_weights(name: str, mode: str) -> None:
    build, loss = WORLDS[name]
    torch.manual_seed(0)
    model = build().train(mode == "train")
    params = dict(model.named_parameters())
    before = {n: p.detach().clone() for n, p in params.items()}
    versions = {n: p._version for n, p in params.items()}
    with torch.no_grad():
        with in_place(params, SHIFT, EAGER):
            expected = loss(model)
        assert not torch.allclose(expected, loss(model))
        versions = {n: p._version for n, p in params.items()}
        with shifted(params, SHIFT, EAGER) as seen:
            made = loss(model)
    assert torch.allclose(made, expected, rtol=1e-5)
    assert seen == set(params)
    assert all(p._version == versions[n] for n, p in params.items()), "weights were written to"
    assert all(torch.equal(p, before[n]) for n, p in params.items())


def test_weights_that_cannot_be_seen_being_read_are_found() -> None:
    import warnings

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(nn.Linear(4, 4), torch.jit.script(nn.Linear(4, 3)))
    params = dict(model.named_parameters())
    before = {n: p.detach().clone() for n, p in params.items()}
    oracle = ClosureOracle(lambda: model(torch.ones(2, 4)).pow(2).sum(), params)
    (value,) = oracle.values([SHIFT])
    with torch.no_grad(), in_place(params, SHIFT, EAGER):
        expected = model(torch.ones(2, 4)).pow(2).sum()
    assert oracle.learned.opaque == {"1.weight", "1.bias"}
    assert torch.allclose(value, expected)
    assert oracle.calls.values == 1
    assert all(torch.equal(p, before[n]) for n, p in params.items())


def _affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x @ weight.t() + bias


def _scripted(module: nn.Module) -> Callable[[Tensor], Tensor]:
    return torch.jit.script(module)


def _traced(module: nn.Module) -> Callable[[Tensor], Tensor]:
    return torch.jit.trace(module, torch.ones(2, 4), check_trace=False)


def _forward_of_scripted(module: nn.Module) -> Callable[[Tensor], Tensor]:
    return torch.jit.script(module).forward


def _function(module: nn.Module) -> Callable[[Tensor], Tensor]:
    apply = torch.jit.script(_affine)
    return lambda x: apply(x, module.weight, module.bias)  # pyright: ignore


def _view_made_before(module: nn.Module) -> Callable[[Tensor], Tensor]:
    weight, bias = module.weight.detach().t(), module.bias.detach()  # pyright: ignore
    return lambda x: x @ weight + bias


@pytest.mark.parametrize("steps_before", [0, 2])
@pytest.mark.parametrize(
    "hide", [_scripted, _traced, _forward_of_scripted, _function, _view_made_before]
)
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_weight_that_is_also_read_by_hidden_code_is_shifted_everywhere(
    hide: Callable[[nn.Module], Callable[[Tensor], Tensor]], steps_before: int
) -> None:
    if steps_before and hide not in (_scripted, _traced):
        pytest.skip("only calls of modules are looked at after the first evaluation")
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    params = dict(model.named_parameters())
    used: list[Callable[[Tensor], Tensor]] = [model]

    def closure() -> Tensor:
        return sum(f(torch.ones(2, 4)).pow(2).sum() for f in used) + model.weight.abs().sum()

    oracle = ClosureOracle(closure, params)
    for _ in range(steps_before):
        oracle.values([SHIFT])
    used[0] = hide(model)
    before = {n: p.detach().clone() for n, p in params.items()}
    (value,) = oracle.values([SHIFT])
    with torch.no_grad(), in_place(params, SHIFT, EAGER):
        expected = closure()
    assert torch.allclose(value, expected)
    assert oracle.calls.values == steps_before + 1
    assert all(torch.equal(p, before[n]) for n, p in params.items())


def test_metadata_is_not_a_use() -> None:
    x = nn.Parameter(torch.ones(3, 2))
    with shifted({"x": x}, SHIFT, EAGER) as seen:
        assert x.shape == (3, 2) and x.dtype is torch.float32 and x.numel() == 6 and len(x) == 3
        assert x.requires_grad and x.device.type == "cpu" and x.dim() == 2
        assert not seen


def test_numpy_and_lists_see_the_shift() -> None:
    x = nn.Parameter(torch.zeros(3))
    z = SHIFT.direction.tensor("x", x).mul(SHIFT.scale)  # type: ignore[union-attr]
    with torch.no_grad(), shifted({"x": x}, SHIFT, EAGER):
        assert torch.equal(torch.from_numpy(x.numpy().copy()), z)
        assert x.tolist() == z.tolist()
        assert torch.equal(torch.stack([x, x])[1], z)
        assert torch.equal(x.data, z) and torch.equal(x.detach(), z)
        assert float(x[0]) == float(z[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_in_place_puts_back_every_bit_also_after_an_error(dtype: torch.dtype) -> None:
    params = {"x": nn.Parameter(torch.randn(2000).to(dtype))}
    before = params["x"].detach().clone()
    for _ in range(50):
        with pytest.raises(RuntimeError, match="boom"), in_place(params, SHIFT, EAGER):
            assert not torch.equal(params["x"], before)
            raise RuntimeError("boom")
    assert torch.equal(params["x"], before)


def test_no_shift_is_nothing() -> None:
    x = nn.Parameter(torch.ones(2))
    with shifted({"x": x}, Shift(), EAGER) as seen, in_place({"x": x}, Shift(), EAGER):
        assert (x * 1).tolist() == [1.0, 1.0]
    assert seen == {"x"}


def test_memory_of_a_shifted_forward_is_that_of_inference_plus_one_layer() -> None:
    from torch.profiler import ProfilerActivity, profile

    model = nn.Sequential(*[nn.Linear(2048, 2048, bias=False) for _ in range(3)])
    x = torch.randn(4, 2048)

    def peak(run: Callable[[], object]) -> int:
        run()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
            run()
        held = highest = 0
        for event in record.profiler.kineto_results.events():  # type: ignore[union-attr]
            if event.name() == "[memory]":
                held += event.nbytes()
                highest = max(highest, held)
        return highest

    oracle = ClosureOracle(lambda: model(x).sum(), dict(model.named_parameters()))
    plain = peak(lambda: torch.no_grad()(model)(x))
    layer, temporaries = 4 * 2048 * 2048, 16 * 4 * BLOCK // 2  # an eager block's intermediates
    assert layer <= peak(lambda: oracle.values([SHIFT])) <= plain + layer + temporaries
