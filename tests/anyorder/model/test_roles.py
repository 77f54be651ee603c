"""Roles of parameters: layers of torch, output layers by every kind of evidence, users' words."""

from __future__ import annotations

import copy
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from anyorder.model.roles import (
    Assignment,
    RoleError,
    RoleWarning,
    as_matrices,
    find_roles,
    from_matrices,
    roles_by_shape,
    unsure,
)


def roles(model: nn.Module, **options: object) -> dict[str, str]:
    return {name: assigned.role for name, assigned in find_roles(model, **options).items()}  # type: ignore[arg-type]


def heads(model: nn.Module) -> list[str]:
    return [name for name, role in roles(model).items() if role == "head"]


def named(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


class Bare(nn.Module):
    """Parameters that hang on a module of the user's own."""

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.zeros(shape)))


# Layers ----------------------------------------------------------------------------------------


def test_names_and_order_are_those_of_the_module() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    assert list(find_roles(model)) == [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Linear(3, 4), {"weight": ("matrix", 0, 1), "bias": ("vector", 0, 1)}),
        (nn.Conv2d(3, 4, 5), {"weight": ("convolution", 0, 1), "bias": ("vector", 0, 1)}),
        (nn.ConvTranspose1d(3, 4, 5, bias=False), {"weight": ("convolution", 1, 1)}),
        (nn.Embedding(9, 4), {"weight": ("embedding", 1, 1)}),
        (nn.EmbeddingBag(9, 4), {"weight": ("embedding", 1, 1)}),
        (nn.LayerNorm((3, 4)), {"weight": ("vector", 0, 1), "bias": ("vector", 0, 1)}),
        (nn.BatchNorm2d(3), {"weight": ("vector", 0, 1), "bias": ("vector", 0, 1)}),
        (nn.GroupNorm(1, 3), {"weight": ("vector", 0, 1), "bias": ("vector", 0, 1)}),
        (nn.PReLU(3), {"weight": ("vector", 0, 1)}),
        (nn.Bilinear(2, 3, 4, bias=False), {"weight": ("matrix", 0, 1)}),
        (
            nn.LSTM(3, 4, bias=False),
            {"weight_ih_l0": ("matrix", 0, 4), "weight_hh_l0": ("matrix", 0, 4)},
        ),
        (
            nn.GRU(3, 4, bias=False),
            {"weight_ih_l0": ("matrix", 0, 3), "weight_hh_l0": ("matrix", 0, 3)},
        ),
        (
            nn.MultiheadAttention(4, 2, bias=False, add_bias_kv=True),
            {
                "in_proj_weight": ("matrix", 0, 3),
                "bias_k": ("vector", 0, 1),
                "bias_v": ("vector", 0, 1),
                "out_proj.weight": ("matrix", 0, 1),
            },
        ),
        (
            nn.MultiheadAttention(4, 2, bias=False, kdim=3, vdim=5),
            {
                "q_proj_weight": ("matrix", 0, 1),
                "k_proj_weight": ("matrix", 0, 1),
                "v_proj_weight": ("matrix", 0, 1),
                "out_proj.weight": ("matrix", 0, 1),
            },
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_layers_of_torch(layer: nn.Module, expected: dict[str, tuple[str, int, int]]) -> None:
    found = find_roles(nn.ModuleDict({"it": layer, "head": nn.Linear(4, 2)}))
    for name, values in expected.items():
        assigned = found[f"it.{name}"]
        assert (assigned.role, assigned.output, assigned.pieces) == values, name
        assert not assigned.unsure
    assert len(found) == len(expected) + 2


def test_bare_parameters_by_shape_and_name() -> None:
    model = named(
        it=Bare(
            pos_embed=(1, 5, 4), cls_token=(1, 1, 4), gamma=(4, 1, 1), weight=(3, 4), scalar=(),
            relative_position_bias_table=(9, 2), a_log=(3, 4), experts=(2, 3, 4),
        ),
        head=nn.Linear(4, 2),
    )  # fmt: skip
    found = find_roles(model)
    assert {n[3:]: p.role for n, p in found.items() if n.startswith("it")} == {
        "pos_embed": "embedding", "cls_token": "vector", "gamma": "vector", "weight": "matrix",
        "scalar": "vector", "relative_position_bias_table": "embedding", "a_log": "matrix",
        "experts": "vector",
    }  # fmt: skip
    remarks = list(unsure(found))
    assert len(remarks) == 2
    assert "it.a_log" in remarks[0] and "it.experts" in remarks[1]


def test_weight_normalised_layers() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))
    found = roles(nn.Sequential(layer, nn.Linear(4, 2)))
    assert found["0.parametrizations.weight.original0"] == "vector"
    assert found["0.parametrizations.weight.original1"] == "matrix"


