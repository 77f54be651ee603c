"""Trees keep their shape, and every leaf is changed."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, UserDict
from typing import NamedTuple

import torch

from anyorder.problems._trees import map_tree, move


class Pair(NamedTuple):
    a: torch.Tensor
    b: object


@dataclasses.dataclass(frozen=True)
class Record:
    x: torch.Tensor
    rest: list
    size: int = dataclasses.field(init=False, default=3)


class Movable(UserDict):
    place = "cpu"

    def to(self, device):
        moved = Movable(self.data)
        moved.place = device
        return moved


class TestMove:
    def test_walks_through_containers(self):
        t = torch.ones(2)
        tree = {
            "list": [t, 1, None],
            "tuple": (t, "text"),
            "named": Pair(t, {"deep": t}),
            "record": Record(t, [t]),
            "ordered": OrderedDict(x=t),
            "own": Movable(x=1),
        }
        moved = move(tree, "meta")
        assert moved["list"][0].device.type == "meta"
        assert moved["list"][1:] == [1, None]
        assert moved["tuple"][0].device.type == "meta"
        assert moved["tuple"][1] == "text"
        assert type(moved["named"]) is Pair
        assert moved["named"].b["deep"].device.type == "meta"
        assert type(moved["record"]) is Record
        assert moved["record"].x.device.type == moved["record"].rest[0].device.type == "meta"
        assert moved["record"].size == 3
        assert type(moved["ordered"]) is OrderedDict
        assert moved["ordered"]["x"].device.type == "meta"
        assert moved["own"].place == "meta"
        assert tree["list"][0].device.type == "cpu"

    def test_leaves_without_tensors_alone(self):
        assert move(None, "meta") is None
        assert move("text", "meta") == "text"
        assert move(Record, "meta") is Record

    def test_map_tree_keeps_shape(self):
        assert map_tree([1, (2, {"a": 3})], lambda leaf: 2 * leaf) == [2, (4, {"a": 6})]
