"""Base class of studies: claims as data, independent units of work, and measurements.

A study's folder contains ``study.py`` with exactly one subclass of :class:`Study`. The harness runs
its units, stores their results, and generates the verdict, page and figure.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from anyorder_studies.data import MissingDataError, data_folder
from anyorder_studies.measurement import (
    Measurement,
    StudyError,
    exact,
    jackknife_interval,
    mean_interval,
    range_interval,
    ratio_interval,
)
from anyorder_studies.verdict import (
    Claim,
    Direction,
    Status,
    Verdict,
    judge,
    judge_claim,
    require_one_central,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "SCALES",
    "Claim",
    "Direction",
    "Measurement",
    "MissingDataError",
    "Result",
    "Results",
    "Status",
    "Study",
    "StudyError",
    "Unit",
    "Verdict",
    "data_folder",
    "exact",
    "jackknife_interval",
    "judge",
    "judge_claim",
    "mean_interval",
    "range_interval",
    "ratio_interval",
]

SCALES = ("smoke", "small", "full")
PAPERS = 133

# JSON values: numbers, strings, booleans, None, lists and dicts of them.
Unit = dict[str, Any]
Result = dict[str, Any]
Results = list[tuple[Unit, Result]]


class Study(ABC):
    """A paper's claims and the experiment that measures them.

    The class docstring of a subclass is the introduction of the study's generated page: explain in
    plain words what the paper proposes and what this experiment does. Class attributes:

    - ``key``: the folder's name, ``<firstauthor><year><key>``.
    - ``paper``: the number in the catalogue, 1 to 133; ``None`` for background work that is not in
      the catalogue.
    - ``title``: short title of the study.
    - ``claims``: exactly one has ``central=True``.
    - ``headline``: what the paper's abstract leads with, and where it says so; if the central claim
      is not that, say why.
    - ``scales``: settings by scale. ``"smoke"`` takes under 20 s, ``"small"`` is the stored run and
      states in the entry ``"minutes"`` how long it takes if that is more than five minutes on two
      cores, ``"full"`` is the paper's size and states the resources it needs in its entry
      ``"need"``. Studies with seeds set their number as ``"seeds"``, and if methods are tuned
      several times, the number of independent tunings as ``"tunings"``: ``"seeds"`` then counts the
      runs of each tuning.
    - ``data``: folders in ``ANYORDER_DATA`` that the study reads.

    Args:
        seeds: Number of seeds for every scale; ``None`` uses that of the scale.
    """

    key: ClassVar[str]
    paper: ClassVar[Any]  # a number in the catalogue, or None
    title: ClassVar[str]
    claims: ClassVar[tuple[Claim, ...]]
    headline: ClassVar[str]
    scales: ClassVar[Mapping[str, Mapping[str, Any]]]
    data: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, seeds: int | None = None) -> None:
        if seeds is not None and seeds < 1:
            raise StudyError(f"expected at least one seed, got {seeds}")
        self._seeds = seeds

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check the declarations when the class is defined."""
        super().__init_subclass__(**kwargs)
        missing = [
            name
            for name in ("key", "paper", "title", "claims", "headline", "scales")
            if not hasattr(cls, name)
        ]
        if missing:
            raise StudyError(f"study {cls.__name__} does not declare {', '.join(missing)}")
        if not re.fullmatch(r"[a-z]+\d{4}[a-z0-9]+", cls.key):
            raise StudyError(
                f"expected a key like benson2018simplicial (first author, year, word), got "
                f"{cls.key!r}"
            )
        if cls.paper is not None and not 1 <= cls.paper <= PAPERS:
            raise StudyError(
                f"{cls.key}: expected a paper number 1..{PAPERS}, or None for background, got "
                f"{cls.paper}"
            )
        try:
            require_one_central(cls.claims)
        except StudyError as error:
            raise StudyError(f"{cls.key}: {error}") from error
        if set(cls.scales) != set(SCALES):
            raise StudyError(
                f"{cls.key}: expected the scales {', '.join(SCALES)}, got {', '.join(cls.scales)}"
            )
        if "need" not in cls.scales["full"]:
            raise StudyError(
                f"{cls.key}: scales['full'] must state what it needs, e.g. "
                "'need': 'one 80 GB GPU for two hours'"
            )

    def settings(self, scale: str) -> dict[str, Any]:
        """Return the settings of a scale, with the requested number of seeds.

        Raises:
            StudyError: If the scale is unknown, or a number of seeds is set for a study without
                seeds.
        """
        if scale not in self.scales:
            raise StudyError(f"unknown scale {scale!r}; known are {', '.join(SCALES)}")
        settings = dict(self.scales[scale])
        if self._seeds is not None:
            if "seeds" not in settings:
                raise StudyError(f"{self.key} has no seeds to choose: leave --seeds out")
            settings["seeds"] = self._seeds
        return settings

    @abstractmethod
    def runs(self, scale: str) -> Iterable[Unit]:
        """Return independent units of work, e.g. one per seed and method; JSON values only.

        A unit contains everything that its result depends on, including ``"seed"`` if there is one.
        Units must be distinct. Read the settings with ``self.settings(scale)``.
        """

    @abstractmethod
    def run(self, unit: Unit) -> Result:
        """Run one unit, deterministically. Return numbers and lists of numbers."""

    @abstractmethod
    def measure(self, results: Results) -> dict[str, Measurement]:
        """Aggregate the results of all units. The keys must include every claim's quantity."""

    @abstractmethod
    def figure(self, results: Results, measurements: dict[str, Measurement]) -> Figure:
        """Draw the result; the harness sets colours and fonts."""
