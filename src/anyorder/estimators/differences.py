r"""The gradient estimated from differences of values along random directions.

With :math:`q` directions :math:`z_i` and the slopes :math:`s_i` of the loss along them:

| choice | values | slope or estimate |
|---|---|---|
| difference | `central` | (f(x + eps z) - f(x - eps z)) / 2 eps; 2 q values |
| | `forward` | (f(x + eps z) - f(x)) / eps; q + 1 values |
| | `jvp` | z' grad f(x), exact; q directional derivatives |
| law | `normal`, `rademacher`, `low_rank` | mean of s z: unbiased |
| | `sphere` (vectors of length 1) | d times the mean of s z: unbiased |
| | `coordinate` (q different ones) | sum of s z: the entries of the gradient at these places |

Directions are functions of seed, step, index and parameter name. An estimate is a direction itself
(:mod:`anyorder.points.composed`): a sum of seeded directions, which is generated when it is used.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from anyorder.engine import Engine
from anyorder.hyper import Hyper, HyperError, hyper
from anyorder.optimizer.options import plain
from anyorder.oracle import Oracle
from anyorder.points.composed import LowRank, Masked, Scaled, Sparse, Sum, norm, portions, vectors
from anyorder.points.directions import Direction, Seeded, Shift

#: The options of the estimator. A method has those that it names, and fixes the others.
OPTIONS: dict[str, Hyper] = {
    "eps": hyper(1e-3, gt=0, unit="parameter", doc="size of the perturbation"),
    "directions": hyper(1, ge=1, doc="directions per step (and block)"),
    "difference": hyper("central", choices=("central", "forward"), doc="values per direction"),
    "law": hyper(
        "normal",
        choices=("normal", "rademacher", "sphere", "coordinate", "low_rank"),
        doc="distribution of the directions",
    ),
    "rank": hyper(None, ge=1, doc="rank of the directions of matrices (None: 1); law='low_rank'"),
    "mask": hyper(
        "none",
        choices=("none", "random", "small"),
        doc="entries that take part: all, a random share drawn in each step, or the smallest of "
        "each parameter",
    ),
    "sparsity": hyper(None, ge=0, lt=1, doc="share of entries left out by mask (None: 0.75)"),
    "blocks": hyper(
        "whole",
        choices=("whole", "layers", "modules", "parameters"),
        doc="perturb all parameters together, or one layer, module or parameter at a time",
    ),
    "sweep": hyper(
        None,
        choices=(None, "gauss-seidel", "jacobi"),
        doc="one block in each step (None), or all blocks from the same point",
    ),
    "scaling": hyper(
        "none",
        choices=("none", "weights"),
        doc="divide the perturbation of a parameter by the root mean square of its weights",
    ),
}
#: Options that only mean something beside a value of another option.
_BESIDE = {
    "rank": ("law", ("low_rank",)),
    "sparsity": ("mask", ("random", "small")),
    "sweep": ("blocks", ("layers", "modules", "parameters")),
}
#: The number of the random direction that draws masks.
_MASKS = -2


class Differences:
    """Estimates the gradient from differences of values; an ``Estimator``.

    Args:
        options: names of those of :data:`OPTIONS` that the method has.
        fixed: values of others, where they are not the defaults.
    """

    def __init__(self, *options: str, **fixed: Any) -> None:
        self.hypers: Mapping[str, Hyper] = {name: OPTIONS[name] for name in options}
        self.fixed = {name: declared.default for name, declared in OPTIONS.items()} | fixed
        exact = self.fixed["difference"] == "jvp"
        self.needs = frozenset({"jvp" if exact else "value"})

    def __call__(self, method: Any, oracle: Oracle) -> tuple[Tensor, list[Tensor | None]]:
        """Return a loss and the estimate as tensors; parameters of other blocks have ``None``."""
        loss, estimate, names = self.estimate(method, oracle)
        named = method.named_params()
        made = dense(estimate, {name: named[name] for name in names}, method.engine)
        return loss, [made.get(name) for name in named]

    def estimate(
        self, method: Any, oracle: Oracle, names: Sequence[str] | None = None
    ) -> tuple[Tensor, Direction, list[str]]:
        """Evaluate, and return an estimate that is nowhere stored.

        Args:
            method: the optimizer.
            oracle: evaluates the closure.
            names: the parameters to perturb (default: all).

        Returns:
            The loss at the current point (for ``central`` the mean over the evaluated points), the
            estimate as a direction, and the names of the parameters that it is for.
        """
        chosen = self.chosen(method)
        base = oracle.value() if chosen.difference == "forward" else None
        seen: list[Tensor] = [] if base is None else [base]
        parts: list[tuple[float, Direction]] = []
        blocks = self.blocks(method, chosen, list(chosen.named) if names is None else list(names))
        for block in blocks:
            drawn = self.drawn(method, chosen, block)
            slopes: list[float] = []
            for z in drawn:
                point = z if chosen.bare else self.around(chosen, z)
                loss, slope = _slope(oracle, point, chosen, base)
                slopes.append(slope)
                if base is None:
                    seen.append(loss)
            parts.append((1.0, self.reduced(method, chosen, drawn, slopes)))
        estimate = parts[0][1] if len(parts) == 1 else Sum(parts)
        if not chosen.bare:
            estimate = self.around(chosen, estimate, back=True)
        return torch.stack(seen).mean(), estimate, [name for block in blocks for name in block]

    def chosen(self, method: Any) -> SimpleNamespace:
        """Return the value of each option, and what a step needs besides.

        The parameters ``named``, the ``sizes`` of scaling and the mask ``keep``, each ``None`` if
        there is none, and whether directions are ``bare``, without both.
        """
        group = method.param_groups[0]
        given = {name: group[name] for name in self.hypers}
        given |= {name: v.item() for name, v in given.items() if isinstance(v, Tensor)}
        chosen = SimpleNamespace(**self.fixed | given)
        chosen.named = method.named_params()
        chosen.sizes = chosen.keep = None
        if chosen.scaling == "weights":
            chosen.sizes = {name: rms(param) for name, param in chosen.named.items()}
        if chosen.mask != "none":
            sparsity = 0.75 if chosen.sparsity is None else chosen.sparsity
            chosen.keep = (
                Small(thresholds(method, sparsity))
                if chosen.mask == "small"
                else Drawn(method.direction(_MASKS, "uniform"), sparsity)
            )
        chosen.bare = chosen.sizes is None and chosen.keep is None
        return chosen

    def blocks(self, method: Any, chosen: SimpleNamespace, names: list[str]) -> list[list[str]]:
        """Divide the names of parameters into those that this step perturbs together."""
        if chosen.blocks == "whole":
            return [names]
        blocks = list(blocks_of(names, chosen.blocks).values())
        return blocks if chosen.sweep == "jacobi" else [blocks[method.steps % len(blocks)]]

    def drawn(self, method: Any, chosen: SimpleNamespace, block: Sequence[str]) -> list[Direction]:
        """Return the directions of this step in a block."""
        if chosen.law == "coordinate":
            some = {name: chosen.named[name] for name in block}
            return coordinates(some, method, chosen.directions)
        law = chosen.law if chosen.law in ("normal", "rademacher") else "normal"
        drawn: list[Direction] = [method.direction(i, law) for i in range(chosen.directions)]
        if chosen.law == "low_rank":
            drawn = [LowRank(z, chosen.rank or 1) for z in drawn]  # type: ignore[arg-type]
        if chosen.law == "sphere":
            some = {name: chosen.named[name] for name in block}
            lengths = [norm(z, some, method.engine) for z in drawn]
            return [
                Scaled(z, dict.fromkeys(block, 1.0 / length if length else 0.0))
                for z, length in zip(drawn, lengths, strict=True)
            ]
        return (
            drawn
            if len(block) == len(chosen.named)
            else [Scaled(z, dict.fromkeys(block, 1.0)) for z in drawn]
        )

    def around(self, chosen: SimpleNamespace, z: Direction, *, back: bool = False) -> Direction:
        """Return a direction with the scaling and the mask around it.

        Args:
            chosen: the options.
            z: a direction without both: one to perturb along, or an estimate.
            back: whether it is an estimate, whose scaling is the inverse.
        """
        if chosen.sizes is not None:
            sizes: dict[str, float] = chosen.sizes
            z = Scaled(z, sizes if back else {name: 1.0 / size for name, size in sizes.items()})
        return z if chosen.keep is None else Masked(z, chosen.keep)

    def reduced(
        self, method: Any, chosen: SimpleNamespace, drawn: Sequence[Direction], slopes: list[float]
    ) -> Direction:
        """Return the estimate from the slopes along the directions of one block.

        Subclasses with another reducer, such as one that uses earlier steps, override this.
        """
        if chosen.law == "coordinate":
            return gathered(drawn, slopes)
        gain = 1.0
        if chosen.law == "sphere":
            assert isinstance(drawn[0], Scaled)
            gain = sum(chosen.named[name].numel() for name in drawn[0].factors)
        return Sum([(gain * s / len(slopes), z) for s, z in zip(slopes, drawn, strict=True)])

    def check(self, group: Mapping[str, Any]) -> None:
        """Refuse options that the others leave without meaning."""
        for name, (other, values) in _BESIDE.items():
            if not {name, other} <= self.hypers.keys() or group[name] is None:
                continue
            if group[other] not in values:
                raise HyperError(
                    f"{name}: only used with {other} = {' or '.join(map(repr, values))}, got "
                    f"{name}={group[name]!r} and {other}={group[other]!r}; leave it out"
                )
        rank = group.get("rank")
        if rank is not None and rank != int(rank):
            raise HyperError(f"rank: expected a whole number, got {rank!r}")
        if group.get("scaling") == "weights" and group.get("law") in ("sphere", "coordinate"):
            raise HyperError(
                f"scaling: expected law='normal', 'rademacher' or 'low_rank' beside it, got "
                f"law={group['law']!r}; leave it out"
            )


# Slopes -------------------------------------------------------------------------------------------


def _slope(
    oracle: Oracle, z: Direction, chosen: SimpleNamespace, base: Tensor | None
) -> tuple[Tensor, float]:
    """The slope along a direction, with a loss."""
    eps = chosen.eps
    if base is not None:
        ahead = oracle.values([Shift(eps, z)])[0]
        return ahead, (ahead.item() - base.item()) / eps
    if chosen.difference == "jvp":
        loss, slope = oracle.jvp(z)
        return loss, slope.item()
    ahead, behind = oracle.values([Shift(eps, z), Shift(-eps, z)])
    return (ahead + behind) / 2, (ahead.item() - behind.item()) / (2 * eps)


# Coordinates --------------------------------------------------------------------------------------


def coordinates(some: Mapping[str, Tensor], method: Any, count: int) -> list[Direction]:
    """Return ``count`` different coordinates of a step, or all if there are not so many."""
    names, sizes = list(some), [t.numel() for t in some.values()]
    ends = list(itertools.accumulate(sizes))
    size = ends[-1]
    if count < size:
        key = f"{method.seed}/{method.steps + method.skips}/{'/'.join(names)}"
        places: Iterable[int] = sample(key, size, count)
    else:
        places = range(size)
    found: list[Direction] = []
    for place in places:
        index = bisect_right(ends, place)
        found.append(Sparse({names[index]: ([place - ends[index] + sizes[index]], [1.0])}))
    return found


def sample(key: str, size: int, count: int) -> list[int]:
    """Return ``count`` different numbers below ``size``, sorted: a function of ``key`` (Floyd)."""
    found: set[int] = set()
    for last in range(size - count, size):
        word = hashlib.blake2b(f"{key}/{last}".encode(), digest_size=8).digest()
        place = int.from_bytes(word, "little") % (last + 1)
        found.add(last if place in found else place)
    return sorted(found)


def gathered(drawn: Sequence[Any], slopes: Sequence[float]) -> Sparse:
    """Return the sum of slopes times coordinates."""
    entries: dict[str, tuple[list[int], list[float]]] = {}
    for z, slope in zip(drawn, slopes, strict=True):
        ((name, (places, _)),) = z.entries.items()
        known = entries.setdefault(name, ([], []))
        known[0].extend(places)
        known[1].append(slope)
    return Sparse(entries)


# Masks and scales ---------------------------------------------------------------------------------


class Small:
    """Keeps the entries whose magnitude is at most the threshold of their parameter.

    A threshold of zero keeps all: the parameter was zero at first, such as a bias or a LoRA factor.
    """

    def __init__(self, limits: Mapping[str, float]) -> None:
        self.limits = limits

    def __call__(self, name: str, param: Tensor, engine: Engine) -> Tensor:
        """Return the mask of an unperturbed parameter."""
        return param.abs() <= (self.limits.get(name) or math.inf)


class Drawn:
    """Keeps a random share of the entries."""

    def __init__(self, uniform: Seeded, sparsity: float) -> None:
        self.uniform, self.sparsity = uniform, sparsity

    def __call__(self, name: str, param: Tensor, engine: Engine) -> Tensor:
        """Return the mask of a parameter."""
        return vectors(self.uniform, {name: param}, engine)[name] >= self.sparsity


def thresholds(method: Any, sparsity: float) -> dict[str, float]:
    """Return the threshold of each parameter, chosen from its weights when it is first needed."""
    known: dict[str, float] = method.thresholds
    for name, param in method.named_params().items():
        if name not in known and param.numel():
            kept = math.ceil((1.0 - sparsity) * param.numel())
            flat = param.detach().abs().flatten().to(_wide(param))
            known[name] = flat.kthvalue(kept).values.item()
    return known


def rms(param: Tensor) -> float:
    """Return the root mean square of a parameter, 1 if that is zero."""
    square = param.detach().square().mean(dtype=torch.float64).item() if param.numel() else 0.0
    return math.sqrt(square) or 1.0


# Blocks -------------------------------------------------------------------------------------------


def blocks_of(names: Iterable[str], kind: str) -> dict[str, list[str]]:
    """Group parameter names by layer (``encoder.layer.3``), by module, or not at all."""
    found: dict[str, list[str]] = {}
    for name in names:
        parts = name.split(".")
        numbers = [i for i, part in enumerate(parts) if part.isdigit()]
        end = numbers[0] + 1 if kind == "layers" and numbers else len(parts) - 1
        end = len(parts) if kind == "parameters" else end
        found.setdefault(".".join(parts[:end]), []).append(name)
    return found


# Estimates as tensors -----------------------------------------------------------------------------


def dense(direction: Direction, named: Mapping[str, Tensor], engine: Engine) -> dict[str, Tensor]:
    """Return a direction as tensors of at least float32 for these parameters."""
    made: dict[str, Tensor] = {}
    for some in portions(named):
        made |= vectors(direction, some, engine)
    return {
        name: made[name] if name in made else torch.zeros_like(p, dtype=_wide(p))
        for name, p in named.items()
    }


def descend(method: Any, estimate: Direction, names: Iterable[str]) -> None:
    """Apply the method's rules to an estimate for the parameters ``names``.

    The estimate is generated and used in portions no larger than the largest parameter. With
    ``clip_norm`` it is generated once more, for its norm.
    """
    named: dict[str, Tensor] = method.named_params()
    some = {name: named[name] for name in names}
    limit = plain(method.param_groups[0].get("clip_norm"))
    if limit is not None:
        factor = min(1.0, limit / (norm(estimate, some, method.engine) + 1e-6))
        estimate = Sum([(factor, estimate)])
    for portion in portions(some):
        made = dense(estimate, portion, method.engine)
        method.descend([made.get(name) for name in named], clip=False)


def _wide(param: Tensor) -> torch.dtype:
    return torch.promote_types(param.dtype, torch.float32)
