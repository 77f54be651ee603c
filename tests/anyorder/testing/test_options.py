"""The contract of the common options can fail: each test has a method that fails it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from anyorder.engine.formats import State
from anyorder.hyper import HyperError, hyper
from anyorder.optimizer import Optimizer
from anyorder.oracle import Oracle
from anyorder.rules import Rule
from anyorder.testing import MethodContract
from anyorder.testing.options import OptionsContract

FAILURE = (AssertionError, RuntimeError, pytest.fail.Exception)


def descend_(param: Tensor, memory: Tensor, grad: Tensor, *, lr: Tensor) -> None:
    memory.copy_(memory * 0.5 + grad)
    param.sub_(memory * lr)


DESCEND = Rule(
    descend_, buffers=("memory",), scalars=lambda group, step: {"lr": float(group["lr"])}
)


class Good(Optimizer):
    """Momentum descent without a fault."""

    order = 1
    rule = DESCEND
    lr: float = hyper(1e-2, ge=0, search="log", low=1e-3, high=1e-1, doc="step size")
    weight_decay: float = hyper(0.0, ge=0, doc="decay")


class KeepsEverythingInFloat32(Good):
    def precision_of(self, group: Mapping[str, Any], param: Tensor) -> State:
        return "fp32"


class LosesScales(Good):
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for entries in self.state.values():
            for name, value in entries.items():
                if name.endswith(".scale") or getattr(value, "dtype", None) == torch.bfloat16:
                    value.mul_(2.0)


class TakesOverThePrecision(Good):
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.param_groups[0]["state"] = state_dict["param_groups"][0]["state"]


class LeavesOutWhatItCannotDo(Good):
    """Without a word."""

    def __init__(self, params: Any, **options: Any) -> None:
        try:
            super().__init__(params, **options)
        except HyperError:
            super().__init__(params)


class Forgets(Good):
    """Leaves an option out, whatever the user said."""

    option = ""

    def update(self, oracle: Oracle) -> Tensor:
        for group in self.param_groups:
            group[self.option] = self.hypers[self.option].default
        return super().update(oracle)


class RoundsToTheNearest(Forgets):
    option = "stochastic_rounding"


class NeverDecays(Forgets):
    option = "weight_decay"


class NeverCouples(Forgets):
    option = "decoupled_weight_decay"


class IsBold(Forgets):
    option = "cautious"


class DoesNotClip(Good):
    def oracle(self, closure: Any, *, advance: bool = False) -> Oracle:
        for group in self.param_groups:
            group["clip_norm"] = None
        return super().oracle(closure, advance=advance)


class TakesTheLastMicroBatch(Good):
    def step(self, closure: Any = None) -> Tensor | None:
        return super().step(closure[-1] if isinstance(closure, list) else closure)


class NarrowsWeights(Good):
    def update(self, oracle: Oracle) -> Tensor:
        loss = super().update(oracle)
        for p in self.named_params().values():
            p.data = p.data.bfloat16()
        return loss


class KnowsNoCompiledModels(Good):
    def update(self, oracle: Oracle) -> Tensor:
        if "Optimized" in type(self.module).__name__:
            return oracle.grad()[0]
        return super().update(oracle)


#: Tests, what they are given, and the methods that must fail them.
FAULTS: dict[str, tuple[tuple[Any, ...], Sequence[type[Optimizer]]]] = {
    "test_reduced_state_stays_near_and_is_small": (("8bit",), [KeepsEverythingInFloat32]),
    "test_reduced_state_resumes_bit_for_bit": (("8bit",), [LosesScales]),
    "test_precision_may_change_at_a_checkpoint": (("fp32", "8bit"), [TakesOverThePrecision]),
    "test_float64_and_reduced_state_exclude_each_other": ((), [LeavesOutWhatItCannotDo]),
    "test_stochastic_rounding_moves_where_rounding_to_nearest_stands_still": (
        (),
        [RoundsToTheNearest],
    ),
    "test_stochastic_rounding_is_for_bfloat16": ((), [LeavesOutWhatItCannotDo]),
    "test_clipping_is_a_shorter_gradient": ((), [DoesNotClip]),
    "test_micro_batches_are_their_batch": ((), [TakesTheLastMicroBatch]),
    "test_decoupled_decay_shrinks_the_weights_themselves": ((), [NeverDecays]),
    "test_coupled_decay_is_a_penalty": ((), [NeverCouples, NeverDecays]),
    "test_cautious_moves_never_climb": ((), [IsBold]),
    "test_under_autocast": ((), [NarrowsWeights]),
    "test_under_a_compiled_model": ((), [KnowsNoCompiledModels]),
}


def run(method: type[Optimizer], test: str) -> None:
    contract = type("Contract", (MethodContract,), {"method": method})()
    getattr(contract, test)(*FAULTS[test][0])


def test_every_test_is_failed_by_something() -> None:
    assert {name for name in dir(OptionsContract) if name.startswith("test_")} == set(FAULTS)


@pytest.mark.parametrize("test", FAULTS)
def test_a_method_without_faults_passes(test: str) -> None:
    run(Good, test)


@pytest.mark.parametrize(
    ("test", "method"), [(test, m) for test, (_, methods) in FAULTS.items() for m in methods]
)
def test_a_method_with_the_fault_does_not(test: str, method: type[Optimizer]) -> None:
    with pytest.raises(FAILURE):
        run(method, test)
