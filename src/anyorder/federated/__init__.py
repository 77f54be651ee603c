"""Federated optimisation of functions that can only be evaluated, one function per client.

A :class:`Federation` takes rounds. In each, every client improves the server's point with queries
of its own function (:mod:`anyorder.federated.clients`), and the server averages. Clients run in
this process, in several, or both. Queries, and numbers sent, are counted.

Example:
    >>> import torch
    >>> from anyorder.federated import Federation, FZooS
    >>> targets = torch.tensor([[0.3, 0.0], [0.5, 0.2]])
    >>> def private(target):
    ...     return lambda x: ((x - target) ** 2).sum()
    >>> clients = [FZooS(private(t), number=i, lr=0.03, steps=4) for i, t in enumerate(targets)]
    >>> federation = Federation(clients, torch.zeros(2))
    >>> for _ in range(5):
    ...     x = federation.round()
    >>> bool((x - targets.mean(0)).norm() < 0.1)
    True
"""

from anyorder.federated.clients import (
    Client,
    FederatedError,
    FedProx,
    FedZO,
    Scaffold,
    Shared,
)
from anyorder.federated.federation import Federation
from anyorder.federated.fzoos import FZooS

__all__ = [
    "Client",
    "FZooS",
    "FedProx",
    "FedZO",
    "FederatedError",
    "Federation",
    "Scaffold",
    "Shared",
]
