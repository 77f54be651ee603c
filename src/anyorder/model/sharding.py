"""Sharded parameters (``DTensor``, as created by FSDP2).

A rule is elementwise, so it runs on the local shard. Code that needs a whole matrix or a sum over
all elements uses these functions; on ordinary tensors they change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def is_sharded(tensor: Tensor) -> bool:
    """Whether ``tensor`` is a DTensor."""
    # Looked up by name, which avoids a slow import if nothing is sharded.
    return type(tensor).__name__ == "DTensor"


def local(tensor: Tensor) -> Tensor:
    """Return the local shard of ``tensor``, sharing its memory; an ordinary tensor unchanged."""
    return tensor._local_tensor if type(tensor).__name__ == "DTensor" else tensor  # type: ignore[attr-defined]


def locals_of(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return :func:`local` of each tensor."""
    return [t._local_tensor if type(t).__name__ == "DTensor" else t for t in tensors]  # type: ignore[attr-defined]


def full(tensor: Tensor) -> Tensor:
    """Return the full ``tensor``, gathered from all processes; an ordinary tensor unchanged."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def shard_of(whole: Tensor, like: Tensor) -> Tensor:
    """Return the local shard of ``whole``, which every process has, if sharded like ``like``."""
    if not is_sharded(like):
        return whole
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = like.device_mesh, like.placements  # type: ignore[attr-defined]
    return local(distribute_tensor(whole, mesh, placements, src_data_rank=None))


def as_sharded(here: Tensor, like: Tensor) -> Tensor:
    """Return a tensor with the shape and sharding of ``like`` whose local shard is ``here``."""
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


def reshard(module: nn.Module) -> None:
    """Give a module of FSDP2 its shards back; other modules are unchanged.

    After a forward pass without a backward one, its root keeps the whole parameters.
    """
    for part in module.modules():
        if callable(back := getattr(part, "reshard", None)) and callable(
            getattr(part, "unshard", None)
        ):
            back()


def summed(number: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """Sum ``number`` in place over the processes that share ``tensors``, if any."""
    for mesh in {id(t.device_mesh): t.device_mesh for t in tensors if is_sharded(t)}.values():  # type: ignore[attr-defined]
        _reduce(number, mesh)
    return number


def _reduce(number: Tensor, mesh: Any) -> None:
    for dimension in range(mesh.ndim):
        torch.distributed.all_reduce(number, group=mesh.get_group(dimension))
