"""Every method has the contract in its own test, and a reference that notices wrong arithmetic."""

from __future__ import annotations

import ast
import gc
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FrameType, FunctionType

import numpy as np
import pytest

from anyorder import methods
from anyorder.testing import MethodContract
from anyorder.testing.reference import ReferenceContract

ROOT = Path(__file__).parent.parent
TESTS = ROOT / "tests/anyorder/methods"


@cache
def contract_of(name: str) -> type[MethodContract]:
    """The contract in the test of a method."""
    path = TESTS / f"test_{name}.py"
    spec = importlib.util.spec_from_file_location(f"contract_of_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, MethodContract)
    ]
    own = [kind for kind in found if kind is not MethodContract]
    assert len(own) == 1, f"{path.name}: write one class that derives from MethodContract"
    return own[0]


@pytest.mark.parametrize("name", methods.names())
def test_every_method_has_the_contract_and_a_reference_in_its_test(name: str) -> None:
    contract = contract_of(name)
    assert contract.__name__.startswith("Test"), "pytest collects classes named Test..."
    assert contract.method is methods.get(name)
    assert contract.reference is not ReferenceContract.reference
    changed = {test for test in vars(contract) if test.startswith("test_")} & set(
        dir(MethodContract)
    )
    assert not changed, "the contract is the same for all methods"


# Faults planted in the arithmetic ---------------------------------------------------------------

ROOMS = tuple(str(ROOT / "src/anyorder" / room) for room in ("methods", "rules"))
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
}  # fmt: skip
CALLS = {"add_": "sub_", "sub_": "add_", "mul_": "div_", "div_": "mul_"}
#: By method: what a reference cannot notice, and why.
UNNOTICED: dict[str, dict[str, str]] = {
    "accelerated": {
        "_acceleration.constants": "the rates of the certificate",
        "accelerated.Accelerated._choose: self._restarts": "a count for the certificate",
        "accelerated.Accelerated._note": "the record of the certificate",
        "accelerated.Accelerated._square": "the record, and restarts",
        "accelerated.Accelerated._uphill": "restarts come later than this run is long",
        "accelerated.Accelerated.update: CLIPPED": "the record of the certificate",
    },
    "deepzero": {
        "_coordinates.divided": "which process evaluates what",
        "_coordinates.drawn: share * numel": "the number of coordinates, which the counts show",
        "_features.Features.recording": "seconds of blocks, by which processes share the work",
        "deepzero.DeepZero._measured: step": "whether a difference rounds to nothing",
        "deepzero.DeepZero.update: len(m) - 1": "rounded down to eights either way",
    },
    "lion": {"lion._scalars: 1.0 / threshold": "belongs to Lion-K"},
    "lion_k": {
        "kappa._polar: left": "for matrices without full rank",
        "kappa._unit": "scaled before the norm is taken, which changes rounding alone",
        "kappa.kappa": "values, norms and conjugates, beside the gradients",
    },
    "muon": {
        "_by_role.ByRole.adamw_step_size: float(own)": "a ratio that schedules alone change from 1",
    },
    "rank_sgd": {
        "rank_sgd.RankSGD.learn: 1 / self.shrink": "ties, which this world does not have",
        "rank_sgd.weights: above * len(group)": "the same: every group has one point",
    },
    "scale": {
        "_by_role.ByRole.adamw_step_size: float(own)": "a ratio that schedules alone change from 1",
    },
    "sso": {"descent.descend_: direction * lr": "the direction has its length, and lr is 1"},
    "zeroth_order": {
        "descent._heavy_ball_scalars": "dampening and Nesterov momentum, of SGD",
        "descent.heavy_ball_": "the same",
        "lion._scalars: 1.0 / threshold": "belongs to Lion-K",
    },
    "zo_momentum": {
        "descent._heavy_ball_scalars": "dampening and Nesterov momentum, of SGD",
        "descent.heavy_ball_": "the same",
    },
}


def passed_through(run: Callable[[], None]) -> list[CodeType]:
    """The functions of methods and rules that ``run`` calls."""
    seen: dict[CodeType, None] = {}

    def look(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(ROOMS):
            seen[frame.f_code] = None

    sys.setprofile(look)
    try:
        run()
    finally:
        sys.setprofile(None)
    return [code for code in seen if not code.co_name.startswith("<")]


def faults(node: ast.AST) -> Iterator[tuple[str, object]]:
    """Attributes of a node, each with a value that makes the arithmetic wrong."""
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield "op", OPERATORS[type(node.op)]()
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        yield "right", ast.BinOp(node.right, ast.Add(), ast.Constant(1))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "op", ast.UAdd()
    elif isinstance(node, ast.Attribute) and node.attr in CALLS:
        yield "attr", CALLS[node.attr]
    elif isinstance(node, ast.Name) and node.id == "step" and isinstance(node.ctx, ast.Load):
        yield "id", "(step + 1)"


def mutants(code: CodeType) -> Iterator[tuple[str, CodeType]]:
    """What was made wrong in a function, and the function with that; one place at a time."""
    path = Path(code.co_filename)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (function,) = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == code.co_name
        and code.co_firstlineno in (node.lineno, *(d.lineno for d in node.decorator_list))
    ]  # fmt: skip
    for node in ast.walk(ast.Module(function.body, [])):
        for attribute, wrong in faults(node):
            what, right = ast.unparse(node), getattr(node, attribute)
            setattr(node, attribute, wrong)
            changed: CodeType = compile(ast.unparse(tree), str(path), "exec", dont_inherit=True)
            setattr(node, attribute, right)
            for part in code.co_qualname.replace(".<locals>", "").split("."):
                (changed,) = [
                    each
                    for each in changed.co_consts
                    if isinstance(each, CodeType) and each.co_name == part
                ]
            yield f"{path.stem}.{code.co_qualname}: {what}", changed


def notices(contract: MethodContract) -> bool:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            contract.test_equals_its_reference()
        except Exception:
            return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("name", methods.names())
def test_a_fault_in_the_arithmetic_is_noticed_by_the_methods_own_reference(name: str) -> None:
    contract = contract_of(name)()
    gc.unfreeze()  # who refers to an object is known of what is not frozen alone
    unnoticed: set[str] = set()
    planted = 0
    for code in passed_through(contract.test_equals_its_reference):
        holders = [f for f in gc.get_referrers(code) if isinstance(f, FunctionType)]
        for what, changed in mutants(code) if holders else ():  # none: a part of another function
            planted += 1
            for function in holders:
                function.__code__ = changed
            try:
                unnoticed |= set() if notices(contract) else {what}
            finally:
                for function in holders:
                    function.__code__ = code
    assert planted  # a preset has little arithmetic beside that of its estimator and rule
    reasons = UNNOTICED.get(name, {})
    assert sorted(what for what in unnoticed if not what.startswith(tuple(reasons))) == []
    unused = [start for start in reasons if not any(w.startswith(start) for w in unnoticed)]
    assert unused == [], "these are noticed; take them off the list"
