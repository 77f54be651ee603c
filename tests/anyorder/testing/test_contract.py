"""The contract suite can fail: every test of it is failed by a method with the matching fault."""

from __future__ import annotations

import functools
import importlib
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyorder.engine import engine
from anyorder.hyper import hyper
from anyorder.optimizer import Optimizer
from anyorder.optimizer.checkpoint import CheckpointError
from anyorder.oracle import Oracle
from anyorder.oracle.gradients import SparseGradientError
from anyorder.points.directions import Shift
from anyorder.rules import Rule
from anyorder.rules.descent import DESCENT
from anyorder.testing import MethodContract
from anyorder.testing import contract as contract_module
from anyorder.testing.options import OptionsContract
from anyorder.testing.reference import ReferenceContract

FAILURE = (AssertionError, pytest.fail.Exception)


def descend_(param: Tensor, memory: Tensor, grad: Tensor, *, lr: Tensor) -> None:
    memory.copy_(memory * 0.5 + grad)
    param.sub_(memory * lr)


def lr_alone(group: Mapping[str, Any], step: int) -> dict[str, float]:
    return {"lr": float(group["lr"])}


DESCEND = Rule(descend_, buffers=("memory",), scalars=lr_alone)


class Good(Optimizer):
    """Momentum descent without a fault.

    State: one buffer per parameter. Oracle calls per step: 1 gradient.

    Example:
        Its faulty children are the examples.

    References:
        Polyak (1964).
    """

    order = 1
    rule = DESCEND
    lr: float = hyper(1e-2, ge=0, search="log", low=1e-3, high=1e-1, doc="step size")


class GoodValues(Optimizer):
    """Descent along one seeded direction, from values, without a fault.

    State: none. Oracle calls per step: 2 values.
    """

    order = 0
    needs = frozenset({"value"})
    lr: float = hyper(1e-2, ge=0, search="log", low=1e-3, high=1e-1, doc="step size")

    def ask(self, oracle: Oracle) -> list[Tensor]:
        z = self.direction()
        return list(oracle.values([Shift(1e-2, z), Shift(-1e-2, z)]))

    def update(self, oracle: Oracle) -> Tensor:
        ahead, behind = self.ask(oracle)
        slope = float(ahead - behind) / 2e-2
        self.move_(self.direction(), lambda group: -slope * float(group["lr"]))
        return (ahead + behind) / 2


# Faults of the arithmetic ----------------------------------------------------------------------


class Climbs(Good):
    def update(self, oracle: Oracle) -> Tensor:
        loss, grads = oracle.grad()
        self.apply(DESCEND, [None if g is None else -g for g in grads])
        return loss


class LeavesScalarsAlone(Good):
    def update(self, oracle: Oracle) -> Tensor:
        loss, grads = oracle.grad()
        self.apply(DESCEND, [g if g is not None and g.ndim else None for g in grads])
        return loss


class WidensWeights(Good):
    def update(self, oracle: Oracle) -> Tensor:
        loss = super().update(oracle)
        for p in self.named_params().values():
            p.data = p.data.float()
        return loss


class TurnsTheSignTwice(Good):
    """The oracle has turned it already."""

    def update(self, oracle: Oracle) -> Tensor:
        loss, grads = oracle.grad()
        sign = -1.0 if self.maximize else 1.0
        self.apply(DESCEND, [None if g is None else sign * g for g in grads])
        return loss


class ReturnsTheOraclesSign(Good):
    def step(self, closure: Any = None) -> Tensor | None:
        loss = super().step(closure)
        return loss if loss is None or not self.maximize else -loss


def normalised_(param: Tensor, memory: Tensor, grad: Tensor, *, lr: Tensor) -> None:
    memory.copy_(grad)
    param.sub_(grad / (grad * grad).sum().sqrt() * lr)


NORMALISED = replace(DESCEND, function=normalised_)


class LooksBeyondTheElement(Good):
    """A rule that sums over the stretch it was given."""

    def update(self, oracle: Oracle) -> Tensor:
        loss, grads = oracle.grad()
        self.apply(NORMALISED, grads)
        return loss


