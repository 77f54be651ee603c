"""FZooS: the surrogate of past queries instead of differences, and shared models against drift."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from anyorder.federated.clients import Client, Shared, check
from anyorder.federated.features import RandomFeatures
from anyorder.hyper import HyperError
from anyorder.linalg.gaussian_process import fit


class FZooS(Client):
    r"""A client of FZooS.

    The gradient is that of a Gaussian process over the client's recent queries,
    :math:`\nabla \mu_i`. Against drift, local step t adds

    .. math:: \frac{1}{t} \left( \nabla \hat\mu(x) - \nabla \hat\mu_i(x) \right)

    with :math:`\hat\mu_i` the client's process in random Fourier features and :math:`\hat\mu` the
    mean over all clients, both fixed during the round. Around each new point the client queries the
    candidates where the gradient is most uncertain.

    Values per round: ``(queries + 1) * (steps - 1) + summary_queries + 1``, and ``queries + 1``
    more in the first. Numbers sent per round: d + 1 and ``features``, each way.

    The local model, its uncertainty and the shared model have the same kernel. Its length is fitted
    in every step; the shared model takes the geometric mean of the clients' last lengths. In the
    authors' code the three models have different kernels and the shared length is 1. There the
    server also evaluates the mean function and keeps the old point if the new one is not better;
    that is not done here, since it needs queries of all clients that are not counted.

    Args:
        function: see :class:`~anyorder.federated.clients.Client`.
        queries: points evaluated around each local point.
        summary_queries: points evaluated around the server's new point.
        candidates: random points from which they are chosen; twice as many for the summary.
        radius: largest distance of these per coordinate; twice that for the summary (default: the
            learning rate, so that it shrinks with the steps).
        history: values kept, the most recent ones.
        features: random features of the shared model, an even number.
        noise: variance of the noise of values, as a share of that of the process.
        options: of :class:`~anyorder.federated.clients.Client`.

    References:
        Shu et al. (2023), "Federated Zeroth-Order Optimization using Trajectory-Informed Surrogate
        Gradients", arXiv 2308.04077.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Any],
        *,
        queries: int = 5,
        summary_queries: int = 50,
        candidates: int = 100,
        radius: float | None = None,
        history: int = 150,
        features: int = 1000,
        noise: float = 1e-6,
        **options: Any,
    ) -> None:
        check(queries=queries, summary_queries=summary_queries, candidates=candidates,
              history=history, features=features, noise=noise)  # fmt: skip
        if features % 2:
            raise HyperError(f"features: expected an even number, got {features}")
        super().__init__(function, **options)
        self.radius = self.lr if radius is None else radius
        if not 0 < self.radius < math.inf:
            raise HyperError(f"radius: expected a distance > 0, got {self.radius!r}")
        self.queries, self.summary_queries = queries, summary_queries
        self.candidates, self.history, self.features = candidates, history, features
        self.noise = noise
        self._points, self._values = torch.empty(0, 0), torch.empty(0, dtype=torch.float64)
        self._around = torch.empty(0)  # the last point around which the client has queried
        self._length: float | None = None  # fitted in the last local step
        self._explored = 0

    def local(self, x: Tensor, shared: Shared | None) -> Tensor:
        """Take local steps; returns the point and the logarithm of the fitted length."""
        point = super().local(x, shared)
        assert self._length is not None
        return torch.cat([point, torch.tensor([math.log(self._length)], dtype=point.dtype)])

    def gradient(self, x: Tensor) -> Tensor:
        """Query around ``x`` unless it was done for the summary, and differentiate the model."""
        if not torch.equal(x, self._around):
            self._explore(x, self.queries, self.candidates, self.radius)
        model = fit(self._points, self._values, noise=self.noise)
        self._length = model.length
        return model.gradient(x)

    def correction(self, x: Tensor, server: Tensor, step: int, shared: Shared | None) -> Tensor:
        """Return the difference of the shared models' gradients; zero in the first round."""
        if shared is None:
            return torch.zeros_like(x)
        # The gradient is linear in the weights.
        weights, length = shared.mean - shared.own, math.exp(float(shared.averages[0]))
        return self._features(x).gradient(weights, x, length) / step

    def summary(self, x: Tensor, averages: Tensor) -> Tensor:
        """Query around the server's point; returns the weights of the own shared model."""
        self._explore(x, self.summary_queries, 2 * self.candidates, 2 * self.radius)
        length = math.exp(float(averages[0]))
        return self._features(x).fit(self._points, self._values, length, self.noise)

    def state_dict(self) -> dict[str, Any]:
        """Return all that exact resumption needs."""
        return {
            **super().state_dict(),
            "points": self._points,
            "values": self._values,
            "around": self._around,
            "length": self._length,
            "explored": self._explored,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what :meth:`state_dict` returned."""
        super().load_state_dict(state)
        self._points, self._values = state["points"].clone(), state["values"].clone()
        self._around, self._explored = state["around"].clone(), int(state["explored"])
        self._length = state["length"]

    def _explore(self, x: Tensor, count: int, candidates: int, radius: float) -> None:
        """Evaluate ``x`` and the candidates around it where the gradient is most uncertain."""
        self._remember(x)
        key = (self.seed * 1_000_003 + self.number) * 1_000_003 + self._explored
        draws = torch.Generator().manual_seed(key % 2**63)
        self._explored += 1
        drawn = torch.rand(max(count, candidates), len(x), dtype=x.dtype, generator=draws)
        points = x + radius * (2.0 * drawn - 1.0)
        model = fit(self._points, self._values, noise=self.noise, length=self._length)
        order = model.uncertainty(points).argsort(descending=True, stable=True)
        for point in points[order[:count]]:
            self._remember(point)
        self._around = x.clone()

    def _remember(self, x: Tensor) -> None:
        value = torch.tensor([self.value(x)], dtype=torch.float64)
        points = x[None] if not len(self._values) else torch.cat([self._points, x[None]])
        self._points = points[-self.history :].clone()
        self._values = torch.cat([self._values, value])[-self.history :].clone()

    def _features(self, x: Tensor) -> RandomFeatures:
        return RandomFeatures(len(x), self.features, self.seed)
