from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.fsdp import FullyShardedDataParallel

from anyorder.model.params import ParamsError, ParamsTypeError, named_groups, unwrapped


def parameter(*shape: int, **options: Any) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape, **options))


def names(groups: list[dict[str, Any]]) -> list[list[str]]:
    return [[name for name, _ in group["params"]] for group in groups]


# What is accepted -----------------------------------------------------------------------------


def test_a_module_keeps_its_names() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    groups = named_groups(model)
    assert names(groups) == [["0.weight", "0.bias", "1.weight", "1.bias"]]
    assert [p for _, p in groups[0]["params"]] == list(model.parameters())


def test_tied_parameters_of_a_module_come_once() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    assert names(named_groups(model)) == [["0.weight"]]


def test_bare_parameters_are_numbered() -> None:
    assert names(named_groups([parameter(1), parameter(2)])) == [["param.0", "param.1"]]


def test_generators_and_named_parameters() -> None:
    model = nn.Linear(2, 1)
    assert names(named_groups(model.parameters())) == [["param.0", "param.1"]]
    assert names(named_groups(model.named_parameters())) == [["weight", "bias"]]
    assert names(named_groups(dict(model.named_parameters()).items())) == [["weight", "bias"]]


def test_groups_keep_their_settings_and_are_numbered_through() -> None:
    groups = named_groups(
        [
            {"params": [parameter(1)], "lr": 0.1},
            {"params": parameter(1)},
            {"params": [("head", parameter(1))]},
        ]
    )
    assert names(groups) == [["param.0"], ["param.1"], ["head"]]
    assert groups[0]["lr"] == 0.1


def test_a_module_may_be_a_group() -> None:
    assert names(named_groups([{"params": nn.Linear(1, 1)}])) == [["weight", "bias"]]


def test_the_given_groups_are_not_changed() -> None:
    params = [parameter(1)]
    group: dict[str, Any] = {"params": params}
    named_groups([group])
    assert group == {"params": params}


def test_numbers_go_on_after_the_groups_that_exist() -> None:
    taken = [{"params": [parameter(1)], "param_names": ["param.0"]}]
    assert names(named_groups([parameter(1)], taken)) == [["param.1"]]


def test_frozen_parameters_are_listed_beside_trainable_ones() -> None:
    frozen = nn.Parameter(torch.zeros(1), requires_grad=False)
    assert len(named_groups([frozen, parameter(1)])[0]["params"]) == 2


def test_a_frozen_group_may_be_added_to_trainable_ones() -> None:
    taken = [{"params": [parameter(1)], "param_names": ["a"]}]
    frozen = nn.Parameter(torch.zeros(1), requires_grad=False)
    assert len(named_groups([("b", frozen)], taken)) == 1


def test_quantised_weights_of_a_module_are_left_alone() -> None:
    model = nn.Linear(2, 1)
    model.weight = nn.Parameter(torch.zeros(1, 2, dtype=torch.int8), requires_grad=False)
    assert names(named_groups(model)) == [["weight", "bias"]]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3, 4)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    assert len(named_groups([parameter(*shape), parameter(1)])[0]["params"]) == 2


def test_groups_of_another_optimizer_keep_their_names() -> None:
    model = nn.Linear(2, 1)
    theirs = torch.optim.SGD(model.named_parameters(), lr=0.5)
    (group,) = named_groups(theirs.param_groups)
    assert group["params"] == [("weight", model.weight), ("bias", model.bias)]
    assert group["lr"] == 0.5 and "param_names" not in group
    assert names(named_groups(torch.optim.SGD(model.parameters()).param_groups)) == [
        ["param.0", "param.1"]
    ]


def test_names_may_be_given_beside_parameters() -> None:
    given = {"params": iter([parameter(1), parameter(2)]), "param_names": ("a", "_orig_mod.b")}
    assert names(named_groups([given])) == [["a", "b"]]
    assert names(named_groups([{"params": parameter(1), "param_names": ["a"]}])) == [["a"]]
    assert names(named_groups([{"params": [("a", parameter(1))], "param_names": ["a"]}])) == [["a"]]


