"""Time-stamped sets, their projected graph, and its open triangles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anyorder.errors import AnyOrderError

Triangles = NDArray[np.int64]
Labels = NDArray[np.bool_]


class SimplexError(AnyOrderError, ValueError):
    """The sets, their times or other arguments are invalid."""


@dataclass(frozen=True)
class TemporalSimplices:
    """Sets of nodes with the time at which each appeared.

    Args:
        simplices: One set of non-negative node numbers per event; a repeated node counts once.
        times: One integer time per event, in any unit; order does not matter.

    Raises:
        SimplexError: If there are no events, the lengths differ, a set is empty or a node is
            negative.

    Example:
        >>> data = TemporalSimplices.of([({1, 2}, 10), ({2, 3}, 11), ({1, 3}, 12), ({1, 2, 3}, 20)])
        >>> old, new = data.split(0.75)
        >>> open_triangles(old).tolist(), closes(open_triangles(old), new).tolist()
        ([[1, 2, 3]], [True])
    """

    simplices: tuple[frozenset[int], ...]
    times: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check that these are valid timed sets."""
        if not self.simplices:
            raise SimplexError("expected at least one simplex, got none")
        if len(self.simplices) != len(self.times):
            raise SimplexError(
                f"expected one time per simplex, got {len(self.simplices)} simplices and "
                f"{len(self.times)} times"
            )
        for index, simplex in enumerate(self.simplices):
            if not simplex or min(simplex) < 0:
                raise SimplexError(
                    f"expected a non-empty set of non-negative node numbers, got "
                    f"{sorted(simplex)} at position {index}"
                )

    @classmethod
    def of(cls, events: Iterable[tuple[Iterable[int], int]]) -> TemporalSimplices:
        """Collect pairs of a set of nodes and its time."""
        pairs = [(frozenset(nodes), int(time)) for nodes, time in events]
        return cls(tuple(nodes for nodes, _ in pairs), tuple(time for _, time in pairs))

    @classmethod
    def read(cls, folder: Path, name: str) -> TemporalSimplices:
        """Read ``<name>-nverts.txt``, ``<name>-simplices.txt`` and ``<name>-times.txt``.

        This is the format in which the 19 data sets of the paper are published: the size of each
        simplex, all nodes one after another, and the time of each simplex.

        Raises:
            SimplexError: If a file is missing or the counts do not agree.
        """
        try:
            sizes, nodes, times = (
                np.loadtxt(folder / f"{name}-{part}.txt", dtype=np.int64, ndmin=1)
                for part in ("nverts", "simplices", "times")
            )
        except (OSError, ValueError) as error:
            raise SimplexError(
                f"expected the three files of data set {name!r}, one integer per line: {error}"
            ) from error
        if int(sizes.sum()) != nodes.size or sizes.size != times.size:
            raise SimplexError(
                f"{name}: {sizes.size} sizes sum to {int(sizes.sum())}, but there are "
                f"{nodes.size} nodes and {times.size} times"
            )
        parts = np.split(nodes, np.cumsum(sizes)[:-1])
        return cls.of(zip((map(int, part) for part in parts), map(int, times), strict=True))

    def split(self, begin: float, end: float = 1.0) -> tuple[Sequence[frozenset[int]], ...]:
        """Split by quantiles of time: events up to ``begin``, and those after it up to ``end``.

        Args:
            begin: Quantile that ends the past, in (0, 1).
            end: Quantile that ends the future, in (``begin``, 1].

        Returns:
            Past and future simplices.
        """
        if not 0.0 < begin < end <= 1.0:
            raise SimplexError(f"expected 0 < begin < end <= 1, got begin={begin}, end={end}")
        first, last = (round(float(q)) for q in np.quantile(self.times, [begin, end]))
        pairs = list(zip(self.simplices, self.times, strict=True))
        past = [simplex for simplex, time in pairs if time <= first]
        future = [simplex for simplex, time in pairs if first < time <= last]
        return past, future


@dataclass(frozen=True)
class ProjectedGraph:
    """The projected graph: which nodes appear together, and in how many simplices.

    Args:
        weights: Number of common simplices, by node and neighbour; symmetric.
        appearances: Number of simplices of each node.
    """

    weights: dict[int, dict[int, int]]
    appearances: dict[int, int]

    def degree(self, node: int) -> int:
        """Number of distinct neighbours."""
        return len(self.weights[node])

    def edge_weights(self, triangles: Triangles) -> NDArray[np.float64]:
        """The three weights of each triangle, shape (T, 3); 0 for nodes without a tie."""
        rows = [
            [self.weights[a].get(b, 0), self.weights[a].get(c, 0), self.weights[b].get(c, 0)]
            for a, b, c in triangles.tolist()
        ]
        return np.array(rows, dtype=np.float64).reshape(-1, 3)