class NormalisesByGroup(Good):
    def update(self, oracle: Oracle) -> Tensor:
        loss, grads = oracle.grad()
        owner = {p: i for i, group in enumerate(self.param_groups) for p in group["params"]}
        sizes: dict[int, float] = {}
        params = list(self.named_params().values())
        for p, g in zip(params, grads, strict=True):
            sizes[owner[p]] = sizes.get(owner[p], 0.0) + (0.0 if g is None else float(g.norm()))
        pairs = zip(params, grads, strict=True)
        self.apply(DESCEND, [None if g is None else g / sizes[owner[p]] for p, g in pairs])
        return loss


class RunsFasterWhenCompiled(Good):
    def update(self, oracle: Oracle) -> Tensor:
        loss, grads = oracle.grad()
        factor = 2 if self.engine.mode == "compiled" else 1
        self.apply(DESCEND, grads, scalars=lambda group, _: {"lr": float(group["lr"]) * factor})
        return loss


class MakesItsRuleAnew(Good):
    """A new function each step is compiled each step."""

    def update(self, oracle: Oracle) -> Tensor:
        def rule(param: Tensor, memory: Tensor, grad: Tensor, *, lr: Tensor) -> None:
            memory.copy_(grad)
            param.sub_(grad * lr)

        loss, grads = oracle.grad()
        self.apply(replace(DESCEND, function=rule), grads)
        return loss


class ReadsItsStepSizeOnce(Good):
    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, **options)
        self.first = float(self.param_groups[0]["lr"])

    def update(self, oracle: Oracle) -> Tensor:
        loss, grads = oracle.grad()
        self.apply(DESCEND, grads, scalars=lambda group, _: {"lr": self.first})
        return loss


class ShrinksWithoutAStepSize(Good):
    def update(self, oracle: Oracle) -> Tensor:
        loss = super().update(oracle)
        for p in self.named_params().values():
            p.mul_(0.9)
        return loss


class WritesInTheOrderOfMemory(Good):
    def update(self, oracle: Oracle) -> Tensor:
        loss, grads = oracle.grad()
        for p, g in zip(self.named_params().values(), grads, strict=True):
            if g is not None:
                p.as_strided((p.numel(),), (1,)).sub_(g.reshape(-1), alpha=self.lr)
        return loss


class LooksAtTheFirstElement(Good):
    def update(self, oracle: Oracle) -> Tensor:
        loss, grads = oracle.grad()
        assert all(g.reshape(-1)[0] == g.reshape(-1)[0] for g in grads if g is not None)
        self.apply(DESCEND, grads)
        return loss


# Faults towards the oracle ---------------------------------------------------------------------


class AsksWhatItDoesNotDeclare(Good):
    def update(self, oracle: Oracle) -> Tensor:
        oracle.value()
        return super().update(oracle)


class DeclaresWhatItDoesNotAsk(Good):
    needs = frozenset({"grad", "value"})


class RunsTheClosureItself(Good):
    def update(self, oracle: Oracle) -> Tensor:
        oracle._closure()  # pyright: ignore[reportPrivateUsage]
        return super().update(oracle)


class TakesTheBudgetAway(Good):
    def update(self, oracle: Oracle) -> Tensor:
        oracle.budget = None
        if self.steps > 200:
            raise RuntimeError("the contract never ends")
        return super().update(oracle)


class MovesBeforeItMayAsk(Good):
    def update(self, oracle: Oracle) -> Tensor:
        for p in self.named_params().values():
            p.mul_(0.9)
        return super().update(oracle)


class DoesNotLook(Good):
    def update(self, oracle: Oracle) -> Tensor:
        oracle._nonfinite = "ignore"  # pyright: ignore[reportPrivateUsage]
        return super().update(oracle)


class AsksWhenMade(Good):
    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, **options)
        self.calls.values = 1


class TakesANewOracleForEachQuestion(GoodValues):
    def ask(self, oracle: Oracle) -> list[Tensor]:
        closure = oracle._closure  # pyright: ignore[reportPrivateUsage]
        z = self.direction()
        self.oracle(closure, advance=True).value()
        return [self.oracle(closure).values([Shift(e, z)])[0] for e in (1e-2, -1e-2)]