def test_linear_layers_of_other_libraries() -> None:
    class Quantised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.in_features, self.out_features = 3, 4
            self.weight = nn.Parameter(torch.zeros(4, 3))

    class Conv1D(nn.Module):  # GPT-2's linear layer keeps (inputs, outputs)
        def __init__(self) -> None:
            super().__init__()
            self.nf = 4
            self.weight = nn.Parameter(torch.zeros(3, 4))

    found = find_roles(named(a=Quantised(), b=Conv1D(), head=nn.Linear(4, 2)))
    assert found["a.weight"].role == found["b.weight"].role == "matrix"
    assert (found["a.weight"].output, found["b.weight"].output) == (0, 1)


# The output layer ------------------------------------------------------------------------------


def test_the_last_layer_without_a_name() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    assert heads(model) == ["4.weight"]
    assert not list(unsure(find_roles(model)))


def test_the_last_kernel_where_nothing_is_linear() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.ConvTranspose2d(3, 2, 3))
    assert heads(model) == ["2.weight"]
    assert find_roles(model)["2.weight"].output == 1


@pytest.mark.parametrize(
    "name", ["head", "lm_head", "classifier", "fc", "output", "score", "logits", "unembed"]
)
def test_customary_names_wherever_they_are_defined(name: str) -> None:
    model = nn.ModuleDict({name: nn.Linear(4, 2), "body": nn.Linear(3, 4)})
    assert heads(model) == [f"{name}.weight"]


def test_names_within_repeated_blocks_are_no_output_layers() -> None:
    block = lambda: nn.ModuleDict({"fc": nn.Linear(4, 4), "head": nn.Linear(4, 4)})  # noqa: E731
    model = nn.ModuleDict({"blocks": nn.ModuleList([block(), block()]), "last": nn.Linear(4, 2)})
    assert heads(model) == ["last.weight"]


def test_of_a_classifier_of_several_layers_the_last() -> None:
    model = named(
        features=nn.Conv2d(1, 3, 3),
        classifier=nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)),
    )
    assert roles(model)["classifier.0.weight"] == "matrix"
    assert heads(model) == ["classifier.2.weight"]


def test_several_tasks_have_several_output_layers() -> None:
    tasks = nn.ModuleDict({"a": nn.Linear(4, 2), "b": nn.Linear(4, 3)})
    assert heads(nn.ModuleDict({"body": nn.Linear(3, 4), "heads": tasks})) == [
        "heads.a.weight",
        "heads.b.weight",
    ]


def test_as_many_outputs_as_tokens() -> None:
    model = nn.ModuleDict(
        {"tokens": nn.Embedding(9, 4), "first": nn.Linear(4, 9), "last": nn.Linear(4, 4)}
    )
    assert heads(model) == ["first.weight"]


def test_what_the_model_says_comes_first() -> None:
    class Telling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.strange = nn.Linear(4, 9)
            self.head = nn.Linear(4, 4)

        def get_output_embeddings(self) -> nn.Module:
            return self.strange

    assert heads(Telling()) == ["strange.weight"]


def test_a_shared_matrix_is_tied_and_no_other_is_the_output_layer() -> None:
    model = nn.ModuleDict({"tokens": nn.Embedding(9, 4), "body": nn.Linear(4, 4)})
    model["out"] = nn.Linear(4, 9, bias=False)
    model["out"].weight = model["tokens"].weight
    assert roles(model) == {"tokens.weight": "tied", "body.weight": "matrix", "body.bias": "vector"}
    assigned = find_roles(model)["tokens.weight"]
    assert assigned.output == 0 and "tokens and out" in assigned.why


def test_an_output_layer_that_fits_no_embedding_is_a_guess() -> None:
    """The embedding may be used as the output layer in code, where nobody sees it."""
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4))
    (remark,) = unsure(find_roles(model))
    assert "1.weight" in remark and "'tied'" in remark
    told = find_roles(model, {"0.weight": "tied"})
    assert {n: p.role for n, p in told.items()} == {
        "0.weight": "tied", "1.weight": "matrix", "1.bias": "vector",
    }  # fmt: skip
    assert not list(unsure(told))


def test_wrappers_are_looked_through() -> None:
    model = nn.ModuleDict({"head": nn.Linear(4, 2), "body": nn.Linear(3, 4)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but in use
        wrapped = nn.DataParallel(model)
        compiled = torch.compile(model, backend="eager")
    for module in (wrapped, compiled):
        assert [n for n, r in roles(module).items() if r == "head"] == ["head.weight"]
    model["head"] = checkpoint_wrapper(model["head"])
    assert roles(model)["head.weight"] == "head"


def test_a_model_of_vectors_has_no_output_layer() -> None:
    assert set(roles(nn.Sequential(nn.LayerNorm(3), nn.PReLU())).values()) == {"vector"}


def test_a_copy_has_the_same_roles() -> None:
    model = nn.TransformerDecoderLayer(8, 2, 16)
    assert find_roles(copy.deepcopy(model)) == find_roles(model)


# What users say --------------------------------------------------------------------------------


def test_patterns_win_the_last_one_first() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    assert roles(model, patterns={"*.weight": "vector", "1.*eight": "matrix"}) == {
        "0.weight": "vector", "0.bias": "vector", "1.weight": "matrix", "1.bias": "vector",
        "2.weight": "vector", "2.bias": "vector",
    }  # fmt: skip


def test_who_names_the_output_layer_names_all_of_them() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    found = roles(model, patterns={"0.weight": "head"})
    assert [n for n, r in found.items() if r == "head"] == ["0.weight"]


@pytest.mark.parametrize("name", ["0.weight", "2.weight"])
def test_tables_and_output_layers_as_matrices_are_warned_of(name: str) -> None:
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 9))
    with pytest.warns(RoleWarning, match=re.escape(name)):
        assert roles(model, patterns={name: "matrix"})[name] == "matrix"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        roles(model, patterns={"1.weight": "matrix", name: "vector"})


