"""Checkpoints, beyond what the contract suite checks on every method."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from anyorder import SGD, AdamW
from anyorder.optimizer.record import CheckpointError


def trained(names: list[str]) -> tuple[dict[str, nn.Parameter], AdamW]:
    params = {name: nn.Parameter(torch.full((2,), float(len(name)))) for name in names}
    optimizer = AdamW(params.items(), engine="eager", lr=0.1)
    optimizer.step(lambda: torch.stack([(p**2).sum() for p in params.values()]).sum())
    return params, optimizer


def test_a_file_holds_no_shared_buffers_and_loads_safely(tmp_path: Path) -> None:
    _, optimizer = trained([f"p{i}" for i in range(50)])
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    _, fresh = trained([f"p{i}" for i in range(50)])
    fresh.load_state_dict(loaded)
    assert (tmp_path / "state.pt").stat().st_size < 50 * 2 * 4 * 2 + 60_000


def test_groups_must_be_divided_alike() -> None:
    params, optimizer = trained(["a", "b"])
    pairs = list(params.items())
    other = AdamW([{"params": pairs[:1]}, {"params": pairs[1:]}], engine="eager")
    with pytest.raises(CheckpointError, match="other groups"):
        other.load_state_dict(optimizer.state_dict())


def test_missing_and_foreign_parameters_are_named() -> None:
    _, optimizer = trained(["a", "b"])
    _, other = trained(["a", "c"])
    with pytest.raises(CheckpointError, match=r"lacks c.*has b"):
        other.load_state_dict(optimizer.state_dict())


def test_another_methods_state_is_refused() -> None:
    params, optimizer = trained(["a"])
    with pytest.raises(CheckpointError, match="expected the state of SGD, got that of AdamW"):
        SGD(params.items()).load_state_dict(optimizer.state_dict())


def test_settings_and_counts_come_back() -> None:
    params, optimizer = trained(["a"])
    optimizer.param_groups[0]["lr"] = 0.7
    fresh = AdamW(params.items(), engine="eager")
    fresh.load_state_dict(optimizer.state_dict())
    assert fresh.lr == 0.7 and fresh.calls == optimizer.calls and fresh.steps == 1


def test_state_of_parameters_the_checkpoint_never_moved_is_cleared() -> None:
    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    early = AdamW([("a", a), ("b", b)], engine="eager")
    early.step(lambda: a.sum())
    saved = early.state_dict()
    early.step(lambda: a.sum() + b.sum())
    early.load_state_dict(saved)
    assert a in early.state and b not in early.state
