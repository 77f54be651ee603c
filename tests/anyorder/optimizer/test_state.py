"""``optimizer.state`` and the flat buffers stay the same thing, whatever users do to either."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyorder.engine.formats import format_for
from anyorder.optimizer.entry import Slot, StateError
from anyorder.optimizer.state import StateLayout, fill


def same(first: Iterable[Any], second: Iterable[Any]) -> bool:
    return list(map(id, first)) == list(map(id, second))


class Owner:
    """An optimizer as the layout knows one."""

    slots: Mapping[str, Slot] = {"factor": Slot(lambda p, g: (2,), fill=1.0)}
    counters = ("estimates",)
    nonnegative = frozenset({"square"})

    def __init__(self, *sizes: int, **group: Any) -> None:
        params = [nn.Parameter(torch.ones(size)) for size in sizes]
        names = [f"p{i}" for i in range(len(sizes))]
        self.param_groups = [{"params": params, "param_names": names, **group}]
        self.state: Any = defaultdict(dict)
        self.buffers: dict[str, tuple[str, ...]] = {"": ("mean", "square"), "mean": ("mean",)}
        self.labelled: dict[str, str] = {}
        self.layout = StateLayout()

    def labels(self, group: dict[str, Any]) -> list[str]:
        return [self.labelled.get(name, "") for name in group["param_names"]]

    def label_buffers(self, label: str) -> tuple[str, ...]:
        return self.buffers[label]

    def _format(self, group: Mapping[str, Any], state: Any, name: str, size: int) -> Any:
        return format_for(state, size, nonnegative=name in self.nonnegative, block=256)

    def precision_of(self, group: Mapping[str, Any], param: Tensor) -> Any:
        return group.get("state", "fp32")

    @property
    def params(self) -> list[nn.Parameter]:
        return self.param_groups[0]["params"]

    def look(self, *params: Tensor) -> list[Any]:
        """What is arranged, with room for all parameters or for these."""
        self.layout.current(self)
        wanted = {id(p) for p in params or self.params}
        return [a.stretch for a in self.layout.stretches(self, 0, wanted)]

    def number(self) -> None:
        """Give every buffer numbers of its own, by way of the flat ones."""
        for stretch in self.look():
            for place, name in enumerate(("mean", "square")):
                flat = stretch.buffers[name][0]
                flat.copy_(torch.arange(flat.numel()) + 100 * place)

    def values(self, name: str = "mean") -> list[list[float]]:
        return [self.state[p][name].tolist() for p in self.params]


def test_room_is_made_for_parameters_that_ask_for_it() -> None:
    owner = Owner(2, 3)
    assert owner.look(owner.params[1])[0].names == ["p1"] and owner.params[0] not in owner.state
    entry = owner.state[owner.params[1]]
    assert entry.keys() == {"step", "estimates", "mean", "square", "factor"}
    assert (entry["step"], entry["estimates"], entry["factor"].tolist()) == (0, 0, [1.0, 1.0])
    assert not entry["mean"].any() and entry["mean"].shape == (3,)
    assert [s.names for s in owner.look()] == [["p1"], ["p0"]]


def test_entries_and_buffers_are_one() -> None:
    owner = Owner(2, 3)
    owner.number()
    (stretch,) = owner.look()
    assert owner.values() == [[0.0, 1.0], [2.0, 3.0, 4.0]]
    assert owner.values("square") == [[100.0, 101.0], [102.0, 103.0, 104.0]]
    owner.state[owner.params[1]]["mean"][0] = -1.0
    assert stretch.buffers["mean"][0].tolist() == [0.0, 1.0, -1.0, 3.0, 4.0]
    assert owner.look() == [stretch]


def test_nothing_changed_is_nothing_arranged() -> None:
    owner = Owner(2, 3)
    owner.number()
    before, where = owner.look(), [owner.state[p]["mean"].data_ptr() for p in owner.params]
    for p in owner.params:
        p.data.add_(1.0)
        owner.state[p]["step"] += 1
        owner.state[p]["own"] = "the user's"
        owner.state[p]["factor"] = torch.zeros(2)  # slots are no part of what is arranged
    owner.param_groups[0]["lr"] = 0.5
    assert same(owner.look(), before)
    assert where == [owner.state[p]["mean"].data_ptr() for p in owner.params]


def test_a_tensor_put_in_its_place_is_what_rules_see() -> None:
    owner = Owner(2, 3)
    owner.number()
    entry = owner.state[owner.params[0]]
    entry |= {"mean": torch.tensor([7.0, 8.0]), "step": torch.tensor(5.0), "own": 1}
    (stretch,) = owner.look()
    assert stretch.buffers["mean"][0].tolist() == [7.0, 8.0, 2.0, 3.0, 4.0]
    assert owner.state[owner.params[0]] is entry and stretch.entries[0] is entry
    assert (entry["step"], type(entry["step"]), entry["own"]) == (5, int, 1)
    assert owner.values("square") == [[100.0, 101.0], [102.0, 103.0, 104.0]]


def test_an_entry_may_go_to_another_parameter() -> None:
    owner = Owner(3, 3)
    owner.number()
    first, second = owner.params
    owner.state[first], owner.state[second] = owner.state[second], owner.state[first]
    owner.look()
    assert owner.values() == [[3.0, 4.0, 5.0], [0.0, 1.0, 2.0]]
    owner.state[second] = dict(owner.state[first])  # one entry for two parameters
    with pytest.raises(StateError, match="p0 and p1 share a tensor"):
        owner.look()


@pytest.mark.parametrize("how", ["clear", "del", "new dict", "empty entry"])
def test_what_was_removed_begins_anew(how: str) -> None:
    owner = Owner(2, 3)
    owner.number()
    if how == "clear":
        owner.state.clear()
    elif how == "new dict":
        owner.state = defaultdict(dict)
    else:
        del owner.state[owner.params[0]]
        if how == "empty entry":
            _ = owner.state[owner.params[0]]  # as looking into a defaultdict leaves it
    owner.look(owner.params[1])
    assert owner.params[0] not in owner.state
    owner.look()
    kept = [0.0, 0.0, 0.0] if how in ("clear", "new dict") else [2.0, 3.0, 4.0]
    assert owner.values() == [[0.0, 0.0], kept]


def test_parameters_may_be_exchanged() -> None:
    owner = Owner(2, 3)
    owner.number()
    gone, stays = owner.params
    fresh = nn.Parameter(torch.ones(4))
    owner.params[0] = fresh
    owner.look()
    assert owner.param_groups[0]["param_names"] == ["p0", "p1"]  # by place
    assert owner.values() == [[0.0] * 4, [2.0, 3.0, 4.0]]
    assert owner.state[gone]["mean"].tolist() == [0.0, 1.0]  # left alone, as torch.optim does
    owner.param_groups[0]["params"] = [fresh, stays, gone]
    owner.look()
    assert owner.values() == [[0.0] * 4, [2.0, 3.0, 4.0], [0.0, 1.0]]


def test_names_follow_parameters_when_their_number_changes() -> None:
    owner, other = Owner(2, 3), Owner(1)
    owner.look()
    group, (a, b) = owner.param_groups[0], owner.params
    owner.param_groups.append(other.param_groups[0] | {"param_names": ["param.0"]})
    group["params"] = [b, nn.Parameter(torch.ones(1)), a, nn.Parameter(torch.ones(1))]
    owner.look()
    assert group["param_names"] == ["p1", "param.1", "p0", "param.2"]
    group["params"], group["param_names"] = [a, b], ["mine", "yours"]
    assert [n for s in owner.look() for n in s.names] == ["mine", "yours"]
    group["params"] = [b]
    assert owner.look()[0].names == ["yours"]


def test_a_group_may_come_and_go() -> None:
    owner, other = Owner(2), Owner(3)
    owner.number()
    owner.param_groups.append(other.param_groups[0] | {"param_names": ["q"]})
    owner.look()
    assert [
        a.stretch.names for a in owner.layout.stretches(owner, 1, set(map(id, other.params)))
    ] == [["q"]]
    owner.param_groups.pop()
    assert [s.names for s in owner.look()] == [["p0"]] and owner.values() == [[0.0, 1.0]]


def test_data_of_the_same_kind_elsewhere_is_no_reason_to_arrange() -> None:
    owner = Owner(2, 3)
    before = owner.look()
    owner.params[0].data = torch.zeros(2)
    assert same(owner.look(), before)


def test_data_of_another_kind_is_arranged_with_its_state() -> None:
    owner = Owner(2, 3)
    owner.number()
    for p in owner.params:
        p.data = p.data.double()
        owner.state[p]["mean"] = owner.state[p]["mean"].double()
    (stretch,) = owner.look()
    assert stretch.buffers["square"][0].dtype is torch.float64
    assert owner.values("square") == [[100.0, 101.0], [102.0, 103.0, 104.0]]


def test_parameters_that_share_memory_lie_apart() -> None:
    owner = Owner(2, 3, 3)
    owner.number()
    assert len(owner.look()) == 1
    owner.params[1].data = owner.params[2].data
    assert sorted(s.names for s in owner.look()) == [["p0"], ["p1"], ["p2"]]
    assert owner.values() == [[0.0, 1.0], [2.0, 3.0, 4.0], [5.0, 6.0, 7.0]]


@pytest.mark.parametrize("what", ["mean", "step", "factor"])
def test_a_misfit_is_refused_before_anything_is_touched(what: str) -> None:
    owner = Owner(2, 3)
    owner.number()
    (first, second), before = owner.params, owner.look()
    right = owner.state[second][what]
    owner.state[first]["mean"] = torch.tensor([7.0, 8.0])  # fits, and waits to be arranged
    owner.state[second]["square"] = owner.state[second]["square"].clone()
    owner.state[second][what] = torch.ones(7)
    kept = {p: dict(owner.state[p]) for p in owner.params}
    for _ in range(2):  # it stays refused
        with pytest.raises(StateError, match=f"{what} of p1"):
            owner.layout.current(owner)
    for p in owner.params:
        assert owner.state[p].keys() == kept[p].keys()
        assert same(owner.state[p].values(), kept[p].values())
    assert before[0].buffers["mean"][0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    owner.state[second][what] = right
    owner.look()
    assert owner.values() == [[7.0, 8.0], [2.0, 3.0, 4.0]]


def test_settings_that_ask_for_other_state_begin_anew() -> None:
    owner = Owner(2, 3)
    owner.number()
    owner.labelled["p0"] = "mean"
    assert sorted((s.names, list(s.buffers)) for s in owner.look()) == [
        (["p0"], ["mean"]), (["p1"], ["mean", "square"]),
    ]  # fmt: skip
    assert owner.values() == [[0.0, 0.0], [2.0, 3.0, 4.0]]
    owner.buffers["other"] = ("mean", "square")
    owner.labelled["p1"] = "other"  # another rule with the same state keeps it
    owner.look()
    assert owner.state[owner.params[1]]["square"].tolist() == [102.0, 103.0, 104.0]


@pytest.mark.parametrize("state", ["bf16", "8bit", "fp32"])
def test_state_goes_into_another_precision_and_back(state: str) -> None:
    owner = Owner(5000, state_block=256)
    values = torch.linspace(0.0, 1.0, 5000)
    (stretch,) = owner.look()
    for name in ("mean", "square"):
        stretch.buffers[name][0].copy_(values)
    for wanted in (state, "fp32"):
        owner.param_groups[0]["state"] = wanted
        owner.layout.forget()
        (stretch,) = owner.look()
        keys = {"mean.scale", "square.scale"} if wanted == "8bit" else set[str]()
        assert {k for k in owner.state[owner.params[0]] if k.endswith(".scale")} == keys
    tolerance = {"fp32": 0.0, "bf16": 2**-8, "8bit": 2e-2}[state]
    for name in ("mean", "square"):
        torch.testing.assert_close(stretch.values(name)[0], values, atol=tolerance, rtol=0)


def test_filling_copies_the_bits_where_formats_agree() -> None:
    mine, theirs = (Owner(5000, state="8bit", state_block=256) for _ in range(2))
    (source,), (target,) = theirs.look(), mine.look()
    source.fill_("mean", torch.linspace(-1.0, 1.0, 5000))
    (param,), (from_,) = mine.params, theirs.params
    fill(target, param, mine.state[param], theirs.state[from_], mine.nonnegative)
    for key in ("mean", "mean.scale", "square", "square.scale"):
        assert torch.equal(mine.state[param][key], theirs.state[from_][key])
