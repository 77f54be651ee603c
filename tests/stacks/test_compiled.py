"""Models under torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from anyorder import methods

# Its own deprecations, inside torch._dynamo and torch._inductor.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_the_example(example: Callable[..., dict[str, Any]], backend: str) -> None:
    found = example("compiled", backend)
    assert found["loss"] < 2.0
    assert list(found["optimizer"].named_params()) == list(found["resumed"].named_params())
    assert found["resumed"].steps == 30 and found["resumed"].calls.grads == 30


@pytest.mark.parametrize("name", ["adamw", "mezo", "schedule_free_adamw", "adahessian"])
def test_a_compiled_model_trains_as_the_plain_one(
    digits: tuple[Tensor, Tensor], network: Callable[[], nn.Module], name: str
) -> None:
    x, y = digits
    weights: list[list[Tensor]] = []
    for backend in (None, "aot_eager"):
        plain = network()
        model: Any = plain if backend is None else torch.compile(plain, backend=backend)
        options = {"products": "finite"} if name == "adahessian" else {}
        optimizer = methods.get(name)(model, **options)
        for _ in range(3):
            optimizer.step(lambda model=model: cross_entropy(model(x), y))
        weights.append([p.detach() for p in plain.parameters()])
        assert list(optimizer.named_params()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    for ours, theirs in zip(*weights, strict=True):
        torch.testing.assert_close(ours, theirs)
