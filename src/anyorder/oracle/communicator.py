"""Communication between the processes of a run."""

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
    """Connects the processes of a run; pass one as ``process_group=`` instead of a group.

    Attributes:
        rank: the rank of this process, from 0.
        size: the number of processes.
    """

    rank: int
    size: int

    def mean_(self, tensors: Sequence[Tensor]) -> int:
        """Replace each tensor by the mean over all processes; returns the bytes sent."""
        ...

    def exchange(self, message: bytes) -> list[bytes]:
        """Return the messages of all processes, in the order of their ranks."""
        ...


class Processes:
    """A communicator for a group of ``torch.distributed``."""

    def __init__(self, group: torch.distributed.ProcessGroup) -> None:
        self.group = group
        self.rank: int = torch.distributed.get_rank(group)
        self.size: int = torch.distributed.get_world_size(group)

    def mean_(self, tensors: Sequence[Tensor]) -> int:
        """Average in place; each tensor is sent once."""
        for tensor in tensors:
            held = tensor.contiguous()
            torch.distributed.all_reduce(held, group=self.group)
            held.div_(self.size)
            if held is not tensor:
                tensor.copy_(held)
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def exchange(self, message: bytes) -> list[bytes]:
        """Return the messages of all processes."""
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, message, group=self.group)
        return found


def communicator_for(group: Any) -> Communicator | None:
    """Return a communicator for a process group, a communicator or ``None``."""
    if group is None or isinstance(group, Communicator):
        return group
    return Processes(group)


def averaged_already(module: nn.Module | None, params: Sequence[Tensor]) -> frozenset[int]:
    """Return the identities of parameters whose gradients a backward pass averages.

    These are the parameters in DistributedDataParallel and FullyShardedDataParallel, and sharded
    parameters.
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
    # Compared by name, to avoid the import if nothing is sharded.
    return any(kind.__name__ == "FullyShardedDataParallel" for kind in type(module).__mro__)
