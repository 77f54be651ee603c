"""Claims as data, and the rule that derives a verdict from measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, get_args

from anyorder_studies.measurement import Measurement, StudyError

Direction = Literal["lower", "higher", "equal"]


class Verdict(StrEnum):
    """The verdict on all claims of a paper together."""

    REPRODUCED = "reproduced"
    PARTLY = "partly"
    NOT_AT_THIS_SCALE = "not at this scale"
    REFUTED = "refuted"


class Status(StrEnum):
    """The status of one claim according to its measurement."""

    MET = "met"
    EFFECT_ONLY = "effect only"
    UNDECIDED = "undecided"
    OPPOSITE = "opposite"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim of a paper: a quantity, the direction of its effect, and the effect size.

    Args:
        quantity: Key of the claim's measurement.
        direction: ``"lower"`` or ``"higher"`` than ``threshold``, or ``"equal"`` to ``expected``.
        expected: The paper's effect size, in ``unit``. If the paper states a direction only, repeat
            ``threshold``: the claim is then met if the effect exists.
        threshold: The value at which there is no effect (1 for a ratio, 0 for a difference). An
            ``"equal"`` claim has no such value: repeat ``expected``.
        tolerance: Relative distance from ``expected`` that still counts as met; absolute if
            ``expected`` is 0. For ``"equal"`` it is the half-width of the equivalence interval.
        unit: Unit of ``expected`` and ``threshold``.
        source: The paper, with the table, section or abstract that contains the claim.
        text: The claim in our own words.
        central: Whether the verdict follows this claim: what the paper's abstract leads with.
            Exactly one claim of a study is central.

    Raises:
        StudyError: If ``expected`` is on the wrong side of ``threshold``, the numbers are not
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
    central: bool = False

    def __post_init__(self) -> None:
        """Check that a measurement can decide the claim."""
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
                f"{self.threshold} to expected {self.expected}; 'equal' needs equal numbers"
            )

    @property
    def slack(self) -> float:
        """Absolute distance from ``expected`` that still counts as met, in ``unit``."""
        return self.tolerance * (abs(self.expected) or 1.0)


def judge_claim(claim: Claim, measurement: Measurement) -> Status:
    """Return the status of a claim for a measurement.

    With the measured interval ``[low, high]``, for ``"lower"`` (``"higher"`` is symmetric):

    - *opposite*: ``low > threshold``;
    - *undecided*: the interval contains the threshold;
    - *met*: ``high < threshold`` and ``value <= expected + slack``;
    - *effect only*: ``high < threshold``, but the value does not reach that size.

    For ``"equal"``: *met* if the interval is inside ``expected +- slack``, *opposite* if the two
    are disjoint, otherwise *undecided*.
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


def require_one_central(claims: Sequence[Claim]) -> None:
    """Check that the verdict has one claim to follow.

    Raises:
        StudyError: If there is no claim, or not exactly one is central.
    """
    if not claims:
        raise StudyError("expected at least one claim")
    central = [claim.quantity for claim in claims if claim.central]
    if len(central) != 1:
        raise StudyError(
            f"expected exactly one claim with central=True, got {', '.join(central) or 'none'}"
        )


def judge(claims: Sequence[Claim], measurements: Mapping[str, Measurement]) -> Verdict:
    """Return the verdict; one claim is the central one.

    - *refuted*: the central claim's interval is on the other side of its threshold.
    - *not at this scale*: the central interval contains the threshold.
    - *reproduced*: the central claim is met in size, and the effect of every other claim exists.
    - *partly*: the central effect exists, but its size or another claim's effect does not.

    Args:
        claims: The claims, exactly one of them central.
        measurements: By quantity; must include every claim's quantity.

    Returns:
        The verdict. It depends only on the arguments.

    Raises:
        StudyError: If not exactly one claim is central, or a claimed quantity was not measured.
    """
    require_one_central(claims)
    missing = [claim.quantity for claim in claims if claim.quantity not in measurements]
    if missing:
        raise StudyError(
            f"claimed but not measured: {', '.join(missing)}; measured were "
            f"{', '.join(sorted(measurements)) or 'none'}"
        )
    central, *others = [
        judge_claim(claim, measurements[claim.quantity])
        for claim in sorted(claims, key=lambda claim: not claim.central)
    ]
    if central is Status.OPPOSITE:
        return Verdict.REFUTED
    if central is Status.UNDECIDED:
        return Verdict.NOT_AT_THIS_SCALE
    exists = {Status.MET, Status.EFFECT_ONLY}
    if central is Status.MET and exists.issuperset(others):
        return Verdict.REPRODUCED
    return Verdict.PARTLY
