"""Claims as data, and the one rule that turns measurements into a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, get_args

from anyorder_studies.measurement import Measurement, StudyError

Direction = Literal["lower", "higher", "equal"]


class Verdict(StrEnum):
    """What the measurements say about a paper's claims taken together."""

    REPRODUCED = "reproduced"
    PARTLY = "partly"
    NOT_AT_THIS_SCALE = "not at this scale"
    REFUTED = "refuted"


class Status(StrEnum):
    """What the measurement of one quantity says about one claim."""

    MET = "met"
    EFFECT_ONLY = "effect only"
    UNDECIDED = "undecided"
    OPPOSITE = "opposite"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim of a paper: which quantity moves, in which direction, and by how much.

    Args:
        quantity: Key of the measurement that the claim is about.
        direction: ``"lower"`` or ``"higher"`` than ``threshold``, or ``"equal"`` to ``expected``.
        expected: The paper's size of the effect, in ``unit``. A paper that gives a direction
            only: write ``threshold`` again, and the effect's existence is all that is asked.
        threshold: The value at which there is no effect (1 for a ratio, 0 for a difference). An
            ``"equal"`` claim has no such value: write ``expected`` again.
        tolerance: Relative distance from ``expected`` that still counts as met; absolute where
            ``expected`` is 0. For ``"equal"`` it is the half-width of the equivalence interval.
        unit: Unit of ``expected`` and ``threshold``.
        source: Paper with table, section or abstract where the claim stands.
        text: The claim in our own words.

    Raises:
        StudyError: If ``expected`` lies on the wrong side of ``threshold``, the numbers are not
            finite, the tolerance is negative (or zero for ``"equal"``), or a text is empty.
    """

    quantity: str
    direction: Direction
    expected: float
    threshold: float
    tolerance: float
    unit: str
    source: str
    text: str

    def __post_init__(self) -> None:
        """Refuse a claim that no measurement could decide."""
        for name in ("quantity", "unit", "source", "text"):
            if not getattr(self, name).strip():
                raise StudyError(f"a claim needs a {name}; that of {self.quantity!r} has none")
        if self.direction not in get_args(Direction):
            raise StudyError(
                f"expected direction 'lower', 'higher' or 'equal', got {self.direction!r}"
            )
        if not all(map(math.isfinite, (self.expected, self.threshold, self.tolerance))):
            raise StudyError(f"{self.quantity}: expected finite numbers in a claim")
        if self.tolerance < 0 or (self.direction == "equal" and self.tolerance == 0):
            raise StudyError(
                f"{self.quantity}: expected a tolerance >= 0 (> 0 for 'equal'), got "
                f"{self.tolerance}"
            )
        sides = {
            "lower": self.expected <= self.threshold,
            "higher": self.expected >= self.threshold,
            "equal": self.expected == self.threshold,
        }
        if not sides[self.direction]:
            raise StudyError(
                f"{self.quantity}: direction {self.direction!r} does not lead from threshold "
                f"{self.threshold} to expected {self.expected}; 'equal' takes one number twice"
            )

    @property
    def slack(self) -> float:
        """Absolute distance from ``expected`` that still counts as met, in ``unit``."""
        return self.tolerance * (abs(self.expected) or 1.0)


def judge_claim(claim: Claim, measurement: Measurement) -> Status:
    """Decide one claim from one measurement.

    With the measured interval ``[low, high]``, for ``"lower"`` (``"higher"`` mirrors it):

    - *opposite*: ``low > threshold``;
    - *undecided*: the interval contains the threshold;
    - *met*: ``high < threshold`` and ``value <= expected + slack``;
    - *effect only*: ``high < threshold``, but the value falls short of that size.

    For ``"equal"``: *met* if the interval lies in ``expected +- slack``, *opposite* if the two do
    not touch, else *undecided*.
    """
    if claim.direction == "equal":
        bottom, top = claim.expected - claim.slack, claim.expected + claim.slack
        if bottom <= measurement.low and measurement.high <= top:
            return Status.MET
        if measurement.high < bottom or measurement.low > top:
            return Status.OPPOSITE
        return Status.UNDECIDED
    if measurement.overlaps(claim.threshold):
        return Status.UNDECIDED
    sign = 1.0 if claim.direction == "higher" else -1.0
    if sign * (measurement.value - claim.threshold) < 0:
        return Status.OPPOSITE
    smallest = claim.expected - sign * claim.slack
    met = sign * (measurement.value - smallest) >= 0
    return Status.MET if met else Status.EFFECT_ONLY


def judge(claims: Sequence[Claim], measurements: Mapping[str, Measurement]) -> Verdict:
    """Apply the rule of verdicts; the first claim is the central one.

    - *refuted*: the central claim's interval lies on the other side of its threshold.
    - *not at this scale*: the central interval contains the threshold.
    - *reproduced*: the central claim is met in size, and the effect of every other claim exists.
    - *partly*: the central effect exists, but its size or another claim's effect does not.

    Args:
        claims: At least one claim.
        measurements: By quantity; every claim's quantity must be there.

    Returns:
        The verdict. It depends on nothing but the arguments.

    Raises:
        StudyError: If there is no claim or a claimed quantity was not measured.
    """
    if not claims:
        raise StudyError("expected at least one claim")
    missing = [claim.quantity for claim in claims if claim.quantity not in measurements]
    if missing:
        raise StudyError(
            f"claimed but not measured: {', '.join(missing)}; measured were "
            f"{', '.join(sorted(measurements)) or 'none'}"
        )
    central, *others = [judge_claim(claim, measurements[claim.quantity]) for claim in claims]
    if central is Status.OPPOSITE:
        return Verdict.REFUTED
    if central is Status.UNDECIDED:
        return Verdict.NOT_AT_THIS_SCALE
    exists = {Status.MET, Status.EFFECT_ONLY}
    if central is Status.MET and exists.issuperset(others):
        return Verdict.REPRODUCED
    return Verdict.PARTLY