def project(simplices: Iterable[frozenset[int]]) -> ProjectedGraph:
    """Count in how many simplices each pair of nodes appears together."""
    weights: dict[int, dict[int, int]] = {}
    appearances: dict[int, int] = {}
    for simplex in simplices:
        for node in simplex:
            appearances[node] = appearances.get(node, 0) + 1
            weights.setdefault(node, {})
        for a, b in combinations(sorted(simplex), 2):
            weights[a][b] = weights[b][a] = weights[a].get(b, 0) + 1
    return ProjectedGraph(weights, appearances)


def closed_triples(simplices: Iterable[frozenset[int]]) -> set[tuple[int, int, int]]:
    """All ascending triples that are in one simplex."""
    return {triple for simplex in simplices for triple in combinations(sorted(simplex), 3)}


def graph_triangles(graph: ProjectedGraph) -> list[tuple[int, int, int]]:
    """All ascending triples whose three pairs appear together."""
    found: list[tuple[int, int, int]] = []
    for a in sorted(graph.weights):
        later = sorted(node for node in graph.weights[a] if node > a)
        found += [(a, b, c) for b, c in combinations(later, 2) if c in graph.weights[b]]
    return found


def open_triangles(simplices: Sequence[frozenset[int]]) -> Triangles:
    """Triples whose three pairs appear together, but never all three, shape (T, 3)."""
    closed = closed_triples(simplices)
    found = [t for t in graph_triangles(project(simplices)) if t not in closed]
    return np.array(found, dtype=np.int64).reshape(-1, 3)


def closes(triangles: Triangles, future: Iterable[frozenset[int]]) -> Labels:
    """Whether each triangle is in one of the later simplices, shape (T,)."""
    closed = closed_triples(future)
    return np.array([tuple(row) in closed for row in triangles.tolist()], dtype=np.bool_)


def strength(weight: float) -> int:
    """Class of a tie: 0 absent, 1 weak (together once), 2 strong (at least twice)."""
    return min(int(weight), 2)


def closure_counts(
    past: Sequence[frozenset[int]], future: Sequence[frozenset[int]]
) -> dict[tuple[int, int, int], tuple[int, int]]:
    """Count, by the strengths of their three ties, the open triples and those that close later.

    Only nodes that appear in the past count. Triples with fewer than three ties are counted from
    degrees instead of one by one, so the cost is proportional to the number of wedges, not of all
    triples.

    Returns:
        For each of the ten ascending types, e.g. ``(0, 1, 2)``: the number of open triples in the
        past, and the number of these that are in one later simplex.
    """
    graph, before = project(past), closed_triples(past)
    types = [(a, b, c) for a in range(3) for b in range(a, 3) for c in range(b, 3)]
    every, still_open = dict.fromkeys(types, 0), dict.fromkeys(types, 0)
    for triple in graph_triangles(graph):
        kind = _kind(graph, triple)
        every[kind] += 1
        still_open[kind] += triple not in before
    _count_sparse(graph, every)
    for kind in types:
        if kind[0] == 0:
            still_open[kind] = every[kind]
    closed = dict.fromkeys(types, 0)
    for triple in closed_triples(future) - before:
        if all(node in graph.weights for node in triple):
            closed[_kind(graph, triple)] += 1
    return {kind: (still_open[kind], closed[kind]) for kind in types}


def _kind(graph: ProjectedGraph, triple: tuple[int, int, int]) -> tuple[int, int, int]:
    a, b, c = triple
    pairs = (graph.weights[a].get(b, 0), graph.weights[a].get(c, 0), graph.weights[b].get(c, 0))
    first, second, third = sorted(map(strength, pairs))
    return first, second, third


def _count_sparse(graph: ProjectedGraph, every: dict[tuple[int, int, int], int]) -> None:
    """Compute the types with two, one and no tie from those with three."""
    full = [(kind, count) for kind, count in every.items() if kind[0] > 0]
    nodes = len(graph.weights)
    ties = {1: 0, 2: 0}
    wedges = {(1, 1): 0, (1, 2): 0, (2, 2): 0}
    for neighbours in graph.weights.values():
        strong = sum(weight > 1 for weight in neighbours.values())
        weak = len(neighbours) - strong
        ties[1] += weak
        ties[2] += strong
        wedges[1, 1] += weak * (weak - 1) // 2
        wedges[1, 2] += weak * strong
        wedges[2, 2] += strong * (strong - 1) // 2
    for (a, b), count in wedges.items():
        # A triangle contains three wedges that must not be counted as open wedges.
        inside = sum(n * ([(x, y), (x, z), (y, z)].count((a, b))) for (x, y, z), n in full)
        every[0, a, b] = count - inside
    for tie in (1, 2):
        inside = sum(n * kind.count(tie) for kind, n in every.items() if kind[1] > 0)
        every[0, 0, tie] = ties[tie] // 2 * (nodes - 2) - inside
    total = nodes * (nodes - 1) * (nodes - 2) // 6
    every[0, 0, 0] = total - sum(count for kind, count in every.items() if kind != (0, 0, 0))
