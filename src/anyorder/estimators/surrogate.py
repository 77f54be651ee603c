r"""The gradient estimated from the history of queries: a surrogate instead of differences.

A step evaluates the loss at the current point and at ``queries`` points around it. A Gaussian
process is fitted to these and to the values of earlier steps, and the gradient of its mean is the
estimate (:mod:`anyorder.linalg.gaussian_process`). The points are those of ``candidates`` uniform
draws from a cube of half width ``radius`` at which the gradient is most uncertain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from anyorder.hyper import Hyper, hyper
from anyorder.linalg.gaussian_process import fit
from anyorder.optimizer.entry import Slot
from anyorder.optimizer.options import plain
from anyorder.oracle import NeedsError, Oracle
from anyorder.points.directions import Dense, Shift

_POINTS, _LOSSES, _SEEN = "past_points", "past_losses", "past"


def _points(param: Tensor, group: Mapping[str, Any]) -> tuple[int, ...]:
    return (group["history"], *param.shape)


def _losses(param: Tensor, group: Mapping[str, Any]) -> tuple[int, ...]:
    return (group["history"],)


class Surrogate:
    """Estimates the gradient as that of a Gaussian process over past queries; an ``Estimator``.

    It makes any rule a method that needs values only. A class names it with its state::

        class SurrogateAdam(Optimizer):
            order = 0
            estimator, slots, counters = SURROGATE, SURROGATE.slots, SURROGATE.counters
            rule = ADAMW

    Values per step: ``queries + 1``. The returned loss is that at the current point. State: the
    last ``history`` points, that is ``history`` times the memory of the parameters (at least
    float32), saved and resumed bit for bit. Time per step: a few Cholesky factorisations of
    ``history`` rows. It is meant for up to some tens of parameters; with hundreds, the points near
    the current one say little about most directions.

    If losses of different steps are on different batches, they differ by noise: raise ``noise``.
    If the set of trainable parameters changes, the history starts again.

    References:
        Shu et al. (2023), "Federated Zeroth-Order Optimization using Trajectory-Informed Surrogate
        Gradients", arXiv 2308.04077. There the latest 150 *nearest* queries are used, the local
        model has a Matern kernel, and the exploration follows the step instead of preceding it.
    """

    needs: frozenset[str] = frozenset({"value"})
    hypers: Mapping[str, Hyper] = {
        "queries": hyper(5, ge=1, doc="points evaluated around the current one in each step"),
        "radius": hyper(1e-2, gt=0, unit="parameter", doc="largest distance of these, per entry"),
        "candidates": hyper(100, ge=1, doc="random points from which these are chosen"),
        "history": hyper(150, ge=2, doc="values kept, the most recent ones"),
        "noise": hyper(1e-6, gt=0, doc="variance of the noise of values, over that of the process"),
    }
    slots: Mapping[str, Slot] = {
        _POINTS: Slot(_points),
        _LOSSES: Slot(_losses, dtype=torch.float64),
    }
    counters: tuple[str, ...] = (_SEEN,)

    def __call__(self, method: Any, oracle: Oracle) -> tuple[Tensor, list[Tensor | None]]:
        """Evaluate around the current point, remember, and return the surrogate's gradient."""
        group = {name: plain(method.param_groups[0][name]) for name in self.hypers}
        named, entries = method.named_params(), list(method.entries().values())
        if not {_POINTS, _LOSSES, _SEEN} <= set(entries[0]):
            raise NeedsError(
                f"{type(method).__name__} has no place for the history of its estimator; write "
                "slots, counters = SURROGATE.slots, SURROGATE.counters in its class"
            )
        _same_past(entries)
        here = _flat(named.values())
        steps = self._explored(method, group, entries, here)
        shifts = [_shift(step, named) for step in steps]
        losses = oracle.values([Shift(), *shifts])
        points = [{name: param.detach() for name, param in named.items()}]
        points += [{n: s.direction.shifted(n, p.detach(), 1.0, method.engine)  # type: ignore[union-attr]
                    for n, p in named.items()} for s in shifts]  # fmt: skip
        for point, loss in zip(points, losses.tolist(), strict=True):
            _remember(entries, list(point.values()), loss)
        known = _known(entries)
        if known is None:
            return losses[0], [torch.zeros_like(param) for param in named.values()]
        gradient = fit(*known, noise=group["noise"]).gradient(here)
        return losses[0], _split(gradient, list(named.values()))

    def _explored(
        self, method: Any, group: Mapping[str, Any], entries: list[dict[str, Any]], here: Tensor
    ) -> Tensor:
        """Steps to the points to evaluate, shape ``(queries, d)``."""
        draws = torch.Generator().manual_seed(_mixed(method.seed, method.steps + method.skips))
        count = max(group["candidates"], group["queries"])
        drawn = torch.rand(count, len(here), dtype=torch.float64, generator=draws).to(here.device)
        steps = group["radius"] * (2.0 * drawn - 1.0)
        known = _known(entries)
        if known is None:
            return steps[: group["queries"]]
        model = fit(*known, noise=group["noise"])
        unsure = model.uncertainty(here + steps).argsort(descending=True, stable=True)
        return steps[unsure[: group["queries"]]]


#: The estimator, for the attribute ``estimator`` of a method.
SURROGATE = Surrogate()


def _mixed(seed: int, step: int) -> int:
    """A seed for the candidates of a step."""
    return (seed * 1_000_003 + step) % 2**63


def _same_past(entries: list[dict[str, Any]]) -> None:
    """Start again if the parameters do not share one history."""
    if len({entry[_SEEN] for entry in entries}) > 1:
        for entry in entries:
            entry[_SEEN] = 0


def _remember(entries: list[dict[str, Any]], point: list[Tensor], loss: float) -> None:
    """Write a point over the oldest one."""
    for entry, value in zip(entries, point, strict=True):
        place = entry[_SEEN] % len(entry[_LOSSES])
        entry[_POINTS][place].copy_(value)
        entry[_LOSSES][place] = loss
        entry[_SEEN] += 1


def _known(entries: list[dict[str, Any]]) -> tuple[Tensor, Tensor] | None:
    """Finite values and their points, ``(n, d)`` and ``(n,)``; ``None`` without two of them."""
    first = entries[0]
    count = min(first[_SEEN], len(first[_LOSSES]))
    losses = first[_LOSSES][:count]
    good = losses.isfinite()
    if int(good.sum()) < 2:
        return None
    parts = [
        entry[_POINTS][:count][good].double().reshape(int(good.sum()), -1) for entry in entries
    ]
    return torch.cat(parts, 1), losses[good]


def _flat(params: Any) -> Tensor:
    return torch.cat([param.detach().double().reshape(-1) for param in params])


def _shift(step: Tensor, named: Mapping[str, Tensor]) -> Shift:
    return Shift(1.0, Dense(dict(zip(named, _split(step, list(named.values())), strict=True))))


def _split(vector: Tensor, params: list[Tensor]) -> list[Any]:
    """A vector in the shapes and dtypes of parameters."""
    parts = vector.split([param.numel() for param in params])
    return [part.view(p.shape).to(p.dtype) for part, p in zip(parts, params, strict=True)]
