"""Small worlds in which every method can be made, stepped, looked into and compared."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyorder import methods
from anyorder.errors import AnyOrderError
from anyorder.methods._from_values import FromValues
from anyorder.optimizer import Optimizer
from anyorder.optimizer.base import GRADIENT_ONLY
from anyorder.testing.worlds import in_parts

METHODS = methods.names()
#: Methods that also work after ``loss.backward()``.
PLAIN = [name for name in METHODS if methods.get(name).needs == GRADIENT_ONLY]
#: Methods that estimate from values along random directions.
FROM_VALUES = {name for name in METHODS if issubclass(methods.get(name), FromValues)}
#: Methods whose steps also move parameters without influence, at random or by weight decay.
DRAWING = FROM_VALUES | {"deepzero", "rank_sgd"}
#: Methods that keep buffers.
KEEPING = [name for name in METHODS if methods.get(name).buffers]
#: Methods and the precisions of their state.
STATES = [
    (name, state)
    for name in METHODS
    for state in (("fp32", "bf16", "8bit") if "state" in methods.get(name).hypers else ("fp32",))
]
#: Options with which small worlds suit a method.
OPTIONS: dict[str, dict[str, Any]] = {
    "deepzero": {"density": 0.05, "score_directions": 2},
    "muon": {"roles": "shape", "adjust_lr": "match_rms_adamw"},
    "scale": {"roles": "shape"},
    "sgd": {"momentum": 0.9},
    "sso": {"inner_steps": 1},
    "zeroth_order": {"rule": "adamw"},
    "zo_hybrid": {"blocks": "parameters"},
    "sparse_mezo": {"sparsity": 0.0},
    # A point is shown for every step size: few are enough.
    "rank_sgd": {"points": 3, "line_search": 1},
}
#: Step sizes with which every weight moves visibly and nothing blows up.
RATES = {
    **dict.fromkeys(("mezo", "sparse_mezo", "zo_block", "zo_conservative", "zo_hybrid"), 0.005),
    **dict.fromkeys(("zo_momentum", "forward_gradient"), 0.005),
    **dict.fromkeys(("zeroth_order", "zo_adam", "zo_sign"), 0.01),
    "sso": 2.0,
    "accelerated": 0.3,
    "lion": 0.01,
    "lion_k": 0.01,
    "exadam": 0.01,
}
#: A matrix of these sides is large enough for 8-bit state.
WIDE = (80, 60)


def rate(name: str) -> float:
    """A step size in which the method moves visibly."""
    return RATES.get(name, 0.05)


def make(name: str, params: Any, **options: Any) -> Optimizer:
    """The method over ``params``, with settings that suit small worlds."""
    settings: dict[str, Any] = {"engine": "eager", "lr": rate(name), **OPTIONS.get(name, {})}
    return methods.get(name)(params, **{**settings, **options})


def start(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """Parameters whose elements all differ (default: a matrix and a vector)."""
    return [
        nn.Parameter(torch.linspace(0.5, 1.5, torch.Size(s).numel()).reshape(s).to(dtype).clone())
        for s in shapes or ((4, 3), (5,))
    ]


def named(params: Iterable[Tensor]) -> list[tuple[str, Tensor]]:
    """Parameters with names."""
    return [(f"p{i}", p) for i, p in enumerate(params)]


def loss_of(params: Iterable[Tensor]) -> Tensor:
    """A bowl whose curvature grows from parameter to parameter; its minimum lies at 0.2."""
    terms = [((p.double() - 0.2) ** 2).sum() * (1.0 + 0.5 * i) for i, p in enumerate(params)]
    return torch.stack(terms).sum()


def closure_for(name: str, loss: Callable[[], Tensor]) -> Any:
    """``loss`` in the form the method takes."""
    return in_parts(loss) if "output_grad" in methods.get(name).needs else loss


def advance(name: str, optimizer: Any, params: Sequence[Tensor], steps: int = 1) -> None:
    """Steps down the bowl of ``params``."""
    for _ in range(steps):
        optimizer.step(closure_for(name, lambda: loss_of(params)))


def backward(optimizer: Any, params: Sequence[Tensor], steps: int = 1) -> None:
    """Steps as torch.optim takes them, for methods of gradients alone and torch's own."""
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(params).backward()
        optimizer.step()


def copies(params: Iterable[Tensor]) -> list[Tensor]:
    """The present values, to compare with later."""
    return [p.detach().clone() for p in params]


def clones(params: Iterable[Tensor]) -> list[nn.Parameter]:
    """New parameters with the present values."""
    return [nn.Parameter(p.detach().clone(), requires_grad=p.requires_grad) for p in params]


def equal(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> bool:
    """Whether all bits agree."""
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def close(
    ours: Sequence[Tensor], theirs: Sequence[Tensor], rtol: float = 1e-4, atol: float = 1e-6
) -> None:
    """Assert that values agree up to rounding, whatever the dtypes."""
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.detach().double(), b.detach().double(), rtol=rtol, atol=atol)


def attempt(do: Callable[[], Any], errors: type[Exception] = AnyOrderError) -> tuple[Any, str]:
    """What ``do`` returns, or the words with which it was refused."""
    try:
        return do(), ""
    except errors as error:
        return None, str(error) or "refused without a word"


def check_all(cases: Iterable[str], check: Callable[[str], None]) -> None:
    """Check every case and fail once, with the names of all that went wrong.

    One test for thousands of cases, of which each takes less time than a test does by itself.
    """
    wrong: list[str] = []
    for case in cases:
        try:
            check(case)
        except pytest.skip.Exception:
            continue
        except (Exception, pytest.fail.Exception) as error:
            words = f"{type(error).__name__}: {error}".splitlines()[0]
            wrong.append(f"{case} ({words[:90]})")
    assert not wrong, f"{len(wrong)} went wrong: {'; '.join(wrong)}"


def frozen(value: Any) -> Any:
    """A deep copy in which tensors are plain values."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: frozen(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [frozen(inner) for inner in value]
    return copy.copy(value)


def agree(a: Any, b: Any) -> bool:
    """Whether two results of :func:`frozen` agree in every bit."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        same = isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype
        return same and a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(agree(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(agree, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


def picture(optimizer: Optimizer) -> Any:
    """Everything an optimizer knows that a step or a checkpoint could change."""
    groups = optimizer.param_groups
    return frozen(
        {
            "params": [list(group["params"]) for group in groups],
            "groups": [{k: v for k, v in group.items() if k != "params"} for group in groups],
            "state": [
                dict(optimizer.state.get(p, {})) for group in groups for p in group["params"]
            ],
            "own": [optimizer.steps, optimizer.seed, optimizer.calls.to_dict()],
            "saved": optimizer.state_dict(),
        }
    )