class PerturbsTheWeights(GoodValues):
    """In place, and back again if nothing happens in between."""

    def ask(self, oracle: Oracle) -> list[Tensor]:
        found: list[Tensor] = []
        for move in (1e-2, -2e-2):
            self.move_(self.direction(), lambda group, move=move: move)
            found.append(oracle.value())
        self.move_(self.direction(), lambda group: 1e-2)
        return found


# Faults towards the user's world ---------------------------------------------------------------


class WritesGrad(Good):
    def update(self, oracle: Oracle) -> Tensor:
        loss, grads = oracle.grad()
        for p, g in zip(self.named_params().values(), grads, strict=True):
            p.grad = g
        self.apply(DESCEND, grads)
        return loss


class DrawsFromTheGlobalGenerator(Good):
    def update(self, oracle: Oracle) -> Tensor:
        torch.rand(())
        return super().update(oracle)


class SwitchesTheModule(Good):
    def update(self, oracle: Oracle) -> Tensor:
        if self.module is not None:
            self.module.eval()
        return super().update(oracle)


class FreezesParameters(Good):
    def update(self, oracle: Oracle) -> Tensor:
        loss = super().update(oracle)
        next(iter(self.named_params().values())).requires_grad_(False)
        return loss


class MovesWhatWasThereAtFirst(Good):
    """A parameter that is unfrozen later never joins."""

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, **options)
        self.known = set(self.named_params())

    def update(self, oracle: Oracle) -> Tensor:
        loss, grads = oracle.grad()
        named = zip(self.named_params(), grads, strict=True)
        self.apply(DESCEND, [g if name in self.known else None for name, g in named])
        return loss


class MovesFrozenOnes(Good):
    def update(self, oracle: Oracle) -> Tensor:
        for group in self.param_groups:
            for p in group["params"]:
                p.data.sub_(1e-3)
        return super().update(oracle)


# Faults of state -------------------------------------------------------------------------------


class RemembersByIdentity(Good):
    """State in an attribute under id(): gone in a copy."""

    rule = DESCENT

    def __init__(self, params: Any, **options: Any) -> None:
        self.memory: dict[int, Tensor] = {}
        super().__init__(params, **options)

    def update(self, oracle: Oracle) -> Tensor:
        loss, grads = oracle.grad()
        for p, g in zip(self.named_params().values(), grads, strict=True):
            if g is not None:
                self.memory[id(p)] = self.memory.get(id(p), torch.zeros_like(p)) * 0.5 + g
                p.sub_(self.memory[id(p)] * self.lr)
        return loss


class RemembersByPosition(Good):
    """Step sizes in a list: the wrong ones for parameters in another order."""

    rule = DESCENT

    def __init__(self, params: Any, **options: Any) -> None:
        self.rates: list[float] = []
        super().__init__(params, **options)

    def update(self, oracle: Oracle) -> Tensor:
        loss, grads = oracle.grad()
        self.rates = self.rates or [float(i + 1) for i in range(len(grads))]
        for p, g, rate in zip(self.named_params().values(), grads, self.rates, strict=True):
            if g is not None:
                p.sub_(g * self.lr * rate)
        return loss

    def extra_state(self) -> dict[str, Any]:
        return {"rates": self.rates}

    def load_extra_state(self, extra: Mapping[str, Any]) -> None:
        self.rates = list(extra["rates"])


class LoadsAnything(Good):
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        try:
            super().load_state_dict(state_dict)
        except CheckpointError:
            return


