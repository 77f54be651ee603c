"""Fingerprints see every bit, name, shape and dtype, and nothing else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from anyorder import MeZO
from anyorder.seed_log.fingerprint import buffers_of, fingerprint, parameters_of, weights_of

BASE = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}
OTHERS = {
    "a bit": BASE | {"a": BASE["a"].view(torch.int32).add(1).view(torch.float32)},
    "the sign of zero": BASE | {"a": -BASE["a"].neg().add(0)},
    "a shape": BASE | {"a": BASE["a"].view(3, 2)},
    "a dtype": BASE | {"b": torch.ones(2, dtype=torch.float16)},
    "a name": {"a": BASE["a"], "c": BASE["b"]},
    "a parameter": {"a": BASE["a"]},
    "exchanged names": {"b": BASE["a"], "a": BASE["b"]},
}
OTHERS["the sign of zero"]["a"] = BASE["a"].clone()
OTHERS["the sign of zero"]["a"][0, 0] = -0.0


@pytest.mark.parametrize("what", OTHERS)
def test_it_sees(what: str) -> None:
    assert fingerprint(OTHERS[what]) != fingerprint(BASE)


def test_it_does_not_see_order_or_memory_layout() -> None:
    turned = {"b": BASE["b"], "a": BASE["a"].T.contiguous().T}
    assert fingerprint(turned) == fingerprint(BASE)


def test_the_last_of_many_weights_counts() -> None:
    """Hashes of printed arrays skip all but the ends of long ones."""
    long = torch.zeros(5000)
    other = long.clone()
    other[2500] = 1e-30
    assert fingerprint({"x": long}) != fingerprint({"x": other})


def test_wrappers_do_not_count() -> None:
    model = nn.Linear(3, 2)
    assert fingerprint(nn.DataParallel(model)) == fingerprint(model)


def test_buffers_and_empty_tensors() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    other = copy.deepcopy(model)
    other[1].running_mean.add_(1.0)  # type: ignore[operator]
    assert fingerprint(other) != fingerprint(model)
    assert buffers_of(other) != buffers_of(model)
    with torch.no_grad():
        model[0].weight.add_(1.0)
        other[1].running_mean.copy_(model[1].running_mean)  # type: ignore[operator, arg-type]
    assert buffers_of(other) == buffers_of(model)
    assert buffers_of({"x": torch.zeros(2)}) == buffers_of({})
    assert fingerprint({"x": torch.zeros(0)}) != fingerprint({})


def test_names_are_those_of_the_optimizer() -> None:
    model = nn.Linear(3, 2)
    tensors: dict[str, Tensor] = {"w": model.weight}
    assert set(parameters_of(model)) == {"weight", "bias"}
    assert weights_of(MeZO(model)) is model
    assert list(weights_of(MeZO(list(tensors.items())))) == ["w"]
