"""What the processes of a run tell each other about their answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from anyorder.model.sharding import is_sharded

if TYPE_CHECKING:
    import torch.distributed


@runtime_checkable
class Communicator(Protocol):
    """What joins the processes of a run; pass one as ``process_group=`` in place of a group.

    Attributes:
        rank: the number of this process, from 0.
        size: how many processes there are.
    """

    rank: int
    size: int

    def mean_(self, tensors: Sequence[Tensor]) -> int:
        """Put the mean over all processes into each tensor; returns the bytes sent from here."""
        ...

    def exchange(self, message: bytes) -> list[bytes]:
        """The messages of all processes, in the order of their ranks."""
        ...


class Processes:
    """The processes of a group of ``torch.distributed``."""

    def __init__(self, group: torch.distributed.ProcessGroup) -> None:
        self.group = group
        self.rank: int = torch.distributed.get_rank(group)
        self.size: int = torch.distributed.get_world_size(group)

    def mean_(self, tensors: Sequence[Tensor]) -> int:
        """The mean over all processes, in place; each tensor is sent once."""
        for tensor in tensors:
            held = tensor.contiguous()
            torch.distributed.all_reduce(held, group=self.group)
            held.div_(self.size)
            if held is not tensor:
                tensor.copy_(held)
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def exchange(self, message: bytes) -> list[bytes]:
        """The messages of all processes."""
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, message, group=self.group)
        return found


def communicator_for(group: Any) -> Communicator | None:
    """``group``, which is a process group, a communicator already, or nothing."""
    if group is None or isinstance(group, Communicator):
        return group
    return Processes(group)


def averaged_already(module: nn.Module | None, params: Sequence[Tensor]) -> frozenset[int]:
    """Identities of the parameters whose gradients a backward pass averages over processes.

    Those are what DistributedDataParallel and FullyShardedDataParallel hold, and what is sharded.
    """
    if module is None:
        return frozenset(id(p) for p in params if is_sharded(p))
    if _averages(module):
        return frozenset(map(id, params))
    held = {id(p) for part in module.modules() if _averages(part) for p in part.parameters()}
    return frozenset(id(p) for p in params if id(p) in held or is_sharded(p))


def _averages(module: nn.Module) -> bool:
    if isinstance(module, nn.parallel.DistributedDataParallel):
        return True
    # Looked up by name, so that nobody who does not shard pays for the import.
    return any(kind.__name__ == "FullyShardedDataParallel" for kind in type(module).__mro__)
