"""How a worker hands in its message of a step and receives the record of all."""

from __future__ import annotations

import contextlib
import struct
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

import torch

from anyorder.distributed.records import agreed, differing, packed, split_hash, unpacked
from anyorder.errors import AnyOrderError
from anyorder.oracle.communicator import Communicator

if TYPE_CHECKING:
    import torch.distributed as dist

#: For the coordinator to be there at first, and for a step of the slowest worker.
CONNECT, STEP = timedelta(seconds=60), timedelta(hours=24)
PORT = 29500
_STEP = struct.Struct("<q")


class JoinError(AnyOrderError, ValueError):
    """A worker whose settings or weights are not those of the run."""


class CoordinatorError(AnyOrderError, ConnectionError):
    """The coordinator cannot be reached, or it has ended."""


class Exchange(Protocol):
    """Connects a worker with all others.

    Attributes:
        worker: the number of this worker. No other worker of the run ever has it.
    """

    worker: int

    def begin(self, settings: str, base: str) -> None:
        """Check that settings and first weights (hash, or empty if unknown) are those of all."""
        ...

    def missed(self, step: int) -> bytes | None:
        """Return the record of a step that was taken without this worker, if there is one."""
        ...

    def join(self, step: int) -> int:
        """Take part from now on; returns the first step with this worker."""
        ...

    def exchange(self, step: int, message: bytes, checked: bool) -> tuple[bytes, str]:
        """Hand in a message; returns the record, and why it lacks this message if it does.

        Args:
            step: the step.
            message: scalars, and the hash of the weights if it is ``checked``.
            checked: whether hashes are compared in this step.
        """
        ...

    def leave(self, step: int) -> None:
        """Take part no longer."""
        ...


class Alone:
    """One worker without others."""

    worker = 0

    def begin(self, settings: str, base: str) -> None:
        """Nothing to compare with."""

    def missed(self, step: int) -> bytes | None:
        """Nothing is done without it."""

    def join(self, step: int) -> int:
        """Begin at once."""
        return step

    def exchange(self, step: int, message: bytes, checked: bool) -> tuple[bytes, str]:
        """Return its own message as the record."""
        return packed({0: split_hash(message, checked)[0]}), ""

    def leave(self, step: int) -> None:
        """Nobody waits for it."""


class Grouped:
    """All processes of a group of ``torch.distributed``, or of a communicator.

    One all-gather of bytes per step. As with every collective, a process that dies stops all.

    Args:
        group: the group.
    """

    def __init__(self, group: dist.ProcessGroup | Communicator) -> None:
        self.group: Any = group
        joined = isinstance(group, Communicator)
        self.worker: int = group.rank if joined else torch.distributed.get_rank(group)
        self._size: int = group.size if joined else torch.distributed.get_world_size(group)

    def begin(self, settings: str, base: str) -> None:
        """Compare settings and first weights with those of the process of rank 0."""
        found: list[Any] = [None] * self._size
        if isinstance(self.group, Communicator):
            messages = self.group.exchange(f"{settings}\n{base}".encode())
            found = [message.decode().split("\n") for message in messages]
        else:
            torch.distributed.all_gather_object(found, (settings, base), group=self.group)
        for rank, (others, other_base) in enumerate(found):
            refuse_differences(found[0][0], others, found[0][1], other_base, f"rank {rank}")

    def missed(self, step: int) -> bytes | None:
        """All processes take every step."""

    def join(self, step: int) -> int:
        """All processes begin together."""
        return step

    def exchange(self, step: int, message: bytes, checked: bool) -> tuple[bytes, str]:
        """Gather the messages; those of workers with other weights than most are left out."""
        split = [split_hash(each, checked) for each in self._gathered(message)]
        right = agreed({rank: found for rank, (_, found) in enumerate(split)})
        record = packed({r: scalars for r, (scalars, found) in enumerate(split) if found == right})
        own = split[self.worker][1]
        return record, "" if own == right else weights_differ(own, right)

    def _gathered(self, message: bytes) -> list[bytes]:
        if isinstance(self.group, Communicator):
            return self.group.exchange(message)
        cpu = torch.distributed.get_backend(self.group) != "nccl"
        device = "cpu" if cpu else torch.device("cuda", torch.cuda.current_device())
        mine = torch.frombuffer(bytearray(message), dtype=torch.uint8).to(device)
        found = [torch.empty_like(mine) for _ in range(self._size)]
        torch.distributed.all_gather(found, mine, group=self.group)
        return [bytes(each.cpu().numpy()) for each in found]

    def leave(self, step: int) -> None:
        """A group cannot be left."""


