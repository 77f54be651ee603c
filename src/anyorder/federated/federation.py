"""Rounds of a federation: clients improve the server's point, and the server averages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from anyorder.federated.clients import Client, FederatedError, Shared
from anyorder.oracle.communicator import Communicator, communicator_for

if TYPE_CHECKING:
    import torch.distributed

_VECTORS, _FAILURE = b"v", b"f"


class Federation:
    """Clients and their common point.

    Every process holds its own clients and computes the same averages, in the order of ranks, so
    results do not depend on how clients are spread over processes.

    Args:
        clients: the clients of this process, all with the same method and settings.
        x: the initial point, shape ``(d,)``; the same in all processes.
        process_group: a group of ``torch.distributed`` or a ``Communicator``; by default all
            clients are in this process.

    Attributes:
        x: the current point, float64.
        rounds: rounds so far.
        floats: numbers that one client has sent and received so far.

    Raises:
        FederatedError: there are no clients, two have the same number, or ``x`` is no vector.
    """

    def __init__(
        self,
        clients: Sequence[Client],
        x: Tensor,
        *,
        process_group: torch.distributed.ProcessGroup | Communicator | None = None,
    ) -> None:
        if x.ndim != 1 or not x.is_floating_point() or not len(x):
            raise FederatedError(
                f"x: expected a real vector, got {x.dtype} of shape {tuple(x.shape)}; write "
                "x.flatten()"
            )
        numbers = [client.number for client in clients]
        if not clients or len(set(numbers)) < len(numbers):
            raise FederatedError(
                f"clients: expected some, each with another number, got numbers {numbers}; write "
                "FZooS(function, number=0), FZooS(other, number=1)"
            )
        self.clients, self.x = list(clients), x.detach().double().clone()
        self.rounds, self.floats = 0, 0
        self._shared: dict[int, Shared] = {}
        self._communicator = communicator_for(process_group)

    def round(self) -> Tensor:
        """Take one round and return the new point, shape ``(d,)``.

        If a client fails, all processes raise, and the point of the federation stays as it was.

        Raises:
            FederatedError: a client of another process failed, or sent something that does not fit.
        """

        def local(client: Client) -> Tensor:
            return client.local(self.x.clone(), self._shared.get(client.number))

        mean, _ = self._mean(local)
        x, averages = mean[: len(self.x)], mean[len(self.x) :]
        shared, own = self._mean(lambda client: client.summary(x.clone(), averages))
        self.x = x
        if len(shared):
            pairs = zip(self.clients, own, strict=True)
            self._shared = {c.number: Shared(shared, mine, averages) for c, mine in pairs}
        self.floats += 2 * (len(mean) + len(shared))
        self.rounds += 1
        return self.x.clone()

    def state_dict(self) -> dict[str, Any]:
        """Return all that exact resumption needs, for the clients of this process."""
        return {
            "x": self.x,
            "shared": {n: (s.mean, s.own, s.averages) for n, s in self._shared.items()},
            "rounds": self.rounds,
            "floats": self.floats,
            "clients": {client.number: client.state_dict() for client in self.clients},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what :meth:`state_dict` returned.

        Raises:
            FederatedError: it is of other clients.
        """
        numbers = {client.number for client in self.clients}
        if set(state["clients"]) != numbers:
            raise FederatedError(
                f"expected the state of clients {sorted(numbers)}, got that of "
                f"{sorted(state['clients'])}"
            )
        for client in self.clients:
            client.load_state_dict(state["clients"][client.number])
        self.x = state["x"].clone()
        self._shared = {n: Shared(*parts) for n, parts in state["shared"].items()}
        self.rounds, self.floats = int(state["rounds"]), int(state["floats"])

    def _mean(self, ask: Callable[[Client], Tensor]) -> tuple[Tensor, Tensor]:
        """Ask all clients for vectors; return the mean over all and those of this process."""
        failure: Exception | None = None
        own = torch.empty(0, 0, dtype=torch.float64)
        try:
            own = torch.stack([ask(client) for client in self.clients])
            message = _VECTORS + len(self.clients).to_bytes(4, "little") + own.numpy().tobytes()
        except Exception as error:  # the other processes must not wait
            failure, message = error, _FAILURE + f"{type(error).__name__}: {error}".encode()
        if self._communicator is None:
            messages = [message]
        else:
            messages = self._communicator.exchange(message)
            for client in self.clients:  # each pays for its own numbers
                client.calls.bytes_sent += len(message) // len(self.clients)
        if failure is not None:
            raise failure
        vectors = [_read(text, rank, own.shape[1]) for rank, text in enumerate(messages)]
        mean = torch.cat(vectors).mean(0)
        if not bool(mean.isfinite().all()):
            raise FederatedError("a client sent NaN or Inf; expected finite numbers")
        return mean, own


def _read(message: bytes, rank: int, size: int) -> Tensor:
    """The vectors of a process, ``(clients, size)``, or :class:`FederatedError`."""
    if message[:1] == _FAILURE:
        raise FederatedError(f"a client of process {rank} failed: {message[1:].decode()}")
    count, body = int.from_bytes(message[1:5], "little"), message[5:]
    if message[:1] != _VECTORS or len(body) != 8 * count * size:
        raise FederatedError(
            f"process {rank} sent {len(body)} bytes for {count} clients; expected {size} float64 "
            "numbers each. All processes need the same method, settings and point"
        )
    return torch.from_numpy(np.frombuffer(body, np.float64).reshape(count, size).copy())
