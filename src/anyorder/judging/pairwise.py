"""Rankings from a judge that compares two candidates at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from anyorder.errors import AnyOrderError

Item = TypeVar("Item")


class JudgeError(AnyOrderError, ValueError):
    """A judge answered with something that is no comparison."""


class PairwiseRanker(Generic[Item]):
    r"""Turns a judge of pairs into a ranker, by binary insertion, and counts its comparisons.

    Candidates are inserted one by one into the order of those before (Knuth, "The Art of Computer
    Programming", volume 3, section 5.2.1). Only the ``top`` best are kept in order, so
    that a candidate takes at most :math:`\lceil \log_2 (k + 1) \rceil` comparisons for
    :math:`k` places: 25 for all of 10, 9 for the best of 10.

    Args:
        judge: called with two candidates; returns True or a positive number if the first is better,
            False or a negative number if the second is, and 0 or None if they tie.
        top: number of best candidates to order; 0 for all.
        repeats: times that each pair is judged. The two change places every time, because judges
            may favour the first; the majority counts, and equally many on both sides are a tie. A
            majority that is certain ends the repetitions.
        show: what the judge gets for a candidate, such as its picture; called once per candidate.

    Example:
        >>> ranker = PairwiseRanker(lambda a, b: b - a)
        >>> ranker([3.0, 1.0, 2.0, 1.0]), ranker.comparisons
        ([[1, 3], [2], [0]], 5)
    """

    def __init__(
        self,
        judge: Callable[[Any, Any], float | bool | None],
        *,
        top: int = 0,
        repeats: int = 1,
        show: Callable[[Item], Any] | None = None,
    ) -> None:
        for name, value, least in (("top", top, 0), ("repeats", repeats, 1)):
            if value < least:
                raise JudgeError(f"{name}: expected a whole number from {least}, got {value!r}")
        self.judge, self.top, self.repeats = judge, top, repeats
        self._show = show
        #: Comparisons so far, over all rankings.
        self.comparisons = 0

    def __call__(self, candidates: Sequence[Item]) -> list[list[int]]:
        """Return the positions of the candidates, best first; those in one list tie."""
        shown = [self._show(c) if self._show else c for c in candidates]
        places = self.top or len(shown)
        groups: list[list[int]] = []
        for new in range(len(shown)):
            low, high = 0, len(groups)
            while low < high:
                middle = (low + high) // 2
                side = self._compare(shown[new], shown[groups[middle][0]])
                if side == 0:
                    groups[middle].append(new)
                    break
                low, high = (low, middle) if side > 0 else (middle + 1, high)
            else:
                groups.insert(low, [new])
            while sum(map(len, groups[:-1])) >= places:  # what ties with the last place stays
                groups.pop()
        return groups

    def _compare(self, first: Any, second: Any) -> float:
        """Positive if the first is better, by majority."""
        lead = 0
        for done in range(self.repeats):
            swapped = done % 2 == 1
            pair = (second, first) if swapped else (first, second)
            self.comparisons += 1
            side = _side(self.judge(*pair))
            lead += -side if swapped else side
            if abs(lead) > self.repeats - done - 1:
                break
        return lead


def _side(answer: Any) -> int:
    """1 if the first is better, -1 if the second is, 0 for a tie."""
    if answer is None:
        return 0
    if isinstance(answer, bool):
        return 1 if answer else -1
    try:
        number = float(answer)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        raise JudgeError(
            "expected the judge to return True or a number > 0 if the first is better, False or a "
            f"number < 0 if the second is, 0 or None for a tie; got {answer!r}"
        )
    return (number > 0) - (number < 0)