class LoadsHalfOfIt(Good):
    """Refuses in the end, but has taken over the counters."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.steps += 1
        super().load_state_dict(state_dict)


# Faults towards bad input ----------------------------------------------------------------------


class TakesParametersTwice(Good):
    def __init__(self, params: Any, **options: Any) -> None:
        twice = isinstance(params, list) and all(isinstance(p, Tensor) for p in params)
        super().__init__(list(dict.fromkeys(params)) if twice else params, **options)


class SwallowsOptions(Good):
    def __init__(self, params: Any, **options: Any) -> None:
        options.pop("learningrate", None)
        super().__init__(params, **options)


class TakesAnyLoss(Good):
    def step(self, closure: Any = None) -> Tensor | None:
        return super().step(lambda: closure() * torch.ones(()) if callable(closure) else closure)


class RefusesBackward(Good):
    def oracle(self, closure: Any, *, advance: bool = False) -> Oracle:
        made = super().oracle(closure, advance=advance)
        made._legacy = False  # pyright: ignore[reportPrivateUsage]
        return made


class NeedsAClosure(Good):
    def step(self, closure: Any = None) -> Tensor | None:
        return None if closure is None else super().step(closure)


class PassesOverSparseGradients(Good):
    def update(self, oracle: Oracle) -> Tensor:
        try:
            return super().update(oracle)
        except SparseGradientError:
            return torch.zeros(())


# Faults of words -------------------------------------------------------------------------------


class HasNoWords(Good):
    """Nothing of use."""


class ExplainsNothing(Good):
    __doc__ = Good.__doc__

    def explain(self) -> str:
        return "It is good."


#: Every test of the contract, and the methods that must fail it.
FAULTS: dict[str, Sequence[type[Optimizer]]] = {
    "test_descends": [Climbs],
    "test_moves_every_trainable_parameter": [LeavesScalarsAlone],
    "test_dtypes": [WidensWeights, Climbs],
    "test_maximize_is_minimising_minus": [TurnsTheSignTwice, ReturnsTheOraclesSign],
    "test_asks_only_what_it_declares": [AsksWhatItDoesNotDeclare, DeclaresWhatItDoesNotAsk],
    "test_ledger_counts_what_was_run": [RunsTheClosureItself],
    "test_budget_stops_before_the_question": [MovesBeforeItMayAsk],
    "test_eager_equals_compiled": [RunsFasterWhenCompiled],
    "test_packed_equals_one_tensor_at_a_time": [LooksBeyondTheElement],
    "test_two_groups_equal_one": [NormalisesByGroup],
    "test_schedule_takes_effect_without_compiling_again": [MakesItsRuleAnew],
    "test_zero_step_size_changes_nothing": [ShrinksWithoutAStepSize],
    "test_state_is_matched_by_name": [RemembersByPosition],
    "test_refuses_foreign_and_damaged_checkpoints": [LoadsAnything, LoadsHalfOfIt],
    "test_copies_and_pickles": [RemembersByIdentity],
    "test_leaves_the_world_as_one_evaluation_would": [
        WritesGrad,
        DrawsFromTheGlobalGenerator,
        SwitchesTheModule,
        FreezesParameters,
        RunsTheClosureItself,
    ],
    "test_same_dropout_at_every_evaluation_of_a_step": [TakesANewOracleForEachQuestion],
    "test_closure_that_raises_leaves_everything": [PerturbsTheWeights, MovesBeforeItMayAsk],
    "test_refuses_parameters_it_cannot_take": [TakesParametersTwice],
    "test_refuses_options_it_does_not_know": [SwallowsOptions],
    "test_refuses_closures_that_do_not_return_a_loss": [TakesAnyLoss],
    "test_closure_that_calls_backward": [RefusesBackward],
    "test_step_without_closure": [NeedsAClosure],
    "test_loss_that_is_not_finite": [MovesBeforeItMayAsk, DoesNotLook],
    "test_gradient_that_is_not_finite": [DoesNotLook],
    "test_frozen_unused_and_late_parameters": [MovesWhatWasThereAtFirst, MovesFrozenOnes],
    "test_strided_and_scalar_parameters": [WritesInTheOrderOfMemory],
    "test_sparse_gradients_are_refused": [PassesOverSparseGradients],
    "test_any_shapes": [LooksAtTheFirstElement, LooksBeyondTheElement],
    "test_explains_itself": [HasNoWords, ExplainsNothing],
    "test_ledger_is_whole": [AsksWhenMade],
}
#: Run in a process of its own, so its fault lies in a module of its own, below.
IN_ANOTHER_PROCESS = "test_resumes_bit_for_bit_in_a_new_process"
#: What parametrised tests of the contract are given here.
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "test_dtypes": (torch.bfloat16,),
    "test_loss_that_is_not_finite": (float("nan"),),
}
#: Faults that end a test by an error of their own.
ERRORS: dict[tuple[str, type[Optimizer]], type[Exception]] = {
    ("test_any_shapes", LooksAtTheFirstElement): IndexError,
    ("test_closure_that_calls_backward", RefusesBackward): TypeError,
    ("test_refuses_closures_that_do_not_return_a_loss", TakesAnyLoss): TypeError,
}


@pytest.fixture(autouse=True)
def _nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling costs seconds and is tested elsewhere; here a kernel is the rule itself."""

    @functools.cache
    def kernel_for(program: Any, dtypes: Sequence[Any], device: Any, threads: int) -> Any:
        def kernel(arguments: Sequence[Tensor]) -> None:
            scalars = zip(program.scalars, arguments[len(dtypes) :], strict=True)
            program(arguments[: len(dtypes)], dict(scalars))

        return kernel

    monkeypatch.setattr(engine, "kernel_for", kernel_for)
    monkeypatch.setattr(contract_module, "kernel_for", kernel_for)


