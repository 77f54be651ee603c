"""Parameters of which each process holds a part (``DTensor``, as FSDP2 makes them).

A rule works element by element, so it runs on the part. What needs a whole matrix or a sum over
all elements uses the functions here; on ordinary tensors they change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether ``tensor`` is a DTensor."""
    # Looked up by name, so that nobody who does not shard pays for the import.
    return type(tensor).__name__ == "DTensor"


def local(tensor: Tensor) -> Tensor:
    """The part of ``tensor`` that lies here, sharing its memory; an ordinary tensor itself."""
    return tensor._local_tensor if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def full(tensor: Tensor) -> Tensor:
    """The whole of ``tensor``, gathered from all processes; an ordinary tensor itself."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def shard_of(whole: Tensor, like: Tensor) -> Tensor:
    """What of ``whole``, which every process has, lies here if it is sharded as ``like`` is."""
    if not is_sharded(like):
        return whole
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = like.device_mesh, like.placements  # type: ignore[attr-defined]
    return local(distribute_tensor(whole, mesh, placements, src_data_rank=None))


def as_sharded(here: Tensor, like: Tensor) -> Tensor:
    """A tensor of the shape of ``like``, sharded as it is, whose part here is ``here``."""
    if not is_sharded(like):
        return here
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        here,
        like.device_mesh,  # type: ignore[attr-defined]
        like.placements,  # type: ignore[attr-defined]
        shape=like.shape,
        stride=like.stride(),
    )


def summed(number: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """``number`` summed over the processes that share ``tensors``, in place; as it is without."""
    for mesh in {id(t.device_mesh): t.device_mesh for t in tensors if is_sharded(t)}.values():  # type: ignore[attr-defined]
        _reduce(number, mesh)
    return number


def _reduce(number: Tensor, mesh: Any) -> None:
    for dimension in range(mesh.ndim):
        torch.distributed.all_reduce(number, group=mesh.get_group(dimension))
