"""The stored result of a study: the content of ``result.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from anyorder_studies.study import SCALES, Claim, Measurement, Status, StudyError, Verdict

FORMAT = 2
RESULT, FIGURE, README = "result.json", "figure.svg", "README.md"


@dataclass(frozen=True)
class StudyResult:
    """The result of a study's run; the content of ``result.json``.

    Args:
        key: The study's key.
        paper: The paper's number in the catalogue; ``None`` for background.
        title: The study's title.
        scale: Scale of the run.
        seeds: The seeds of its units, in order.
        units: Number of units.
        seconds: Total time of all units, including those before an interruption.
        date: Day of the run (UTC), ``YYYY-MM-DD``.
        measurements: By quantity.
        claims: The claims that the verdict judges. Normally those of the run; the hash of those is
            in ``hashes``.
        statuses: The status of each claim, in the order of ``claims``.
        verdict: Computed from claims and measurements.
        hashes: SHA-256 of ``claims``, ``protocol`` and ``code`` of the study that was run.
        commit: The commit that contains claims, protocol and code of the run; ``None`` if unknown.
        data: SHA-256 of the data sets; ``None`` without data sets.
        environment: Software versions and processor.
    """

    key: str
    paper: int | None
    title: str
    scale: str
    seeds: tuple[int, ...]
    units: int
    seconds: float
    date: str
    measurements: dict[str, Measurement]
    claims: tuple[Claim, ...]
    statuses: tuple[Status, ...]
    verdict: Verdict
    hashes: dict[str, str]
    commit: str | None
    data: str | None
    environment: dict[str, str | int]

    @property
    def judged(self) -> list[tuple[Claim, Status]]:
        """Each claim with its status; the central one first."""
        pairs = zip(self.claims, self.statuses, strict=True)
        return sorted(pairs, key=lambda pair: not pair[0].central)

    def to_json(self) -> dict[str, Any]:
        """Convert the result to JSON values."""
        return {
            "format": FORMAT,
            **{name: getattr(self, name) for name in ("key", "paper", "title", "scale")},
            "seeds": list(self.seeds),
            "units": self.units,
            "seconds": round(self.seconds, 3),
            "date": self.date,
            "verdict": str(self.verdict),
            "claims": [
                {**asdict(claim), "status": str(status)}
                for claim, status in zip(self.claims, self.statuses, strict=True)
            ],
            "measurements": {name: m.to_json() for name, m in sorted(self.measurements.items())},
            "commit": self.commit,
            "hashes": {**self.hashes, "data": self.data},
            "environment": self.environment,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> StudyResult:
        """The inverse of :meth:`to_json`.

        Raises:
            StudyError: If the format is not that of this version, or the scale is unknown.
        """
        if data.get("format") != FORMAT:
            raise StudyError(
                f"expected a result of format {FORMAT}, got {data.get('format')!r}: run the study "
                "again"
            )
        if data["scale"] not in SCALES:
            raise StudyError(f"unknown scale {data['scale']!r}; known are {', '.join(SCALES)}")
        claims = [dict(each) for each in data["claims"]]
        statuses = tuple(Status(each.pop("status")) for each in claims)
        hashes = dict(data["hashes"])
        return cls(
            key=data["key"],
            paper=data["paper"],
            title=data["title"],
            scale=data["scale"],
            seeds=tuple(data["seeds"]),
            units=data["units"],
            seconds=data["seconds"],
            date=data["date"],
            measurements={n: Measurement.from_json(m) for n, m in data["measurements"].items()},
            claims=tuple(Claim(**each) for each in claims),
            statuses=statuses,
            verdict=Verdict(data["verdict"]),
            data=hashes.pop("data"),
            commit=data["commit"],
            hashes={name: hashes[name] for name in ("claims", "protocol", "code")},
            environment=data["environment"],
        )


def load_result(folder: Path) -> StudyResult | None:
    """Read ``result.json`` of a folder; return ``None`` if it does not exist.

    Raises:
        StudyError: If the file is not a study's result; the message names it.
    """
    path = folder / RESULT
    if not path.exists():
        return None
    try:
        return StudyResult.from_json(json.loads(path.read_text(encoding="utf-8")))
    except StudyError as error:
        raise StudyError(f"{path}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StudyError(
            f"{path}: expected a study's result ({type(error).__name__}: {error}); run the study "
            "again, or remove the file"
        ) from error