class Coordinated:
    """A worker of a :class:`~anyorder.distributed.coordinator.Coordinator`.

    Args:
        address: ``host:port``.
    """

    worker = -1

    def __init__(self, address: str) -> None:
        self.address = address
        self._host, _, port = address.rpartition(":")
        if not self._host or not port.isdigit():
            raise CoordinatorError(f"coordinator: expected 'host:port', got {address!r}")
        self._port = int(port)
        self._opened: Any = None

    def __reduce__(self) -> Any:
        """A copy is a worker of its own, which joins when it is used."""
        return Coordinated, (self.address,)

    @property
    def _store(self) -> Any:
        if self._opened is None:
            with self._connected():
                self._opened = opened(self._host, self._port)
        return self._opened

    @contextlib.contextmanager
    def _connected(self) -> Any:
        try:
            yield
        except (RuntimeError, OSError) as error:  # as the errors of torch.distributed are
            self._opened = None
            raise CoordinatorError(
                f"the coordinator at {self.address} cannot be reached ({error}); the weights are "
                "those of the last whole step. Start it again with its log, and take the next step"
            ) from error

    def begin(self, settings: str, base: str) -> None:
        """The first worker of a run says what it is; all others must be alike."""
        mine = f"{settings}\n{base}"
        with self._connected():
            found = self._store.compare_set("base", "", mine).decode()
        others, _, other_base = found.partition("\n")
        refuse_differences(others, settings, other_base, base, "this worker")

    def missed(self, step: int) -> bytes | None:
        """Return the record of a past step."""
        with self._connected():
            there = self._store.check([f"r{step}"])
        return self._get(f"r{step}") if there else None

    def join(self, step: int) -> int:
        """Take the next number and wait until the coordinator says where to begin."""
        with self._connected():
            self.worker = self._store.add("n", 1) - 1
            self._store.set(f"h{self.worker}", _STEP.pack(step))
            self._store.set("j", b"")
        (first,) = _STEP.unpack(self._get(f"a{self.worker}"))
        return first

    def exchange(self, step: int, message: bytes, checked: bool) -> tuple[bytes, str]:
        """Set one key with the message, and wait for the key with the record."""
        with self._connected():
            self._store.set(f"{step}/{self.worker}", message)
        record = self._get(f"r{step}")
        if self.worker in unpacked(record):
            return record, ""
        return record, self._get(f"x{self.worker}").decode()

    def leave(self, step: int) -> None:
        """An empty message: do not wait for this worker."""
        if self.worker >= 0:
            with self._connected():
                self._store.set(f"{step}/{self.worker}", b"")

    def _get(self, key: str) -> bytes:
        """Wait for a key; it is empty if the coordinator has ended."""
        with self._connected():
            found: bytes = self._store.get(key)
            if found:
                return found
            why = self._store.get("e").decode()
        raise CoordinatorError(f"the coordinator at {self.address} has ended: {why}")


def opened(host: str, port: int, *, serve: bool = False) -> Any:
    """Return a connection to a ``TCPStore``, or the store itself, which takes a free port for 0."""
    kind: Any = torch.distributed.TCPStore  # pyright: ignore[reportPrivateImportUsage]
    store = kind(host, port, is_master=serve, wait_for_workers=False, timeout=CONNECT)
    store.set_timeout(STEP)
    return store


def weights_differ(own: bytes, right: bytes) -> str:
    """Return the reason for which a worker with these weights is left out."""
    return f"weights: their hash is {own.hex()}, and {right.hex()} at most other workers"


def refuse_differences(others: str, settings: str, other_base: str, base: str, who: str) -> None:
    """Raise :class:`JoinError` if settings or first weights differ; an empty hash is unknown."""
    if differs := differing(settings, others):
        raise JoinError(
            f"{who} has other settings than the run ({'; '.join(differs)}); all workers must be "
            "constructed with the same settings"
        )
    if base and other_base and base != other_base:
        raise JoinError(
            f"{who} starts from other weights than the run (hash {base}, expected {other_base}); "
            "load the model with which the run began. Its moves are replayed on these weights"
        )