def test_views_tuples_and_generators_of_groups() -> None:
    held = {"a": parameter(1), "b": parameter(2)}
    assert own_names(held.items()) == ["a", "b"]
    assert own_names(held.values()) == own_names(tuple(held.values())) == ["param.0", "param.1"]
    groups = ({"params": pair, "lr": 0.1} for pair in [tuple(held.values())])
    assert names(named_groups(groups)) == [["param.0", "param.1"]]


def test_other_keys_of_a_group_pass_through() -> None:
    (group,) = named_groups([{"params": [parameter(1)], "lr_scale": 0.5, "layer": "head"}])
    assert group["lr_scale"] == 0.5 and group["layer"] == "head"


# Names under wrappers -------------------------------------------------------------------------


class Model(nn.Module):
    """A model with parts of its own that are called as wrappers call theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(2, 2)
        self.my_orig_mod = nn.Linear(2, 2)
        self.head = nn.Sequential(nn.Linear(2, 1))


PLAIN = [name for name, _ in Model().named_parameters()]


def own_names(given: Any) -> list[str]:
    (found,) = names(named_groups(given))
    return found


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of this process only."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def compiled(module: nn.Module) -> nn.Module:
    wrapped = torch.compile(module, backend="eager")
    assert isinstance(wrapped, nn.Module)
    return wrapped


def test_compiled_modules_and_parts_keep_their_names() -> None:
    assert own_names(compiled(Model())) == PLAIN
    model = Model()
    model.module, model.head[0] = compiled(model.module), compiled(model.head[0])
    assert own_names(model) == PLAIN


def test_checkpointed_modules_and_parts_keep_their_names() -> None:
    assert own_names(checkpoint_wrapper(Model())) == PLAIN
    model = Model()
    model.head[0] = compiled(checkpoint_wrapper(model.head[0]))
    model.module = checkpoint_wrapper(compiled(model.module))
    assert own_names(model) == PLAIN


@pytest.mark.usefixtures("alone")
def test_parallel_modules_and_parts_keep_their_names() -> None:
    parallel = nn.parallel.DistributedDataParallel
    assert own_names(parallel(Model())) == PLAIN
    assert own_names(compiled(parallel(checkpoint_wrapper(Model())))) == PLAIN
    assert own_names(parallel(compiled(Model()))) == PLAIN
    assert own_names(nn.DataParallel(Model())) == PLAIN
    model = Model()
    model.module, model.head = parallel(model.module), parallel(model.head)
    assert own_names(model) == PLAIN


@pytest.mark.usefixtures("alone")
def test_fully_sharded_modules_keep_their_names() -> None:
    def wrap(module: nn.Module) -> nn.Module:
        cpu = torch.device("cpu")
        return FullyShardedDataParallel(module, use_orig_params=True, device_id=cpu)

    model = Model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one process has nothing to shard
        model.head = wrap(model.head)
        assert own_names(wrap(model)) == PLAIN


def test_pairs_lose_what_only_wrappers_add() -> None:
    model = compiled(Model())
    assert own_names(model.named_parameters()) == PLAIN
    assert own_names([("module.weight", parameter(1))]) == ["module.weight"]  # may be one's own
    assert own_names([("_orig_mod", parameter(1))]) == ["_orig_mod"]


@pytest.mark.usefixtures("alone")
def test_the_module_inside_all_wrappers() -> None:
    model = Model()
    wrapped = nn.parallel.DistributedDataParallel(compiled(checkpoint_wrapper(model)))
    assert unwrapped(wrapped) is model and unwrapped(model) is model


# What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(2), r"expected a module or a list of parameters, got Tensor; write Optimizer"),
        ("weights", "expected a module or a list of parameters, got str"),
        (3, "expected a module or a list of parameters, got int"),
        (None, "expected a module or a list of parameters, got NoneType"),
        ({"params": []}, r"got a dict; write Optimizer\(\[\{'params': ...\}\]\) for a group"),
        ({parameter(1)}, "expected parameters in a fixed order; pass a list, not a set"),
        ([{"params": {parameter(1)}}], "pass a list, not a set"),
        ([{"params": 5}], "expected the 'params' of a group to be a list of parameters, got int"),
        ([1.0], r"expected tensors or \(name, tensor\) pairs, got float"),
        ([nn.Linear(1, 1)], r"got Linear; if this is a module, pass it alone: Optimizer\(model\)"),
        ([(parameter(1), "weight")], r"expected tensors or \(name, tensor\) pairs, got tuple"),
        ([{"params": [parameter(1)]}, parameter(1)], r"\(name, tensor\) pairs, got dict"),
        ([()], r"expected tensors or \(name, tensor\) pairs, got tuple"),
        (
            [{"params": [parameter(1)], "param_names": "a"}],
            "param_names: expected a list of names, got str; write one name for each of 'params'",
        ),
        ([{"params": [parameter(1)], "param_names": [3]}], "param_names: expected strings, got 3"),
    ],
)
def test_what_is_no_collection_of_parameters(given: Any, message: str) -> None:
    with pytest.raises(ParamsTypeError, match=message):
        named_groups(given)


def twice() -> list[Tensor]:
    param = parameter(1)
    return [param, param]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "expected at least one parameter, got an empty list"),
        ([{"params": []}], "expected at least one parameter, got an empty list"),
        ([{"lr": 1.0}], "a parameter group is a dict with the key 'params'"),
        (nn.ReLU(), "no parameter is trainable; set requires_grad=True on some of them"),
        ([torch.zeros(1)], "no parameter is trainable"),
        (twice(), "param.1 appears twice; tied parameters are one parameter, pass it once"),
        ([("a", parameter(1)), ("a", parameter(1))], "two parameters have the name 'a'"),
        (
            [parameter(1), ("a", parameter(1)), parameter(1)],
            r"for every parameter of a group or for none, got one without at position 0; write \(",
        ),
        (
            [{"params": [parameter(1), parameter(1)], "param_names": ["a"]}],
            "param_names: expected 2 names, one for each of 'params', got 1",
        ),
        (
            [{"params": [("a", parameter(1))], "param_names": ["b"]}],
            "param_names: expected 'a' as in 'params', got 'b'; leave one of the two out",
        ),
        (
            [parameter(1, dtype=torch.complex64)],
            r"param.0 is complex; expected real parameters. Keep torch.view_as_real\(z\)",
        ),
        ([torch.zeros(1, dtype=torch.int64)], "param.0 has dtype torch.int64; expected a floating"),
        (
            [torch.sparse_coo_tensor([[0]], [1.0], (2,), check_invariants=True).requires_grad_()],
            "param.0 is sparse; expected a dense parameter",
        ),
        ([parameter(1) * 2], "param.0 was computed from other tensors; expected a leaf tensor"),
    ],
)
def test_parameters_that_cannot_be_taken(given: Any, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        named_groups(given)


def test_a_parameter_belongs_to_one_group() -> None:
    param = parameter(1)
    with pytest.raises(ParamsError, match="param.1 appears twice"):
        named_groups([{"params": [param]}, {"params": [param]}])
    with pytest.raises(ParamsError, match="b appears twice"):
        named_groups([("b", param)], taken=[{"params": [param], "param_names": ["a"]}])


def test_a_name_belongs_to_one_parameter_over_all_groups() -> None:
    taken = [{"params": [parameter(1)], "param_names": ["a"]}]
    with pytest.raises(ParamsError, match="two parameters have the name 'a'"):
        named_groups([("a", parameter(1))], taken)
