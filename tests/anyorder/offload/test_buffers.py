"""Buffers are those of the step that counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from anyorder.offload import OffloadError
from anyorder.offload.buffers import Buffers


def norm(value: float) -> Any:
    """Batch norm with floating-point and whole numbers in buffers."""
    made = nn.BatchNorm1d(3)
    made.running_mean.fill_(value)  # type: ignore[union-attr]
    made.num_batches_tracked.fill_(int(value))  # type: ignore[union-attr]
    return made


def test_buffers_come_back_as_they_were_after_an_update(tmp_path: Path) -> None:
    model = norm(0)
    saved = Buffers(model, tmp_path)
    for updates in range(4):
        model.running_mean.fill_(updates)
        model.num_batches_tracked.fill_(updates)
        saved.save(updates)
    for updates in (2, 3, 7):  # of 3, the log may not contain the update
        other = norm(9)
        Buffers(other, tmp_path).load(updates)
        assert other.running_mean.tolist() == [float(min(updates, 3))] * 3
        assert other.num_batches_tracked == min(updates, 3)


def test_a_file_that_counts_is_never_overwritten_first(tmp_path: Path) -> None:
    model = norm(0)
    Buffers(model, tmp_path).save(0)
    resumed = Buffers(model, tmp_path)
    resumed.load(0)
    model.running_mean.fill_(1)
    resumed.save(1)
    again = norm(5)
    Buffers(again, tmp_path).load(0)
    assert again.running_mean.sum() == 0


def test_buffers_that_stay_are_written_once(tmp_path: Path) -> None:
    model = norm(0)
    saved = Buffers(model, tmp_path)
    saved.save(0)
    saved.save(1)
    assert [path.name for path in tmp_path.iterdir()] == ["buffers-0.safetensors"]


def test_without_a_folder_or_buffers_nothing_is_written(tmp_path: Path) -> None:
    Buffers(norm(0), None).save(0)
    Buffers(norm(0), None).load(0)
    Buffers(nn.Linear(2, 2), tmp_path).save(0)
    Buffers(nn.Linear(2, 2), tmp_path).load(0)
    assert not list(tmp_path.iterdir())


def test_what_files_cannot_hold_is_refused(tmp_path: Path, full_disk: Any) -> None:
    model = nn.Module()
    model.register_buffer("wave", torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(OffloadError, match="wave is a buffer of torch.complex64"):
        Buffers(model, tmp_path).save(0)
    with full_disk(10), pytest.raises(OffloadError, match="Nothing is lost"):
        Buffers(norm(0), tmp_path).save(0)
