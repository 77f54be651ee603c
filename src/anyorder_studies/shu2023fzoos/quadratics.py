"""The quadratics of the published code, and federations that minimise their mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anyorder.federated import Client, Federation, FedProx, FedZO, FZooS, Scaffold
from anyorder_studies.contest import choose

CLIENTS = 5
STEPS = 10
BASELINES = ("fedzo", "fedprox", "scaffold_1", "scaffold_2")
METHODS = ("fzoos", *BASELINES)
#: Four settings each: learning rate, and queries per gradient beside the one at the point itself.
GRIDS: dict[str, list[list[float]]] = {
    method: [
        [lr, count] for lr in (0.01, 0.03) for count in ((2, 5) if method == "fzoos" else (5, 20))
    ]
    for method in METHODS
}


def quadratics(dim: int, seed: int) -> tuple[list[Callable[[Tensor], float]], Tensor]:
    r"""One function per client and a start in the unit cube; the mean is the same for all seeds.

    With :math:`p = 20 x - 10` for x clipped to the cube, client i has :math:`f_i(x) =
    \frac{0.1}{d} (\sum_k a_{ik} p_k^2 + b_{ik} p_k + 1)`. The coefficients of the clients are 1
    plus a Dirichlet draw, centred, so the mean of the functions has coefficients 1.
    """
    draws = np.random.default_rng(seed)
    shares = [draws.dirichlet([1.0 / CLIENTS] * CLIENTS, size=dim) for _ in range(2)]
    squares, lines = (torch.tensor(1.0 + share - 1.0 / CLIENTS).T for share in shares)

    def function(number: int) -> Callable[[Tensor], float]:
        a, b = squares[number], lines[number]
        return lambda x: _quadratic(x, a, b, dim)

    return [function(number) for number in range(CLIENTS)], torch.tensor(draws.random(dim))


def _quadratic(x: Tensor, a: Tensor, b: Tensor, dim: int) -> float:
    p = 20.0 * x.clamp(0.0, 1.0) - 10.0
    return float(0.1 / dim * (a @ p**2 + b @ p + 1.0))


def gap(x: Tensor) -> float:
    """The mean function at ``x`` minus its minimum, which lies at p = -1/2."""
    p = 20.0 * x.clamp(0.0, 1.0) - 10.0
    return float(0.1 * (p + 0.5).square().mean())


def client_of(
    method: str, function: Callable[[Tensor], float], number: int, setting: list[float], seed: int
) -> Client:
    """A client of a contestant with one of its settings."""
    lr, count = setting[0], int(setting[1])
    common: dict[str, Any] = {"number": number, "lr": lr, "steps": STEPS, "seed": seed}
    if method == "fzoos":
        return FZooS(function, queries=count, **common)
    if method == "fedprox":
        return FedProx(function, directions=count, **common)
    if method.startswith("scaffold"):
        variant: Any = {"1": "I", "2": "II"}[method[-1]]
        return Scaffold(function, directions=count, variant=variant, **common)
    return FedZO(function, directions=count, **common)


def run(method: str, dim: int, setting: list[float], seed: int, budget: int) -> dict[str, Any]:
    """Take rounds while a client has queries left.

    Args:
        method: One of :data:`METHODS`.
        dim: Number of parameters.
        setting: Learning rate, and queries per gradient.
        seed: Seed of functions, start and directions.
        budget: Queries of one client; the last round may exceed it.

    Returns:
        ``queries`` and ``floats`` (numbers sent and received) of one client and ``best`` (lowest
        gap of the server's points so far), before the first and after each round.
    """
    functions, x = quadratics(dim, seed)
    clients = [client_of(method, f, i, setting, seed) for i, f in enumerate(functions)]
    federation = Federation(clients, x)
    found: dict[str, Any] = {"queries": [0], "floats": [0], "best": [gap(federation.x)]}
    while found["queries"][-1] < budget:
        found["best"].append(min(found["best"][-1], gap(federation.round())))
        found["queries"].append(clients[0].calls.values)
        found["floats"].append(federation.floats)
    return found


@cache
def tuned(
    method: str, dim: int, settings: int, budget: int, seeds: int, tuning: int
) -> list[float]:
    """The setting with the lowest mean logarithm of the final gap over tuning seeds."""

    def score(setting: list[float], seed: int) -> float:
        return math.log(run(method, dim, setting, seed, budget)["best"][-1])

    return choose(GRIDS[method][:settings], score, seeds, tuning=tuning)
