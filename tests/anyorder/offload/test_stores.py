"""Stores give back what they got, with its version, and never change it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from anyorder.offload import OffloadError
from anyorder.offload.blocks import Block, split
from anyorder.offload.stores import DiskStore, HostStore, Store

CPU = torch.device("cpu")
Make = Callable[..., Store]


def model() -> nn.Module:
    made = nn.Sequential(*[nn.Linear(3, 4) for _ in range(3)])
    made[1].weight.requires_grad_(False)
    made[2].requires_grad_(False)
    return made


@pytest.fixture(params=["host", "disk"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    def made(
        blocks: list[Block],
        storage: torch.dtype | None = None,
        device: torch.device = CPU,
    ) -> Store:
        if request.param == "host":
            return HostStore(blocks, device, storage)
        return DiskStore(blocks, device, storage, tmp_path / "run")

    return made


def test_blocks_come_back(make: Make) -> None:
    whole = model()
    wanted = {name: p.detach().clone() for name, p in whole.named_parameters()}
    store = make(split(whole, list(whole))[0])
    for index in range(3):
        for found in (store.get(index), store.peek(index)):
            assert set(found) == {f"{index}.weight", f"{index}.bias"}
            assert all(torch.equal(found[name], wanted[name]) for name in found)


def test_copies_can_be_changed(make: Make) -> None:
    whole = model()
    store = make(split(whole, list(whole))[0])
    first = store.get(0)
    before = first["0.bias"].clone()
    first["0.bias"] += 1
    assert torch.equal(store.get(0)["0.bias"], before)
    assert store.put(0, first, 5) == 4 * 16
    assert store.versions == [5, 0, 0]
    assert torch.equal(store.get(0)["0.bias"], before + 1)
    assert torch.equal(store.peek(0)["0.bias"], before + 1)


def test_narrow_storage_rounds_to_nearest(make: Make) -> None:
    whole = model()
    weight = whole[0].weight.detach().clone()
    store = make(split(whole, list(whole))[0], torch.bfloat16)
    found = store.get(0)["0.weight"]
    assert found.dtype == torch.float32
    assert torch.equal(found, weight.bfloat16().float())
    assert store.put(0, {"0.weight": weight + 1, "0.bias": torch.zeros(4)}, 1) == 2 * 16
    assert torch.equal(store.get(0)["0.weight"], (weight + 1).bfloat16().float())


def on_disk(folder: Path, *, resume: bool = False) -> DiskStore:
    whole = model()
    return DiskStore(split(whole, list(whole))[0], CPU, None, folder, resume=resume)


def test_files_of_what_is_frozen_are_never_written_again(tmp_path: Path) -> None:
    store = on_disk(tmp_path)
    files = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    assert sorted(files) == [
        "block-0000.safetensors", "block-0001.frozen.safetensors", "block-0001.safetensors",
        "block-0002.frozen.safetensors",
    ]  # fmt: skip
    assert store.put(1, {"1.bias": torch.ones(4)}, 1) == 16
    after = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    assert {name for name in files if files[name] != after[name]} == {"block-0001.safetensors"}


def test_files_are_taken_over_with_their_versions(tmp_path: Path) -> None:
    on_disk(tmp_path).put(1, {"1.bias": torch.ones(4)}, 7)
    store = on_disk(tmp_path, resume=True)
    assert store.versions == [0, 7, 0]
    assert torch.equal(store.get(1)["1.bias"], torch.ones(4))


def test_missing_files_are_found_before_a_run_is_resumed(tmp_path: Path) -> None:
    on_disk(tmp_path)
    (tmp_path / "block-0001.frozen.safetensors").unlink()
    with pytest.raises(OffloadError, match=r"cannot read .*block-0001.frozen"):
        on_disk(tmp_path, resume=True)


def test_a_full_disk_leaves_the_earlier_version(tmp_path: Path, full_disk: Any) -> None:
    store = on_disk(tmp_path)
    before = store.get(0)
    with full_disk(100), pytest.raises(OffloadError, match="Nothing is lost"):
        store.put(0, {"0.weight": torch.zeros(4, 3), "0.bias": torch.zeros(4)}, 1)
    assert store.versions[0] == 0
    assert all(torch.equal(t, before[name]) for name, t in store.get(0).items())
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.gpu
def test_blocks_travel_to_a_gpu_and_back(make: Make) -> None:
    device = torch.device("cuda", 0)
    whole = model()
    weight = whole[0].weight.detach().clone()
    store = make(split(whole, list(whole))[0], None, device)
    found = store.get(0)
    assert found["0.weight"].device == device
    assert torch.equal(found["0.weight"].cpu(), weight)
    store.put(0, {name: t + 1 for name, t in found.items()}, 1)
    assert torch.equal(store.peek(0)["0.weight"], weight + 1)
    assert store.peek(0)["0.weight"].device == CPU
