"""Directions made from other directions: scaled, masked, summed, sparse, of low rank.

They are computed for a few parameters at a time when they are needed, from seeds and from the
unperturbed weights, and never stored. A parameter that :meth:`Composed.many` leaves out has zeros.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anyorder.engine import Engine
from anyorder.points.directions import SMALL, Dense, Direction, Seeded, shifted_by

#: Parameters are handled together up to this number of elements, or that of the largest one.
TOGETHER = 1 << 20


class Composed(ABC):
    """A direction made from others; subclasses write :meth:`many`."""

    @abstractmethod
    def many(self, like: Mapping[str, Tensor], engine: Engine) -> dict[str, Tensor]:
        """Return the direction for some parameters, at least in float32.

        Args:
            like: unperturbed parameters on one device; their values may be used.
            engine: runs the rules that generate random numbers.
        """

    def shifted(self, name: str, tensor: Tensor, scale: float, engine: Engine) -> Tensor:
        """``tensor + scale * z`` for one parameter, as a new tensor."""
        z = self.many({name: tensor}, engine).get(name)
        return tensor.clone() if z is None else shifted_by(tensor, z, scale)

    def add_all_(self, targets: Mapping[str, Tensor], scale: float, engine: Engine) -> None:
        """``target += scale * z`` in place for each parameter, rounded once."""
        for some in portions(targets):
            for name, z in self.many(some, engine).items():
                targets[name].copy_(shifted_by(targets[name], z, scale))


@dataclass(frozen=True, eq=False)
class Scaled(Composed):
    """A direction times a factor for each parameter; zero for parameters without one."""

    direction: Direction
    factors: Mapping[str, float]

    def many(self, like: Mapping[str, Tensor], engine: Engine) -> dict[str, Tensor]:
        """Return the direction for some parameters."""
        some = {name: tensor for name, tensor in like.items() if self.factors.get(name)}
        return {n: z * self.factors[n] for n, z in vectors(self.direction, some, engine).items()}

    def shifted(self, name: str, tensor: Tensor, scale: float, engine: Engine) -> Tensor:
        """As for all, without a copy of the direction."""
        factor = self.factors.get(name)
        if not factor:
            return tensor.clone()
        return self.direction.shifted(name, tensor, scale * factor, engine)


@dataclass(frozen=True, eq=False)
class Masked(Composed):
    """A direction with zeros where ``keep(name, parameter, engine)`` is false.

    The mask is computed from unperturbed weights each time, so all perturbations of a step and its
    update have the same one. Nothing is stored.
    """

    direction: Direction
    keep: Callable[[str, Tensor, Engine], Tensor]

    def many(self, like: Mapping[str, Tensor], engine: Engine) -> dict[str, Tensor]:
        """Return the direction for some parameters."""
        made = vectors(self.direction, like, engine)
        return {name: z * self.keep(name, like[name], engine) for name, z in made.items()}


@dataclass(frozen=True, eq=False)
class Sum(Composed):
    """A weighted sum of directions."""

    terms: Sequence[tuple[float, Direction]]

    def many(self, like: Mapping[str, Tensor], engine: Engine) -> dict[str, Tensor]:
        """Return the direction for some parameters."""
        total: dict[str, Tensor] = {}
        for weight, direction in self.terms:
            for name, z in vectors(direction, like, engine).items():
                total[name] = total[name].add_(z * weight) if name in total else z * weight
        return total

    def add_all_(self, targets: Mapping[str, Tensor], scale: float, engine: Engine) -> None:
        """As for all, one term after the other; without temporary tensors if they are seeded."""
        for weight, direction in self.terms:
            direction.add_all_(targets, scale * weight, engine)


@dataclass(frozen=True, eq=False)
class Sparse(Composed):
    """A direction with few entries: their positions in the flat parameter, and their values."""

    entries: Mapping[str, tuple[Sequence[int], Sequence[float]]]

    def many(self, like: Mapping[str, Tensor], engine: Engine) -> dict[str, Tensor]:
        """Return the direction for some parameters."""
        found: dict[str, Tensor] = {}
        for name in like.keys() & self.entries.keys():
            places, values = self.entries[name]
            z = _zeros(like[name])
            z.view(-1)[list(places)] = torch.tensor(values, dtype=z.dtype, device=z.device)
            found[name] = z
        return found


@dataclass(frozen=True, eq=False)
class LowRank(Composed):
    r"""A direction whose matrices are :math:`U V^T / \sqrt{r}` with Gaussian factors.

    Their entries have mean 0 and variance 1 and are uncorrelated. Other parameters are those of
    ``direction``. Tensors with more than two axes are matrices whose rows are their first axis.
    """

    direction: Seeded
    rank: int

    def many(self, like: Mapping[str, Tensor], engine: Engine) -> dict[str, Tensor]:
        """Return the direction for some parameters."""
        matrices = {name: t for name, t in like.items() if t.ndim > 1 and t.numel()}
        found = vectors(
            self.direction, {n: t for n, t in like.items() if n not in matrices}, engine
        )
        for name, t in matrices.items():
            rows = t.shape[0]
            shapes = {"left": (rows, self.rank), "right": (self.rank, t.numel() // rows)}
            factors = {
                f"{name}/{side}": torch.empty(shape, dtype=torch.float32, device=t.device)
                for side, shape in shapes.items()
            }
            left, right = vectors(self.direction, factors, engine).values()
            found[name] = (left @ right).mul_(1.0 / math.sqrt(self.rank)).view(t.shape)
        return found


def vectors(direction: Direction, like: Mapping[str, Tensor], engine: Engine) -> dict[str, Tensor]:
    """Return any direction for some parameters on one device; see :meth:`Composed.many`."""
    if isinstance(direction, Composed):
        return direction.many(like, engine)
    if isinstance(direction, Dense):
        return {name: direction.tensors[name] for name in like}
    assert isinstance(direction, Seeded)
    small = {name: t for name, t in like.items() if t.numel() <= SMALL}
    found = direction.many(small, engine) if small else {}
    for name, t in like.items():
        if name not in small:
            found[name] = _zeros(t)
            direction.add_(name, found[name], 1.0, engine)
    wide = torch.float64  # small ones are made in float32
    return {n: found[n].to(wide) if t.dtype is wide else found[n] for n, t in like.items()}


def norm(direction: Direction, like: Mapping[str, Tensor], engine: Engine) -> float:
    """Return the Euclidean norm of a direction over some parameters."""
    squares = 0.0
    for some in portions(like):
        for z in vectors(direction, some, engine).values():
            squares += z.square().sum(dtype=torch.float64).item()
    return math.sqrt(squares)


def portions(named: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Split parameters in their order, by device and so that no part is larger than the largest.

    Small parts are joined; see :data:`TOGETHER`.
    """
    limit = max((t.numel() for t in named.values()), default=0)
    limit, size = max(limit, TOGETHER), 0
    part: dict[str, Tensor] = {}
    for name, t in named.items():
        if part and (size + t.numel() > limit or t.device != next(iter(part.values())).device):
            yield part
            part, size = {}, 0
        part[name] = t
        size += t.numel()
    if part:
        yield part


def _zeros(like: Tensor) -> Tensor:
    dtype = torch.promote_types(like.dtype, torch.float32)
    return torch.zeros(like.shape, dtype=dtype, device=like.device)
