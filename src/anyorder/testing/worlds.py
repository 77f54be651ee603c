"""Small models and closures for the contract tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from anyorder.engine.tensors import sqrt
from anyorder.oracle.closures import Closure, Composite


class Net(nn.Module):
    """A network with matrices, vectors, a convolution kernel, a scalar and batch norm."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 3, 3, bias=False, dtype=dtype)  # the norm would cancel a bias
        self.norm = nn.BatchNorm1d(3, dtype=dtype)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(18, 2, dtype=dtype)
        self.scale = nn.Parameter(torch.ones((), dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """From (batch, 8) to (batch, 2)."""
        hidden = torch.tanh(self.norm(self.conv(x.unsqueeze(1))))
        return self.scale * self.head(self.dropout(hidden.flatten(1)))


def net(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Net, Closure]:
    """Return a new network and the closure of one fixed batch."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    model = Net(dtype)
    x, y = torch.randn(16, 8, dtype=dtype), torch.randn(16, 2, dtype=dtype)
    torch.set_rng_state(state)
    return model, lambda: ((model(x) - y) ** 2).mean()


def wide(parts: int = 1, compiled: bool = False) -> tuple[nn.Module, Any]:
    """Return a network with a matrix that has 8-bit state, and the closure of one fixed batch.

    Args:
        parts: number of micro-batches; if there are several, their closures are returned as a list.
        compiled: compile the model with ``torch.compile``.
    """
    state = torch.get_rng_state()
    torch.manual_seed(1)
    model: nn.Module = nn.Sequential(nn.Linear(8, 80), nn.Tanh(), nn.Linear(80, 60), nn.Tanh())
    model.append(nn.Linear(60, 2))
    x, y = torch.randn(16, 8), torch.randn(16, 2)
    torch.set_rng_state(state)
    run: Any = torch.compile(model, backend="aot_eager") if compiled else model
    pairs = list(zip(x.chunk(parts), y.chunk(parts), strict=True))
    closures = [lambda a=a, b=b: ((run(a) - b) ** 2).mean() for a, b in pairs]
    return run, closures if parts > 1 else closures[0]


def bowl(
    dtype: torch.dtype = torch.float32, shapes: tuple[tuple[int, ...], ...] = ((3, 2), (4,), ())
) -> tuple[dict[str, nn.Parameter], Closure]:
    """Return a convex quadratic over parameters of these shapes, with minimum 0 at 0."""
    params = {
        f"p{i}": nn.Parameter(torch.linspace(0.5, 1.5, torch.Size(s).numel()).reshape(s).to(dtype))
        for i, s in enumerate(shapes)
    }
    return params, lambda: torch.stack([(p * p).sum() for p in params.values()]).sum()


def in_parts(closure: Closure) -> Composite:
    """Return a ``Composite`` whose output is the loss."""
    return Composite(closure, lambda loss: 1.0 * loss)


def bits(tensors: Mapping[str, Tensor] | nn.Module) -> dict[str, Tensor]:
    """Copy tensors for later comparison."""
    named = dict(tensors.named_parameters()) if isinstance(tensors, nn.Module) else tensors
    return {name: tensor.detach().clone() for name, tensor in named.items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether two sets of tensors are bitwise equal (NaN equals NaN)."""
    return a.keys() == b.keys() and all(
        x.dtype == y.dtype and torch.equal(x.isnan(), y.isnan())
        and torch.equal(x.nan_to_num(), y.nan_to_num())
        for x, y in zip(a.values(), b.values(), strict=True)
    )  # fmt: skip


def bend() -> tuple[dict[str, nn.Parameter], Closure]:
    """Return a nonlinear function of a matrix and a vector, in float64: parameters and closure."""
    generator = torch.Generator().manual_seed(2)
    params = {
        name: nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
        for name, shape in (("matrix", (3, 2)), ("vector", (4,)))
    }

    def closure() -> Tensor:
        m, v = params["matrix"], params["vector"]
        return (m**4).sum() / 4 + (v**2).sum() * 3 + (m.sum() - v.sum()) ** 2 / 2

    return params, closure


def slopes(values: Mapping[str, Any]) -> dict[str, Any]:
    """The gradient of :func:`bend`, derived by hand, for arrays or tensors."""
    gap = values["matrix"].sum() - values["vector"].sum()
    return {"matrix": values["matrix"] ** 3 + gap, "vector": 6 * values["vector"] - gap}


def mix_(param: Tensor, mean: Tensor, grad: Tensor, *, lr: Tensor, keep: Tensor) -> None:
    """A rule with a buffer, a square root and a division."""
    mean.copy_(mean * keep + grad * (1.0 - keep))
    param.sub_(mean / (sqrt(mean * mean) + 1e-3) * lr)


def mix_scalars(lr: float = 0.1, keep: float = 0.9) -> dict[str, Tensor]:
    """The scalars of :func:`mix_`."""
    given = {"lr": lr, "keep": keep}
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in given.items()}


def mix_tensors(n: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """The tensors of :func:`mix_`, ``n`` elements each; the buffer is at least float32."""
    generator = torch.Generator().manual_seed(n)
    made = [torch.randn(n, generator=generator) for _ in range(3)]
    return [
        made[0].to(dtype),
        made[1].to(torch.promote_types(dtype, torch.float32)),
        made[2].to(dtype),
    ]