def test_what_is_said_keeps_pieces_and_axes() -> None:
    model = named(
        a=nn.MultiheadAttention(4, 2), b=nn.ConvTranspose1d(4, 3, 2), c=nn.Embedding(9, 3),
        head=nn.Linear(4, 2),
    )  # fmt: skip
    patterns = {"a.in_proj_weight": "convolution", "b.weight": "head", "c.weight": "tied"}
    found = find_roles(model, patterns)
    assert found["a.in_proj_weight"].pieces == 3
    assert found["b.weight"].output == 1
    assert found["c.weight"].output == 0
    assert all(found[name].why == "set by roles" for name in patterns)


@pytest.mark.parametrize("role", ["matrix", "convolution", "embedding", "head", "tied"])
def test_a_vector_can_be_nothing_else(role: str) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with pytest.raises(RoleError, match=r"0\.bias has shape \(4,\)"):
        find_roles(model, {"0.bias": role})


def test_wrong_roles_and_patterns_without_match_are_named() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with pytest.raises(RoleError, match=r"'embedding'.*got 'table'"):
        find_roles(model, {"0.weight": "table"})
    with pytest.raises(RoleError, match=r"'block\*'\]: no parameter.*0\.weight, 0\.bias"):
        find_roles(model, {"block*": "matrix"})


def test_shape_alone() -> None:
    shapes = {"a": (3, 4), "b": (3,), "c": (), "d": (1, 4), "e": (2, 3, 4), "f": (0, 3)}
    found = roles_by_shape({name: torch.zeros(shape) for name, shape in shapes.items()})
    assert {name: assigned.role for name, assigned in found.items()} == {
        "a": "matrix", "b": "vector", "c": "vector", "d": "vector", "e": "matrix", "f": "matrix",
    }  # fmt: skip


# Matrices --------------------------------------------------------------------------------------


def linear(x: Tensor, matrices: Tensor) -> Tensor:
    return torch.cat([x @ matrix.mT for matrix in matrices], -1)


@pytest.mark.parametrize(
    ("layer", "name", "size", "inputs"),
    [
        (nn.Linear(3, 4, bias=False), "weight", (2, 3), lambda x: x),
        (nn.Conv1d(3, 4, 5, bias=False), "weight", (2, 3, 5), lambda x: x.flatten(1)),
    ],
    ids=["linear", "kernel"],
)
def test_matrices_map_inputs_to_outputs(
    layer: nn.Module, name: str, size: tuple[int, ...], inputs: Callable[[Tensor], Tensor]
) -> None:
    model = nn.ModuleDict({"it": layer, "head": nn.Linear(4, 2)})
    weight, assigned = layer.get_parameter(name), find_roles(model)[f"it.{name}"]
    x = torch.randn(size)
    torch.testing.assert_close(
        linear(inputs(x), as_matrices(weight, assigned)), layer(x).reshape(len(x), -1)
    )


def test_a_transposed_kernel_is_turned() -> None:
    layer = nn.ConvTranspose1d(3, 4, 1, bias=False)
    assigned = find_roles(nn.ModuleDict({"it": layer, "head": nn.Linear(4, 2)}))["it.weight"]
    x = torch.randn(2, 3, 1)
    torch.testing.assert_close(
        linear(x.flatten(1), as_matrices(layer.weight, assigned)), layer(x).flatten(1)
    )


@pytest.mark.parametrize(
    ("shape", "assigned"),
    [
        ((6, 4), Assignment("matrix", "")),
        ((6, 4), Assignment("matrix", "", pieces=3)),
        ((6, 4, 3, 3), Assignment("convolution", "", output=1)),
        ((6, 4), Assignment("embedding", "", output=1)),
        ((0, 4), Assignment("matrix", "")),
        ((4, 0, 2), Assignment("matrix", "", output=1)),
    ],
)
def test_there_and_back(shape: tuple[int, ...], assigned: Assignment) -> None:
    tensor = torch.randn(shape)
    matrices = as_matrices(tensor, assigned)
    assert matrices.shape[0] == assigned.pieces
    assert matrices.shape[0] * matrices.shape[1] == shape[assigned.output]
    assert torch.equal(from_matrices(matrices, tensor, assigned), tensor)
