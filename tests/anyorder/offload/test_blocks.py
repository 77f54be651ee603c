"""Blocks are found, named and checked; what several parts share stays in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from anyorder.offload import OffloadError
from anyorder.offload.blocks import empty, identity, split


class Decoder(nn.Module):
    """Embedding, blocks that contain lists themselves, and a tied head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.layers = nn.ModuleList(
            nn.ModuleDict({"experts": nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])})
            for _ in range(3)
        )
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight


def test_blocks_of_a_decoder_are_found() -> None:
    model = Decoder()
    blocks, residents = split(model, None)
    assert [block.name for block in blocks] == ["layers.0", "layers.1", "layers.2"]
    assert [block.module for block in blocks] == list(model.layers)
    assert list(residents) == ["embed.weight"]
    assert blocks[0].trainable == set(blocks[0].params)
    assert blocks[0].nbytes == 4 * 2 * 20
    assert len({name for block in blocks for name in block.params}) == 12


def test_blocks_can_be_named() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)))
    by_name = split(model, "1")[0]
    assert [block.name for block in by_name] == ["1.0", "1.1"]
    assert [block.name for block in split(model, [model[0]])[0]] == ["0"]


def test_encoders_and_decoders_both_have_blocks() -> None:
    def stack() -> nn.ModuleList:
        return nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])

    model = nn.ModuleDict({"encoder": stack(), "decoder": stack()})
    names = [block.name for block in split(model, None)[0]]
    assert names == ["encoder.0", "encoder.1", "decoder.0", "decoder.1"]


def test_shared_parameters_stay_in_memory() -> None:
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(4)])
    model[1].weight = model[0].weight  # between blocks
    model[2].bias = model[3].bias  # between a block and the rest
    blocks, residents = split(model, [model[0], model[1], model[2]])
    assert [list(block.params) for block in blocks] == [["0.bias"], ["1.bias"], ["2.weight"]]
    assert set(residents) == {"0.weight", "2.bias", "3.weight"}


def test_a_block_with_two_names_is_one_block() -> None:
    layer = nn.Linear(2, 2)
    model = nn.ModuleDict({"first": nn.ModuleList([layer, nn.Linear(2, 2), layer])})
    assert [block.name for block in split(model, None)[0]] == ["first.0", "first.1"]


def test_identities_differ_where_runs_do() -> None:
    def of(*sizes: int, frozen: bool = False, storage: str | None = None) -> str:
        model = nn.Sequential(*[nn.Linear(2, n) for n in sizes])
        model[0].bias.requires_grad_(not frozen)
        return identity(*split(model, list(model)), storage)

    assert of(2, 3) == of(2, 3)
    assert len({of(2, 3), of(3, 2), of(2, 3, frozen=True), of(2, 3, storage="float16")}) == 4


def test_empty_parameters_have_shapes_and_read_as_nan() -> None:
    param = nn.Parameter(torch.ones(30, 20))
    empty({"p": param}, torch.device("cpu"))
    assert param.shape == (30, 20)
    assert param.untyped_storage().nbytes() == 4
    assert param.isnan().all()


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = nn.Parameter(model[0].weight.detach())
    return model


def transposed() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(2, 2))
    model[0].weight = nn.Parameter(torch.randn(2, 3).t())
    return model


def bytewise() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].weight = nn.Parameter(torch.zeros(2, 2, dtype=torch.uint8), requires_grad=False)
    return model


class Packed(nn.Parameter):
    """A class of parameters, as libraries for quantisation have."""


def packed() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].weight = Packed(torch.zeros(2, 2))
    return model


def flagged() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model.is_quantized = True  # as transformers says it
    return model


def compiled() -> nn.Module:
    model = linears()
    model._compiled_call_impl = model.forward  # as compile() sets it
    return model


def linears() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("make", "blocks", "says"),
    [
        (linears, None, "found no ModuleList of modules of one class in Sequential; write blocks="),
        (linears, "layers", "has no module 'layers'; write blocks="),
        (linears, [], "expected modules of the model, got"),
        (linears, lambda _: [nn.Linear(2, 2)], "modules of the model, each once"),
        (linears, lambda m: [m[0], m[0]], "modules of the model, each once"),
        (lambda: nn.Sequential(linears()), lambda m: [m[0], m[0][0]], "contains another block"),
        (tied, list, "0.weight and 1.weight are different parameters that share memory"),
        (transposed, list, "0.weight: expected a contiguous parameter"),
        (bytewise, list, "0.weight is quantised; expected floating-point weights"),
        (packed, list, "0.weight is quantised"),
        (flagged, list, "Sequential is quantised"),
        (lambda: linears().to("meta"), list, "0.weight is on the meta device and has no values"),
        (lambda: torch.jit.script(linears()), list, "compiled or scripted"),
        (compiled, list, "compiled or scripted"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_is_refused(make: Callable[[], Any], blocks: Any, says: str) -> None:
    model = make()
    if blocks is list and not isinstance(model, nn.Sequential):
        blocks = list(model.children())
    with pytest.raises(OffloadError, match=says):
        split(model, blocks(model) if callable(blocks) else blocks)