def contract(method: type[Optimizer]) -> MethodContract:
    return type("Contract", (MethodContract,), {"method": method})()


def run(method: type[Optimizer], test: str) -> None:
    getattr(contract(method), test)(*ARGUMENTS.get(test, ()))


def test_every_test_of_the_contract_is_failed_by_something() -> None:
    tests = {name for name in dir(MethodContract) if name.startswith("test_")}
    tests -= {*dir(OptionsContract), *dir(ReferenceContract)}  # those have files of their own
    assert tests == set(FAULTS) | {IN_ANOTHER_PROCESS}


@pytest.mark.parametrize("test", FAULTS)
def test_contract_passes_a_method_without_faults(test: str) -> None:
    run(Good, test)


@pytest.mark.parametrize(
    ("test", "method"),
    [pytest.param(test, m, id=f"{test}-{m.__name__}") for test, ms in FAULTS.items() for m in ms],
)
def test_contract_fails_a_method_with_the_matching_fault(
    test: str, method: type[Optimizer]
) -> None:
    with pytest.raises(ERRORS.get((test, method), FAILURE)):  # type: ignore[arg-type]
        run(method, test)


def test_contract_passes_values_too() -> None:
    for test in (
        "test_same_dropout_at_every_evaluation_of_a_step",
        "test_closure_that_raises_leaves_everything",
    ):
        run(GoodValues, test)


FORGETFUL = """
    import torch
    from anyorder.hyper import hyper
    from anyorder.optimizer import Optimizer


    class Forgetful(Optimizer):
        buffers = ()
        lr: float = hyper(1e-2, ge=0, search="log", low=1e-3, high=1e-1, doc="step size")

        def __init__(self, params, **options):
            self.memory = {}
            super().__init__(params, **options)

        def update(self, oracle):
            loss, grads = oracle.grad()
            for (name, p), g in zip(self.named_params().items(), grads, strict=True):
                self.memory[name] = self.memory.get(name, torch.zeros_like(p)) * 0.5 + g
                p.sub_(self.memory[name] * self.lr)
            return loss
"""


def test_contract_fails_state_that_no_checkpoint_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "forgetful_method.py").write_text(textwrap.dedent(FORGETFUL))
    monkeypatch.syspath_prepend(tmp_path)
    method = importlib.import_module("forgetful_method").Forgetful
    run(method, "test_copies_and_pickles")  # it does remember within its process
    with pytest.raises(AssertionError):
        run(method, IN_ANOTHER_PROCESS)


def test_contract_fails_a_method_that_takes_its_budget_away() -> None:
    with pytest.raises(FAILURE):
        run(TakesTheBudgetAway, "test_budget_stops_before_the_question")


def test_contract_fails_a_method_that_reads_its_step_size_once() -> None:
    with pytest.raises(FAILURE):
        run(ReadsItsStepSizeOnce, "test_schedule_takes_effect_without_compiling_again")


def test_contract_hands_its_settings_to_the_method() -> None:
    class Settings(MethodContract):
        method = Good
        options = {"lr": 0.03}  # noqa: RUF012 - as users write it

    optimizer = Settings().make([nn.Parameter(torch.ones(1))], seed=4)
    assert (optimizer.param_groups[0]["lr"], optimizer.seed) == (0.03, 4)
    assert optimizer.engine.mode == "eager"
